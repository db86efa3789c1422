//! `POST /v1/audio/speech`: text in, audio out as the engine makes it.

mod body;
mod buffer;
mod events;
mod rate;
mod request;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use futures::{StreamExt, stream};
use http::{HeaderValue, header};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use self::body::{Spoken, first};
use self::buffer::buffer;
use self::request::Wanted;
use crate::api::Context;
use crate::edge::RequestId;
use crate::error::{Error, Unit};

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
    let mut wanted = Wanted::read(request.into_body()).await?;
    if let Some(model) = model {
        wanted.model_unless_given(model);
    }
    let speech = wanted.check(&context, &request_id).await?;
    let (content_type, input) = (speech.format.content_type(), speech.events.then(|| speech.input.clone()));
    let (writer, mut reader) = buffer();
    let charge = request_id.charge(Unit::Characters, speech.input.chars().count() as f64)?;
    let spoken = Spoken::new(context, request_id, speech, charge, writer)?;
    // A client that leaves drops the body, and with it the task and the engine's job.
    let task = AbortOnDropHandle::new(tokio::spawn(spoken.make().in_current_span()));
    let begun = first(&mut reader).await?;
    let rest = stream::unfold((reader, task), |(mut reader, task)| async move {
        let next = reader.next().await?;
        Some((next, (reader, task)))
    });
    let audio = stream::iter(begun.map(Ok)).chain(rest);
    if let Some(input) = input {
        return Ok(events::response(audio, &input));
    }
    let mut response = Response::new(Body::from_stream(audio));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}
