//! Conversations: what a language model says, as it says it.

use std::collections::VecDeque;

use super::Upstreams;
use super::ask::malformed;
use super::exchange::Stop;
use super::failure::Failure;
use super::outgoing::Outgoing;
use super::reply::Reply;
use super::send::Served;
use crate::error::Error;
use crate::job::chat::Delta;
use crate::protocol::Words;

/// An answer in the making. Dropping it ends the engine's job.
pub struct Said {
    reply: Reply,
    words: Box<dyn Words>,
    /// What was read and not taken.
    read: VecDeque<Delta>,
    ended: bool,
}

impl Said {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`Stop`] when the answer breaks off, ends with an error or is none.
    pub(crate) async fn next(&mut self) -> Result<Option<Delta>, Stop> {
        loop {
            if let Some(delta) = self.read.pop_front() {
                return Ok(Some(delta));
            }
            if self.ended {
                return Ok(None);
            }
            let deltas = match self.reply.next().await? {
                Some(data) => self.words.push(data),
                None => {
                    self.ended = true;
                    self.words.finish()
                }
            };
            self.read.extend(deltas.map_err(|error| malformed(&error))?);
        }
    }
}

impl Upstreams {
    /// Has a conversation continued, once the first words are there: until then another engine may take over. The work must be
    /// [`Work::Chat`](crate::job::work::Work::Chat).
    ///
    /// # Errors
    /// As `Upstreams::run`.
    pub async fn chat(&self, outgoing: &Outgoing) -> Result<Served<Said>, Error> {
        self.run(outgoing, first_words).await
    }
}

async fn first_words(reply: Reply) -> Result<Said, Stop> {
    let words = reply.protocol.words().ok_or(Failure::Unserved)?;
    let mut said = Said { reply, words, read: VecDeque::new(), ended: false };
    let mut before = VecDeque::new();
    while let Some(delta) = said.next().await? {
        let begins = !matches!(delta, Delta::Thought | Delta::Usage { .. });
        before.push_back(delta);
        if begins {
            break;
        }
    }
    before.append(&mut said.read);
    said.read = before;
    Ok(said)
}
