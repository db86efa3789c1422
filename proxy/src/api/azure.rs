//! Azure OpenAI's paths: the deployment in the path is the model. Its `api-version` and `api-key` mean nothing here.

use std::sync::Arc;

use axum::extract::{Extension, Path, Request, State};
use axum::response::Response;

use super::Context;
use super::openai::{speech, transcription};
use crate::edge::RequestId;
use crate::error::Error;

/// `POST /openai/deployments/{deployment}/audio/transcriptions`.
///
/// # Errors
/// As [`transcription::create`].
pub async fn transcribe(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    Path(deployment): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    transcription::by(context, request_id, Some(deployment), request).await
}

/// `POST /openai/deployments/{deployment}/audio/translations`.
///
/// # Errors
/// As [`transcription::translate`].
pub async fn translate(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    Path(deployment): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    transcription::translate_by(context, request_id, Some(deployment), request).await
}

/// `POST /openai/deployments/{deployment}/audio/speech`.
///
/// # Errors
/// As [`speech::create`].
pub async fn speak(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    Path(deployment): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    speech::by(context, request_id, Some(deployment), request).await
}
