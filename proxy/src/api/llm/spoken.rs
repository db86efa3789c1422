//! An answer that is spoken while it is written: its sentences go to the voice one by one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::Answer;
use super::sentences::Sentences;
use crate::api::Context;
use crate::api::speech::{self, Speech};
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::chat::Delta;

/// Pieces that wait for the client.
const PIECES: usize = 64;
/// Sentences that wait for the voice: those of the longest answer.
const SENTENCES: usize = 4096;

/// A piece of an answer.
#[derive(Debug)]
pub enum Piece {
    /// What its text grew by.
    Text(String),
    /// The text is all there.
    Written,
    /// Encoded audio; all of it together is one file.
    Audio(Bytes),
    /// The model failed: there is no more text. What was written is still spoken.
    Broken(Error),
    /// The voice failed: there is no more audio. The text goes on.
    Mute(Error),
    /// All is said.
    End(Stages),
}

/// When the stages of an answer were reached, from its beginning on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stages {
    /// The first words.
    pub first_text: Option<Duration>,
    /// The first audio.
    pub first_audio: Option<Duration>,
    /// The last words.
    pub written: Option<Duration>,
}

/// The pieces of an answer, with speech where a voice is given, whose own text is of no account. Dropping them frees the
/// language model and the voice at once.
pub fn pieces(
    context: Arc<Context>,
    request_id: RequestId,
    answer: Answer,
    voice: Option<Speech>,
    began: Instant,
) -> BoxStream<'static, Piece> {
    let (out, pieces) = mpsc::channel(PIECES);
    let (texts, coming) = mpsc::channel(SENTENCES);
    let both = async move {
        let (written, first_audio) = tokio::join!(
            write(answer, &out, texts, began),
            say(context, request_id, voice, coming, &out, began)
        );
        let _ = out.send(Piece::End(Stages { first_audio, ..written })).await;
    };
    let task = AbortOnDropHandle::new(tokio::spawn(both.in_current_span()));
    stream::unfold((pieces, task), |(mut pieces, task)| async move {
        let piece = pieces.recv().await?;
        Some((piece, (pieces, task)))
    })
    .boxed()
}

async fn write(
    mut answer: Answer,
    out: &mpsc::Sender<Piece>,
    texts: mpsc::Sender<String>,
    began: Instant,
) -> Stages {
    let (mut sentences, mut stages) = (Sentences::default(), Stages::default());
    let end = loop {
        match answer.next().await {
            Ok(Some(Delta::Text(text))) => {
                stages.first_text.get_or_insert_with(|| began.elapsed());
                for sentence in sentences.push(&text) {
                    // A voice that has failed takes no more.
                    let _ = texts.send(sentence).await;
                }
                let _ = out.send(Piece::Text(text)).await;
            }
            Ok(Some(_)) => {}
            Ok(None) => break Piece::Written,
            Err(error) => break Piece::Broken(error),
        }
    };
    stages.written = Some(began.elapsed());
    if let Some(sentence) = sentences.finish() {
        let _ = texts.send(sentence).await;
    }
    let _ = out.send(end).await;
    stages
}

/// Returns when the first audio was there.
async fn say(
    context: Arc<Context>,
    request_id: RequestId,
    voice: Option<Speech>,
    mut texts: mpsc::Receiver<String>,
    out: &mpsc::Sender<Piece>,
    began: Instant,
) -> Option<Duration> {
    let voice = voice?;
    // An answer without a word to speak has no audio.
    let first = texts.recv().await?;
    let audio = match speech::speak_coming(context, request_id, voice, first, texts).await {
        Ok(audio) => audio,
        Err(error) => {
            let _ = out.send(Piece::Mute(error)).await;
            return None;
        }
    };
    let mut audio = std::pin::pin!(audio);
    let mut first = None;
    while let Some(bytes) = audio.next().await {
        let piece = match bytes {
            Ok(bytes) if bytes.is_empty() => continue,
            Ok(bytes) => {
                first.get_or_insert_with(|| began.elapsed());
                Piece::Audio(bytes)
            }
            Err(error) => Piece::Mute(error),
        };
        let _ = out.send(piece).await;
    }
    first
}
