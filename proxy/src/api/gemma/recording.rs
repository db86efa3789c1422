//! `WS /v1/speech-to-text/stream`: a recording that is transcribed while it grows.
//!
//! Opus in WebM or Ogg, as browsers record it, and WAV are heard at once. Any other file is heard as a whole once it has ended.

use std::sync::Arc;

use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, stream};
use serde_json::{Map, Value, json};

use contract::Capability;

use super::files::MAX_FILE;
use super::{check_engines, heard, told};
use crate::api::Context;
use crate::api::head::{Begun, Head};
use crate::api::live::{Dialect, Ending, Opened, Out, Reply};
use crate::audio::{Container, Sample, live};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::work::{Need, Transcribe};
use crate::stream::{Ask, Event, Final, Format, Input, SegmentId, Session, Settings, samples, seconds};

/// Bytes that tell what a file is.
const MAGIC_BYTES: usize = 16;
/// Longest segment, milliseconds.
const LONGEST: u64 = 30_000;
/// Longest transcript that is kept, bytes: days of speech.
const TEXT_BYTES: usize = 4 * 1024 * 1024;

/// A session that begins with the first bytes of a recording.
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
    let settings = settings(Format { sample: Sample::F32, rate: live::RATE });
    let work = Transcribe { words: Need::Preferred, ..Transcribe::default() };
    let ask = Ask { route: context.route(request_id, None, Capability::Stt)?, work };
    let recording = Recording {
        context: Arc::clone(context),
        request_id: request_id.clone(),
        ask: ask.clone(),
        source: Source::Unknown(BytesMut::new()),
        decoded: Vec::new(),
        text: String::new(),
        segments: Vec::new(),
        language: None,
        next: 0,
        cleared: 0,
        stopped: false,
    };
    Ok(Opened { dialect: Box::new(recording), settings, ask, protocol: None })
}

fn settings(format: Format) -> Settings {
    Settings { max: samples(LONGEST), ..Settings::new(format) }
}

/// What the client sends.
enum Source {
    /// Not known yet: the first bytes.
    Unknown(BytesMut),
    /// Opus that is decoded as it comes.
    Opus(Box<live::Recording>),
    /// Samples behind the header of a WAV file.
    Samples,
    /// A file that is heard as a whole: all of it so far.
    File(BytesMut),
    /// Nothing that can be used: what comes is dropped.
    Broken,
}

/// One client's recording.
struct Recording {
    context: Arc<Context>,
    request_id: RequestId,
    ask: Ask,
    source: Source,
    decoded: Vec<f32>,
    /// Text of the segments that are final.
    text: String,
    segments: Vec<Value>,
    language: Option<String>,
    /// The segment after the one committed last.
    next: SegmentId,
    /// Segments before this one were cleared.
    cleared: SegmentId,
    stopped: bool,
}

impl Recording {
    fn audio(&mut self, bytes: &Bytes, session: &mut Session) -> Result<(), Error> {
        match &mut self.source {
            Source::Unknown(first) => {
                first.extend_from_slice(bytes);
                if first.len() < MAGIC_BYTES {
                    return Ok(());
                }
                let first = std::mem::take(first).freeze();
                self.begin(&first, session)
            }
            Source::Opus(recording) => {
                let outcome = recording.push(bytes, &mut self.decoded);
                let samples = self.decoded.drain(..);
                let samples: Vec<u8> = samples.flat_map(f32::to_le_bytes).collect();
                session.push(Input::Audio(samples.into()));
                outcome.map_err(|error| {
                    self.source = Source::Broken;
                    Error::Undecodable { message: error.to_string() }
                })
            }
            Source::Samples => {
                session.push(Input::Audio(bytes.clone()));
                Ok(())
            }
            Source::File(file) => {
                if file.len() + bytes.len() > MAX_FILE {
                    self.source = Source::Broken;
                    return Err(Error::TooLarge { limit: MAX_FILE as u64 });
                }
                file.extend_from_slice(bytes);
                Ok(())
            }
            Source::Broken => Ok(()),
        }
    }

    /// Finds out what the first bytes are.
    fn begin(&mut self, first: &Bytes, session: &mut Session) -> Result<(), Error> {
        if let Some(recording) = live::Recording::of(first) {
            self.source = Source::Opus(Box::new(recording));
            return self.audio(first, session);
        }
        match (Container::sniff(first), Head::default().push(first)) {
            (Some(Container::Wav), Ok(Begun::Wav(format, samples))) => {
                session.push(Input::Settings(settings(format)));
                session.push(Input::Audio(samples));
                self.source = Source::Samples;
            }
            (Some(Container::Wav), Ok(Begun::More)) => self.source = Source::Unknown(first[..].into()),
            (Some(_), _) => {
                self.source = Source::File(BytesMut::new());
                return self.audio(first, session);
            }
            (None, _) => {
                self.source = Source::Broken;
                let message =
                    "send a recording from its first byte on: Opus in WebM or Ogg, or another audio file";
                return Err(Error::Undecodable { message: message.into() });
            }
        }
        Ok(())
    }

    fn configure(&mut self, message: &Map<String, Value>, session: &mut Session) -> Result<Value, Error> {
        let wanted = heard::wanted(&heard::fields(message)?)?;
        self.ask.work = Transcribe { words: Need::Preferred, ..wanted };
        session.push(Input::Ask(self.ask.clone()));
        Ok(json!({"event": "configured", "data": {"language": self.ask.work.language}}))
    }

    fn message(&mut self, text: &str, session: &mut Session, out: &mut Out) -> Result<(), Error> {
        let Ok(Value::Object(message)) = serde_json::from_str(text) else {
            return Err(super::invalid_json("Invalid JSON"));
        };
        match message.get("event").and_then(Value::as_str) {
            Some("config") => out.json(&self.configure(&message, session)?),
            Some("clear") => {
                if let Source::File(file) = &mut self.source {
                    file.clear();
                }
                session.push(Input::Clear);
            }
            Some("stop") => self.stop(session, out),
            _ => return Err(Error::param("event", "event must be config, clear or stop")),
        }
        Ok(())
    }

    /// The recording has ended.
    fn stop(&mut self, session: &mut Session, out: &mut Out) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        let Source::File(file) = std::mem::replace(&mut self.source, Source::Broken) else {
            return session.push(Input::End);
        };
        let (context, request_id) = (Arc::clone(&self.context), self.request_id.clone());
        let heard = heard::of_bytes(context, request_id, file.freeze(), self.ask.work.clone());
        let told = heard.map(|heard| {
            let frame = match heard {
                Ok(mut transcript) => {
                    transcript["is_final"] = json!(true);
                    json!({"event": "final", "data": transcript})
                }
                Err(error) => told("error", error),
            };
            stream::iter([Reply::Json(frame), Reply::Close(1000, String::new())])
        });
        out.work(told.flatten_stream().boxed());
    }

    fn language(&self) -> Option<String> {
        heard::code(self.language.as_deref(), self.ask.work.language.as_deref())
    }

    fn interim(&self, more: &str, out: &mut Out) {
        let text = joined(&self.text, more);
        let data = json!({"text": text, "language": self.language(), "is_final": false});
        out.json(&json!({"event": "interim", "data": data}));
    }

    fn finished(&mut self, last: Final, out: &mut Out) {
        if last.segment < self.cleared {
            return;
        }
        self.language = last.transcript.language.or_else(|| self.language.take());
        let text = last.transcript.text.trim();
        if text.is_empty() {
            return;
        }
        if self.text.len() + text.len() > TEXT_BYTES {
            return out.json(&told("warning", "the transcript is too long to be kept: send clear"));
        }
        let (start, end) = (seconds(last.span.start), seconds(last.span.end));
        self.segments.push(heard::segment(self.segments.len(), start, end, text));
        self.text = joined(&self.text, text);
        self.interim("", out);
    }

    /// The whole transcript.
    fn last(&self, out: &mut Out) {
        let data = json!({
            "text": self.text, "language": self.language(), "segments": self.segments, "is_final": true,
        });
        out.json(&json!({"event": "final", "data": data}));
    }
}

/// Two texts with a space between them.
fn joined(left: &str, right: &str) -> String {
    let right = right.trim();
    if left.is_empty() || right.is_empty() { format!("{left}{right}") } else { format!("{left} {right}") }
}

impl Dialect for Recording {
    fn opened(&mut self, out: &mut Out) {
        out.json(&json!({"event": "ready", "data": {"formats": ["webm", "ogg", "wav"], "interim": true}}));
    }

    fn text(&mut self, text: &str, session: &mut Session, out: &mut Out) {
        if let Err(error) = self.message(text, session, out) {
            out.json(&told("error", error));
        }
    }

    fn binary(&mut self, bytes: Bytes, session: &mut Session, out: &mut Out) {
        if self.stopped {
            return;
        }
        if let Err(error) = self.audio(&bytes, session) {
            out.json(&told("error", error));
        }
    }

    fn event(&mut self, event: Event, _: &mut Session, out: &mut Out) {
        match event {
            Event::Committed { segment, .. } => self.next = segment + 1,
            Event::Partial(partial) if partial.segment >= self.cleared => self.interim(&partial.text(), out),
            Event::Final(last) => self.finished(last, out),
            Event::Failed { segment, error, .. } if segment >= self.cleared => {
                out.json(&told("warning", format!("a part of the recording has no text: {error}")));
            }
            Event::Cleared => {
                self.cleared = self.next;
                self.text.clear();
                self.segments.clear();
                out.json(&super::event("cleared"));
            }
            Event::Done => {
                self.last(out);
                out.close(1000, "");
            }
            Event::Started { .. }
            | Event::Partial(_)
            | Event::Failed { .. }
            | Event::Empty
            | Event::Speech(_)
            | Event::Spoken(_)
            | Event::Broken => {}
        }
    }

    fn ending(&mut self, ending: Ending, out: &mut Out) {
        if !self.text.is_empty() {
            self.last(out);
        }
        out.json(&told("error", ending.message()));
        out.close(ending.code(), ending.message());
    }
}
