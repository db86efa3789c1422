//! `WS /v1/speech-to-text/ws`: files in binary pieces that a `commit` ends, or whole in base64; the transcript of each.

use std::sync::Arc;

use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use serde_json::{Map, Value, json};

use contract::Capability;

use super::{check_engines, event, heard, told};
use crate::api::Context;
use crate::api::live::{Dialect, Ending, Opened, Out, Reply, base64};
use crate::audio::Sample;
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::work::Transcribe;
use crate::stream::{Ask, Event, Format, Session, Settings};

/// Largest file of a session, bytes: it is kept in memory.
pub(super) const MAX_FILE: usize = 8 * 1024 * 1024;

/// A session that hears whole files.
///
/// # Errors
/// The caller may not use the model, or there is no engine.
pub fn open(
    context: &Arc<Context>,
    request_id: &RequestId,
    _: &Request,
    _: &[String],
) -> Result<Opened, Error> {
    check_engines(context, Capability::Stt)?;
    let ask = Ask { route: context.route(request_id, None, Capability::Stt)?, work: Transcribe::default() };
    let files = Files { context: Arc::clone(context), request_id: request_id.clone(), file: BytesMut::new() };
    Ok(Opened { dialect: Box::new(files), settings: deaf(), ask, protocol: None })
}

/// The settings of a session to which no audio is pushed.
pub(super) fn deaf() -> Settings {
    let format = Format { sample: Sample::S16, rate: 16_000 };
    Settings { rules: None, hears: false, partials: false, ..Settings::new(format) }
}

struct Files {
    context: Arc<Context>,
    request_id: RequestId,
    /// What came since the last commit.
    file: BytesMut,
}

impl Files {
    fn transcribe(&self, file: Bytes, message: &Map<String, Value>, out: &mut Out) -> Result<(), Error> {
        if file.is_empty() {
            out.json(&told("warning", "No audio to transcribe"));
            return Ok(());
        }
        let wanted = heard::wanted(&heard::fields(message)?)?;
        let heard = heard::of_bytes(Arc::clone(&self.context), self.request_id.clone(), file, wanted);
        let frame = heard.map(|heard| {
            Reply::Json(match heard {
                Ok(transcript) => json!({"event": "transcript", "data": transcript}),
                Err(error) => told("error", error),
            })
        });
        if !out.work(frame.into_stream().boxed()) {
            out.json(&told("error", "too many files wait already"));
        }
        Ok(())
    }

    fn message(&mut self, message: &Map<String, Value>, out: &mut Out) -> Result<(), Error> {
        let named = message.get("event").and_then(Value::as_str);
        match (message.get("audio_base64"), named) {
            (Some(Value::String(audio)), _) if !audio.is_empty() => {
                let file = base64(audio).ok_or_else(|| Error::param("audio_base64", "Invalid base64"))?;
                self.transcribe(file, message, out)
            }
            (None | Some(Value::Null | Value::String(_)), Some("commit")) => {
                let file = std::mem::take(&mut self.file).freeze();
                self.transcribe(file, message, out)
            }
            (None | Some(Value::Null | Value::String(_)), Some("clear")) => {
                self.file.clear();
                out.json(&event("cleared"));
                Ok(())
            }
            _ => {
                let what = "send audio as binary messages, then {\"event\": \"commit\"}, or {\"audio_base64\": \"...\"}";
                Err(Error::param("event", what))
            }
        }
    }
}

impl Dialect for Files {
    fn opened(&mut self, _: &mut Out) {}

    fn text(&mut self, text: &str, _: &mut Session, out: &mut Out) {
        let outcome = match serde_json::from_str(text) {
            Ok(Value::Object(message)) => self.message(&message, out),
            Ok(_) | Err(_) => Err(super::invalid_json("Invalid JSON")),
        };
        if let Err(error) = outcome {
            out.json(&told("error", error));
        }
    }

    fn binary(&mut self, bytes: Bytes, _: &mut Session, out: &mut Out) {
        if self.file.len() + bytes.len() > MAX_FILE {
            let detail = format!("a file has at most {MAX_FILE} bytes: send commit or clear");
            return out.json(&told("error", detail));
        }
        self.file.extend_from_slice(&bytes);
        out.json(&json!({"event": "received", "bytes": bytes.len()}));
    }

    fn event(&mut self, _: Event, _: &mut Session, _: &mut Out) {}

    fn ending(&mut self, ending: Ending, out: &mut Out) {
        out.close(ending.code(), ending.message());
    }
}
