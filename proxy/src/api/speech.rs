//! Speech as clients of every dialect get it: a text is spoken piece by piece, and encoded as the samples come.

mod buffer;
mod coder;
mod nvidia;
mod rate;
mod spoken;
mod voice;

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

pub use nvidia::Asked;
pub use voice::{emotional, language_of, voice, voice_in};

use self::buffer::{Reader, buffer};
use self::spoken::Spoken;
use super::Context;
use crate::audio::OutputFormat;
use crate::edge::RequestId;
use crate::error::{Error, Unit};
use crate::job::work::Prompt;
use crate::upstream::Route;

/// Longest text of a request, Unicode code points: OpenAI's limit, and twice that of an engine.
pub const MAX_CODE_POINTS: usize = 4096;

/// A speech that can be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Speech {
    /// The text, trimmed.
    pub input: String,
    /// Full name of the engine's voice.
    pub voice: String,
    /// `en-US`.
    pub language: String,
    /// What the client gets.
    pub format: OutputFormat,
    /// Samples per second.
    pub sample_rate: u32,
    /// 1 is the voice's own speed.
    pub speed: f64,
    /// How words are to be pronounced, in the engine's notation: `word  pronunciation`, two spaces between, separated by commas.
    pub dictionary: Option<String>,
    /// How loud it is: 1 is the voice's own loudness.
    pub volume: f32,
    /// A recording whose voice is to be imitated.
    pub prompt: Option<Arc<Prompt>>,
    /// Which engines can speak it.
    pub route: Route,
}

/// The encoded audio as it is made; begins once its first bytes are there, so that a failure before them is a clean error.
/// Dropping it ends the engine's job.
///
/// # Errors
/// A rate that the format does not have; the caller's quota; what the engines showed.
pub async fn speak(
    context: Arc<Context>,
    request_id: RequestId,
    speech: Speech,
) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
    begin(context, request_id, speech, None).await
}

/// As [`speak`], of a text that still comes: `first`, and then what `texts` give, each of it a sentence or more. It is one file.
///
/// # Errors
/// As [`speak`].
pub async fn speak_coming(
    context: Arc<Context>,
    request_id: RequestId,
    speech: Speech,
    first: String,
    texts: mpsc::Receiver<String>,
) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
    begin(context, request_id, Speech { input: first, ..speech }, Some(texts)).await
}

async fn begin(
    context: Arc<Context>,
    request_id: RequestId,
    speech: Speech,
    further: Option<mpsc::Receiver<String>>,
) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
    let (writer, mut reader) = buffer();
    let charge = request_id.charge(Unit::Characters, speech.input.chars().count() as f64).await?;
    let spoken = Spoken::new(context, request_id, speech, charge, writer)?.followed_by(further);
    let task = AbortOnDropHandle::new(tokio::spawn(spoken.make().in_current_span()));
    let begun = reader.next().await.transpose()?;
    let rest = stream::unfold((reader, task), |(mut reader, task): (Reader, _)| async move {
        let next = reader.next().await?;
        Some((next, (reader, task)))
    });
    Ok(stream::iter(begun.map(Ok)).chain(rest))
}

/// What is wrong with a text that cannot be spoken: it is empty, or too long.
///
/// # Errors
/// A 400 that names the parameter.
pub fn text(param: &'static str, text: &str) -> Result<String, Error> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Error::param(param, format!("{param} is required")));
    }
    if text.chars().count() > MAX_CODE_POINTS {
        return Err(Error::InvalidRequest {
            param: Some(param),
            code: Some("string_too_long"),
            message: format!("{param}: String should have at most {MAX_CODE_POINTS} characters"),
        });
    }
    Ok(text.to_owned())
}
