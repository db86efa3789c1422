//! Language models as clients of every dialect use them: an answer as it is made, whole, or spoken sentence by sentence.

pub mod memory;
mod sentences;
pub mod spoken;
pub mod translate;

use std::sync::Arc;

use serde_json::{Map, Value};

use contract::Capability;

use super::{Context, outgoing};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::chat::{Chat, Delta};
use crate::job::work::Work;
use crate::upstream::{Route, Said, Served, Stop, Upstreams};

/// Longest conversation that is passed on, characters.
pub const MAX_GIVEN: usize = 200_000;
/// Longest answer, characters; beyond it the model is stopped.
const MAX_ANSWER: usize = 64_000;

/// Refuses what needs a language model where none is configured, and says where one is.
///
/// # Errors
/// [`Error::NotSupported`].
pub fn check(context: &Context) -> Result<(), Error> {
    if context.config.get().has(Capability::Llm) {
        return Ok(());
    }
    Err(Error::NotSupported {
        what: "a conversation",
        instead: "this gateway has no language model: add an engine of capability llm, with its url and model, to engines, or a pool of it to gateway.discovery.pools",
    })
}

/// An answer as it is made. Dropping it frees the engine.
pub struct Answer {
    said: Said,
    upstreams: Upstreams,
    /// Characters that it may still have.
    left: usize,
    ended: bool,
}

/// Has a conversation continued by a model of the route, once its first words are there.
///
/// # Errors
/// There is no model; the conversation is too long; what the engines showed.
pub async fn answer(
    context: &Context,
    request_id: &RequestId,
    route: Route,
    chat: Chat,
) -> Result<Answer, Error> {
    check(context)?;
    if chat.characters() > MAX_GIVEN {
        let message = format!("the conversation must have at most {MAX_GIVEN} characters");
        return Err(Error::param("messages", message));
    }
    let mut job = outgoing(route, Work::Chat(Arc::new(chat)), 0.0, request_id);
    job.may_wait = true;
    let Served { value: said, engine, hedged } = Box::pin(context.upstreams.chat(&job)).await?;
    request_id.served_by(&engine, hedged);
    Ok(Answer { said, upstreams: context.upstreams.clone(), left: MAX_ANSWER, ended: false })
}

impl Answer {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// Why there are no more.
    pub async fn next(&mut self) -> Result<Option<Delta>, Error> {
        if self.ended {
            return Ok(None);
        }
        let delta = match self.said.next().await {
            Ok(delta) => delta,
            Err(Stop::Final(error)) => return Err(error),
            Err(Stop::Failed(failure)) => {
                return Err(self.upstreams.failed(Capability::Llm, failure.reason()));
            }
        };
        if let Some(Delta::Text(text)) = &delta {
            let characters = text.chars().count();
            if characters > self.left {
                self.ended = true;
                return Ok(Some(Delta::End("length".into())));
            }
            self.left -= characters;
        }
        Ok(delta)
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`Answer::next`].
    pub async fn whole(mut self) -> Result<Whole, Error> {
        let mut whole = Whole::default();
        while let Some(delta) = self.next().await? {
            whole.add(delta);
        }
        Ok(whole)
    }
}

/// A whole answer.
#[derive(Debug, Default)]
pub struct Whole {
    /// Its text, empty when functions are called.
    pub text: String,
    /// Calls of functions.
    pub calls: Vec<Value>,
    /// Why it ended.
    pub end: Option<String>,
    /// Tokens given and made, where the server counts them.
    pub usage: Option<(u64, u64)>,
}

impl Whole {
    /// Adds a piece.
    pub fn add(&mut self, delta: Delta) {
        match delta {
            Delta::Text(text) => self.text.push_str(&text),
            Delta::Thought => {}
            Delta::Calls(calls) => self.add_calls(calls),
            Delta::End(end) => self.end = Some(end),
            Delta::Usage { given, made } => self.usage = Some((given, made)),
        }
    }

    /// Pieces of calls belong together by their index; their arguments come in pieces of text.
    fn add_calls(&mut self, calls: Value) {
        /// Functions that one answer may call.
        const MAX_CALLS: usize = 128;
        let Value::Array(calls) = calls else { return };
        for mut call in calls {
            let index = call.get("index").and_then(Value::as_u64).and_then(|at| usize::try_from(at).ok());
            let at = index.unwrap_or(self.calls.len());
            if let Some(call) = call.as_object_mut() {
                call.remove("index");
            }
            if let Some(known) = self.calls.get_mut(at) {
                merge(known, call);
            } else if self.calls.len() < MAX_CALLS {
                self.calls.push(call);
            }
        }
    }
}

/// Adds to a call what a further piece of it says.
fn merge(known: &mut Value, more: Value) {
    let Some(more) = more.get("function").and_then(Value::as_object) else { return };
    let more = more.get("arguments").and_then(Value::as_str).unwrap_or_default();
    if let Some(arguments) = known.pointer_mut("/function/arguments")
        && let Some(text) = arguments.as_str()
    {
        *arguments = Value::String(format!("{text}{more}"));
    }
}

/// How an answer is to be sampled, by the names that clients of all dialects use.
///
/// # Errors
/// A 400 that names the field.
pub fn sampling(fields: &Map<String, Value>, chat: &mut Chat) -> Result<(), Error> {
    let number = |name: &'static str, range: std::ops::RangeInclusive<f64>| match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            let message = format!("{name} must be a number from {} to {}", range.start(), range.end());
            Error::param(name, message)
        }),
    };
    chat.temperature = number("temperature", 0.0..=2.0)?.or(chat.temperature);
    chat.top_p = number("top_p", 0.0..=1.0)?.or(chat.top_p);
    for name in ["max_tokens", "max_completion_tokens"] {
        match fields.get(name) {
            None | Some(Value::Null) => {}
            Some(value) => {
                let most = value.as_u64().and_then(|most| u32::try_from(most).ok()).filter(|most| *most > 0);
                let wrong = || Error::param(name, format!("{name} must be a whole number above 0"));
                chat.max_tokens = Some(most.ok_or_else(wrong)?);
            }
        }
    }
    match fields.get("stop") {
        None | Some(Value::Null) => {}
        Some(Value::String(stop)) => chat.stop = vec![stop.clone()],
        Some(Value::Array(stops)) if stops.len() <= 16 && stops.iter().all(Value::is_string) => {
            chat.stop = stops.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        }
        Some(_) => return Err(Error::param("stop", "stop must be a text or at most 16 texts")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_of_functions_come_in_pieces() {
        let mut whole = Whole::default();
        for calls in [
            json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{\"x\""}}]),
            json!([{"index": 0, "function": {"arguments": ":1}"}}]),
            json!([{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]),
            json!([{"index": 7_000_000_000_u64}]),
            json!("odd"),
        ] {
            whole.add(Delta::Calls(calls));
        }
        assert_eq!(whole.calls[0], json!({"id": "a", "function": {"name": "f", "arguments": "{\"x\":1}"}}));
        assert_eq!((whole.calls[1]["id"].as_str(), whole.calls.len()), (Some("b"), 3));
    }

    #[test]
    fn what_is_wrong_with_a_sampling_is_told_by_name() {
        for (fields, param) in [
            (json!({"temperature": 3}), "temperature"),
            (json!({"top_p": "much"}), "top_p"),
            (json!({"max_tokens": 0}), "max_tokens"),
            (json!({"max_completion_tokens": 1.5}), "max_completion_tokens"),
            (json!({"stop": [1]}), "stop"),
        ] {
            let error = sampling(fields.as_object().unwrap(), &mut Chat::default()).unwrap_err();
            assert_eq!(error.param_name(), Some(param), "{fields}");
        }
        let mut chat = Chat::default();
        let fields = json!({"temperature": 0.2, "max_tokens": 7, "stop": "\n", "top_p": null});
        sampling(fields.as_object().unwrap(), &mut chat).unwrap();
        assert_eq!((chat.temperature, chat.max_tokens, chat.stop), (Some(0.2), Some(7), vec!["\n".into()]));
    }
}
