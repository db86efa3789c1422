//! `POST /v1/chat/completions`: whole, or as events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, RequestExt};
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::Message;
use crate::fault::origin::{Origin, Reply};
use crate::protocol::envelope::Envelope;
use crate::wire::{ResetAfter, Silence};
use crate::work::write::Words;
use crate::work::{Refusal, Served, Writer};

/// The body; unknown fields are ignored.
#[derive(Debug, Deserialize)]
struct Asked {
    model: Option<String>,
    messages: Option<Vec<Said>>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
struct Said {
    role: String,
    content: Option<Value>,
}

impl Said {
    /// A text, or the texts of an array of parts.
    fn message(self) -> Message {
        let text = match self.content {
            Some(Value::String(text)) => text,
            Some(Value::Array(parts)) => {
                let texts = parts.iter().filter_map(|part| part["text"].as_str());
                texts.collect::<Vec<_>>().join("\n")
            }
            _ => String::new(),
        };
        Message { role: self.role, text }
    }
}

pub(super) async fn complete(State(llm): State<Arc<Writer>>, request: Request) -> Result<Response, Envelope> {
    let refuse = |text: String| Refusal::Body(StatusCode::BAD_REQUEST, text);
    let body: Bytes = request.extract().await.map_err(|_| refuse("the body could not be read".into()))?;
    let asked: Asked =
        serde_json::from_slice(&body).map_err(|error| refuse(format!("the body is malformed: {error}")))?;
    let known = llm.core.capability.model;
    match asked.model {
        None => return Err(Refusal::Missing("model").into()),
        Some(model) if model != known => return Err(Refusal::Model(model).into()),
        Some(_) => {}
    }
    let messages = asked.messages.filter(|messages| !messages.is_empty());
    let messages = messages.ok_or(Refusal::Missing("messages"))?;
    let messages: Vec<Message> = messages.into_iter().map(Said::message).collect();
    // A function is called when the caller insists on it.
    let named = asked.tool_choice.as_ref().and_then(|choice| choice["function"]["name"].as_str());
    let insists = asked.tool_choice.as_ref().is_some_and(|choice| choice == "required");
    let first = || asked.tools.as_ref()?.first()?["function"]["name"].as_str();
    let call = named.or_else(|| first().filter(|_| insists)).map(str::to_owned);
    let reply = if asked.stream { Reply::Streamed } else { Reply::Whole };
    let last = messages.last().map(|message| message.text.as_str());
    let served = llm.write(&messages, &Origin::new(reply, &[("messages", last)])).await?;
    let asked_tokens = messages.iter().map(|message| tokens(&message.text)).sum();
    if asked.stream {
        let usage = asked.stream_options.is_some_and(|options| options.include_usage);
        return Ok(events(known, served, call, usage.then_some(asked_tokens)));
    }
    Ok(whole(known, served, call, asked_tokens).await)
}

/// Words, which stand for tokens here.
fn tokens(text: &str) -> usize {
    text.split_whitespace().count()
}

fn usage(asked: usize, made: usize) -> Value {
    json!({"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made})
}

fn calls(name: &str) -> Value {
    let function = json!({"name": name, "arguments": "{}"});
    json!([{"index": 0, "id": "call_1", "type": "function", "function": function}])
}

async fn whole(model: &str, served: Served<Words>, call: Option<String>, asked: usize) -> Response {
    let Served { made: mut words, reset_after, .. } = served;
    let mut text = String::new();
    while let Some(piece) = words.next().await {
        text.push_str(&piece);
    }
    let (message, reason) = match call {
        Some(name) => {
            (json!({"role": "assistant", "content": null, "tool_calls": calls(&name)}), "tool_calls")
        }
        None => (json!({"role": "assistant", "content": text}), "stop"),
    };
    let body = json!({
        "id": "chatcmpl-reference", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": usage(asked, tokens(&text)),
    });
    let mut response = Json(body).into_response();
    if reset_after.is_some() {
        response.extensions_mut().insert(ResetAfter::at(reset_after));
    }
    response
}

/// The reply as events: a chunk for each piece, the reason of the end, the usage if asked for, and `[DONE]`.
fn events(
    model: &'static str,
    served: Served<Words>,
    call: Option<String>,
    asked: Option<usize>,
) -> Response {
    let Served { made: words, reset_after, silent_after } = served;
    let chunk = move |choices: Value| {
        json!({
            "id": "chatcmpl-reference", "object": "chat.completion.chunk", "created": 0, "model": model,
            "choices": choices,
        })
    };
    let delta = move |delta: Value, reason: Option<&str>| {
        event(&chunk(json!([{"index": 0, "delta": delta, "finish_reason": reason}])))
    };
    let reason = if call.is_some() { "tool_calls" } else { "stop" };
    let begin = match &call {
        Some(name) => json!({"role": "assistant", "content": null, "tool_calls": calls(name)}),
        None => json!({"role": "assistant", "content": ""}),
    };
    let last = move |made: usize| {
        let mut last = delta(json!({}), Some(reason));
        if let Some(asked) = asked {
            let mut chunk = chunk(json!([]));
            chunk["usage"] = usage(asked, made);
            last.push_str(&event(&chunk));
        }
        last + "data: [DONE]\n\n"
    };
    let pieces = futures::stream::unfold(Some((words, 0)), move |state| {
        let is_call = call.is_some();
        async move {
            let (mut words, made) = state?;
            match words.next().await {
                None => Some((last(made), None)),
                // A call has no text beside it.
                Some(_) if is_call => Some((String::new(), Some((words, made + 1)))),
                Some(piece) => Some((delta(json!({"content": piece}), None), Some((words, made + 1)))),
            }
        }
    });
    let events = futures::stream::iter([delta(begin, None)]).chain(pieces);
    let events = events.map(|event| Ok::<_, Infallible>(Bytes::from(event))).boxed();
    let mut response = Response::new(Body::from_stream(Silence::at(silent_after).cut(events)));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    if reset_after.is_some() {
        response.extensions_mut().insert(ResetAfter::at(reset_after));
    }
    response
}

fn event(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}
