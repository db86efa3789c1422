//! Texts without speech: `POST /v1/generate`, `POST /v1/generate_stream`, `WS /v1/generate_ws`.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use serde_json::{Map, Value, json};

use contract::Capability;

use super::requests::Requests;
use super::turn::text;
use super::{BODY_BYTES, files, invalid_json, json_reply, told};
use crate::api::live::{Opened, Reply, Work};
use crate::api::llm::memory::Turn;
use crate::api::llm::{Answer, Whole, answer, check, sampling};
use crate::api::{Context, credential, owner_by, small, sse};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::chat::{Chat, Delta, Message, Role};
use crate::job::work::Transcribe;
use crate::stream::Ask;

/// `POST /v1/generate`: the whole answer to a prompt.
pub async fn whole(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    let served = async {
        let (fields, owner) = read(&request_id, request).await?;
        let (answer, mut turn) = begin(&context, &request_id, &owner, &fields).await?;
        let Whole { text, end, usage, .. } = answer.whole().await?;
        if let Some(turn) = &mut turn {
            turn.answer.clone_from(&text);
        }
        let mut shown = json!({"generated_text": text, "finish_reason": end});
        if let Some((given, made)) = usage {
            shown["usage"] = json!({"prompt_tokens": given, "completion_tokens": made});
        }
        Ok(json_reply(&shown))
    };
    served.await.unwrap_or_else(Error::flat)
}

/// `POST /v1/generate_stream`: the answer as events, `token` and at last `done`.
pub async fn events(
    State(context): State<Arc<Context>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    let served = async {
        let (fields, owner) = read(&request_id, request).await?;
        let (answer, turn) = begin(&context, &request_id, &owner, &fields).await?;
        let events = steps(answer, turn).map(|step| {
            let event = match step {
                Step::Token(text) => sse::event("token", &json!({"text": text})),
                Step::Done(text) => {
                    sse::event("done", &json!({"status": "complete", "generated_text": text}))
                }
                Step::Failed(error) => sse::event("error", &json!({"detail": error.to_string()})),
            };
            Ok::<_, std::convert::Infallible>(Bytes::from(event))
        });
        Ok(sse::response(Body::from_stream(events)))
    };
    served.await.unwrap_or_else(Error::flat)
}

async fn read(request_id: &RequestId, request: Request) -> Result<(Map<String, Value>, String), Error> {
    let (head, body) = request.into_parts();
    let body = small::read(body, BODY_BYTES).await?;
    let Ok(Value::Object(fields)) = serde_json::from_slice(&body) else {
        return Err(invalid_json("the request body must be a JSON object"));
    };
    Ok((fields, owner_by(request_id, credential(&head.headers))))
}

/// Has a prompt answered. With a `session_id` it is a turn of that conversation.
async fn begin(
    context: &Context,
    request_id: &RequestId,
    owner: &str,
    fields: &Map<String, Value>,
) -> Result<(Answer, Option<Turn>), Error> {
    check(context)?;
    let prompt = text(fields, "prompt")?.or(text(fields, "text")?);
    let prompt = prompt.ok_or_else(|| Error::param("prompt", "prompt is required"))?;
    let system = text(fields, "system_prompt")?.or(text(fields, "instructions")?);
    let limits = context.config.get().gateway.conversation.clone();
    let name = text(fields, "session_id")?.map(|session| {
        let session: String = session.chars().take(crate::api::llm::memory::MAX_NAME).collect();
        (owner.to_owned(), session)
    });
    let mut messages: Vec<Message> =
        system.map(|system| Message::new(Role::System, system)).into_iter().collect();
    if let Some(name) = &name {
        messages.extend(context.memory.recall(name, &limits, Instant::now()));
    }
    messages.push(Message::new(Role::User, prompt));
    let mut chat = Chat::of(messages);
    sampling(fields, &mut chat)?;
    let route = context.route(request_id, None, Capability::Llm)?;
    let answer = answer(context, request_id, route, chat).await?;
    let turn = name.map(|name| Turn::begin(context.memory.clone(), name, limits, prompt.to_owned()));
    Ok((answer, turn))
}

/// What comes of an answer.
enum Step {
    Token(String),
    Done(String),
    Failed(Error),
}

fn steps(answer: Answer, turn: Option<Turn>) -> BoxStream<'static, Step> {
    let state = Some((answer, turn, String::new()));
    stream::unfold(state, |state| async move {
        let (mut answer, mut turn, mut all) = state?;
        loop {
            match answer.next().await {
                Ok(Some(Delta::Text(text))) => {
                    all.push_str(&text);
                    if let Some(turn) = &mut turn {
                        turn.answer.push_str(&text);
                    }
                    return Some((Step::Token(text), Some((answer, turn, all))));
                }
                Ok(Some(_)) => {}
                Ok(None) => return Some((Step::Done(all), None)),
                Err(error) => return Some((Step::Failed(error), None)),
            }
        }
    })
    .boxed()
}

/// A session that answers prompts.
///
/// # Errors
/// There is no language model.
pub fn open(
    context: &Arc<Context>,
    request_id: &RequestId,
    request: &Request,
    _: &[String],
) -> Result<Opened, Error> {
    check(context)?;
    let ask = Ask { route: context.route(request_id, None, Capability::Llm)?, work: Transcribe::default() };
    let owner = owner_by(request_id, credential(request.headers()));
    let (context, request_id) = (Arc::clone(context), request_id.clone());
    let begin = move |fields| work(&context, &request_id, &owner, fields);
    let dialect = Box::new(Requests { fields: &["prompt"], begin });
    Ok(Opened { dialect, settings: files::deaf(), ask, protocol: None })
}

/// The frames of one prompt.
fn work(context: &Arc<Context>, request_id: &RequestId, owner: &str, fields: Map<String, Value>) -> Work {
    let (context, request_id, owner) = (Arc::clone(context), request_id.clone(), owner.to_owned());
    let steps = async move {
        match begin(&context, &request_id, &owner, &fields).await {
            Ok((answer, turn)) => steps(answer, turn),
            Err(error) => stream::iter([Step::Failed(error)]).boxed(),
        }
    };
    let frame = |step| {
        Reply::Json(match step {
            Step::Token(text) => json!({"event": "token", "data": {"text": text}}),
            Step::Done(text) => json!({"event": "done", "data": {"generated_text": text}}),
            Step::Failed(error) => told("error", error),
        })
    };
    steps.flatten_stream().map(frame).boxed()
}
