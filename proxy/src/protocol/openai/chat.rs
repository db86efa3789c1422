//! Chat completions: the request, and the answer as events or whole.
//!
//! The answer is always asked for as events: the first sentence is spoken while the rest is made. A server that answers whole
//! all the same is understood.

use bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::json_request;
use crate::job::chat::{Chat, Delta, Message};
use crate::protocol::{Encoded, Error, Settings, Words, json};

pub(super) const CHAT: &str = "/v1/chat/completions";

/// The model that is named when the engine's configuration names none: servers of one model take any.
const MODEL: &str = "default";
/// Longest event, bytes.
const MAX_EVENT: usize = 1024 * 1024;

/// The request. What the client did not set is left out: servers differ in what they know.
pub(super) fn request(chat: &Chat, engine: &Settings) -> Encoded {
    let mut body = Map::new();
    body.insert("model".into(), json!(engine.model.as_deref().unwrap_or(MODEL)));
    body.insert("messages".into(), chat.messages.iter().map(message).collect());
    body.insert("stream".into(), json!(true));
    let numbers = [("temperature", chat.temperature), ("top_p", chat.top_p)];
    for (name, number) in numbers.into_iter().filter_map(|(name, number)| Some((name, number?))) {
        body.insert(name.into(), json!(number));
    }
    if let Some(most) = chat.max_tokens {
        body.insert("max_tokens".into(), json!(most));
    }
    if !chat.stop.is_empty() {
        body.insert("stop".into(), json!(chat.stop));
    }
    for (name, value) in [("tools", &chat.tools), ("tool_choice", &chat.tool_choice)] {
        if let Some(value) = value {
            body.insert(name.into(), value.clone());
        }
    }
    json_request(CHAT, &Value::Object(body))
}

fn message(message: &Message) -> Value {
    let mut shown = json!({"role": message.role.as_str(), "content": message.text});
    if let Some(calls) = &message.calls {
        shown["tool_calls"] = calls.clone();
    }
    if let Some(call) = &message.answers {
        shown["tool_call_id"] = json!(call);
    }
    shown
}

/// A chunk of an answer, or a whole one.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Said>,
    message: Option<Said>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    content: Option<String>,
    /// What reasoning models think, by both names that servers give it.
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
    tool_calls: Option<Value>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

/// Reads an answer as it comes.
#[derive(Default)]
pub(super) struct Answer {
    /// Bytes of a line that has not ended.
    rest: BytesMut,
    /// Whether it is one JSON document, once known.
    is_whole: Option<bool>,
    /// Whether the server has said that it ends.
    ended: bool,
}

impl Words for Answer {
    fn push(&mut self, data: Bytes) -> Result<Vec<Delta>, Error> {
        self.rest.extend_from_slice(&data);
        let first = self.rest.iter().find(|byte| !byte.is_ascii_whitespace());
        let Some(first) = first else { return Ok(Vec::new()) };
        let is_whole = *self.is_whole.get_or_insert(*first == b'{');
        let mut deltas = Vec::new();
        while !is_whole && let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(end).freeze();
            self.rest.advance(1);
            if let Some(data) = line.strip_prefix(b"data:") {
                self.event(data.trim_ascii(), &mut deltas)?;
            }
        }
        if self.rest.len() > MAX_EVENT {
            return Err(Error::Cut { path: CHAT });
        }
        Ok(deltas)
    }

    fn finish(&mut self) -> Result<Vec<Delta>, Error> {
        let rest = std::mem::take(&mut self.rest);
        let mut deltas = Vec::new();
        let line = rest.trim_ascii();
        if self.is_whole == Some(true) {
            self.event(line, &mut deltas)?;
        } else if let Some(data) = line.strip_prefix(b"data:") {
            self.event(data.trim_ascii(), &mut deltas)?;
        }
        if self.ended { Ok(deltas) } else { Err(Error::Cut { path: CHAT }) }
    }
}

impl Answer {
    fn event(&mut self, data: &[u8], deltas: &mut Vec<Delta>) -> Result<(), Error> {
        if data == b"[DONE]" {
            self.ended = true;
            return Ok(());
        }
        if data.is_empty() {
            return Ok(());
        }
        let chunk: Chunk = json::parse(data).map_err(|source| Error::Shape { path: CHAT, source })?;
        if chunk.error.is_some_and(|error| !error.is_null()) {
            return Err(Error::Cut { path: CHAT });
        }
        if let Some(choice) = chunk.choices.into_iter().next() {
            if let Some(said) = choice.delta.or(choice.message) {
                deltas.extend(said.reasoning_content.filter(|text| !text.is_empty()).map(|_| Delta::Thought));
                deltas.extend(said.content.filter(|text| !text.is_empty()).map(Delta::Text));
                let has_calls = |calls: &Value| calls.as_array().is_some_and(|calls| !calls.is_empty());
                deltas.extend(said.tool_calls.filter(has_calls).map(Delta::Calls));
            }
            if let Some(reason) = choice.finish_reason {
                self.ended = true;
                deltas.push(Delta::End(reason));
            }
        }
        if let Some(usage) = chunk.usage {
            deltas.push(Delta::Usage { given: usage.prompt_tokens, made: usage.completion_tokens });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::chat::Role;

    fn read(pieces: &[&str]) -> Result<Vec<Delta>, Error> {
        let mut answer = Answer::default();
        let mut deltas = Vec::new();
        for piece in pieces {
            deltas.extend(answer.push(Bytes::copy_from_slice(piece.as_bytes()))?);
        }
        deltas.extend(answer.finish()?);
        Ok(deltas)
    }

    const EVENTS: &str = concat!(
        ": ping\n\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\r\n\r\n",
        "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n",
        "data:{\"choices\":[{\"delta\":{\"content\":\"Grü\"}}]}\n\nevent: x\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"ße\"},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
    );

    #[test]
    fn events_are_read_wherever_they_are_cut() {
        let expected = [
            Delta::Thought,
            Delta::Text("Grü".into()),
            Delta::Text("ße".into()),
            Delta::End("stop".into()),
            Delta::Usage { given: 3, made: 2 },
        ];
        for size in [1, 2, 7, 64, EVENTS.len()] {
            let mut answer = Answer::default();
            let mut deltas = Vec::new();
            for piece in EVENTS.as_bytes().chunks(size) {
                deltas.extend(answer.push(Bytes::copy_from_slice(piece)).unwrap());
            }
            deltas.extend(answer.finish().unwrap());
            assert_eq!(deltas, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_whole_answer_is_understood() {
        let whole = "\n{\"choices\":[{\"message\":{\"content\":\"Hi\",\"tool_calls\":[]},\"finish_reason\":\"length\"}]}";
        let expected = [Delta::Text("Hi".into()), Delta::End("length".into())];
        assert_eq!(read(&[whole]).unwrap(), expected);
        assert_eq!(
            read(&["\n", &whole[1..]]).unwrap(),
            expected,
            "white space alone does not tell what it is"
        );
        let calls = r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"c"}]},"finish_reason":"tool_calls"}]}"#;
        assert_eq!(read(&[calls]).unwrap()[0], Delta::Calls(json!([{"id": "c"}])));
    }

    #[test]
    fn an_answer_that_breaks_off_or_ends_with_an_error_is_none() {
        for pieces in [
            &["data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n"][..],
            &["data: {\"error\":{\"message\":\"CUDA\"}}\n\n", "data: [DONE]\n\n"],
            &["data: {\"choices\"\n\n"],
            &["<html>"],
            &[""],
        ] {
            assert!(read(pieces).is_err(), "{pieces:?}");
        }
    }

    #[test]
    fn a_request_has_what_was_set_and_nothing_else() {
        let mut chat = Chat::of(vec![Message::new(Role::User, "Hi")]);
        let body = |chat: &Chat, model: Option<&str>| -> Value {
            let settings = Settings { model: model.map(str::to_owned), ..Settings::default() };
            serde_json::from_slice(&request(chat, &settings).before).unwrap()
        };
        let plain =
            json!({"model": "default", "messages": [{"role": "user", "content": "Hi"}], "stream": true});
        assert_eq!(body(&chat, None), plain);
        chat.max_tokens = Some(5);
        chat.temperature = Some(0.5);
        chat.stop = vec!["\n".into()];
        chat.tools = Some(json!([{"type": "function"}]));
        chat.messages.push(Message { answers: Some("c".into()), ..Message::new(Role::Tool, "7") });
        let full = body(&chat, Some("qwen"));
        assert_eq!(
            (&full["model"], &full["max_tokens"], &full["stop"]),
            (&json!("qwen"), &json!(5), &json!(["\n"]))
        );
        assert_eq!(
            (&full["tools"], &full["messages"][1]["tool_call_id"]),
            (&json!([{"type": "function"}]), &json!("c"))
        );
    }
}
