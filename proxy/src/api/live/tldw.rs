//! The streaming dialect of tldw: `WS /api/v1/audio/stream/transcribe`, `WS /core/parakeet/stream` and what is beside them.
//!
//! Segments have one length and share their joints, as there; the text of a joint is given once.

mod frame;
mod insights;
mod joint;
pub mod kept;
pub mod status;

use std::sync::Arc;

use axum::extract::Request;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use contract::Capability;

use self::frame::{failed, label, not_kept, stores, summary, timestamp, wanted};
use self::insights::{Insights, Stage};
use self::joint::Joint;
use self::kept::Kept;
use super::{Dialect, Ending, Opened, Out, base64};
use crate::api::Context;
use crate::audio::Sample;
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::language;
use crate::job::work::{Need, Transcribe};
use crate::stream::{
    Ask, Event, Final, Format, Input, Partial, SegmentId, Session, Settings, samples, seconds,
};

/// Seconds of a segment, and of its joint.
const CHUNK: f64 = 2.0;
const OVERLAP: f64 = 0.5;
/// Bounds of what a client may set, seconds.
const CHUNKS: std::ops::RangeInclusive<f64> = 0.5..=30.0;

/// A session of the unified route, which confirms nothing that works.
///
/// # Errors
/// The caller may not use the model.
pub fn open(
    context: &Arc<Context>,
    request_id: &RequestId,
    _: &Request,
    _: &[String],
) -> Result<Opened, Error> {
    opened(context, request_id, Route::Unified)
}

/// A session of the core route.
///
/// # Errors
/// The caller may not use the model.
pub fn open_core(
    context: &Arc<Context>,
    request_id: &RequestId,
    _: &Request,
    _: &[String],
) -> Result<Opened, Error> {
    opened(context, request_id, Route::Core)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Unified,
    Core,
}

fn opened(context: &Arc<Context>, request_id: &RequestId, route: Route) -> Result<Opened, Error> {
    let settings = Settings {
        rules: None,
        max: length(CHUNK),
        overlap: length(OVERLAP),
        ..Settings::new(Format { sample: Sample::F32, rate: 16_000 })
    };
    let work = Transcribe { words: Need::Preferred, ..Transcribe::default() };
    let ask = Ask { route: context.route(request_id, None, Capability::Stt)?, work };
    let dialect = Tldw {
        context: Arc::clone(context),
        request_id: request_id.clone(),
        route,
        settings: settings.clone(),
        ask: ask.clone(),
        origin: 0,
        cumulative: 0,
        next: 1,
        waiting: 0,
        asked: None,
        last: None,
        joint: Joint::default(),
        text: String::new(),
        speakers: Vec::new(),
        insights: None,
        keeps: false,
        kept: None,
        paused: false,
        stopping: false,
    };
    Ok(Opened { dialect: Box::new(dialect), settings, ask, protocol: None })
}

fn length(seconds: f64) -> u64 {
    samples((seconds * 1000.0).round() as u64)
}

struct Tldw {
    context: Arc<Context>,
    request_id: RequestId,
    route: Route,
    settings: Settings,
    ask: Ask,
    /// Position at which the clock of the client's frames began.
    origin: u64,
    /// End of the audio that finals have told of, from `origin` on.
    cumulative: u64,
    /// Number of the next final, from 1.
    next: u64,
    /// Segments without their text.
    waiting: usize,
    /// The segment whose text completes a transcript that the client asked for.
    asked: Option<Option<SegmentId>>,
    /// The segment committed last.
    last: Option<SegmentId>,
    joint: Joint,
    /// The whole transcript.
    text: String,
    /// Numbers of finals, and who speaks in each.
    speakers: Vec<(u64, usize)>,
    insights: Option<Insights>,
    /// Whether the audio is kept, and the recording of the present transcript.
    keeps: bool,
    kept: Option<Kept>,
    paused: bool,
    stopping: bool,
}

/// Finals whose speakers are kept for the summary: days of speech.
const MAX_SPOKEN: usize = 100_000;
/// Longest transcript that is kept, bytes: days of speech.
const TEXT_BYTES: usize = 4 * 1024 * 1024;

impl Tldw {
    fn configure(&mut self, config: &Map<String, Value>, session: &mut Session, out: &mut Out) {
        let number = |name: &str| config.get(name).and_then(Value::as_f64).filter(|value| *value > 0.0);
        let text = |name: &str| config.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(rate) = number("sample_rate") {
            if (8_000.0..=48_000.0).contains(&rate) {
                self.settings.format.rate = rate as u32;
            } else {
                out.json(&failed("invalid_config", "sample_rate must be from 8000 to 48000"));
            }
        }
        match text("audio_format") {
            None => {}
            Some("pcm16" | "int16") => self.settings.format.sample = Sample::S16,
            Some("float32" | "f32") => self.settings.format.sample = Sample::F32,
            Some(_) => out.json(&failed("invalid_config", "audio_format must be float32 or pcm16")),
        }
        if let Some(chunk) = number("chunk_duration") {
            self.settings.max = length(chunk.clamp(*CHUNKS.start(), *CHUNKS.end()));
        }
        if let Some(overlap) = number("overlap_duration") {
            self.settings.overlap = length(overlap.min(*CHUNKS.end()));
        }
        if let Some(partials) = config.get("enable_partial").and_then(Value::as_bool) {
            self.settings.partials = partials;
        }
        if let Some(interval) = number("partial_interval") {
            self.settings.cadence = std::time::Duration::from_secs_f64(interval.clamp(0.2, 30.0));
        }
        if let Some(Ok(language)) = text("language").map(language::requested) {
            self.ask.work.language = language;
        }
        if let Some(model) = text("model").filter(|model| !model.starts_with("parakeet")) {
            match self.context.route(&self.request_id, Some(model), Capability::Stt) {
                Ok(route) => self.ask.route = route,
                Err(error) => self.model_unavailable(model, &error, out),
            }
        }
        if let Some(wanted) = wanted(config, &["diarization", "diarize", "diarization_enabled"]) {
            self.settings.speakers = wanted && self.context.upstreams.tells_speakers(&self.ask.route);
        }
        // Its format may be another now.
        self.kept = None;
        session.push(Input::Settings(self.settings.clone()));
        session.push(Input::Ask(self.ask.clone()));
        self.answer_extras(config, out);
    }

    fn model_unavailable(&self, model: &str, error: &Error, out: &mut Out) {
        let model: String = model.chars().take(128).collect();
        match self.route {
            Route::Core => {
                let details = json!({"model": model, "variant": "standard", "suggestion": "parakeet"});
                out.json(&json!({
                    "type": "error", "error_type": "model_unavailable", "code": "model_unavailable",
                    "message": error.to_string(), "details": details,
                }));
                out.json(&json!({"type": "warning", "state": "fallback_not_applied", "message": "the model stays as it was"}));
            }
            Route::Unified => {
                out.json(
                    &json!({"type": "warning", "state": "model_unavailable", "message": error.to_string()}),
                );
            }
        }
    }

    /// What a config asks for and is not served, and the confirmation of the core route.
    fn answer_extras(&mut self, config: &Map<String, Value>, out: &mut Out) {
        let kind = if self.route == Route::Core { "status" } else { "warning" };
        match wanted(config, &["insights", "meeting_insights", "insights_enabled"]) {
            None => {}
            Some(false) => self.insights = None,
            Some(true) if self.context.config.get().has(Capability::Llm) => {
                let given = config.get("insights").or_else(|| config.get("meeting_insights"));
                let insights = Insights::of(given.unwrap_or(&Value::Null), seconds(self.cumulative));
                out.json(
                    &json!({"type": "status", "state": "insights_enabled", "insights": insights.shown()}),
                );
                self.insights = Some(insights);
            }
            Some(true) => {
                let message =
                    "insights need a language model, and there is none: add an engine of capability llm";
                out.json(&json!({"type": kind, "state": "insights_unavailable", "message": message}));
            }
        }
        if let Some(stores) = stores(config) {
            self.keeps = stores && self.context.config.get().gateway.recordings.dir.is_some();
            if stores && !self.keeps {
                out.json(&not_kept("no audio is kept here: set gateway.recordings.dir"));
            }
        }
        if wanted(config, &["diarization", "diarize", "diarization_enabled"]) == Some(true) {
            if self.settings.speakers {
                let diarization = json!({"enabled": true, "store_audio": self.keeps});
                out.json(
                    &json!({"type": "status", "state": "diarization_enabled", "diarization": diarization}),
                );
            } else {
                let message = "no engine here tells speakers apart";
                out.json(&json!({"type": kind, "state": "diarization_unavailable", "message": message}));
            }
        }
        if self.route == Route::Core {
            out.json(&json!({"type": "status", "state": "configured"}));
        }
    }

    fn audio(&mut self, message: &Map<String, Value>, session: &mut Session, out: &mut Out) {
        let Some(data) = message.get("data").and_then(Value::as_str) else {
            return out.json(&json!({"type": "error", "message": "Missing audio payload"}));
        };
        let Some(mut bytes) = base64(data) else {
            return out.json(&failed("invalid_audio", "data is not valid base64"));
        };
        // Each message is whole samples, whatever came before it.
        bytes.truncate(bytes.len() - bytes.len() % self.settings.format.sample.bytes());
        if self.paused {
            out.json(&json!({"type": "warning", "warning_type": "audio_dropped_during_pause", "message": "audio is dropped while the session is paused"}));
            return;
        }
        if self.keeps && self.kept.is_none() {
            let config = self.context.config.get();
            self.kept = Kept::begin(&config.gateway.recordings, self.settings.format);
        }
        if let Some(kept) = &self.kept {
            kept.push(bytes.clone());
        }
        session.push(Input::Audio(bytes));
    }

    fn control(&mut self, kind: &str, message: &Map<String, Value>, session: &mut Session, out: &mut Out) {
        match kind {
            "config" => self.configure(message, session, out),
            "audio" => self.audio(message, session, out),
            "commit" => session.push(Input::Commit),
            "reset" => session.push(Input::Clear),
            "stop" => {
                self.stopping = true;
                session.push(Input::End);
            }
            "ping" => out.json(&json!({"type": "pong"})),
            // Where a key is asked for, it came before this.
            "auth" => {}
            "control" => {
                let action = message.get("action").and_then(Value::as_str).unwrap_or_default();
                match action {
                    "pause" | "resume" => {
                        self.paused = action == "pause";
                        let state = if self.paused { "paused" } else { "resumed" };
                        out.json(&json!({"type": "status", "state": state}));
                    }
                    "commit" | "stop" | "reset" => self.control(action, message, session, out),
                    _ => out.json(&failed("invalid_control", "action must be pause, resume, commit or stop")),
                }
            }
            _ => out.json(&json!({"type": "error", "message": "Unknown message type"})),
        }
    }

    fn partial(&mut self, partial: &Partial, out: &mut Out) {
        let (start, end) =
            (partial.span.start.saturating_sub(self.origin), partial.span.end.saturating_sub(self.origin));
        let text = self.joint.peek(&partial.text(), &[], seconds(self.cumulative.saturating_sub(start)));
        let buffered = seconds(end.saturating_sub(self.cumulative));
        if text.is_empty() {
            return;
        }
        out.json(&json!({
            "type": "partial", "text": text, "is_final": false, "timestamp": timestamp(), "segment_id": self.next,
            "segment_start": seconds(self.cumulative), "segment_end": seconds(self.cumulative) + buffered,
            "buffer_duration": buffered, "cumulative_audio": seconds(self.cumulative),
        }));
    }

    fn finished(&mut self, last: &Final, out: &mut Out) {
        let (start, end) =
            (last.span.start.saturating_sub(self.origin), last.span.end.saturating_sub(self.origin));
        let before = self.cumulative;
        self.cumulative = end;
        let overlap = seconds(before.saturating_sub(start));
        let text = self.joint.take(&last.transcript.text, &last.transcript.words, overlap);
        if text.is_empty() {
            return;
        }
        if self.text.len() + text.len() < TEXT_BYTES {
            if !self.text.is_empty() {
                self.text.push(' ');
            }
            self.text.push_str(&text);
        }
        let (from, until) = (seconds(before), seconds(end));
        let mut frame = json!({
            "type": "final", "text": text, "is_final": true, "timestamp": timestamp(), "segment_id": self.next,
            "segment_start": from, "segment_end": until, "chunk_duration": until - seconds(start),
            "overlap": overlap, "chunk_start": seconds(start), "chunk_end": until,
            "new_audio_duration": until - from, "cumulative_audio": until,
        });
        if let Some(speaker) = last.speaker() {
            frame["speaker_id"] = json!(speaker);
            frame["speaker_label"] = json!(label(speaker));
            if self.speakers.len() < MAX_SPOKEN {
                self.speakers.push((self.next, speaker));
            }
        }
        out.json(&frame);
        self.next += 1;
        if self.insights.as_mut().is_some_and(|insights| insights.said(until)) {
            self.insight(Stage::Live, out);
        }
    }

    /// Asks for notes of what was said. Where too many wait already, the next one tells of it.
    fn insight(&self, stage: Stage, out: &mut Out) {
        out.work(insights::frame(&self.context, &self.request_id, &self.text, stage));
    }

    /// As [`Tldw::insight`], of all of a transcript, unless nothing is new.
    fn last_insight(&mut self, out: &mut Out) {
        let until = seconds(self.cumulative);
        if self.insights.as_mut().is_some_and(|insights| insights.end(until)) {
            self.insight(Stage::Final, out);
        }
    }

    /// Sends the whole transcript once all of it is there.
    fn complete(&mut self, session: &Session, out: &mut Out) {
        if self.waiting > 0 || self.asked.is_none() {
            return;
        }
        out.json(&json!({"type": "full_transcript", "text": self.text, "timestamp": timestamp()}));
        let kept = self.kept.take();
        let was_kept = kept.is_some();
        let path = kept.and_then(Kept::end);
        if was_kept && path.is_none() {
            out.json(&not_kept("the audio could not be kept whole"));
        }
        if !self.speakers.is_empty() || path.is_some() {
            out.json(&summary(&self.speakers, path));
        }
        self.last_insight(out);
        let origin = self.origin + self.cumulative;
        self.restart(origin.min(length(session.seconds())));
    }

    /// Begins anew at a position.
    fn restart(&mut self, origin: u64) {
        (self.origin, self.cumulative, self.next, self.asked) = (origin, 0, 1, None);
        self.joint = Joint::default();
        self.text.clear();
        self.speakers.clear();
        if let Some(insights) = &mut self.insights {
            insights.end(0.0);
        }
    }
}

impl Dialect for Tldw {
    fn opened(&mut self, _: &mut Out) {}

    fn text(&mut self, text: &str, session: &mut Session, out: &mut Out) {
        let Ok(Value::Object(message)) = serde_json::from_str(text) else {
            let message = if self.route == Route::Core { "Invalid JSON" } else { "Invalid JSON message" };
            return out.json(&json!({"type": "error", "message": message}));
        };
        let kind = message.get("type").and_then(Value::as_str).unwrap_or_default().to_lowercase();
        self.control(&kind, &message, session, out);
    }

    fn binary(&mut self, _: Bytes, _: &mut Session, out: &mut Out) {
        out.json(&failed("invalid_message", "audio goes into {\"type\": \"audio\", \"data\": base64}"));
    }

    fn event(&mut self, event: Event, session: &mut Session, out: &mut Out) {
        match event {
            Event::Committed { segment, why, .. } => {
                self.waiting += 1;
                self.last = Some(segment);
                if why == crate::stream::Why::Asked && !self.stopping {
                    self.asked = Some(self.last);
                }
            }
            Event::Partial(partial) => self.partial(&partial, out),
            Event::Final(last) => {
                self.waiting = self.waiting.saturating_sub(1);
                self.finished(&last, out);
                self.complete(session, out);
            }
            Event::Failed { span, error, .. } => {
                self.waiting = self.waiting.saturating_sub(1);
                self.cumulative = span.end.saturating_sub(self.origin);
                out.json(&failed(error.code().unwrap_or("engine_failed"), &error.to_string()));
                self.complete(session, out);
            }
            Event::Empty => {
                self.asked = Some(self.last);
                self.complete(session, out);
            }
            Event::Cleared => {
                self.restart(length(session.seconds()));
                out.json(&json!({"type": "status", "state": "reset"}));
            }
            Event::Done => {
                self.last_insight(out);
                // After what is still under way.
                let close = futures::stream::iter([super::Reply::Close(1000, String::new())]);
                if !out.works() || !out.work(Box::pin(close)) {
                    out.close(1000, "");
                }
            }
            Event::Started { .. } | Event::Speech(_) | Event::Spoken(_) | Event::Broken => {}
        }
    }

    fn ending(&mut self, ending: Ending, out: &mut Out) {
        let (code, reason) = match ending {
            Ending::Draining => (1013, "shutdown_draining"),
            Ending::Idle => (1000, "idle_timeout"),
            Ending::TooLong => (1000, "session_too_long"),
            Ending::Broken => (1011, "internal_error"),
            Ending::Quota => (4003, "quota_exceeded"),
        };
        let mut frame = failed(reason, ending.message());
        if ending == Ending::Quota {
            frame["data"] = json!({"quota": "daily_minutes"});
        }
        out.json(&frame);
        out.close(code, reason);
    }
}
