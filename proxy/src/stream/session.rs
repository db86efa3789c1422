//! One session at work: its core, the decodes in flight and what it says.
//!
//! A dialect pushes input and awaits events; nothing runs between two calls but the decodes themselves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant;

use contract::Capability;

use super::core::{Core, Key};
use super::engines::{Ask, Engines};
use super::event::Event;
use super::settings::Settings;
use super::speech::{Say, Spoken};
use crate::audio::resample;
use crate::audio::voice::Earshot;
use crate::error::Error;
use crate::job::work::Transcript;

/// Input bytes beyond which nothing more is taken, but for the message that goes beyond it.
const QUEUED_BYTES: usize = 256 * 1024;
/// Inputs beyond which nothing more is taken.
const QUEUED_INPUTS: usize = 64;
/// How long a partial that is due waits for a free engine until it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a dialect passes in.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Audio in the format that is set.
    Audio(Bytes),
    /// Ends the segment that runs.
    Commit,
    /// Drops the audio that is not committed.
    Clear,
    /// Other settings for what follows. Their rate must be one that audio has.
    Settings(Settings),
    /// Other wishes to engines for what follows.
    Ask(Ask),
    /// Ends the session once all before it is dealt with: [`Event::Done`] is its last event.
    End,
}

/// A session. Dropping it ends its decodes and its speech.
pub struct Session {
    core: Core,
    ask: Ask,
    engines: Arc<dyn Engines>,
    began: Instant,
    inputs: VecDeque<Input>,
    queued: usize,
    decodes: JoinSet<Result<Transcript, Error>>,
    keys: Vec<(Id, Key)>,
    partial: Option<(Key, AbortHandle)>,
    speech: Option<Spoken>,
    ending: bool,
    done: bool,
}

impl Session {
    /// A session that begins now.
    ///
    /// # Errors
    /// A rate that audio does not have.
    pub fn new(settings: Settings, ask: Ask, engines: Arc<dyn Engines>) -> Result<Self, resample::Error> {
        Ok(Self {
            core: Core::new(settings, Box::new(Earshot::default()))?,
            ask,
            engines,
            began: Instant::now(),
            inputs: VecDeque::new(),
            queued: 0,
            decodes: JoinSet::new(),
            keys: Vec::new(),
            partial: None,
            speech: None,
            ending: false,
            done: false,
        })
    }

    /// Whether more input may be pushed. Until then the client's socket is not read.
    pub fn has_room(&self) -> bool {
        self.queued < QUEUED_BYTES && self.inputs.len() < QUEUED_INPUTS
    }

    /// Takes input. None counts after [`Input::End`].
    pub fn push(&mut self, input: Input) {
        if let Input::Audio(bytes) = &input {
            if bytes.is_empty() {
                return;
            }
            self.queued += bytes.len();
        }
        self.inputs.push_back(input);
    }

    /// Has a text spoken, in place of what is being spoken.
    pub fn say(&mut self, say: Say) {
        self.speech = Some(self.engines.speak(say));
    }

    /// Stops speaking and frees the engine. Returns whether something was being spoken.
    pub fn hush(&mut self) -> bool {
        self.speech.take().is_some()
    }

    /// Whether something is being spoken.
    pub fn speaks(&self) -> bool {
        self.speech.is_some()
    }

    /// Seconds of audio that came so far.
    pub fn seconds(&self) -> f64 {
        super::clock::seconds(self.core.position())
    }

    /// The next event. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.core.event() {
                return event;
            }
            self.dispatch();
            if self.step() {
                // A long message must not keep the thread from other sessions.
                tokio::task::yield_now().await;
                continue;
            }
            if self.ending && !self.done && self.core.is_settled() && self.speech.is_none() {
                self.done = true;
                return Event::Done;
            }
            if let Some(event) = self.wait().await {
                return event;
            }
        }
    }

    /// Waits for a decode, for speech, or for the next partial to be due.
    async fn wait(&mut self) -> Option<Event> {
        let now = self.began.elapsed();
        let due = self.core.due().map(|due| self.began + due.max(now + LOOK_AGAIN));
        let speech = &mut self.speech;
        tokio::select! {
            Some(joined) = self.decodes.join_next_with_id() => {
                let (id, heard) = match joined {
                    Ok((id, heard)) => (id, Some(heard)),
                    Err(error) => (error.id(), None),
                };
                self.heard(id, heard);
                None
            }
            Some(chunk) = async { match speech { Some(speech) => Some(speech.next().await), None => None } } => {
                Some(match chunk {
                    Some(Ok(audio)) => Event::Speech(audio),
                    Some(Err(error)) => {
                        self.speech = None;
                        Event::Spoken(Err(error))
                    }
                    None => {
                        self.speech = None;
                        Event::Spoken(Ok(()))
                    }
                })
            }
            () = async { match due { Some(due) => tokio::time::sleep_until(due).await, None => std::future::pending().await } } => None,
        }
    }

    /// Takes the next of the input, at most a tenth of a second of audio; `false` when there is none, or no room for it.
    fn step(&mut self) -> bool {
        if self.done || !self.core.has_room() {
            return false;
        }
        let Some(input) = self.inputs.front_mut() else { return false };
        if let Input::Audio(bytes) = input {
            let most = (self.core.bytes_per_second() / 10).max(64);
            let piece = bytes.split_to(most.min(bytes.len()));
            if bytes.is_empty() {
                self.inputs.pop_front();
            }
            self.queued -= piece.len();
            self.core.audio(&piece);
        } else {
            match self.inputs.pop_front() {
                Some(Input::Commit) => self.core.commit(),
                Some(Input::Clear) => self.core.clear(),
                Some(Input::Settings(settings)) => {
                    if self.core.configure(settings).is_err() {
                        tracing::warn!("a dialect passed a sample rate that audio does not have");
                    }
                }
                Some(Input::Ask(ask)) => self.ask = ask,
                Some(Input::End) => {
                    self.core.finish();
                    self.ending = true;
                    self.inputs.clear();
                    self.queued = 0;
                }
                Some(Input::Audio(_)) | None => {}
            }
        }
        true
    }

    /// Sends what is due to engines, and takes back what is not wanted any more.
    fn dispatch(&mut self) {
        if let Some((key, handle)) = &self.partial
            && !self.core.wants(*key)
        {
            handle.abort();
            self.partial = None;
        }
        let now = self.began.elapsed();
        while let Some(order) = self.core.order(now, || self.engines.is_free(&self.ask)) {
            let key = order.key;
            let handle = self.decodes.spawn(self.engines.transcribe(self.ask.clone(), order));
            self.keys.push((handle.id(), key));
            if let Key::Partial(..) = key {
                self.partial = Some((key, handle));
            }
        }
    }

    /// Takes what came of a decode; `None` when it was aborted, or panicked.
    fn heard(&mut self, id: Id, heard: Option<Result<Transcript, Error>>) {
        let Some(at) = self.keys.iter().position(|(known, _)| *known == id) else { return };
        let (_, key) = self.keys.swap_remove(at);
        if self.partial.as_ref().is_some_and(|(_, handle)| handle.id() == id) {
            self.partial = None;
        } else if let Key::Partial(..) = key {
            return; // of an earlier segment
        }
        let lost = || Error::EngineFailed {
            capability: Capability::Stt,
            reason: "its answer was lost",
            retry_after: Duration::from_secs(1),
        };
        self.core.heard(key, heard.unwrap_or_else(|| Err(lost())));
    }
}

#[cfg(test)]
mod tests;
