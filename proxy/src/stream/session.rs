//! One session at work: its core, the decodes in flight and what it says.
//!
//! A dialect pushes input and awaits events; nothing runs between two calls but the decodes themselves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant;
use tracing::Instrument;

use contract::Capability;

use super::core::{Core, Feed, Key};
use super::engines::{Ask, Engines};
use super::event::{Event, SegmentId};
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

/// Texts of running segments that wait to be taken; what is beyond is overtaken by the next.
const HEARD_WAITING: usize = 4;

/// Where the audio of a running segment goes. What is not taken yet is no longer than a segment.
type Mouth = futures::channel::mpsc::UnboundedSender<Result<Bytes, Error>>;
/// What was heard so far of a segment.
pub type SoFar = (SegmentId, Transcript);

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
    /// Engines that hear a segment while it runs: where its audio goes, and how to stop it.
    live: Vec<(SegmentId, Option<Mouth>, AbortHandle)>,
    hearing: (mpsc::Sender<SoFar>, mpsc::Receiver<SoFar>),
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
        let mut core = Core::new(settings, Box::new(Earshot::default()))?;
        core.set_live(engines.hears_live(&ask));
        Ok(Self {
            core,
            ask,
            engines,
            began: Instant::now(),
            inputs: VecDeque::new(),
            queued: 0,
            decodes: JoinSet::new(),
            keys: Vec::new(),
            partial: None,
            live: Vec::new(),
            hearing: mpsc::channel(HEARD_WAITING),
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
            Some((segment, so_far)) = self.hearing.1.recv() => {
                self.core.hearing(segment, &so_far);
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
                Some(Input::Ask(ask)) => {
                    self.core.set_live(self.engines.hears_live(&ask));
                    self.ask = ask;
                }
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
        while let Some(feed) = self.core.feed() {
            self.feed(feed);
        }
        let now = self.began.elapsed();
        while let Some(order) = self.core.order(now, || self.engines.is_free(&self.ask)) {
            let key = order.key;
            let handle = match key {
                Key::Speakers(_) => {
                    self.decodes.spawn(self.engines.diarize(self.ask.clone(), order).in_current_span())
                }
                _ => self.decodes.spawn(self.engines.transcribe(self.ask.clone(), order).in_current_span()),
            };
            self.keys.push((handle.id(), key));
            if let Key::Partial(..) = key {
                self.partial = Some((key, handle));
            }
        }
    }

    /// Passes audio of a segment that runs to the engine that hears it.
    fn feed(&mut self, feed: Feed) {
        let of = |live: &[(SegmentId, Option<Mouth>, AbortHandle)], segment| {
            live.iter().position(|(known, ..)| *known == segment)
        };
        match feed {
            Feed::Open(segment) => {
                let (mouth, audio) = futures::channel::mpsc::unbounded();
                let told = self.hearing.0.clone();
                let listening = self.engines.listen(self.ask.clone(), segment, audio, told);
                let handle = self.decodes.spawn(listening.in_current_span());
                self.keys.push((handle.id(), Key::Live(segment)));
                self.live.push((segment, Some(mouth), handle));
            }
            Feed::Audio(segment, samples) => {
                let at = of(&self.live, segment);
                if let Some((_, Some(mouth), _)) = at.and_then(|at| self.live.get(at)) {
                    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                    // It has failed, and says so by itself.
                    let _ = mouth.unbounded_send(Ok(bytes.into()));
                }
            }
            Feed::Close(segment) => {
                if let Some(at) = of(&self.live, segment) {
                    self.live[at].1 = None;
                }
            }
            Feed::Drop(segment) => {
                if let Some(at) = of(&self.live, segment) {
                    self.live.swap_remove(at).2.abort();
                }
            }
        }
    }

    /// Takes what came of a decode; `None` when it was aborted, or panicked.
    fn heard(&mut self, id: Id, heard: Option<Result<Transcript, Error>>) {
        let Some(at) = self.keys.iter().position(|(known, _)| *known == id) else { return };
        let (_, key) = self.keys.swap_remove(at);
        self.live.retain(|(_, _, handle)| handle.id() != id);
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
