//! The bridge's dialect over Socket.IO: audio in, the text of each turn out, and the text spoken.
//!
//! An event of the client comes as `{"event": NAME, "data": PAYLOAD}`; each frame goes out as an event `message`.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use contract::Capability;

use super::reply::{self, Reply, Step};
use super::turns::{self, RATE, Speech};
use crate::api::live::{Dialect, Ending, Opened, Out, base64, to_base64};
use crate::api::{Context, catalog};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::chat::{Chat, Message, Role};
use crate::job::work::Transcribe;
use crate::stream::{Ask, Event, Input, SegmentId, Session};

/// Audio of one frame, bytes: a tenth of a second.
const HOP_BYTES: usize = RATE as usize / 10 * 2;

/// Longest prompt, characters.
const MAX_PROMPT: usize = 16_000;

/// A session whose turns end by voice.
///
/// # Errors
/// The caller may not use the model.
pub(super) fn open(context: &Arc<Context>, request_id: &RequestId) -> Result<Opened, Error> {
    let ask = Ask { route: context.route(request_id, None, Capability::Stt)?, work: Transcribe::default() };
    let events = Events {
        context: Arc::clone(context),
        request_id: request_id.clone(),
        voice: None,
        speech: Speech::new(),
        begun: None,
        prompt: None,
        said: Vec::new(),
        reply: Reply::default(),
    };
    Ok(Opened { dialect: Box::new(events), settings: turns::settings(true), ask, protocol: None })
}

struct Events {
    context: Arc<Context>,
    request_id: RequestId,
    voice: Option<String>,
    speech: Speech<()>,
    /// The turn of which the client knows.
    begun: Option<SegmentId>,
    /// How a language model answers, where the client wants answers.
    prompt: Option<String>,
    /// The conversation.
    said: Vec<Message>,
    reply: Reply<()>,
}

fn frame(kind: &str, content: Value, out: &mut Out) {
    out.json(&json!({"type": kind, "content": content}));
}

fn failed(message: impl ToString, out: &mut Out) {
    frame("error", json!(message.to_string()), out);
}

fn done(out: &mut Out) {
    out.json(&json!({"type": "turn_done"}));
}

impl Events {
    fn update(&mut self, payload: &Value, session: &mut Session) -> Result<(), Error> {
        let none = Map::new();
        let wanted = payload.get("session").unwrap_or(payload).as_object().unwrap_or(&none);
        let settings = turns::detection(wanted.get("turn_detection"))?;
        if let Some(voice) = turns::voice(wanted) {
            let voices = self.context.voices.known();
            if catalog::voice(&self.context.config.get(), &voices, &voice).is_none() && !voices.is_empty() {
                return Err(Error::param("voice", "no such voice; see GET /v1/audio/voices"));
            }
            self.voice = Some(voice);
        }
        session.push(Input::Settings(settings));
        Ok(())
    }

    fn audio(&self, payload: &Value, session: &mut Session, out: &mut Out) {
        match payload.get("audio").and_then(Value::as_str).filter(|audio| !audio.is_empty()) {
            None => failed("Missing audio", out),
            Some(audio) => match base64(audio) {
                Some(bytes) => session.push(Input::Audio(bytes)),
                None => failed("bad audio base64", out),
            },
        }
        if payload.get("commit").and_then(Value::as_bool) == Some(true) {
            session.push(Input::Commit);
        }
    }

    /// With a prompt, and a language model, the turns are answered; else they are spoken as they were heard.
    fn prompt(&mut self, payload: &Value) {
        let named = ["prompt", "content", "text"].iter().find_map(|name| payload.get(*name));
        let prompt = named.unwrap_or(payload).as_str().unwrap_or_default().trim();
        let prompt: String = prompt.chars().take(MAX_PROMPT).collect();
        let has_model = self.context.config.get().has(Capability::Llm);
        self.prompt = Some(prompt).filter(|prompt| has_model && !prompt.is_empty());
    }

    /// Has a turn answered by a language model.
    fn answer(&mut self, prompt: String, text: &str, out: &mut Out) -> Result<(), Error> {
        if self.reply.cut(out).is_some() {
            done(out);
        }
        self.said
            .extend(self.reply.written().into_iter().map(|((), text)| Message::new(Role::Assistant, text)));
        self.said.push(Message::new(Role::User, text));
        let most = self.context.config.get().gateway.conversation.max_messages;
        self.said.drain(..self.said.len().saturating_sub(most));
        let messages = [Message::new(Role::System, prompt)].into_iter().chain(self.said.iter().cloned());
        let chat = Chat::of(messages.collect());
        let caller = (&self.context, &self.request_id);
        let steps = reply::steps(caller, self.voice.as_deref(), chat)?;
        let has_room = out.work(self.reply.begin((), steps, |step| {
            match step {
                Step::Text(_) => Vec::new(),
                Step::Written(text) => vec![json!({"type": "assistant", "content": text})],
                Step::Audio(audio) => audio
                    .chunks(HOP_BYTES)
                    .map(|hop| json!({"type": "audio", "content": to_base64(hop)}))
                    .collect(),
                Step::Failed(error) => vec![json!({"type": "error", "content": error.to_string()})],
                Step::End(_) => vec![json!({"type": "turn_done"})],
            }
        }));
        if has_room { Ok(()) } else { Err(Error::param("audio", "too many turns wait already")) }
    }

    fn begin(&mut self, segment: SegmentId, out: &mut Out) {
        if self.begun != Some(segment) {
            self.begun = Some(segment);
            frame("event", json!({"type": "turn.start"}), out);
        }
    }

    /// Tells the text of a turn and has it spoken; without one, or without a voice, the turn is over.
    fn finished(&mut self, text: &str, session: &mut Session, out: &mut Out) {
        frame("transcript_final", json!(text), out);
        if text.is_empty() || (self.prompt.is_none() && !self.context.config.get().has(Capability::Tts)) {
            return done(out);
        }
        if let Some(prompt) = self.prompt.clone() {
            if let Err(error) = self.answer(prompt, text, out) {
                failed(error, out);
                done(out);
            }
            return;
        }
        let of = (&*self.context, &self.request_id);
        if let Err(error) = self.speech.push(of, self.voice.as_deref(), text.to_owned(), (), session) {
            failed(error, out);
            done(out);
        }
    }
}

impl Dialect for Events {
    fn opened(&mut self, out: &mut Out) {
        frame("connected", json!({"engine": "internal", "sr": RATE}), out);
    }

    fn text(&mut self, text: &str, session: &mut Session, out: &mut Out) {
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        let payload = message.get("data").unwrap_or(&Value::Null);
        match message.get("event").and_then(Value::as_str).unwrap_or_default() {
            "update_session" => {
                if let Err(error) = self.update(payload, session) {
                    failed(error, out);
                }
            }
            "audio" => self.audio(payload, session, out),
            "commit" => session.push(Input::Commit),
            "system_prompt" => self.prompt(payload),
            other => {
                let other: String = other.chars().take(64).collect();
                failed(format!("unhandled event: {other}"), out);
            }
        }
    }

    fn binary(&mut self, _: Bytes, _: &mut Session, out: &mut Out) {
        failed("audio comes in base64: {\"audio\": \"...\"}", out);
    }

    fn event(&mut self, event: Event, session: &mut Session, out: &mut Out) {
        match event {
            Event::Committed { segment, .. } => self.begin(segment, out),
            Event::Partial(partial) => {
                self.begin(partial.segment, out);
                frame("transcript_temp", json!(partial.text()), out);
            }
            Event::Final(last) => {
                self.begin(last.segment, out);
                let text = last.transcript.text.trim();
                if !text.is_empty() {
                    frame("transcript_temp", json!(text), out);
                }
                self.finished(text, session, out);
            }
            Event::Failed { error, .. } => {
                failed(error, out);
                done(out);
            }
            Event::Empty => {
                frame("event", json!({"type": "turn.start"}), out);
                self.finished("", session, out);
            }
            Event::Speech(audio) => {
                if self.speech.heard().is_some() {
                    for hop in audio.chunks(HOP_BYTES) {
                        frame("audio", json!(to_base64(hop)), out);
                    }
                }
            }
            Event::Spoken(end) => {
                if let Err(error) = end {
                    failed(error, out);
                }
                if self.speech.ended(session).is_some() {
                    done(out);
                }
            }
            // Who speaks again does not want to hear the rest.
            Event::Started { .. } => {
                if self.reply.cut(out).is_some() {
                    done(out);
                }
            }
            Event::Cleared | Event::Done | Event::Broken => {}
        }
    }

    fn ending(&mut self, ending: Ending, out: &mut Out) {
        failed(ending.message(), out);
        out.close(ending.code(), ending.message());
    }
}
