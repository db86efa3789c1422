//! Server events: numbered, and under the names of the present API or of its beta.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use crate::api::live::Out;
use crate::api::openai::wire::letters;
use crate::error::Error;
use crate::stream::{Final, seconds};
use crate::transcript::text::{Spacing, join};

/// Items that are kept for clients that ask for them again.
const MAX_ITEMS: usize = 64;

/// Makes server events.
pub(super) struct Frames {
    /// The client speaks the beta.
    pub(super) beta: bool,
    next: u64,
    /// The last items that were shown, the newest last.
    items: VecDeque<Value>,
}

impl Frames {
    pub(super) fn new(beta: bool) -> Self {
        Self { beta, next: 0, items: VecDeque::new() }
    }

    /// Sends an event of that type.
    pub(super) fn send(&mut self, kind: &str, mut fields: Value, out: &mut Out) {
        self.next += 1;
        if self.beta {
            beta_fields(&mut fields);
        }
        if let Some(item) = fields.get("item") {
            self.keep(item.clone());
        }
        fields["event_id"] = json!(format!("event_{}", self.next));
        fields["type"] = json!(if self.beta { beta_name(kind) } else { kind });
        out.json(&fields);
    }

    fn keep(&mut self, item: Value) {
        self.items.retain(|known| known["id"] != item["id"]);
        if self.items.len() >= MAX_ITEMS {
            self.items.pop_front();
        }
        self.items.push_back(item);
    }

    /// Answers what a client asks of an item: to see it again, to cut it, or to forget it. Nothing but the answer comes of it.
    ///
    /// # Errors
    /// There is no item of that id, or no longer.
    pub(super) fn asked(
        &mut self,
        kind: &str,
        event: &Map<String, Value>,
        out: &mut Out,
    ) -> Result<(), Error> {
        let id = event.get("item_id").and_then(Value::as_str).unwrap_or_default();
        let Some(at) = self.items.iter().position(|item| item["id"] == id) else {
            return Err(Error::InvalidRequest {
                param: Some("item_id"),
                code: Some("item_not_found"),
                message: format!("there is no such item; the last {MAX_ITEMS} are kept"),
            });
        };
        let number = |name| event.get(name).and_then(Value::as_u64).unwrap_or_default();
        match kind {
            "conversation.item.retrieve" => {
                let item = self.items[at].clone();
                self.send("conversation.item.retrieved", json!({"item": item}), out);
            }
            "conversation.item.truncate" => {
                let cut = json!({
                    "item_id": id, "content_index": number("content_index"), "audio_end_ms": number("audio_end_ms"),
                });
                self.send("conversation.item.truncated", cut, out);
            }
            _ => {
                self.items.remove(at);
                self.send("conversation.item.deleted", json!({"item_id": id}), out);
            }
        }
        Ok(())
    }

    /// Sends an error. The connection stays open.
    pub(super) fn error(&mut self, error: &Error, caused_by: Option<&str>, out: &mut Out) {
        let mut envelope = error.envelope();
        envelope["event_id"] = json!(caused_by);
        self.send("error", json!({"error": envelope}), out);
    }

    /// Tells that there is an item; `done` when nothing more comes for it.
    pub(super) fn item(&mut self, item: &Value, previous: Option<&str>, done: bool, out: &mut Out) {
        let fields = json!({"previous_item_id": previous, "item": item});
        if self.beta {
            return self.send("conversation.item.created", fields, out);
        }
        self.send("conversation.item.added", fields.clone(), out);
        if done {
            self.send("conversation.item.done", fields, out);
        }
    }

    /// Tells that nothing more comes for an item.
    pub(super) fn item_done(&mut self, item: &Value, out: &mut Out) {
        if !self.beta {
            self.send("conversation.item.done", json!({"previous_item_id": null, "item": item}), out);
        }
    }
}

/// The item of a segment.
pub(super) fn audio_item(id: &str, transcript: Option<&str>) -> Value {
    json!({
        "id": id, "object": "realtime.item", "type": "message", "status": "completed", "role": "user",
        "content": [{"type": "input_audio", "transcript": transcript}],
    })
}

/// The beta's name of an event.
fn beta_name(kind: &str) -> &str {
    match kind {
        "response.output_audio.delta" => "response.audio.delta",
        "response.output_audio.done" => "response.audio.done",
        "response.output_audio_transcript.delta" => "response.audio_transcript.delta",
        "response.output_audio_transcript.done" => "response.audio_transcript.done",
        kind => kind,
    }
}

/// The shapes that the beta has for a response, and for the content of an item.
fn beta_fields(fields: &mut Value) {
    fn content(item: &mut Value) {
        for part in item["content"].as_array_mut().into_iter().flatten() {
            if part["type"] == "output_audio" {
                part["type"] = json!("audio");
            }
        }
    }
    if fields.get("item").is_some_and(|item| item["content"].is_array()) {
        content(&mut fields["item"]);
    }
    let Some(response) = fields.get_mut("response").and_then(Value::as_object_mut) else { return };
    response.remove("output_modalities");
    let audio = response.remove("audio").unwrap_or_default();
    response.insert("modalities".to_owned(), json!(["text", "audio"]));
    response.insert("voice".to_owned(), audio["output"]["voice"].clone());
    response.insert("output_audio_format".to_owned(), json!("pcm16"));
    response.get_mut("output").and_then(Value::as_array_mut).into_iter().flatten().for_each(content);
}

/// What each speaker of an item said in turn, with seconds of the session; none where no speaker could be told.
pub(super) fn segments(item: &str, last: &Final) -> Vec<Value> {
    let Some(most) = last.speaker() else { return Vec::new() };
    let words = &last.transcript.words;
    let speakers: Vec<usize> =
        last.speakers_of_words().into_iter().map(|speaker| speaker.unwrap_or(most)).collect();
    let (spacing, base) = (Spacing::of(words), seconds(last.span.start));
    let mut at = 0;
    let mut told: Vec<(usize, String, f64, f64)> = speakers
        .chunk_by(|one, other| one == other)
        .map(|run| {
            let said = &words[at..at + run.len()];
            at += run.len();
            let (start, end) = (said[0].start, said[said.len() - 1].end);
            (run[0], join(said, spacing), base + start, base + end)
        })
        .collect();
    if told.is_empty() {
        told.push((most, last.transcript.text.trim().to_owned(), base, seconds(last.span.end)));
    }
    let segments = told.into_iter().enumerate().map(|(at, (speaker, text, start, end))| {
        json!({
            "item_id": item, "content_index": 0, "id": format!("seg_{item}_{at}"), "speaker": letters(speaker),
            "text": text, "start": round(start), "end": round(end),
        })
    });
    segments.collect()
}

fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// The flat session of the beta.
pub(super) fn beta_session(session: &Value) -> Value {
    let input = &session["audio"]["input"];
    let format = match input["format"]["type"].as_str() {
        Some("audio/pcmu") => "g711_ulaw",
        Some("audio/pcma") => "g711_alaw",
        _ => "pcm16",
    };
    let mut flat = json!({
        "id": session["id"], "object": session["object"], "expires_at": session["expires_at"],
        "modalities": ["text"], "input_audio_format": format, "input_audio_transcription": input["transcription"],
        "turn_detection": input["turn_detection"], "input_audio_noise_reduction": input["noise_reduction"],
        "include": session["include"],
    });
    if session["type"] == "realtime" {
        flat["modalities"] = json!(["text", "audio"]);
        flat["model"] = session["model"].clone();
        flat["instructions"] = session["instructions"].clone();
        flat["voice"] = session["audio"]["output"]["voice"].clone();
        flat["output_audio_format"] = json!("pcm16");
        flat["tools"] = json!([]);
        flat["tool_choice"] = json!("none");
        flat["temperature"] = json!(0.8);
        flat["max_response_output_tokens"] = json!("inf");
    }
    flat
}
