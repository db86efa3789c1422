//! Conversations to answers, as jobs of the lane.

use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::mpsc;

use super::admission::{Ticket, admit};
use super::run::Client;
use super::{Refusal, Served};
use crate::answer::{Message, answer, pieces};
use crate::core::Core;
use crate::fault::origin::Origin;
use crate::fault::variant::BadTranscript;
use crate::lane::Lane;

/// Seconds of audio that a word counts for, so that a pace means the same as for speech.
const WORD_SECONDS: f64 = 0.4;

/// Pieces of an answer as they are made. Dropped, the job ends.
pub struct Words {
    _client: Client,
    pieces: mpsc::UnboundedReceiver<String>,
}

impl Words {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<String> {
        self.pieces.recv().await
    }
}

/// Answers in front of the lane.
pub struct Writer {
    /// What every engine has.
    pub core: Arc<Core>,
    lane: Lane<()>,
}

impl Writer {
    /// Answers on a lane of its own.
    #[must_use]
    pub fn new(core: Arc<Core>, lane: Lane<()>) -> Self {
        Self { core, lane }
    }

    /// Continues a conversation.
    ///
    /// # Errors
    /// When the job is not admitted. Under a hang it never returns.
    pub async fn write(&self, messages: &[Message], origin: &Origin) -> Result<Served<Words>, Refusal> {
        let input = messages.last().map_or("", |message| message.text.as_str());
        let Ticket { place, plan, start, client } =
            admit(&self.core, input.as_bytes(), origin).boxed().await?;
        let answer = match plan.transcript {
            None => answer(messages),
            Some(BadTranscript::Empty) => String::new(),
            Some(BadTranscript::Punct | BadTranscript::Nan) => "!!!!!!!!".into(),
            Some(BadTranscript::Constant) => "hello".into(),
        };
        let (sender, pieces_made) = mpsc::unbounded_channel();
        self.lane.submit(move |()| {
            if sender.is_closed() {
                return;
            }
            let mut run = start.begin();
            for (at, piece) in pieces(&answer).into_iter().enumerate() {
                run.clock.hold((at + 1) as f64 * WORD_SECONDS, || sender.is_closed());
                if sender.send(piece.to_owned()).is_err() {
                    break;
                }
            }
            drop((run, place));
        });
        let made = Words { _client: client, pieces: pieces_made };
        Ok(Served { made, reset_after: plan.reset_after, silent_after: plan.silent_after })
    }
}
