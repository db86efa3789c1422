//! The realtime dialect of vLLM on the path that it shares with OpenAI's: PCM of 16 kHz in, deltas and one text out.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use contract::Capability;

use super::{Dialect, Ending, Opened, Out, base64};
use crate::api::Context;
use crate::audio::Sample;
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::work::{Need, Transcribe};
use crate::rng::Rng;
use crate::stream::{Ask, Event, Format, Input, Session, Settings, samples};

/// Longest segment, milliseconds.
const LONGEST: u64 = 30_000;

/// Whether a `session.update` is one of this dialect: it names the model beside its type, and has no session.
pub fn is_update(event: &Map<String, Value>) -> bool {
    event.get("model").is_some_and(Value::is_string) && !event.contains_key("session")
}

/// A session of a client that is known to speak this dialect.
///
/// # Errors
/// The caller may not use the model.
pub fn opened(
    context: &Arc<Context>,
    request_id: &RequestId,
    protocol: Option<&'static str>,
) -> Result<Opened, Error> {
    let ask = ask(context, request_id, None)?;
    Ok(Opened { dialect: Box::new(Vllm::new(context, request_id)), settings: settings(), ask, protocol })
}

/// What the session core is to do.
pub fn settings() -> Settings {
    let base = Settings::new(Format { sample: Sample::S16, rate: 16_000 });
    Settings { appends: true, max: samples(LONGEST), ..base }
}

fn ask(context: &Context, request_id: &RequestId, model: Option<&str>) -> Result<Ask, Error> {
    let route = match context.route(request_id, model, Capability::Stt) {
        Err(refused @ Error::Refused(_)) => return Err(refused),
        // The names of the models that vLLM serves are not ours: those that are unknown stand for the first one.
        Err(_) => context.route(request_id, None, Capability::Stt)?,
        Ok(route) => route,
    };
    Ok(Ask { route, work: Transcribe { words: Need::Preferred, ..Transcribe::default() } })
}

/// One client's session.
pub struct Vllm {
    context: Arc<Context>,
    request_id: RequestId,
    id: String,
    /// The text of all segments that are final.
    text: String,
    /// Whether deltas have told anything, and anything of the segment that runs.
    any: bool,
    told: bool,
    ended: bool,
}

impl Vllm {
    /// A session that was not updated yet.
    pub fn new(context: &Arc<Context>, request_id: &RequestId) -> Self {
        Self {
            context: Arc::clone(context),
            request_id: request_id.clone(),
            id: format!("sess-{:016x}", Rng::random().roll()),
            text: String::new(),
            any: false,
            told: false,
            ended: false,
        }
    }

    fn delta(&mut self, more: &str, out: &mut Out) {
        if more.trim().is_empty() {
            return;
        }
        // A segment begins a word.
        let space = if self.told || !self.any { "" } else { " " };
        (self.any, self.told) = (true, true);
        out.json(&json!({"type": "transcription.delta", "delta": format!("{space}{more}")}));
    }

    fn message(&mut self, text: &str, session: &mut Session) -> Result<(), (&'static str, String)> {
        let Ok(Value::Object(message)) = serde_json::from_str(text) else {
            return Err(("invalid_json", "the message is not a JSON object".into()));
        };
        match message.get("type").and_then(Value::as_str).unwrap_or_default() {
            "session.update" => {
                let model = message.get("model").and_then(Value::as_str);
                let ask = ask(&self.context, &self.request_id, model);
                session.push(Input::Ask(ask.map_err(|error| ("invalid_model", error.to_string()))?));
            }
            "input_audio_buffer.append" if self.ended => {
                return Err(("invalid_event", "the audio has ended".into()));
            }
            "input_audio_buffer.append" => {
                let audio = message.get("audio").and_then(Value::as_str).and_then(base64);
                let audio =
                    audio.ok_or_else(|| ("invalid_audio", "audio must be a base64 string".to_owned()))?;
                session.push(Input::Audio(audio));
            }
            // The first commit says that audio follows, the last that none does.
            "input_audio_buffer.commit" => {
                if message.get("final").and_then(Value::as_bool) == Some(true) {
                    self.ended = true;
                    session.push(Input::End);
                }
            }
            other => {
                let other: String = other.chars().take(64).collect();
                return Err(("unknown_event", format!("unknown event type: {other}")));
            }
        }
        Ok(())
    }
}

fn failed(code: &str, message: &str, out: &mut Out) {
    out.json(&json!({"type": "error", "error": message, "code": code}));
}

impl Dialect for Vllm {
    fn opened(&mut self, out: &mut Out) {
        let created = crate::edge::unix_seconds();
        out.json(&json!({"type": "session.created", "id": self.id, "created": created}));
    }

    fn text(&mut self, text: &str, session: &mut Session, out: &mut Out) {
        if let Err((code, message)) = self.message(text, session) {
            failed(code, &message, out);
        }
    }

    fn binary(&mut self, _: Bytes, _: &mut Session, out: &mut Out) {
        failed("invalid_event", "audio goes into input_audio_buffer.append", out);
    }

    fn event(&mut self, event: Event, session: &mut Session, out: &mut Out) {
        match event {
            Event::Partial(partial) => self.delta(&partial.added, out),
            Event::Final(last) => {
                let text = last.transcript.text.trim();
                self.delta(&last.rest, out);
                self.told = false;
                if !self.text.is_empty() && !text.is_empty() {
                    self.text.push(' ');
                }
                self.text.push_str(text);
            }
            Event::Failed { error, .. } => {
                self.told = false;
                failed("engine_failed", &error.to_string(), out);
            }
            Event::Done => {
                let seconds = session.seconds().ceil() as u64;
                let usage = json!({"type": "duration", "seconds": seconds});
                out.json(&json!({"type": "transcription.done", "text": self.text, "usage": usage}));
                out.close(1000, "");
            }
            Event::Started { .. }
            | Event::Committed { .. }
            | Event::Empty
            | Event::Cleared
            | Event::Speech(_)
            | Event::Spoken(_)
            | Event::Broken => {}
        }
    }

    fn ending(&mut self, ending: Ending, out: &mut Out) {
        failed("session_ended", ending.message(), out);
        out.close(ending.code(), ending.message());
    }
}
