//! Sessions of requests in JSON messages, each answered in turn by frames: prompts of a model, texts to speak.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{event, told};
use crate::api::live::{Dialect, Ending, Out, Work};
use crate::stream::{Event, Session};

/// Events that end the work under way, where they come without a request.
const ENDS: [&str; 3] = ["cancel", "clear", "stop"];

/// Such a session.
pub(super) struct Requests<F> {
    /// The fields of which a request has at least one.
    pub(super) fields: &'static [&'static str],
    /// Begins the work of a request.
    pub(super) begin: F,
}

impl<F: FnMut(Map<String, Value>) -> Work + Send> Dialect for Requests<F> {
    fn opened(&mut self, _: &mut Out) {}

    fn text(&mut self, text: &str, _: &mut Session, out: &mut Out) {
        let Ok(Value::Object(message)) = serde_json::from_str::<Value>(text) else {
            return out.json(&told("error", "Invalid JSON"));
        };
        let asks = self.fields.iter().any(|field| message.contains_key(*field));
        let named = message.get("event").and_then(Value::as_str);
        if !asks && named.is_some_and(|name| ENDS.contains(&name)) {
            // The engine is free at once.
            out.end_work();
            out.json(&event("cancelled"));
        } else if !out.work((self.begin)(message)) {
            out.json(&told("error", format!("too many requests with {} wait already", self.fields[0])));
        }
    }

    fn binary(&mut self, _: Bytes, _: &mut Session, out: &mut Out) {
        out.json(&told(
            "error",
            format!("requests come in JSON messages: {{\"{}\": \"...\"}}", self.fields[0]),
        ));
    }

    fn event(&mut self, _: Event, _: &mut Session, _: &mut Out) {}

    fn ending(&mut self, ending: Ending, out: &mut Out) {
        out.close(ending.code(), ending.message());
    }
}
