//! `WS /v1/realtime`: OpenAI's Realtime API without a language model. Audio is transcribed while it is spoken; a response whose
//! input is text is that text, spoken.

mod config;
mod frames;
mod response;
pub mod secrets;

use std::sync::Arc;

use axum::extract::Request;
use bytes::Bytes;
use http::header;
use serde_json::{Map, Value, json};

use contract::Capability;

use self::config::{Config, Kind, Turns};
use self::frames::Frames;
use self::response::Responses;
use crate::api::live::nim::{self, Nim};
use crate::api::live::vllm::{self, Vllm};
use crate::api::live::{Dialect, Ending, Opened, Out, base64, query};
use crate::api::{Context, bridge, catalog};
use crate::edge::{EPHEMERAL, RequestId, unix_seconds};
use crate::error::Error;
use crate::job::work::{Need, Transcribe};
use crate::rng::Rng;
use crate::stream::{Ask, Event, Final, Input, SegmentId, Session, Why, millis, seconds};
use crate::transcript::repair;

/// The subprotocol of browsers, which cannot set headers.
const PROTOCOL: &str = "realtime";
const BETA_PROTOCOL: &str = "openai-beta.realtime-v1";
const KEY_PROTOCOL: &str = "openai-insecure-api-key.";

/// Begins a session as the URL, the headers and the client secret ask for it.
///
/// # Errors
/// A model that is not there, a secret that is not valid, an intent that is not served.
pub fn open(
    context: &Arc<Context>,
    request_id: &RequestId,
    request: &Request,
    offered: &[String],
) -> Result<Opened, Error> {
    let dialect = query(request, "dialect");
    match dialect.as_deref() {
        None | Some("" | "openai" | "beta") => {}
        Some("bridge") => return bridge::open(context, request_id, request, offered),
        Some("nim") => return nim::opened(context, request_id, protocol(offered)),
        Some("vllm") => return vllm::opened(context, request_id, protocol(offered)),
        Some(_) => return Err(Error::param("dialect", "dialect must be openai, beta, bridge, nim or vllm")),
    }
    if offered.iter().any(|offered| offered.starts_with(nim::TOKEN_PROTOCOL)) {
        return nim::opened(context, request_id, protocol(offered));
    }
    let intent = query(request, "intent");
    let model = query(request, "model").filter(|model| !model.is_empty());
    let known = context.config.get();
    let named = match &model {
        Some(name) => Some(
            catalog::model(&known, &context.voices.known(), name).ok_or_else(|| catalog::unknown(name))?,
        ),
        None => None,
    };
    let hears = named.is_some_and(|known| known.route.capability == Capability::Stt);
    let kind = match intent.as_deref() {
        Some("transcription") => Kind::Transcription,
        None | Some("" | "realtime" | "conversation") if hears => Kind::Transcription,
        None | Some("" | "realtime" | "conversation") => Kind::Conversation,
        Some(_) => return Err(Error::param("intent", "intent must be transcription, or missing")),
    };
    let mut config = match secret(request, offered) {
        Some(secret) => secrets::session(&secret, unix_seconds())?.unwrap_or_else(|| Config::new(kind)),
        None => Config::new(kind),
    };
    match (config.kind, model) {
        (Kind::Transcription, Some(model)) if hears => {
            config.transcription.get_or_insert_default().model = Some(model);
        }
        (_, model) => config.model = config.model.take().or(model),
    }
    let ask = ask(context, request_id, &config)?;
    let beta_header = request.headers().get("openai-beta").is_some_and(|value| value == "realtime=v1");
    let beta_offered = offered.iter().any(|offered| offered == BETA_PROTOCOL);
    let beta = beta_header || beta_offered || dialect.as_deref() == Some("beta");
    let bare = request.uri().query().is_none_or(str::is_empty);
    let tag = format!("{:016x}", Rng::random().roll());
    let max_length = known.gateway.sessions.max_length.as_secs();
    let settings = config.settings();
    let realtime = Realtime {
        context: Arc::clone(context),
        request_id: request_id.clone(),
        frames: Frames::new(beta),
        responses: Responses::new(&tag),
        expires_at: unix_seconds() + max_length,
        config,
        tag,
        previous: None,
        bare,
        other: None,
    };
    Ok(Opened { dialect: Box::new(realtime), settings, ask, protocol: protocol(offered) })
}

/// `POST /v1/realtime/calls` and what is below it, and an SDP offer to `POST /v1/realtime`: there is no WebRTC.
pub async fn calls() -> Error {
    Error::NotSupported { what: "WebRTC", instead: "open a WebSocket on /v1/realtime" }
}

/// The subprotocol that is spoken, if the client offers it. Those that carry keys are never sent back.
fn protocol(offered: &[String]) -> Option<&'static str> {
    offered.iter().any(|offered| offered == PROTOCOL).then_some(PROTOCOL)
}

/// The ephemeral key, if the client has one. Other keys mean nothing to a session.
fn secret(request: &Request, offered: &[String]) -> Option<String> {
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let offered = offered.iter().find_map(|offered| offered.strip_prefix(KEY_PROTOCOL));
    bearer.or(offered).filter(|key| key.starts_with(EPHEMERAL)).map(str::to_owned)
}

fn ask(context: &Context, request_id: &RequestId, config: &Config) -> Result<Ask, Error> {
    let wanted = config.transcription.clone().unwrap_or_default();
    let route = context.route(request_id, wanted.model.as_deref(), Capability::Stt)?;
    let work = Transcribe {
        language: wanted.language,
        prompt: wanted.prompt,
        words: Need::Preferred,
        ..Transcribe::default()
    };
    Ok(Ask { route, work })
}

/// One client's session.
struct Realtime {
    context: Arc<Context>,
    request_id: RequestId,
    frames: Frames,
    responses: Responses,
    config: Config,
    /// Part of the ids of this session.
    tag: String,
    expires_at: u64,
    /// The item committed last.
    previous: Option<String>,
    /// The URL says nothing of the session: vLLM's clients come so.
    bare: bool,
    /// The first update showed that the client speaks another dialect.
    other: Option<Box<dyn Dialect>>,
}

impl Realtime {
    fn item(&self, segment: SegmentId) -> String {
        format!("item_{}{segment:06}", self.tag)
    }

    fn session(&self) -> Value {
        let id = format!("sess_{}", self.tag);
        self.config.object(&id, self.expires_at)
    }

    /// Sends the session under `session.created` or `session.updated`; the beta has another name for transcription.
    fn show_session(&mut self, what: &str, out: &mut Out) {
        let (prefix, session) = match self.config.kind {
            Kind::Transcription if self.frames.beta => {
                ("transcription_session", frames::beta_session(&self.session()))
            }
            Kind::Transcription | Kind::Conversation if self.frames.beta => {
                ("session", frames::beta_session(&self.session()))
            }
            Kind::Transcription | Kind::Conversation => ("session", self.session()),
        };
        let id = session["id"].clone();
        let mut fields = json!({"session": session});
        if self.bare && what == "created" {
            // Where vLLM's clients look for it.
            fields["id"] = id;
            fields["created"] = json!(unix_seconds());
        }
        self.frames.send(&format!("{prefix}.{what}"), fields, out);
    }

    fn update(&mut self, event: &Map<String, Value>, beta: bool, session: &mut Session) -> Result<(), Error> {
        let mut config = self.config.clone();
        let none = Map::new();
        // Some clients of the beta put the fields beside `type`.
        let wanted = match event.get("session") {
            Some(Value::Object(wanted)) => wanted,
            None if beta => event,
            None | Some(Value::Null) => &none,
            Some(_) => return Err(Error::param("session", "session must be an object")),
        };
        if beta {
            config.kind = Kind::Transcription;
            let fields: Map<String, Value> = wanted
                .iter()
                .filter(|(name, _)| *name != "type")
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            config.update(&fields)?;
        } else {
            config.update(wanted)?;
        }
        let ask = ask(&self.context, &self.request_id, &config)?;
        let diarize = config.transcription.as_ref().and_then(|wanted| wanted.diarize);
        if diarize == Some(true) && !self.context.upstreams.tells_speakers(&ask.route) {
            let path = "session.audio.input.transcription.diarize";
            return Err(Error::param(path, "no engine here tells speakers apart"));
        }
        if config.settings() != self.config.settings() {
            session.push(Input::Settings(config.settings()));
        }
        session.push(Input::Ask(ask));
        self.config = config;
        Ok(())
    }

    fn client_event(
        &mut self,
        kind: &str,
        event: &Map<String, Value>,
        session: &mut Session,
        out: &mut Out,
    ) -> Result<(), Error> {
        match kind {
            "input_audio_buffer.append" => {
                let audio = event.get("audio").and_then(Value::as_str);
                let audio = audio.ok_or_else(|| Error::param("audio", "audio must be a base64 string"))?;
                let bytes =
                    base64(audio).ok_or_else(|| Error::param("audio", "audio is not valid base64"))?;
                session.push(Input::Audio(bytes));
            }
            "input_audio_buffer.commit" => session.push(Input::Commit),
            "input_audio_buffer.clear" => session.push(Input::Clear),
            "session.update" => {
                self.update(event, false, session)?;
                self.show_session("updated", out);
            }
            "transcription_session.update" => {
                self.update(event, true, session)?;
                self.frames.beta = true;
                self.show_session("updated", out);
            }
            "response.create" => {
                let say = self.responses.order(&self.context, &self.request_id, &self.config, event)?;
                self.responses.push(say, session, &mut self.frames, out)?;
            }
            "response.cancel" => self.responses.cancel(session, &mut self.frames, out)?,
            "output_audio_buffer.clear" => {
                let _ = self.responses.cancel(session, &mut self.frames, out);
                self.frames.send("output_audio_buffer.cleared", json!({}), out);
            }
            "conversation.item.create" => {
                let item = self.responses.item(event)?;
                let previous = self.previous.replace(item["id"].as_str().unwrap_or_default().to_owned());
                self.frames.item(&item, previous.as_deref(), true, out);
            }
            "conversation.item.retrieve" | "conversation.item.delete" | "conversation.item.truncate" => {
                self.frames.asked(kind, event, out)?;
            }
            _ => {
                let kind: String = kind.chars().take(64).collect();
                let message = format!(
                    "unknown event type '{kind}'; use session.update, input_audio_buffer.append, .commit, .clear, \
                     conversation.item.create, response.create or response.cancel"
                );
                return Err(Error::param("type", message));
            }
        }
        Ok(())
    }

    fn finished(&mut self, mut last: Final, out: &mut Out) {
        let item = self.item(last.segment);
        if !last.rest.is_empty() {
            let delta = json!({"item_id": item, "content_index": 0, "delta": last.rest});
            self.frames.send("conversation.item.input_audio_transcription.delta", delta, out);
        }
        repair(&mut last.transcript.words);
        for segment in frames::segments(&item, &last) {
            self.frames.send("conversation.item.input_audio_transcription.segment", segment, out);
        }
        let text = last.transcript.text.trim();
        let length = seconds(last.span.end - last.span.start);
        let mut completed = json!({
            "item_id": item, "content_index": 0, "transcript": text,
            "usage": {"type": "duration", "seconds": (length * 1000.0).round() / 1000.0},
        });
        if let Some(language) = &last.transcript.language {
            completed["languages"] = json!([{"code": crate::job::language::code(language)}]);
        }
        self.frames.send("conversation.item.input_audio_transcription.completed", completed, out);
        self.frames.item_done(&frames::audio_item(&item, Some(text)), out);
    }
}

impl Dialect for Realtime {
    fn opened(&mut self, out: &mut Out) {
        self.show_session("created", out);
    }

    fn text(&mut self, text: &str, session: &mut Session, out: &mut Out) {
        if let Some(other) = &mut self.other {
            return other.text(text, session, out);
        }
        let event = match serde_json::from_str(text) {
            Ok(Value::Object(event)) => event,
            Ok(_) | Err(_) => {
                let message = "the message is not a JSON object".into();
                let error = Error::InvalidRequest { param: None, code: Some("invalid_json"), message };
                return self.frames.error(&error, None, out);
            }
        };
        let id =
            event.get("event_id").and_then(Value::as_str).map(|id| id.chars().take(512).collect::<String>());
        let Some(kind) = event.get("type").and_then(Value::as_str) else {
            let error = Error::param("type", "the event has no type");
            return self.frames.error(&error, id.as_deref(), out);
        };
        if kind == "transcription_session.update" && nim::is_update(event.get("session")) {
            let nim = Box::new(Nim::new(&self.context, &self.request_id));
            return self.other.insert(nim).text(text, session, out);
        }
        if kind == "session.update" && vllm::is_update(&event) {
            session.push(Input::Settings(vllm::settings()));
            let vllm = Box::new(Vllm::new(&self.context, &self.request_id));
            return self.other.insert(vllm).text(text, session, out);
        }
        if let Err(error) = self.client_event(kind, &event, session, out) {
            self.frames.error(&error, id.as_deref(), out);
        }
    }

    fn binary(&mut self, bytes: Bytes, session: &mut Session, out: &mut Out) {
        if let Some(other) = &mut self.other {
            return other.binary(bytes, session, out);
        }
        let error =
            Error::param("type", "events are text messages; audio goes into input_audio_buffer.append");
        self.frames.error(&error, None, out);
    }

    fn event(&mut self, event: Event, session: &mut Session, out: &mut Out) {
        if let Some(other) = &mut self.other {
            return other.event(event, session, out);
        }
        let by_voice = self.config.turns() != Turns::Client;
        match event {
            Event::Started { segment, at } => {
                if by_voice {
                    let started = json!({"audio_start_ms": millis(at), "item_id": self.item(segment)});
                    self.frames.send("input_audio_buffer.speech_started", started, out);
                }
            }
            Event::Committed { segment, span, why } => {
                let item = self.item(segment);
                if by_voice && why != Why::Asked {
                    let stopped = json!({"audio_end_ms": millis(span.end), "item_id": item});
                    self.frames.send("input_audio_buffer.speech_stopped", stopped, out);
                }
                let previous = self.previous.replace(item.clone());
                let committed = json!({"previous_item_id": previous, "item_id": item});
                self.frames.send("input_audio_buffer.committed", committed, out);
                let done = self.config.transcription.is_none();
                self.frames.item(&frames::audio_item(&item, None), previous.as_deref(), done, out);
            }
            Event::Partial(partial) if !partial.added.is_empty() => {
                let delta = json!({"item_id": self.item(partial.segment), "content_index": 0, "delta": partial.added});
                self.frames.send("conversation.item.input_audio_transcription.delta", delta, out);
            }
            Event::Partial(_) => {}
            Event::Final(last) if self.config.transcription.is_some() => self.finished(last, out),
            Event::Final(_) => {}
            Event::Failed { segment, error, .. } => {
                let failed =
                    json!({"item_id": self.item(segment), "content_index": 0, "error": error.envelope()});
                self.frames.send("conversation.item.input_audio_transcription.failed", failed, out);
            }
            Event::Empty => {
                let message = "the input audio buffer is empty: there is nothing to commit".into();
                let code = Some("input_audio_buffer_commit_empty");
                self.frames.error(&Error::InvalidRequest { param: None, code, message }, None, out);
            }
            Event::Cleared => self.frames.send("input_audio_buffer.cleared", json!({}), out),
            Event::Speech(audio) => {
                let length = audio.len() as f64 / 2.0 / f64::from(self.config.output_rate.max(1));
                self.context.metrics.audio_seconds(Capability::Tts).inc_by(length);
                self.responses.audio(&audio, &mut self.frames, out);
            }
            Event::Spoken(end) => self.responses.spoken(end, session, &mut self.frames, out),
            Event::Done | Event::Broken => {}
        }
    }

    fn ending(&mut self, ending: Ending, out: &mut Out) {
        if let Some(other) = &mut self.other {
            return other.ending(ending, out);
        }
        let code = match ending {
            Ending::Draining => "server_shutdown",
            Ending::Idle => "session_idle",
            Ending::TooLong => "session_expired",
            Ending::Broken => "session_failed",
            Ending::Quota => "insufficient_quota",
        };
        let error = Error::InvalidRequest { param: None, code: Some(code), message: ending.message().into() };
        self.frames.error(&error, None, out);
        out.close(ending.code(), ending.message());
    }
}
