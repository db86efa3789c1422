//! `WS /ws`, as the Parakeet FastAPI wrapper has it: 16 kHz PCM in, `{"status":"queued"}` and `{"text"}` per utterance out.

use std::sync::Arc;

use axum::extract::Request;
use bytes::Bytes;
use serde_json::json;

use contract::Capability;

use super::{Dialect, Ending, Opened, Out};
use crate::api::Context;
use crate::audio::Sample;
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::work::Transcribe;
use crate::stream::{Ask, Event, Format, Input, Rules, Session, Settings, samples};

/// A session with the wrapper's own rules.
///
/// # Errors
/// The caller may not use the model.
pub fn open(
    context: &Arc<Context>,
    request_id: &RequestId,
    _: &Request,
    _: &[String],
) -> Result<Opened, Error> {
    let rules = Rules { threshold: 0.6, silence: samples(250), pad: samples(120), ..Rules::default() };
    let settings = Settings {
        rules: Some(rules),
        partials: false,
        max: samples(8_000),
        ..Settings::new(Format { sample: Sample::S16, rate: 16_000 })
    };
    let route = context.route(request_id, None, Capability::Stt)?;
    let ask = Ask { route, work: Transcribe::default() };
    Ok(Opened { dialect: Box::new(Wrapper), settings, ask, protocol: None })
}

struct Wrapper;

impl Dialect for Wrapper {
    fn opened(&mut self, _: &mut Out) {}

    /// There is no text message in this dialect.
    fn text(&mut self, _: &str, _: &mut Session, out: &mut Out) {
        out.json(&json!({"error": "send audio as binary messages: 16-bit PCM, 16 kHz, mono"}));
    }

    fn binary(&mut self, bytes: Bytes, session: &mut Session, _: &mut Out) {
        session.push(Input::Audio(bytes));
    }

    fn event(&mut self, event: Event, _: &mut Session, out: &mut Out) {
        match event {
            Event::Committed { .. } => out.json(&json!({"status": "queued"})),
            Event::Final(last) => out.json(&json!({"text": last.transcript.text})),
            // Each queued utterance is answered, or the client waits for ever.
            Event::Failed { error, .. } => out.json(&json!({"text": "", "error": error.to_string()})),
            Event::Started { .. }
            | Event::Partial(_)
            | Event::Empty
            | Event::Cleared
            | Event::Speech(_)
            | Event::Spoken(_)
            | Event::Done
            | Event::Broken => {}
        }
    }

    fn ending(&mut self, ending: Ending, out: &mut Out) {
        out.close(ending.code(), ending.message());
    }
}
