//! `WS /v1/text-to-speech/ws`: texts in, speech out in the order of the texts.

use std::sync::Arc;

use axum::extract::Request;
use futures::{FutureExt, StreamExt, stream};
use http::HeaderValue;
use serde_json::{Map, Value};

use contract::Capability;

use super::requests::Requests;
use super::speech::{self, Asked};
use super::{check_engines, files, told};
use crate::api::live::{Opened, Reply, Work};
use crate::api::{Context, credential};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::work::Transcribe;
use crate::stream::Ask;

/// A session that speaks.
///
/// # Errors
/// The caller may not use the model, or there is no engine.
pub fn open(
    context: &Arc<Context>,
    request_id: &RequestId,
    request: &Request,
    _: &[String],
) -> Result<Opened, Error> {
    check_engines(context, Capability::Tts)?;
    let ask = Ask { route: context.route(request_id, None, Capability::Tts)?, work: Transcribe::default() };
    let credential = credential(request.headers()).cloned();
    let (context, request_id) = (Arc::clone(context), request_id.clone());
    let begin = move |message| frames(&context, &request_id, credential.clone(), message);
    let dialect = Box::new(Requests { fields: &["text", "input"], begin });
    Ok(Opened { dialect, settings: files::deaf(), ask, protocol: None })
}

/// The frames of one text.
fn frames(
    context: &Arc<Context>,
    request_id: &RequestId,
    credential: Option<HeaderValue>,
    message: Map<String, Value>,
) -> Work {
    let (context, request_id) = (Arc::clone(context), request_id.clone());
    let frames = async move {
        let asked = Asked::read(&context, (&request_id, credential.as_ref()), &message, true).await?;
        speech::frames(context, request_id, asked).await
    };
    let frames = frames
        .map(|frames| frames.unwrap_or_else(|error: Error| stream::iter([told("error", error)]).boxed()));
    frames.flatten_stream().map(Reply::Json).boxed()
}
