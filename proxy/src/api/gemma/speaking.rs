//! `WS /v1/text-to-speech/ws`: texts in, speech out in the order of the texts.

use std::sync::Arc;

use axum::extract::Request;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use http::HeaderValue;
use serde_json::{Map, Value};

use contract::Capability;

use super::speech::{self, Asked};
use super::{check_engines, event, files, told};
use crate::api::live::{Dialect, Ending, Opened, Out, Reply, Work};
use crate::api::{Context, credential};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::work::Transcribe;
use crate::stream::{Ask, Event, Session};

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
    let speaking = Speaking { context: Arc::clone(context), request_id: request_id.clone(), credential };
    Ok(Opened { dialect: Box::new(speaking), settings: files::deaf(), ask, protocol: None })
}

struct Speaking {
    context: Arc<Context>,
    request_id: RequestId,
    credential: Option<HeaderValue>,
}

impl Speaking {
    /// The frames of one text.
    fn frames(&self, message: Map<String, Value>) -> Work {
        let (context, request_id) = (Arc::clone(&self.context), self.request_id.clone());
        let credential = self.credential.clone();
        let frames = async move {
            let asked = Asked::read(&context, (&request_id, credential.as_ref()), &message, true).await?;
            speech::frames(context, request_id, asked).await
        };
        let frames = frames
            .map(|frames| frames.unwrap_or_else(|error: Error| stream::iter([told("error", error)]).boxed()));
        frames.flatten_stream().map(Reply::Json).boxed()
    }
}

impl Dialect for Speaking {
    fn opened(&mut self, _: &mut Out) {}

    fn text(&mut self, text: &str, _: &mut Session, out: &mut Out) {
        let Ok(Value::Object(message)) = serde_json::from_str(text) else {
            return out.json(&told("error", "Invalid JSON"));
        };
        let names_text = ["text", "input"].iter().any(|name| message.contains_key(*name));
        match message.get("event").and_then(Value::as_str) {
            // The engine is free at once.
            Some("cancel" | "clear" | "stop") if !names_text => {
                out.end_work();
                out.json(&event("cancelled"));
            }
            _ => {
                if !out.work(self.frames(message)) {
                    out.json(&told("error", "too many texts wait already"));
                }
            }
        }
    }

    fn binary(&mut self, _: Bytes, _: &mut Session, out: &mut Out) {
        out.json(&told("error", "texts come in JSON messages: {\"text\": \"...\"}"));
    }

    fn event(&mut self, _: Event, _: &mut Session, _: &mut Out) {}

    fn ending(&mut self, ending: Ending, out: &mut Out) {
        out.close(ending.code(), ending.message());
    }
}
