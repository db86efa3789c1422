//! `WS /v1/listen`, a subset of Deepgram's streaming API: raw audio in, `Results` out.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::Request;
use bytes::Bytes;
use serde_json::{Value, json};

use contract::Capability;

use super::{Dialect, Ending, Opened, Out, query};
use crate::api::Context;
use crate::audio::Sample;
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::language;
use crate::job::work::{Need, Transcribe, Transcript};
use crate::rng::Rng;
use crate::stream::{Ask, Event, Format, Input, Rules, Session, Settings, Why, samples, seconds};
use crate::transcript::repair;

/// Parameters that change what comes back and that nothing here can meet.
const REFUSED: [&str; 5] = ["multichannel", "redact", "search", "replace", "detect_language"];
/// Silence that ends a segment unless `endpointing` says otherwise, milliseconds. Deepgram's own 10 would cut between words.
const ENDPOINTING: u64 = 300;

/// Begins a session as the query asks for it.
///
/// # Errors
/// A parameter that cannot be met.
pub fn open(
    context: &Arc<Context>,
    request_id: &RequestId,
    request: &Request,
    _: &[String],
) -> Result<Opened, Error> {
    let is_on = |name: &str| query(request, name).is_some_and(|value| !["", "false", "0"].contains(&&*value));
    if let Some(name) = REFUSED.into_iter().find(|name| is_on(name)) {
        return Err(Error::param(name, format!("{name} is not supported in streaming")));
    }
    let number = |name: &'static str, least: u64, most: u64| match query(request, name) {
        None => Ok(None),
        Some(value) if value == "false" => Ok(None),
        Some(value) => match value.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(Error::param(name, format!("{name} must be a whole number from {least} to {most}"))),
        },
    };
    let sample = match query(request, "encoding").as_deref() {
        None | Some("linear16") => Sample::S16,
        Some("linear32") => Sample::F32,
        Some("mulaw") => Sample::MuLaw,
        Some("alaw") => Sample::ALaw,
        Some(_) => {
            return Err(Error::param("encoding", "encoding must be linear16, linear32, mulaw or alaw"));
        }
    };
    let default_rate: u64 = if matches!(sample, Sample::MuLaw | Sample::ALaw) { 8_000 } else { 16_000 };
    let rate = number("sample_rate", 8_000, 48_000)?.unwrap_or(default_rate);
    if number("channels", 1, 8)?.unwrap_or(1) != 1 {
        return Err(Error::param("channels", "only one channel is supported in streaming"));
    }
    let silence = number("endpointing", 10, 10_000)?.unwrap_or(ENDPOINTING).max(100);
    let rules = Rules { silence: samples(silence), ..Rules::default() };
    let format = Format { sample, rate: u32::try_from(rate).unwrap_or(16_000) };
    // Deepgram's own models stand for the first one here.
    let model = query(request, "model").filter(|model| !model.is_empty() && !is_deepgrams(model));
    let route = context.route(request_id, model.as_deref(), Capability::Stt)?;
    let speakers = is_on("diarize");
    if speakers && !context.upstreams.tells_speakers(&route) {
        return Err(Error::param("diarize", "no engine here tells speakers apart"));
    }
    let partials = is_on("interim_results");
    let settings = Settings { rules: Some(rules), partials, speakers, ..Settings::new(format) };
    let language = match query(request, "language").as_deref().map(language::requested) {
        None => None,
        Some(Ok(language)) => language,
        Some(Err(_)) => return Err(Error::param("language", "language must be a code such as en or en-US")),
    };
    let prompt =
        query(request, "keyterm").or_else(|| query(request, "keywords")).filter(|words| !words.is_empty());
    let work = Transcribe { language, prompt, words: Need::Preferred, ..Transcribe::default() };
    let dialect = Deepgram {
        id: format!("{:016x}", Rng::random().roll()),
        model: model.unwrap_or_else(|| "nova".into()),
        vad_events: is_on("vad_events"),
        finalized: HashSet::new(),
        asked: 0,
        seconds: 0.0,
        closing: false,
    };
    Ok(Opened { dialect: Box::new(dialect), settings, ask: Ask { route, work }, protocol: token(request) })
}

/// Browsers give the key as a subprotocol, behind its name.
fn token(request: &Request) -> Option<&'static str> {
    let offered = request.headers().get(http::header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let first = offered.split(',').next()?.trim();
    ["token", "bearer"].into_iter().find(|name| *name == first)
}

fn is_deepgrams(model: &str) -> bool {
    ["nova", "enhanced", "base", "flux", "whisper-", "general", "phonecall", "meeting"]
        .iter()
        .any(|name| model.starts_with(name))
}

struct Deepgram {
    id: String,
    model: String,
    vad_events: bool,
    /// Segments that the client ended itself.
    finalized: HashSet<u64>,
    /// `Finalize` messages without a segment yet.
    asked: usize,
    seconds: f64,
    closing: bool,
}

impl Deepgram {
    /// A `Results` message. `from` and `to` are seconds of the session, `speakers` tells that of a word by its place.
    fn results(
        &self,
        (from, to): (f64, f64),
        transcript: &Transcript,
        speaker: impl Fn(usize) -> Option<usize>,
        ends: Ends,
    ) -> Value {
        let words: Vec<Value> = words(transcript, to - from)
            .into_iter()
            .enumerate()
            .map(|(at, (text, start, end))| {
                let plain: String =
                    text.chars().filter(|c| c.is_alphanumeric() || *c == '\'' || *c == '-').collect();
                let mut word = json!({
                    "word": plain.to_lowercase(), "punctuated_word": text, "start": round(from + start),
                    "end": round(from + end), "confidence": 1.0,
                });
                if let Some(speaker) = speaker(at) {
                    word["speaker"] = json!(speaker);
                }
                word
            })
            .collect();
        json!({
            "type": "Results", "channel_index": [0, 1], "duration": round(to - from), "start": round(from),
            "is_final": ends.is_final, "speech_final": ends.speech_final, "from_finalize": ends.from_finalize,
            "channel": {"alternatives": [{"transcript": transcript.text.trim(), "confidence": 1.0, "words": words}]},
            "metadata": {
                "request_id": self.id, "model_info": {"name": self.model, "version": "1", "arch": self.model},
                "model_uuid": self.id,
            },
        })
    }

    fn metadata(&self) -> Value {
        json!({
            "type": "Metadata", "transaction_key": "deprecated", "request_id": self.id, "sha256": "",
            "created": jiff::Timestamp::now().to_string(), "duration": round(self.seconds), "channels": 1, "models": [self.model],
        })
    }
}

#[derive(Clone, Copy)]
struct Ends {
    is_final: bool,
    speech_final: bool,
    from_finalize: bool,
}

/// The words with their times from the start of the segment; spread evenly where the engine gives none.
fn words(transcript: &Transcript, length: f64) -> Vec<(String, f64, f64)> {
    let texts: Vec<&str> = transcript.text.split_whitespace().collect();
    // Engines that give pieces of words give no times of words.
    if !transcript.words.is_empty() && transcript.words.len() == texts.len() {
        let mut words = transcript.words.clone();
        repair(&mut words);
        return words.into_iter().map(|word| (word.text.trim().to_owned(), word.start, word.end)).collect();
    }
    let each = length / texts.len().max(1) as f64;
    texts
        .iter()
        .enumerate()
        .map(|(at, text)| ((*text).to_owned(), at as f64 * each, (at + 1) as f64 * each))
        .collect()
}

fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

impl Dialect for Deepgram {
    fn opened(&mut self, _: &mut Out) {}

    fn text(&mut self, text: &str, session: &mut Session, out: &mut Out) {
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        match message.get("type").and_then(Value::as_str) {
            Some("KeepAlive") => {}
            Some("Finalize") => {
                self.asked += 1;
                session.push(Input::Commit);
            }
            Some("CloseStream") => {
                self.closing = true;
                session.push(Input::End);
            }
            _ => {
                let description =
                    "messages are audio, or {\"type\": \"KeepAlive\" | \"Finalize\" | \"CloseStream\"}";
                out.json(&json!({"type": "Error", "description": description, "message": "unknown message", "variant": "UNPARSABLE_CLIENT_MESSAGE"}));
            }
        }
    }

    fn binary(&mut self, bytes: Bytes, session: &mut Session, _: &mut Out) {
        // An empty message ended a stream before there was `CloseStream`.
        if bytes.is_empty() {
            self.closing = true;
            session.push(Input::End);
        } else if !self.closing {
            session.push(Input::Audio(bytes));
        }
    }

    fn event(&mut self, event: Event, session: &mut Session, out: &mut Out) {
        match event {
            Event::Started { at, .. } if self.vad_events => {
                out.json(
                    &json!({"type": "SpeechStarted", "channel": [0, 1], "timestamp": round(seconds(at))}),
                );
            }
            Event::Started { .. } => {}
            Event::Committed { segment, why: Why::Asked, .. } if self.asked > 0 => {
                self.asked -= 1;
                self.finalized.insert(segment);
            }
            Event::Committed { .. } => {}
            Event::Partial(partial) => {
                let transcript = Transcript { text: partial.text(), ..Transcript::default() };
                let ends = Ends { is_final: false, speech_final: false, from_finalize: false };
                let span = (seconds(partial.span.start), seconds(partial.span.end));
                out.json(&self.results(span, &transcript, |_| None, ends));
            }
            Event::Final(last) => {
                let from_finalize = self.finalized.remove(&last.segment);
                let ends = Ends { is_final: true, speech_final: !from_finalize, from_finalize };
                let span = (seconds(last.span.start), seconds(last.span.end));
                let (speakers, most) = (last.speakers_of_words(), last.speaker());
                // Words without times of their own have the speaker of the segment.
                let speaker = |at: usize| speakers.get(at).copied().flatten().or(most);
                out.json(&self.results(span, &last.transcript, speaker, ends));
            }
            Event::Failed { segment, error, .. } => {
                self.finalized.remove(&segment);
                out.json(&json!({"type": "Error", "description": error.to_string(), "message": "a segment has no text", "variant": "ENGINE_FAILED"}));
            }
            Event::Empty => {
                // A client that flushes waits for an answer.
                self.asked = self.asked.saturating_sub(1);
                let at = session.seconds();
                let ends = Ends { is_final: true, speech_final: false, from_finalize: true };
                out.json(&self.results((at, at), &Transcript::default(), |_| None, ends));
            }
            Event::Done => {
                self.seconds = session.seconds();
                out.json(&self.metadata());
                out.close(1000, "");
            }
            Event::Cleared | Event::Speech(_) | Event::Spoken(_) | Event::Broken => {}
        }
    }

    fn ending(&mut self, ending: Ending, out: &mut Out) {
        out.json(&self.metadata());
        let code = match ending {
            Ending::Idle | Ending::Broken => 1011,
            Ending::Draining | Ending::TooLong | Ending::Quota => ending.code(),
        };
        out.close(code, ending.message());
    }
}
