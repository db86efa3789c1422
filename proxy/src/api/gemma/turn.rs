//! A turn of a conversation: what the client said, what the model answers, and its speech while it is written.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::HeaderValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use contract::Capability;

use super::heard;
use super::speech::{self, Asked};
use crate::api::llm::memory::{MAX_NAME, Name, Turn};
use crate::api::llm::spoken::{Piece, pieces};
use crate::api::llm::{answer, check, sampling};
use crate::api::{Context, Owner};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::chat::{Chat, Message, Role};
use crate::job::work::Transcribe;

/// Longest instructions, and longest text of the client, characters.
const MAX_TEXT: usize = 16_000;

/// Who takes turns, and how they are answered. A clone is the same conversation.
#[derive(Clone)]
pub(super) struct Party {
    pub(super) context: Arc<Context>,
    pub(super) request_id: RequestId,
    pub(super) credential: Option<HeaderValue>,
    /// How to answer; the gateway's own prompt when unset.
    pub(super) instructions: Option<String>,
    /// How answers are sampled.
    pub(super) sampling: Map<String, Value>,
    /// How they are spoken, as `POST /v1/text-to-speech` takes it.
    pub(super) synthesis: Map<String, Value>,
    /// The conversation.
    pub(super) name: Name,
}

impl Party {
    /// A conversation of that name, or a new one.
    ///
    /// # Errors
    /// There is no language model; the name is too long.
    pub(super) fn new(
        context: &Arc<Context>,
        request_id: &RequestId,
        credential: Option<&HeaderValue>,
        session: Option<&str>,
    ) -> Result<Self, Error> {
        check(context)?;
        if session.is_some_and(|name| name.chars().count() > MAX_NAME || name.chars().any(char::is_control)) {
            let message = format!("session_id must have at most {MAX_NAME} characters");
            return Err(Error::param("session_id", message));
        }
        let session = session.map_or_else(|| Uuid::now_v7().simple().to_string(), str::to_owned);
        let owner = Owner::Sender(request_id, credential).digest().into_owned();
        Ok(Self {
            context: Arc::clone(context),
            request_id: request_id.clone(),
            credential: credential.cloned(),
            instructions: None,
            sampling: Map::new(),
            synthesis: Map::new(),
            name: (owner, session),
        })
    }

    /// Takes over how to answer.
    ///
    /// # Errors
    /// A value that cannot be, by its name.
    pub(super) fn configure(
        &mut self,
        instructions: Option<&str>,
        sampled: Option<&Value>,
        spoken: Option<&Value>,
    ) -> Result<(), Error> {
        if let Some(instructions) = instructions.filter(|text| !text.trim().is_empty()) {
            if instructions.chars().count() > MAX_TEXT {
                let message = format!("instructions must have at most {MAX_TEXT} characters");
                return Err(Error::param("instructions", message));
            }
            self.instructions = Some(instructions.to_owned());
        }
        if let Some(fields) = object("generation_config", sampled)? {
            sampling(fields, &mut Chat::default())?;
            self.sampling = fields.clone();
        }
        if let Some(fields) = object("synthesis_config", spoken)? {
            self.synthesis = fields.clone();
        }
        Ok(())
    }

    /// How the answer will be spoken; `None` where no engine speaks.
    ///
    /// # Errors
    /// A value that cannot be, by its name.
    pub(super) async fn voice(&self) -> Result<Option<Asked>, Error> {
        if !self.context.config.get().has(Capability::Tts) {
            return Ok(None);
        }
        let caller = (&self.request_id, self.credential.as_ref());
        Asked::of(&self.context, caller, &self.synthesis, String::new(), true).await.map(Some)
    }

    /// Has what the client said in a file transcribed: the transcript as GemmaVoice shows it.
    ///
    /// # Errors
    /// As [`heard::of_bytes`]; nothing was said.
    pub(super) async fn hear(&self, file: Bytes, wanted: Transcribe) -> Result<Value, Error> {
        let heard = heard::of_bytes(Arc::clone(&self.context), self.request_id.clone(), file, wanted).await?;
        if heard["text"].as_str().unwrap_or_default().is_empty() {
            return Err(Error::Undecodable { message: "no speech was heard in the recording".into() });
        }
        Ok(heard)
    }

    /// Has the words of the client answered. What was said before and the answer become part of the conversation, as far as
    /// they came when the stream is dropped.
    ///
    /// # Errors
    /// What is wrong before the first words.
    pub(super) async fn reply(
        &self,
        said: String,
        voice: Option<&Asked>,
    ) -> Result<BoxStream<'static, Piece>, Error> {
        if said.chars().count() > MAX_TEXT {
            return Err(Error::param("text", format!("text must have at most {MAX_TEXT} characters")));
        }
        let limits = self.context.config.get().gateway.conversation.clone();
        let system = self.instructions.as_deref().unwrap_or(&limits.system_prompt);
        let mut messages = Vec::new();
        if !system.is_empty() {
            messages.push(Message::new(Role::System, system));
        }
        messages.extend(self.context.memory.recall(&self.name, &limits, Instant::now()));
        messages.push(Message::new(Role::User, said.clone()));
        let mut chat = Chat::of(messages);
        sampling(&self.sampling, &mut chat)?;
        let began = tokio::time::Instant::now();
        let route = self.context.route(&self.request_id, None, Capability::Llm)?;
        let answer = answer(&self.context, &self.request_id, route, chat).await?;
        let turn = Turn::begin(self.context.memory.clone(), self.name.clone(), limits, said);
        let voice = voice.map(Asked::speech);
        let pieces = pieces(Arc::clone(&self.context), self.request_id.clone(), answer, voice, began);
        let pieces = stream::unfold((pieces, turn), |(mut pieces, mut turn)| async move {
            let piece = pieces.next().await?;
            if let Piece::Text(text) = &piece {
                turn.answer.push_str(text);
            }
            Some((piece, (pieces, turn)))
        });
        Ok(pieces.boxed())
    }
}

fn object<'a>(
    param: &'static str,
    value: Option<&'a Value>,
) -> Result<Option<&'a Map<String, Value>>, Error> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(fields)) => Ok(Some(fields)),
        Some(_) => Err(Error::param(param, format!("{param} must be an object"))),
    }
}

/// The text of a field of JSON.
pub(super) fn text<'a>(fields: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, Error> {
    speech::text(fields, name)
}
