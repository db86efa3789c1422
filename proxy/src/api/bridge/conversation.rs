//! The bridge's frames on `WS /v1/realtime?dialect=bridge`: names of both ages of OpenAI's Realtime API, 24 kHz PCM.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::Request;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use contract::Capability;

use super::reply::{self, Reply, Step};
use super::turns::{self, RATE, Speech};
use crate::api::Context;
use crate::api::live::{Dialect, Ending, Opened, Out, base64, to_base64};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::chat::{Chat, Message, Role};
use crate::job::work::Transcribe;
use crate::rng::Rng;
use crate::stream::{Ask, Event, Final, Input, SegmentId, Session, Why, millis};

/// Items that are kept: the oldest are forgotten.
const MAX_ITEMS: usize = 64;
/// Longest text of an item, characters.
const TEXT_CHARACTERS: usize = 4096;
/// Audio of one frame, bytes: 60 ms.
const HOP_BYTES: usize = RATE as usize * 60 / 1000 * 2;

/// A session whose turns the client ends, until it asks for another way.
///
/// # Errors
/// The caller may not use the model.
pub fn open(
    context: &Arc<Context>,
    request_id: &RequestId,
    _: &Request,
    offered: &[String],
) -> Result<Opened, Error> {
    let ask = Ask { route: context.route(request_id, None, Capability::Stt)?, work: Transcribe::default() };
    let conversation = Conversation {
        context: Arc::clone(context),
        request_id: request_id.clone(),
        tag: format!("{:016x}", Rng::random().roll()),
        shown: Map::new(),
        voice: None,
        by_voice: false,
        items: VecDeque::new(),
        made: 0,
        speech: Speech::new(),
        reply: Reply::default(),
    };
    let protocol = offered.iter().any(|offered| offered == "realtime").then_some("realtime");
    Ok(Opened { dialect: Box::new(conversation), settings: turns::settings(false), ask, protocol })
}

/// A response: its id, and that of its item.
#[derive(Clone)]
struct Response {
    id: String,
    item: String,
    text: String,
}

impl Response {
    /// Fields that all events of a response have.
    fn part(&self, mut fields: Value) -> Value {
        fields["response_id"] = json!(self.id);
        fields["item_id"] = json!(self.item);
        fields["output_index"] = json!(0);
        fields["content_index"] = json!(0);
        fields
    }
}

struct Conversation {
    context: Arc<Context>,
    request_id: RequestId,
    tag: String,
    /// The session as the client set it.
    shown: Map<String, Value>,
    voice: Option<String>,
    by_voice: bool,
    items: VecDeque<(String, Value)>,
    made: u64,
    speech: Speech<Response>,
    /// The answer of a language model.
    reply: Reply<Response>,
}

fn send(kind: &str, mut fields: Value, out: &mut Out) {
    fields["type"] = json!(kind);
    out.json(&fields);
}

fn failed(message: impl ToString, out: &mut Out) {
    send("error", json!({"error": {"message": message.to_string()}}), out);
}

impl Conversation {
    fn session(&self) -> Value {
        let mut session =
            json!({"id": format!("sess_{}", self.tag), "sr": RATE, "object": "realtime.session"});
        for (name, value) in &self.shown {
            session[name] = value.clone();
        }
        session
    }

    fn item(&self, segment: SegmentId) -> String {
        format!("item_{}{segment:06}", self.tag)
    }

    fn keep(&mut self, id: String, item: Value) {
        self.items.retain(|(known, _)| *known != id);
        if self.items.len() == MAX_ITEMS {
            self.items.pop_front();
        }
        self.items.push_back((id, item));
    }

    fn update(&mut self, event: &Map<String, Value>, session: &mut Session) -> Result<(), Error> {
        let wanted = event.get("session").and_then(Value::as_object);
        let wanted = wanted.ok_or_else(|| Error::param("session", "session must be an object"))?;
        if let Some(detection) = wanted.get("turn_detection") {
            let settings = turns::detection(Some(detection))?;
            self.by_voice = settings.rules.is_some();
            session.push(Input::Settings(settings));
        }
        self.voice = turns::voice(wanted).or_else(|| self.voice.take());
        for name in ["voice", "modalities", "turn_detection", "instructions"] {
            let value = wanted.get(name).filter(|value| value.to_string().len() <= TEXT_CHARACTERS);
            if let Some(value) = value {
                self.shown.insert(name.to_owned(), value.clone());
            }
        }
        Ok(())
    }

    fn create(&mut self, event: &Map<String, Value>, out: &mut Out) -> Result<(), Error> {
        let item = event.get("item").and_then(Value::as_object);
        let item = item.ok_or_else(|| Error::param("item", "item must be an object"))?;
        let text = text_of(item);
        if text.chars().count() > TEXT_CHARACTERS {
            return Err(Error::param("item", format!("an item has at most {TEXT_CHARACTERS} characters")));
        }
        self.made += 1;
        let id = item.get("id").and_then(Value::as_str).map(|id| id.chars().take(64).collect());
        let id: String = id.unwrap_or_else(|| format!("item_{}t{}", self.tag, self.made));
        let role: String =
            item.get("role").and_then(Value::as_str).unwrap_or("user").chars().take(16).collect();
        let shown = json!({
            "id": id, "type": "message", "role": role, "content": [{"type": "input_text", "text": text}],
        });
        send("conversation.item.created", json!({"item": shown}), out);
        self.keep(id, shown);
        Ok(())
    }

    fn known(&self, event: &Map<String, Value>) -> Result<(String, Value), Error> {
        let id = event.get("item_id").or_else(|| event.get("id")).and_then(Value::as_str).unwrap_or_default();
        let found = self.items.iter().find(|(known, _)| known == id);
        found.cloned().ok_or_else(|| Error::param("item_id", "no such item"))
    }

    /// Has the conversation answered by a language model, whose words and speech come as they are made.
    fn answer(&mut self, out: &mut Out) -> Result<(), Error> {
        self.interrupt(out);
        let mut messages = Vec::new();
        let instructions = self.shown.get("instructions").and_then(Value::as_str);
        let prompt = instructions.map(str::to_owned);
        let prompt =
            prompt.unwrap_or_else(|| self.context.config.get().gateway.conversation.system_prompt.clone());
        messages.push(Message::new(Role::System, prompt));
        for (_, item) in &self.items {
            let Some(item) = item.as_object() else { continue };
            let role = item.get("role").and_then(Value::as_str).and_then(Role::parse).unwrap_or(Role::User);
            messages.push(Message::new(role, text_of(item)));
        }
        messages.retain(|message| !message.text.is_empty());
        if !messages.iter().any(|message| message.role == Role::User) {
            return Err(Error::param(
                "response",
                "there is nothing to answer: create an item or commit audio first",
            ));
        }
        self.made += 1;
        let response = Response {
            id: format!("resp_{}{}", self.tag, self.made),
            item: format!("item_{}r{}", self.tag, self.made),
            text: String::new(),
        };
        let caller = (&self.context, &self.request_id);
        let steps = reply::steps(caller, self.voice.as_deref(), Chat::of(messages))?;
        send("response.created", json!({"response": {"id": response.id, "status": "in_progress"}}), out);
        let item = json!({"id": response.item, "type": "message", "role": "assistant", "content": []});
        send("response.output_item.added", response.part(json!({"item": item})), out);
        let label = response.clone();
        let frames = move |step| frames(&label, step);
        if !out.work(self.reply.begin(response, steps, frames)) {
            return Err(Error::param("response", "too many responses wait already"));
        }
        Ok(())
    }

    /// Cuts the answer that is made or spoken: model and voice are free at once.
    fn interrupt(&mut self, out: &mut Out) -> bool {
        let cut = self.reply.cut(out);
        if let Some(response) = &cut {
            ended(response, "cancelled", out);
        }
        cut.is_some()
    }

    /// What was answered becomes part of the conversation.
    fn take_over(&mut self) {
        for (response, text) in self.reply.written() {
            let item = json!({
                "id": response.item, "type": "message", "role": "assistant",
                "content": [{"type": "output_text", "text": text}],
            });
            self.keep(response.item, item);
        }
    }

    /// Has the text of a response, or of the last item, spoken as it stands.
    fn respond(
        &mut self,
        event: &Map<String, Value>,
        session: &mut Session,
        out: &mut Out,
    ) -> Result<(), Error> {
        let given =
            event.get("response").and_then(|response| response.get("input")).and_then(Value::as_array);
        let texts = given.into_iter().flatten().filter_map(Value::as_object).map(text_of);
        let mut text = texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n");
        if text.is_empty() && self.context.config.get().has(Capability::Llm) {
            return self.answer(out);
        }
        if text.is_empty() {
            let last = self.items.back().and_then(|(_, item)| item.as_object());
            text = last.map(text_of).unwrap_or_default();
        }
        if text.is_empty() {
            let message = "there is no language model (engines[].capability: llm): create an item with the text to speak first";
            return Err(Error::param("response", message));
        }
        let text: String = text.chars().take(TEXT_CHARACTERS).collect();
        self.made += 1;
        let response = Response {
            id: format!("resp_{}{}", self.tag, self.made),
            item: format!("item_{}r{}", self.tag, self.made),
            text: text.clone(),
        };
        let of = (&*self.context, &self.request_id);
        self.speech.push(of, self.voice.as_deref(), text, response.clone(), session)?;
        send("response.created", json!({"response": {"id": response.id, "status": "in_progress"}}), out);
        let item = json!({"id": response.item, "type": "message", "role": "assistant", "content": []});
        send("response.output_item.added", response.part(json!({"item": item})), out);
        send("response.output_text.delta", response.part(json!({"delta": response.text})), out);
        send("response.output_text.done", response.part(json!({"text": response.text})), out);
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
            "session.update" => {
                self.update(event, session)?;
                send("session.updated", json!({"session": self.session()}), out);
            }
            "conversation.item.create" => self.create(event, out)?,
            "conversation.item.retrieve" => {
                let (_, item) = self.known(event)?;
                send("conversation.item.retrieved", json!({"item": item}), out);
            }
            "conversation.item.delete" => {
                let (id, _) = self.known(event)?;
                self.items.retain(|(known, _)| *known != id);
                send("conversation.item.deleted", json!({"item_id": id}), out);
            }
            "input_audio_buffer.append" => {
                let audio = event.get("audio").and_then(Value::as_str).and_then(base64);
                let audio = audio.ok_or_else(|| Error::param("audio", "bad audio base64"))?;
                session.push(Input::Audio(audio));
            }
            "input_audio_buffer.commit" => session.push(Input::Commit),
            "input_audio_buffer.clear" => session.push(Input::Clear),
            "response.create" => self.respond(event, session, out)?,
            "response.cancel" if self.interrupt(out) => {}
            "response.cancel" => {
                let response = self.speech.stop(session);
                let response = response.ok_or_else(|| Error::param("type", "no response is in progress"))?;
                ended(&response, "cancelled", out);
            }
            other => {
                let other: String = other.chars().take(64).collect();
                return Err(Error::param("type", format!("unhandled type: {other}")));
            }
        }
        Ok(())
    }

    fn finished(&mut self, last: &Final, out: &mut Out) {
        let (id, text) = (self.item(last.segment), last.transcript.text.trim());
        let item = audio_item(&id, Some(text));
        let completed = json!({"item_id": id, "content_index": 0, "transcript": text});
        send("conversation.item.input_audio_transcription.completed", completed, out);
        send("conversation.item.retrieved", json!({"item": item}), out);
        self.keep(id, item);
    }
}

/// The item of a turn.
fn audio_item(id: &str, transcript: Option<&str>) -> Value {
    json!({
        "id": id, "type": "message", "role": "user",
        "content": [{"type": "input_audio", "transcript": transcript}],
    })
}

/// The text of an item, written or heard.
fn text_of(item: &Map<String, Value>) -> String {
    let content = item.get("content").and_then(Value::as_array);
    let part = |part: &Value| {
        let text = part.get("text").or_else(|| part.get("transcript"))?;
        text.as_str().map(str::to_owned)
    };
    let parts = content.into_iter().flatten().filter_map(part);
    parts.collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// The frames of a step of an answer.
fn frames(response: &Response, step: Step) -> Vec<Value> {
    let frame = |kind: &str, fields: Value| {
        let mut frame = response.part(fields);
        frame["type"] = json!(kind);
        frame
    };
    match step {
        Step::Text(more) => vec![frame("response.output_text.delta", json!({"delta": more}))],
        Step::Written(text) => vec![frame("response.output_text.done", json!({"text": text}))],
        Step::Audio(audio) => audio
            .chunks(HOP_BYTES)
            .map(|hop| {
                let audio = to_base64(hop);
                frame("response.audio.delta", json!({"audio": audio, "delta": audio}))
            })
            .collect(),
        Step::Failed(error) => vec![json!({"type": "error", "error": {"message": error.to_string()}})],
        Step::End(is_whole) => {
            let status = if is_whole { "completed" } else { "failed" };
            let done = json!({"type": "response.done", "response": {"id": response.id, "status": status}});
            vec![frame("response.audio.done", json!({})), done]
        }
    }
}

fn ended(response: &Response, status: &str, out: &mut Out) {
    send("response.audio.done", response.part(json!({})), out);
    send("response.done", json!({"response": {"id": response.id, "status": status}}), out);
}

impl Dialect for Conversation {
    fn opened(&mut self, out: &mut Out) {
        send("session.created", json!({"session": self.session()}), out);
    }

    fn text(&mut self, text: &str, session: &mut Session, out: &mut Out) {
        let Ok(Value::Object(event)) = serde_json::from_str(text) else { return failed("invalid JSON", out) };
        self.take_over();
        let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
        if let Err(error) = self.client_event(kind, &event, session, out) {
            failed(error, out);
        }
    }

    fn binary(&mut self, _: Bytes, _: &mut Session, out: &mut Out) {
        failed("audio goes into input_audio_buffer.append", out);
    }

    fn event(&mut self, event: Event, session: &mut Session, out: &mut Out) {
        match event {
            Event::Started { segment, at } if self.by_voice => {
                // Who speaks again does not want to hear the rest.
                self.interrupt(out);
                let started = json!({"audio_start_ms": millis(at), "item_id": self.item(segment)});
                send("input_audio_buffer.speech_started", started, out);
            }
            Event::Committed { segment, span, why } => {
                let id = self.item(segment);
                if self.by_voice && why != Why::Asked {
                    let stopped = json!({"audio_end_ms": millis(span.end), "item_id": id});
                    send("input_audio_buffer.speech_stopped", stopped, out);
                }
                send("conversation.item.created", json!({"item": audio_item(&id, None)}), out);
                send("input_audio_buffer.committed", json!({"item_id": id}), out);
            }
            Event::Final(last) => self.finished(&last, out),
            Event::Failed { error, .. } => failed(error, out),
            Event::Empty => failed("the input audio buffer is empty", out),
            Event::Cleared => send("input_audio_buffer.cleared", json!({}), out),
            // Clients of either version find the audio under their own name.
            Event::Speech(audio) => {
                if let Some(response) = self.speech.heard() {
                    for hop in audio.chunks(HOP_BYTES) {
                        let audio = to_base64(hop);
                        let delta = response.part(json!({"audio": audio, "delta": audio}));
                        send("response.audio.delta", delta, out);
                    }
                }
            }
            Event::Spoken(end) => {
                let status = if end.is_ok() { "completed" } else { "failed" };
                if let Err(error) = end {
                    failed(error, out);
                }
                if let Some(response) = self.speech.ended(session) {
                    ended(&response, status, out);
                }
            }
            Event::Started { .. } | Event::Partial(_) | Event::Done | Event::Broken => {}
        }
    }

    fn ending(&mut self, ending: Ending, out: &mut Out) {
        failed(ending.message(), out);
        out.close(ending.code(), ending.message());
    }
}
