//! `POST /v1/audio/speech`: text in, audio out as the engine makes it.

mod body;
mod request;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use futures::{StreamExt, stream};
use http::{HeaderValue, header};

use crate::api::openai::speech::body::Spoken;
use crate::api::openai::speech::request::Wanted;
use crate::api::{Context, RequestId};
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
    let wanted = Wanted::read(request.into_body()).await?;
    let speech = wanted.check(&context).await?;
    let content_type = speech.format.content_type();
    let mut spoken = Spoken::new(context, request_id, speech)?;
    let first = spoken.next().await?;
    let rest = stream::try_unfold(spoken, |mut spoken| async move {
        let next = spoken.next().await?;
        Ok::<_, Error>(next.map(|bytes| (bytes, spoken)))
    });
    let mut response = Response::new(Body::from_stream(stream::iter(first.map(Ok)).chain(rest)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}
