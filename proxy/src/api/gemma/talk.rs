//! `WS /v1/conversation/ws`: turns of speech or text, answered in text and speech. New audio cuts the answer that is spoken.

use std::sync::Arc;

use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use serde_json::{Map, Value, json};

use contract::Capability;

use super::dialogue::timings;
use super::files::{MAX_FILE, deaf};
use super::turn::{Party, text};
use super::{check_engines, heard};
use crate::api::live::{Dialect, Ending, Opened, Out, Reply, base64, query, to_base64};
use crate::api::llm::spoken::Piece;
use crate::api::{Context, credential};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::work::Transcribe;
use crate::stream::{Ask, Event, Session};

/// A turn of fewer bytes holds no speech.
const LEAST: usize = 100;

/// A conversation.
///
/// # Errors
/// There is no language model, or no engine that hears; the caller may not use it.
pub fn open(
    context: &Arc<Context>,
    request_id: &RequestId,
    request: &Request,
    _: &[String],
) -> Result<Opened, Error> {
    check_engines(context, Capability::Stt)?;
    let ask = Ask { route: context.route(request_id, None, Capability::Stt)?, work: Transcribe::default() };
    let session = query(request, "session_id");
    let party = Party::new(context, request_id, credential(request.headers()), session.as_deref())?;
    let talk =
        Talk { party, is_named: session.is_some(), turn: BytesMut::new(), chunks: 0, language: Map::new() };
    Ok(Opened { dialect: Box::new(talk), settings: deaf(), ask, protocol: None })
}

struct Talk {
    party: Party,
    /// Whether the conversation has a name by which it is found again.
    is_named: bool,
    /// The audio of the turn so far, and its pieces.
    turn: BytesMut,
    chunks: usize,
    /// The language of the client, as a message has it.
    language: Map<String, Value>,
}

fn frame(kind: &str, mut fields: Value) -> Value {
    fields["type"] = json!(kind);
    fields
}

fn failed(error: impl ToString) -> Value {
    let message = error.to_string();
    json!({"type": "error", "message": message, "detail": message})
}

impl Talk {
    /// Cuts the answer that is made or spoken, if one is: model and voice are free at once.
    fn interrupt(&self, out: &mut Out) {
        if out.works() {
            out.end_work();
            out.json(&frame("interrupted", json!({})));
        }
    }

    fn audio(&mut self, bytes: &[u8], out: &mut Out) -> Result<(), Error> {
        self.interrupt(out);
        if self.turn.len() + bytes.len() > MAX_FILE {
            let message = format!("a turn has at most {MAX_FILE} bytes: send end_turn or clear");
            return Err(Error::param("audio", message));
        }
        self.turn.extend_from_slice(bytes);
        self.chunks += 1;
        out.json(&frame("buffering", json!({"chunks": self.chunks, "bytes": self.turn.len()})));
        Ok(())
    }

    fn configure(&mut self, message: &Map<String, Value>, out: &mut Out) -> Result<(), Error> {
        let fields = message.get("data").and_then(Value::as_object).unwrap_or(message);
        if let Some(session) = text(fields, "session_id")? {
            let party = &self.party;
            let credential = party.credential.clone();
            let named = Party::new(&party.context, &party.request_id, credential.as_ref(), Some(session))?;
            self.forget();
            (self.party.name, self.is_named) = (named.name, true);
        }
        let instructions = text(fields, "instructions")?.or(text(fields, "system_prompt")?);
        self.party.configure(
            instructions,
            fields.get("generation_config"),
            fields.get("synthesis_config"),
        )?;
        if let Some(language) = fields.get("language") {
            self.language.insert("language".into(), language.clone());
        }
        out.json(&frame("configured", json!({"session_id": self.party.name.1})));
        Ok(())
    }

    fn end_turn(&mut self, out: &mut Out) -> Result<(), Error> {
        let file = std::mem::take(&mut self.turn).freeze();
        self.chunks = 0;
        if file.len() < LEAST {
            return Err(Error::param("audio", "no audio to answer: send audio before end_turn"));
        }
        let wanted = heard::wanted(&heard::fields(&self.language)?)?;
        let party = self.party.clone();
        let hear = async move {
            let transcript = party.hear(file, wanted).await?;
            Ok(transcript["text"].as_str().unwrap_or_default().to_owned())
        };
        self.answer(hear, out);
        Ok(())
    }

    /// Answers what the client will have said.
    fn answer(&self, said: impl Future<Output = Result<String, Error>> + Send + 'static, out: &mut Out) {
        self.interrupt(out);
        let party = self.party.clone();
        let frames = async move {
            match frames(party, said).await {
                Ok(frames) => frames,
                Err(error) => stream::iter([failed(error), frame("ready", json!({}))]).boxed(),
            }
        };
        out.json(&frame("processing", json!({})));
        out.work(frames.flatten_stream().map(Reply::Json).boxed());
    }

    fn message(&mut self, message: &Map<String, Value>, out: &mut Out) -> Result<(), Error> {
        match message.get("type").or_else(|| message.get("event")).and_then(Value::as_str) {
            Some("config") => self.configure(message, out),
            Some("audio") => {
                let data = message.get("data").or_else(|| message.get("audio")).and_then(Value::as_str);
                let bytes = data.and_then(base64);
                let bytes = bytes.ok_or_else(|| Error::param("data", "data must be audio in base64"))?;
                self.audio(&bytes, out)
            }
            Some("end_turn") => self.end_turn(out),
            Some("text") => {
                let said = text(message, "content")?.or(text(message, "text")?).or(text(message, "data")?);
                let said = said.ok_or_else(|| Error::param("content", "content is missing"))?.to_owned();
                self.answer(async move { Ok(said) }, out);
                Ok(())
            }
            Some("interrupt" | "cancel") => {
                self.interrupt(out);
                out.json(&frame("ready", json!({})));
                Ok(())
            }
            Some("clear") => {
                self.turn.clear();
                self.chunks = 0;
                out.json(&frame("cleared", json!({})));
                Ok(())
            }
            Some("ping") => {
                out.json(&frame("pong", json!({})));
                Ok(())
            }
            _ => {
                let message = "type must be config, audio, end_turn, text, interrupt, clear or ping";
                Err(Error::param("type", message))
            }
        }
    }

    /// Forgets a conversation that has no name to be found by.
    fn forget(&self) {
        if !self.is_named {
            self.party.context.memory.forget(&self.party.name);
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The frames of a turn.
async fn frames(
    party: Party,
    said: impl Future<Output = Result<String, Error>>,
) -> Result<BoxStream<'static, Value>, Error> {
    let voice = party.voice().await?;
    let said = said.await?;
    let heard = frame("transcript", json!({"role": "user", "content": said}));
    let pieces = party.reply(said, voice.as_ref()).await?;
    let rest = stream::unfold((pieces, String::new()), |(mut pieces, mut text)| async move {
        let piece = pieces.next().await?;
        let frames = match piece {
            Piece::Text(more) => {
                text.push_str(&more);
                vec![frame("text_delta", json!({"role": "assistant", "content": more}))]
            }
            Piece::Written => vec![frame("text", json!({"role": "assistant", "content": text.trim()}))],
            Piece::Audio(audio) => vec![frame("audio", json!({"data": to_base64(&audio)}))],
            Piece::Broken(error) | Piece::Mute(error) => vec![failed(error)],
            Piece::End(stages) => vec![frame("ready", json!({"timings": timings(stages)}))],
        };
        Some((stream::iter(frames), (pieces, text)))
    });
    Ok(stream::iter([heard]).chain(rest.flatten()).boxed())
}

impl Dialect for Talk {
    fn opened(&mut self, out: &mut Out) {
        out.json(&frame("ready", json!({"session_id": self.party.name.1})));
    }

    fn text(&mut self, text: &str, _: &mut Session, out: &mut Out) {
        let outcome = match serde_json::from_str(text) {
            Ok(Value::Object(message)) => self.message(&message, out),
            Ok(_) | Err(_) => Err(super::invalid_json("Invalid JSON")),
        };
        if let Err(error) = outcome {
            out.json(&failed(error));
        }
    }

    fn binary(&mut self, bytes: Bytes, _: &mut Session, out: &mut Out) {
        if let Err(error) = self.audio(&bytes, out) {
            out.json(&failed(error));
        }
    }

    fn event(&mut self, _: Event, _: &mut Session, _: &mut Out) {}

    fn ending(&mut self, ending: Ending, out: &mut Out) {
        out.json(&failed(ending.message()));
        out.close(ending.code(), ending.message());
    }
}
