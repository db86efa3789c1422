//! `POST /v1/chat/completions`: a conversation continued by a language model, whole or as events, with its calls of functions.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use contract::Capability;

use crate::api::llm::{Answer, Whole, answer, sampling};
use crate::api::{Context, small, sse};
use crate::edge::{RequestId, unix_seconds};
use crate::error::Error;
use crate::job::chat::{Chat, Delta, Message, Role};

/// Largest body.
const BODY_BYTES: usize = 4 * 1024 * 1024;
/// Messages of a conversation.
const MAX_MESSAGES: usize = 2_048;

/// Has a conversation continued.
///
/// # Errors
/// What is wrong with the request, or with the engines.
pub async fn create(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Error> {
    let body = small::read(request.into_body(), BODY_BYTES).await?;
    let Ok(Value::Object(fields)) = serde_json::from_slice(&body) else {
        let message = "the request body must be a JSON object".into();
        return Err(Error::InvalidRequest { param: None, code: Some("invalid_json"), message });
    };
    crate::api::llm::check(&context)?;
    let model = match fields.get("model") {
        None | Some(Value::Null) => None,
        Some(Value::String(model)) => Some(model.as_str()),
        Some(_) => return Err(Error::param("model", "model must be a string")),
    };
    let streams = match fields.get("stream") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(streams)) => *streams,
        Some(_) => return Err(Error::param("stream", "stream must be true or false")),
    };
    let chat = read(&fields)?;
    let route = context.route(&request_id, model, Capability::Llm)?;
    let shown = Shown {
        id: format!("chatcmpl-{}", Uuid::now_v7().simple()),
        created: unix_seconds(),
        model: model.unwrap_or("llm").to_owned(),
    };
    let answer = answer(&context, &request_id, route, chat).await?;
    if streams {
        return Ok(shown.events(answer));
    }
    Ok(shown.whole(answer.whole().await?))
}

/// The conversation that a request has. What changes the form of the answer, and is not known here, is refused.
fn read(fields: &Map<String, Value>) -> Result<Chat, Error> {
    if fields.get("n").and_then(Value::as_u64).is_some_and(|count| count != 1) {
        return Err(Error::param("n", "n must be 1"));
    }
    match fields.get("response_format").and_then(|format| format.get("type")).and_then(Value::as_str) {
        None | Some("text") => {}
        Some(_) => return Err(Error::param("response_format", "response_format must be of type text")),
    }
    let messages = fields.get("messages").and_then(Value::as_array).filter(|messages| !messages.is_empty());
    let messages =
        messages.ok_or_else(|| Error::param("messages", "messages must be an array with a message"))?;
    if messages.len() > MAX_MESSAGES {
        return Err(Error::param("messages", format!("messages must be at most {MAX_MESSAGES}")));
    }
    let mut chat = Chat::of(messages.iter().map(message).collect::<Result<_, _>>()?);
    sampling(fields, &mut chat)?;
    let given = |name: &str| fields.get(name).filter(|value| !value.is_null()).cloned();
    chat.tools = given("tools");
    if chat.tools.as_ref().is_some_and(|tools| !tools.is_array()) {
        return Err(Error::param("tools", "tools must be an array"));
    }
    chat.tool_choice = given("tool_choice");
    Ok(chat)
}

fn message(message: &Value) -> Result<Message, Error> {
    let wrong = |message: &str| Error::param("messages", message.to_owned());
    let role = message.get("role").and_then(Value::as_str).and_then(Role::parse);
    let role = role.ok_or_else(|| wrong("each message needs a role: system, user, assistant or tool"))?;
    let text = match message.get("content") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts: Option<Vec<&str>> =
                parts.iter().map(|part| part.get("text").and_then(Value::as_str)).collect();
            texts.ok_or_else(|| wrong("content must be text: images and audio are not passed on"))?.join("\n")
        }
        Some(_) => return Err(wrong("content must be a text or an array of texts")),
    };
    let calls = message.get("tool_calls").filter(|calls| calls.is_array()).cloned();
    let answers = message.get("tool_call_id").and_then(Value::as_str).map(str::to_owned);
    Ok(Message { role, text, calls, answers })
}

/// What all chunks of an answer have.
#[derive(Clone)]
struct Shown {
    id: String,
    created: u64,
    model: String,
}

impl Shown {
    fn whole(self, whole: Whole) -> Response {
        let Whole { text, calls, end, usage } = whole;
        let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { json!(text) };
        let mut message = json!({"role": "assistant", "content": content});
        if !calls.is_empty() {
            message["tool_calls"] = json!(calls);
        }
        let end = end.unwrap_or_else(|| "stop".into());
        let mut reply = json!({
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": end, "logprobs": null}],
        });
        if let Some((given, made)) = usage {
            reply["usage"] = shown_usage(given, made);
        }
        axum::Json(reply).into_response()
    }

    fn chunk(&self, choices: Value) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": choices,
        })
    }

    fn delta(&self, delta: Value, end: Option<&str>) -> String {
        data(&self.chunk(json!([{"index": 0, "delta": delta, "finish_reason": end, "logprobs": null}])))
    }

    fn events(self, answer: Answer) -> Response {
        let first = self.delta(json!({"role": "assistant", "content": ""}), None);
        let rest = stream::unfold(Some((answer, self)), |state| async move {
            let (mut answer, shown) = state?;
            loop {
                let event = match answer.next().await {
                    Ok(Some(Delta::Text(text))) => shown.delta(json!({"content": text}), None),
                    Ok(Some(Delta::Calls(calls))) => shown.delta(json!({"tool_calls": calls}), None),
                    Ok(Some(Delta::End(end))) => shown.delta(json!({}), Some(&end)),
                    Ok(Some(Delta::Usage { given, made })) => {
                        let mut chunk = shown.chunk(json!([]));
                        chunk["usage"] = shown_usage(given, made);
                        data(&chunk)
                    }
                    Ok(Some(Delta::Thought)) => continue,
                    Ok(None) => return Some((sse::END.to_owned(), None)),
                    Err(error) => return Some((sse::failure(&error), None)),
                };
                return Some((event, Some((answer, shown))));
            }
        });
        let events = stream::iter([first]).chain(rest);
        let events = events.map(|event| Ok::<_, std::convert::Infallible>(Bytes::from(event)));
        sse::response(Body::from_stream(events))
    }
}

fn data(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}

fn shown_usage(given: u64, made: u64) -> Value {
    json!({"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made})
}
