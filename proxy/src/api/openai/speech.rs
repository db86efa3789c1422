//! `POST /v1/audio/speech`: text in, audio out as the engine makes it.

mod events;
mod request;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::{HeaderValue, header};

pub use self::request::AUDIO_FORMATS;
use self::request::Wanted;
use crate::api::{Context, Owner, credential, speech};
use crate::edge::RequestId;
use crate::error::Error;

/// Has the text spoken. The reply's head leaves with the first audio, so that a failure before it is a clean error.
///
/// # Errors
/// What is wrong with the request, or with the engines.
pub async fn create(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Error> {
    by(context, request_id, None, request).await
}

/// As [`create`], by a model unless the request names another one.
///
/// # Errors
/// As [`create`].
pub async fn by(
    context: Arc<Context>,
    request_id: RequestId,
    model: Option<String>,
    request: Request,
) -> Result<Response, Error> {
    let credential = credential(request.headers()).cloned();
    let mut wanted = Wanted::read(request.into_body()).await?;
    if let Some(model) = model {
        wanted.model_unless_given(model);
    }
    let (speech, events) =
        wanted.check(&context, (&request_id, Owner::Sender(&request_id, credential.as_ref()))).await?;
    let (content_type, input) = (speech.format.content_type(), events.then(|| speech.input.clone()));
    let audio = speech::speak(context, request_id, speech).await?;
    if let Some(input) = input {
        return Ok(events::response(audio, &input));
    }
    let mut response = Response::new(Body::from_stream(audio));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}
