//! Responses: a text that the client gives is spoken as it stands.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::config::Config;
use super::frames::Frames;
use crate::api::Context;
use crate::api::live::say::say;
use crate::api::live::{Out, to_base64};
use crate::edge::{Charge, RequestId};
use crate::error::Error;
use crate::stream::{Say, Session};

/// Longest text of a response, characters, as for `POST /v1/audio/speech`.
const TEXT_CHARACTERS: usize = 4096;
/// Responses that wait for the one that is spoken.
const MAX_WAITING: usize = 16;
/// Audio of one event, bytes: clients take no large messages.
const DELTA_BYTES: usize = 32 * 1024;

/// A response that is spoken, or waits for it.
#[derive(Debug)]
pub(super) struct Order {
    say: Say,
    /// Settled when it was spoken, or at least begun and then cancelled.
    charge: Option<Charge>,
    metadata: Value,
    /// The voice by the client's name.
    voice: Option<String>,
}

struct Active {
    id: String,
    item: String,
    order: Order,
    bytes: usize,
}

/// The responses of a session, one spoken at a time.
pub(super) struct Responses {
    tag: String,
    next: u64,
    /// Text of the last item that the client made.
    text: Option<String>,
    active: Option<Active>,
    waiting: VecDeque<Order>,
}

impl Responses {
    pub(super) fn new(tag: &str) -> Self {
        Self { tag: tag.to_owned(), next: 0, text: None, active: None, waiting: VecDeque::new() }
    }

    /// Takes an item of the client: its text may be spoken by a later response. Returns the item as it is shown.
    pub(super) fn item(&mut self, event: &Map<String, Value>) -> Result<Value, Error> {
        let item = event.get("item").and_then(Value::as_object);
        let item = item.ok_or_else(|| Error::param("item", "item must be an object"))?;
        let text = text_of(item);
        if text.chars().count() > TEXT_CHARACTERS {
            return Err(too_long());
        }
        self.next += 1;
        let id = item.get("id").and_then(Value::as_str).map(|id| id.chars().take(64).collect::<String>());
        let id = id.unwrap_or_else(|| format!("item_{}t{}", self.tag, self.next));
        let role =
            item.get("role").and_then(Value::as_str).unwrap_or("user").chars().take(16).collect::<String>();
        let shown = json!({
            "id": id, "object": "realtime.item", "type": "message", "status": "completed", "role": role,
            "content": [{"type": "input_text", "text": text}],
        });
        self.text = (!text.is_empty()).then_some(text);
        Ok(shown)
    }

    /// What a `response.create` asks for.
    ///
    /// # Errors
    /// There is no text to speak, or no voice of that name.
    pub(super) fn order(
        &mut self,
        context: &Context,
        request_id: &RequestId,
        config: &Config,
        event: &Map<String, Value>,
    ) -> Result<Order, Error> {
        let none = Map::new();
        let response = event.get("response").and_then(Value::as_object).unwrap_or(&none);
        let modalities = response.get("output_modalities").or_else(|| response.get("modalities"));
        let modalities = modalities.and_then(Value::as_array);
        if modalities.is_some_and(|wanted| !wanted.iter().any(|modality| modality == "audio")) {
            let message = "only audio is made here: there is no language model to write text";
            return Err(Error::param("response.output_modalities", message));
        }
        let given = response.get("input").and_then(Value::as_array);
        let text = match given {
            Some(items) => {
                let texts = items.iter().filter_map(Value::as_object).map(text_of);
                texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
            }
            None => self.text.take().unwrap_or_default(),
        };
        if text.is_empty() {
            let message = "there is no language model: give the text to speak in response.input";
            return Err(Error::param("response.input", message));
        }
        if text.chars().count() > TEXT_CHARACTERS {
            return Err(too_long());
        }
        let output = response.get("audio").and_then(|audio| audio.get("output"));
        let voice = output.and_then(|output| output.get("voice")).or_else(|| response.get("voice"));
        let voice =
            voice.and_then(|voice| voice.as_str().or_else(|| voice.get("id").and_then(Value::as_str)));
        let voice = voice.map(str::to_owned).or_else(|| config.voice.clone());
        let model = config.model.as_deref();
        let (say, charge) = say(context, request_id, (model, voice.as_deref()), text, config.output_rate)?;
        let metadata = response.get("metadata").filter(|value| value.to_string().len() <= 4096);
        Ok(Order { say, charge, voice, metadata: metadata.cloned().unwrap_or(Value::Null) })
    }

    /// Has it spoken, now or after those before it.
    ///
    /// # Errors
    /// Too many wait.
    pub(super) fn push(
        &mut self,
        order: Order,
        session: &mut Session,
        frames: &mut Frames,
        out: &mut Out,
    ) -> Result<(), Error> {
        if self.active.is_some() {
            if self.waiting.len() >= MAX_WAITING {
                return Err(Error::InvalidRequest {
                    param: None,
                    code: Some("rate_limit_exceeded"),
                    message: format!("{MAX_WAITING} responses wait already"),
                });
            }
            self.waiting.push_back(order);
            return Ok(());
        }
        self.begin(order, session, frames, out);
        Ok(())
    }

    fn begin(&mut self, order: Order, session: &mut Session, frames: &mut Frames, out: &mut Out) {
        self.next += 1;
        let active = Active {
            id: format!("resp_{}{}", self.tag, self.next),
            item: format!("item_{}r{}", self.tag, self.next),
            order,
            bytes: 0,
        };
        session.say(active.order.say.clone());
        frames.send("response.created", json!({"response": active.shown("in_progress", None)}), out);
        let item = json!({"response_id": active.id, "output_index": 0, "item": active.item("in_progress")});
        frames.send("response.output_item.added", item, out);
        frames.send(
            "response.content_part.added",
            active.part(json!({"part": {"type": "audio", "transcript": ""}})),
            out,
        );
        // What is said is known before it is heard.
        let delta = active.part(json!({"delta": active.order.say.text}));
        frames.send("response.output_audio_transcript.delta", delta, out);
        self.active = Some(active);
    }

    /// Passes speech on.
    pub(super) fn audio(&mut self, audio: &[u8], frames: &mut Frames, out: &mut Out) {
        let Some(active) = &mut self.active else { return };
        active.bytes += audio.len();
        for piece in audio.chunks(DELTA_BYTES) {
            frames.send("response.output_audio.delta", active.part(json!({"delta": to_base64(piece)})), out);
        }
    }

    /// The speech has ended.
    pub(super) fn spoken(
        &mut self,
        end: Result<(), Error>,
        session: &mut Session,
        frames: &mut Frames,
        out: &mut Out,
    ) {
        let Some(mut active) = self.active.take() else { return };
        let charge = active.order.charge.take();
        if let Some(charge) = charge.filter(|_| end.is_ok() || active.bytes > 0) {
            charge.settle_all();
        }
        match end {
            Ok(()) => active.end("completed", Value::Null, frames, out),
            Err(error) => {
                let details = json!({"type": "failed", "error": error.envelope()});
                active.end("failed", details, frames, out);
            }
        }
        if let Some(order) = self.waiting.pop_front() {
            self.begin(order, session, frames, out);
        }
    }

    /// Stops the response that is spoken, and those that wait: the engine is free at once.
    ///
    /// # Errors
    /// None is spoken.
    pub(super) fn cancel(
        &mut self,
        session: &mut Session,
        frames: &mut Frames,
        out: &mut Out,
    ) -> Result<(), Error> {
        session.hush();
        self.waiting.clear();
        let Some(mut active) = self.active.take() else {
            return Err(Error::InvalidRequest {
                param: None,
                code: Some("response_cancel_not_active"),
                message: "no response is in progress".into(),
            });
        };
        if let Some(charge) = active.order.charge.take() {
            charge.settle_all();
        }
        active.end("cancelled", json!({"type": "cancelled", "reason": "client_cancelled"}), frames, out);
        Ok(())
    }
}

impl Active {
    /// Fields that all events of the response's audio have.
    fn part(&self, mut fields: Value) -> Value {
        fields["response_id"] = json!(self.id);
        fields["item_id"] = json!(self.item);
        fields["output_index"] = json!(0);
        fields["content_index"] = json!(0);
        fields
    }

    fn item(&self, status: &str) -> Value {
        let content = if status == "in_progress" {
            json!([])
        } else {
            json!([{"type": "output_audio", "transcript": self.order.say.text}])
        };
        json!({
            "id": self.item, "object": "realtime.item", "type": "message", "status": status, "role": "assistant",
            "content": content,
        })
    }

    fn shown(&self, status: &str, details: Option<Value>) -> Value {
        let output =
            if status == "in_progress" { json!([]) } else { json!([self.item(item_status(status))]) };
        // Estimates, as for speech over HTTP: four characters, and a tenth of a second, are a token.
        let (text, audio) = (
            self.order.say.text.chars().count() / 4 + 1,
            self.bytes * 10 / 2 / self.order.say.sample_rate.max(1) as usize,
        );
        let usage = json!({
            "total_tokens": text + audio, "input_tokens": text, "output_tokens": audio,
            "input_token_details": {"text_tokens": text, "audio_tokens": 0, "cached_tokens": 0},
            "output_token_details": {"text_tokens": 0, "audio_tokens": audio},
        });
        json!({
            "id": self.id, "object": "realtime.response", "status": status, "status_details": details,
            "output": output, "conversation_id": null, "output_modalities": ["audio"], "max_output_tokens": "inf",
            "audio": {"output": {"format": {"type": "audio/pcm", "rate": self.order.say.sample_rate}, "voice": self.order.voice}},
            "metadata": self.order.metadata, "usage": if status == "in_progress" { Value::Null } else { usage },
        })
    }

    fn end(self, status: &str, details: Value, frames: &mut Frames, out: &mut Out) {
        let text = &self.order.say.text;
        frames.send("response.output_audio.done", self.part(json!({})), out);
        frames.send("response.output_audio_transcript.done", self.part(json!({"transcript": text})), out);
        let part = json!({"part": {"type": "audio", "transcript": text}});
        frames.send("response.content_part.done", self.part(part), out);
        let item = json!({"response_id": self.id, "output_index": 0, "item": self.item(item_status(status))});
        frames.send("response.output_item.done", item, out);
        let details = (!details.is_null()).then_some(details);
        frames.send("response.done", json!({"response": self.shown(status, details)}), out);
    }
}

fn item_status(status: &str) -> &'static str {
    if status == "completed" { "completed" } else { "incomplete" }
}

/// The text in an item's content.
fn text_of(item: &Map<String, Value>) -> String {
    let content = item.get("content").and_then(Value::as_array);
    let parts = content.into_iter().flatten().filter_map(|part| part.get("text").and_then(Value::as_str));
    parts.collect::<Vec<_>>().join("\n").trim().to_owned()
}

fn too_long() -> Error {
    Error::InvalidRequest {
        param: Some("response.input"),
        code: Some("string_too_long"),
        message: format!("a response speaks at most {TEXT_CHARACTERS} characters"),
    }
}
