//! The core of a session without any IO: audio and control in, orders for engines and events out. Time is passed in.

mod order;
mod turn;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::agreement::{Agreement, hypothesis};
use super::clock::{Clock, RATE, samples, seconds};
use super::event::{Event, Final, Partial, SegmentId};
use super::segmenter::{Mark, Segment, Segmenter, Why};
use super::settings::Settings;
use super::speakers::{Parts, Talk, Voices};
use crate::audio::resample;
use crate::audio::voice::Voice;
use crate::error::Error;
use crate::job::work::Transcript;
pub use order::{Feed, Key, Order};
use turn::{opening, silence_after};

/// New speech that a partial decode needs.
const NEW_SPEECH: u64 = samples(240);
/// Longest audio of a partial decode, seconds.
const PARTIAL_SECONDS: f64 = 12.0;
/// A segment that silence ended goes to no engine with less speech: what engines hear in noise is invented.
const LEAST_SPEECH: u64 = samples(120);
/// Engines refuse what is shorter.
const LEAST_AUDIO: u64 = samples(100);
/// Segments of a session whose text is not there yet, beyond which no more audio is taken.
const MAX_FINALS: usize = 4;

/// A segment whose text is not out yet.
struct Pending {
    segment: SegmentId,
    span: Range<u64>,
    /// Its audio, until an engine has it.
    audio: Option<Vec<i16>>,
    /// Whether an engine heard it while it ran, and its text is awaited.
    live: bool,
    heard: Option<Result<Transcript, Error>>,
    /// Its audio until its speakers are told, if they are to be.
    untold: Option<Vec<i16>>,
    speakers: Vec<Talk>,
    agreement: Agreement,
}

impl Pending {
    /// Whether its text and, where they are asked for, its speakers are there. An empty text has no speakers.
    fn is_complete(&self) -> bool {
        match &self.heard {
            None => false,
            Some(Ok(transcript)) => self.untold.is_none() || transcript.text.trim().is_empty(),
            Some(Err(_)) => true,
        }
    }
}

/// A session.
pub struct Core {
    settings: Settings,
    clock: Clock,
    voice: Box<dyn Voice>,
    segmenter: Segmenter,
    /// The next segment.
    next: SegmentId,
    agreement: Agreement,
    /// Whether engines hear segments while they run.
    live: bool,
    /// End of the audio that went to the engine that hears the segment that runs, if one does.
    fed: Option<u64>,
    feeds: VecDeque<Feed>,
    /// Whether a partial decode of the segment that runs is in flight.
    in_flight: bool,
    /// When the last one began.
    last_partial: Option<Duration>,
    /// Speech of the segment when it did.
    heard_speech: u64,
    /// End of the audio that it got.
    heard_until: u64,
    pending: VecDeque<Pending>,
    voices: Voices,
    /// The segment whose speakers an engine is asked for, and where it lies in what the engine has got.
    asked: Option<(SegmentId, Parts)>,
    events: VecDeque<Event>,
    made: Vec<i16>,
    marks: Vec<Mark>,
}

impl Core {
    /// A session that begins now.
    ///
    /// # Errors
    /// A rate that audio does not have.
    pub fn new(settings: Settings, voice: Box<dyn Voice>) -> Result<Self, resample::Error> {
        let clock = Clock::new(settings.format)?;
        let mut segmenter = Segmenter::new(opening(&settings), settings.max);
        segmenter.set_max(settings.max, settings.overlap);
        Ok(Self {
            settings,
            clock,
            voice,
            segmenter,
            next: 0,
            agreement: Agreement::default(),
            live: false,
            fed: None,
            feeds: VecDeque::new(),
            in_flight: false,
            last_partial: None,
            heard_speech: 0,
            heard_until: 0,
            pending: VecDeque::new(),
            voices: Voices::default(),
            asked: None,
            events: VecDeque::new(),
            made: Vec::new(),
            marks: Vec::new(),
        })
    }

    /// What is set now.
    #[cfg(test)]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Position behind the last sample.
    pub fn position(&self) -> u64 {
        self.clock.position()
    }

    /// Input bytes of a second.
    pub fn bytes_per_second(&self) -> usize {
        self.clock.bytes_per_second()
    }

    /// Whether more audio may come: few segments wait for their text.
    pub fn has_room(&self) -> bool {
        self.pending.len() < MAX_FINALS
    }

    /// Whether all text is out.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.events.is_empty()
    }

    /// Whether engines hear the next segments while they run.
    pub fn set_live(&mut self, live: bool) {
        self.live = live;
    }

    /// What an engine that hears a segment while it runs is to get next.
    pub fn feed(&mut self) -> Option<Feed> {
        self.feeds.pop_front()
    }

    /// The next event.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Takes audio in the format of the settings; it may end within a sample.
    pub fn audio(&mut self, bytes: &[u8]) {
        self.made.clear();
        let pushed = self.clock.push(bytes, &mut self.made);
        self.advance(pushed);
    }

    /// Ends the segment that runs.
    pub fn commit(&mut self) {
        self.flush();
        let mut marks = std::mem::take(&mut self.marks);
        self.segmenter.commit(&mut marks);
        if !marks.iter().any(|mark| matches!(mark, Mark::Ended(_))) {
            self.events.push_back(Event::Empty);
        }
        self.marks = marks;
        self.mark();
    }

    /// Drops the audio that is not committed.
    pub fn clear(&mut self) {
        self.flush();
        self.segmenter.clear();
        self.voice.reset();
        if self.fed.take().is_some() {
            self.feeds.push_back(Feed::Drop(self.next.saturating_sub(1)));
        }
        self.forget_partials();
        self.events.push_back(Event::Cleared);
    }

    /// Ends the segment that runs, if one does. No audio may follow.
    pub fn finish(&mut self) {
        self.flush();
        let mut marks = std::mem::take(&mut self.marks);
        self.segmenter.finish(&mut marks);
        self.marks = marks;
        self.mark();
    }

    /// Other settings from now on.
    ///
    /// # Errors
    /// A rate that audio does not have: then nothing has changed.
    pub fn configure(&mut self, settings: Settings) -> Result<(), resample::Error> {
        self.made.clear();
        self.clock.change(settings.format, &mut self.made)?;
        self.advance(Ok(()));
        if opening(&settings) != opening(&self.settings) {
            self.segmenter.change(opening(&settings));
        }
        self.segmenter.set_max(settings.max, settings.overlap);
        self.settings = settings;
        Ok(())
    }

    /// Audio that an engine is to get now: finals as they are, a partial when one is due and an engine is free.
    pub fn order(&mut self, now: Duration, free: impl FnOnce() -> bool) -> Option<Order> {
        for pending in self.pending.iter_mut().filter(|pending| !pending.live) {
            if let Some(audio) = pending.audio.take() {
                return Some(Order { key: Key::Final(pending.segment), audio });
            }
        }
        if let Some(order) = self.order_speakers() {
            return Some(order);
        }
        let (start, speech) = self.segmenter.running()?;
        let early = self.last_partial.is_some_and(|last| now.saturating_sub(last) < self.cadence());
        let new_speech = speech.saturating_sub(self.heard_speech);
        let wanted = self.wants_partials();
        if !wanted || early || new_speech <= NEW_SPEECH || !free() {
            return None;
        }
        let end = self.segmenter.position();
        let offset = self.agreement.window(seconds(end - start), PARTIAL_SECONDS)?;
        let from = start + (offset * f64::from(RATE)) as u64;
        (self.in_flight, self.last_partial) = (true, Some(now));
        (self.heard_speech, self.heard_until) = (speech, end);
        let audio = self.segmenter.audio(from..end);
        Some(Order { key: Key::Partial(self.next.saturating_sub(1), offset), audio })
    }

    /// The recording by which the speakers of the first segment are told that has not got them yet. One after the other: each
    /// makes voices known to the next.
    fn order_speakers(&mut self) -> Option<Order> {
        if self.asked.is_some() {
            return None;
        }
        let pending = self.pending.iter().find(|pending| pending.untold.is_some())?;
        let (audio, parts) = self.voices.recording(pending.untold.as_ref()?);
        self.asked = Some((pending.segment, parts));
        Some(Order { key: Key::Speakers(pending.segment), audio })
    }

    /// Takes who speaks in a segment. One whose speakers cannot be told goes without.
    fn told(&mut self, segment: SegmentId, told: Result<Transcript, Error>) {
        let Some((_, parts)) = self.asked.take_if(|(asked, _)| *asked == segment) else { return };
        let Some(pending) = self.pending.iter_mut().find(|pending| pending.segment == segment) else {
            return;
        };
        let audio = pending.untold.take().unwrap_or_default();
        if let Ok(Transcript { turns: Some(turns), .. }) = told {
            pending.speakers = self.voices.tell(&parts, &turns.turns, &audio);
        }
    }

    /// When the next partial may be due although no audio comes.
    pub fn due(&self) -> Option<Duration> {
        let (_, speech) = self.segmenter.running()?;
        let waits = self.wants_partials() && speech > self.heard_speech + NEW_SPEECH;
        waits.then(|| self.last_partial.map_or(Duration::ZERO, |last| last + self.cadence()))
    }

    /// Least time between two partial decodes: half of what is set while there is nothing to show yet.
    fn cadence(&self) -> Duration {
        if self.agreement.is_empty() { self.settings.cadence / 2 } else { self.settings.cadence }
    }

    fn wants_partials(&self) -> bool {
        self.settings.partials && self.settings.hears && !self.in_flight && self.fed.is_none()
    }

    /// Whether the text of a decode is still wanted.
    pub fn wants(&self, key: Key) -> bool {
        match key {
            Key::Final(segment) => self.pending.iter().any(|pending| pending.segment == segment),
            Key::Live(segment) => {
                self.is_fed(segment)
                    || self.pending.iter().any(|pending| pending.segment == segment && pending.live)
            }
            Key::Speakers(segment) => self.asked.as_ref().is_some_and(|(asked, _)| *asked == segment),
            Key::Partial(segment, _) => {
                self.in_flight && self.segmenter.running().is_some() && segment + 1 == self.next
            }
        }
    }

    /// Takes what an engine heard.
    pub fn heard(&mut self, key: Key, heard: Result<Transcript, Error>) {
        if !self.wants(key) {
            return;
        }
        match key {
            Key::Final(segment) => {
                if let Some(pending) = self.pending.iter_mut().find(|pending| pending.segment == segment) {
                    pending.heard = Some(heard);
                }
                self.release();
            }
            Key::Speakers(segment) => {
                self.told(segment, heard);
                self.release();
            }
            // One that ended before its audio did has not heard all of it.
            Key::Live(segment) if self.is_fed(segment) => self.fed = None,
            Key::Live(segment) => {
                if let Some(pending) = self.pending.iter_mut().find(|pending| pending.segment == segment) {
                    pending.live = false;
                    if let Ok(heard) = heard {
                        (pending.audio, pending.heard) = (None, Some(Ok(heard)));
                    }
                }
                self.release();
            }
            Key::Partial(segment, offset) => {
                self.in_flight = false;
                // A partial that fails is made up for by the next one.
                if let (Ok(transcript), Some((start, _))) = (heard, self.segmenter.running()) {
                    self.partial(segment, start, offset, &transcript);
                }
            }
        }
    }

    /// Takes what an engine has heard so far of the segment that runs.
    pub fn hearing(&mut self, segment: SegmentId, so_far: &Transcript) {
        if let (true, Some((start, _)), Some(fed)) =
            (self.is_fed(segment) && self.settings.partials, self.segmenter.running(), self.fed)
        {
            self.heard_until = fed;
            self.partial(segment, start, 0.0, so_far);
        }
    }

    /// Whether an engine hears this segment, and it still runs.
    fn is_fed(&self, segment: SegmentId) -> bool {
        self.fed.is_some() && segment + 1 == self.next
    }

    fn partial(&mut self, segment: SegmentId, start: u64, offset: f64, transcript: &Transcript) {
        let added = self.agreement.update(hypothesis(&transcript.text, &transcript.words, offset));
        if let Some(longest) = self.settings.eagerness {
            self.segmenter.set_silence(silence_after(&self.agreement.text(), longest));
        }
        let (committed, tail) = (self.agreement.committed(), self.agreement.tail());
        if !(committed.is_empty() && tail.is_empty()) {
            let span = start..self.heard_until;
            self.events.push_back(Event::Partial(Partial { segment, span, added, committed, tail }));
        }
    }

    /// Takes what the clock still holds.
    fn flush(&mut self) {
        self.made.clear();
        let flushed = self.clock.flush(&mut self.made);
        self.advance(flushed);
    }

    /// Passes what the clock made to the segmenter.
    fn advance(&mut self, pushed: Result<(), resample::Error>) {
        if pushed.is_err() {
            self.events.push_back(Event::Broken);
            return;
        }
        self.segmenter.push(&self.made, &mut *self.voice, &mut self.marks);
        self.mark();
        if let (Some(fed), Some(end)) = (self.fed, self.segmenter.certain())
            && end > fed
        {
            self.feeds.push_back(Feed::Audio(self.next.saturating_sub(1), self.segmenter.audio(fed..end)));
            self.fed = Some(end);
        }
    }

    /// Deals with what the segmenter found.
    fn mark(&mut self) {
        for mark in std::mem::take(&mut self.marks) {
            match mark {
                Mark::Started(at) => {
                    self.forget_partials();
                    self.events.push_back(Event::Started { segment: self.next, at });
                    if self.live && self.settings.hears {
                        self.feeds.push_back(Feed::Open(self.next));
                        self.fed = Some(at);
                    }
                    self.next += 1;
                }
                Mark::Ended(segment) => self.ended(segment),
            }
        }
    }

    fn ended(&mut self, segment: Segment) {
        let Segment { span, audio, spoken, why } = segment;
        let id = self.next.saturating_sub(1);
        self.events.push_back(Event::Committed { segment: id, span: span.clone(), why });
        let noise = why == Why::Silence && spoken < LEAST_SPEECH;
        let unheard = !self.settings.hears || noise || span.end - span.start < LEAST_AUDIO;
        let agreement = std::mem::take(&mut self.agreement);
        let fed = self.fed.take();
        match fed {
            Some(_) if unheard => self.feeds.push_back(Feed::Drop(id)),
            Some(fed) => {
                let rest = usize::try_from(fed - span.start.min(fed)).unwrap_or(usize::MAX).min(audio.len());
                self.feeds.push_back(Feed::Audio(id, audio[rest..].to_vec()));
                self.feeds.push_back(Feed::Close(id));
            }
            None => {}
        }
        self.pending.push_back(Pending {
            segment: id,
            span,
            untold: (self.settings.speakers && !unheard).then(|| audio.clone()),
            speakers: Vec::new(),
            audio: (!unheard).then_some(audio),
            live: fed.is_some() && !unheard,
            heard: unheard.then(|| Ok(Transcript::default())),
            agreement,
        });
        self.forget_partials();
        if let (Some(rules), Some(_)) = (opening(&self.settings), self.settings.eagerness) {
            self.segmenter.set_silence(rules.silence);
        }
        self.release();
    }

    fn forget_partials(&mut self) {
        self.agreement = Agreement::default();
        (self.in_flight, self.last_partial, self.heard_speech) = (false, None, 0);
    }

    /// Lets out the texts that are there, in order.
    fn release(&mut self) {
        while let Some(pending) = self.pending.pop_front_if(|pending| pending.is_complete()) {
            let Some(heard) = pending.heard else { return };
            let (segment, span) = (pending.segment, pending.span);
            self.events.push_back(match heard {
                Ok(mut transcript) => {
                    let appends = self.settings.appends;
                    let rest =
                        if appends { pending.agreement.settle(&mut transcript) } else { String::new() };
                    Event::Final(Final { segment, span, transcript, rest, speakers: pending.speakers })
                }
                Err(error) => Event::Failed { segment, span, error },
            });
        }
    }
}

#[cfg(test)]
mod tests;
