//! Cuts the audio of a session into segments: by voice activity, by length, or where the client asks.
//!
//! All times are positions of the [clock](super::clock), so that the cuts do not depend on how the audio was chunked.

use std::collections::VecDeque;
use std::ops::Range;

use super::clock::samples;
use crate::audio::voice::{FRAME, Voice};

/// How far a score must fall below the threshold before it counts as silence.
const HYSTERESIS: f32 = 0.15;
/// Least of the longest segment.
const LEAST_MAX: u64 = samples(250);
/// A forced cut lies within so much of the end of a segment.
const CUT_WITHIN: u64 = samples(2_000);

/// When a segment begins and ends by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Least score of speech, 0 to 1.
    pub threshold: f32,
    /// Speech that begins a segment, samples.
    pub start: u64,
    /// Silence that ends it, samples.
    pub silence: u64,
    /// Audio before the first speech that belongs to the segment, samples.
    pub pad: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { threshold: 0.5, start: samples(64), silence: samples(500), pad: samples(300) }
    }
}

/// Why a segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Silence followed.
    Silence,
    /// It was as long as a segment may be.
    Length,
    /// The client asked, or the session ended.
    Asked,
}

/// A finished piece of audio.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Where its audio lies.
    pub span: Range<u64>,
    /// Its audio.
    pub audio: Vec<i16>,
    /// Samples of it that are speech; all of them where nothing is scored.
    pub spoken: u64,
    /// Why it ended.
    pub why: Why,
}

/// What happened in the audio.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// A segment began at this position, padding included.
    Started(u64),
    /// The segment that began last has ended.
    Ended(Segment),
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Since `onset` so many samples were speech in a row.
    Idle { onset: u64, run: u64 },
    /// A segment runs. Silence has lasted since `hang`, if it has begun.
    Speech { start: u64, spoken: u64, hang: Option<u64> },
}

const IDLE: Phase = Phase::Idle { onset: 0, run: 0 };

/// The state machine.
pub struct Segmenter {
    /// `None` when only the client ends segments.
    rules: Option<Rules>,
    /// Longest segment, samples.
    max: u64,
    /// Audio that a segment shares with the one before it where the length ended that, samples; without rules.
    overlap: u64,
    /// End of the audio that is in a segment already.
    given: u64,
    phase: Phase,
    /// Audio from `base` on.
    tape: VecDeque<i16>,
    base: u64,
    /// Position up to which frames are scored.
    scored: u64,
    /// Scores of the last frames of the segment that runs.
    scores: VecDeque<f32>,
}

impl Segmenter {
    /// One at position 0 whose segments are at most `max` samples long, and of at least a quarter of a second.
    pub fn new(rules: Option<Rules>, max: u64) -> Self {
        Self {
            rules,
            max: max.max(LEAST_MAX),
            overlap: 0,
            given: 0,
            phase: IDLE,
            tape: VecDeque::new(),
            base: 0,
            scored: 0,
            scores: VecDeque::new(),
        }
    }

    /// Other rules from now on. Audio of the segment that runs is kept.
    pub fn change(&mut self, rules: Option<Rules>) {
        let (had, has) = (self.rules.is_some(), rules.is_some());
        self.rules = rules;
        match (had, has, self.phase) {
            // What waits unscored is scored with the next audio.
            (false, true, Phase::Speech { start, .. }) => {
                self.phase = Phase::Speech { start, spoken: self.position() - start, hang: None };
                self.scored = self.position();
            }
            (false, true, Phase::Idle { .. }) => self.scored = self.position(),
            (true, false, Phase::Idle { .. }) => self.forget(self.position()),
            _ => {}
        }
    }

    /// Another longest segment, at least a quarter of a second, and another overlap, at most half of that.
    pub fn set_max(&mut self, max: u64, overlap: u64) {
        self.max = max.max(LEAST_MAX);
        self.overlap = overlap.min(self.max / 2);
    }

    /// Another silence that ends a segment, where silence does.
    pub fn set_silence(&mut self, silence: u64) {
        if let Some(rules) = &mut self.rules {
            rules.silence = silence;
        }
    }

    /// Position behind the last sample.
    pub fn position(&self) -> u64 {
        self.base + self.tape.len() as u64
    }

    /// Start of the segment that runs, and how much of it is speech.
    pub fn running(&self) -> Option<(u64, u64)> {
        match (self.phase, self.rules) {
            (Phase::Idle { .. }, _) => None,
            (Phase::Speech { start, spoken, .. }, Some(_)) => Some((start, spoken)),
            (Phase::Speech { start, .. }, None) => Some((start, self.position() - self.given.max(start))),
        }
    }

    /// End of the audio that is part of the segment that runs, wherever that will be cut.
    pub fn certain(&self) -> Option<u64> {
        let (start, _) = self.running()?;
        let cut_within = if self.rules.is_some() { CUT_WITHIN.min(self.max / 2) } else { 0 };
        Some(self.scored.min(start + self.max - cut_within))
    }

    /// The audio of a range that is still kept.
    pub fn audio(&self, span: Range<u64>) -> Vec<i16> {
        let index = |position: u64| (position.max(self.base) - self.base) as usize;
        let end = index(span.end).min(self.tape.len());
        self.tape.range(index(span.start).min(end)..end).copied().collect()
    }

    /// Takes audio and appends what happened in it.
    pub fn push(&mut self, audio: &[i16], voice: &mut dyn Voice, marks: &mut Vec<Mark>) {
        let Some(rules) = self.rules else {
            self.gather(audio, marks);
            return;
        };
        self.tape.extend(audio);
        let mut frame = [0; FRAME];
        while self.position() - self.scored >= FRAME as u64 {
            let from = (self.scored - self.base) as usize;
            for (slot, sample) in frame.iter_mut().zip(self.tape.range(from..from + FRAME)) {
                *slot = *sample;
            }
            self.scored += FRAME as u64;
            // A change of the silence counts at once.
            self.step(voice.score(&frame), self.rules.unwrap_or(rules), marks);
        }
        if let Phase::Idle { onset, run } = self.phase {
            let onset = if run > 0 { onset } else { self.scored };
            self.forget(onset.saturating_sub(rules.pad));
        }
    }

    /// Ends the segment that runs, or makes one of what is kept; `None` when there is no audio.
    pub fn commit(&mut self, marks: &mut Vec<Mark>) {
        let end = self.position();
        let (start, spoken) = match self.phase {
            Phase::Speech { start, .. } => (start, self.running().map_or(0, |(_, spoken)| spoken)),
            Phase::Idle { .. } => {
                if end > self.base && end > self.given {
                    marks.push(Mark::Started(self.base));
                }
                (self.base, 0)
            }
        };
        // What is shared with the segment before is no segment of its own.
        if end > start && end > self.given {
            self.end(start..end, spoken, Why::Asked, marks);
        }
        self.forget(end);
        self.phase = IDLE;
        self.scored = end;
        self.scores.clear();
    }

    /// Ends the segment that runs, if one does.
    pub fn finish(&mut self, marks: &mut Vec<Mark>) {
        if self.running().is_some() {
            self.commit(marks);
        }
    }

    /// Drops all audio.
    pub fn clear(&mut self) {
        self.forget(self.position());
        self.given = self.base;
        self.phase = IDLE;
        self.scored = self.base;
        self.scores.clear();
    }

    /// Takes audio that nothing scores.
    fn gather(&mut self, mut audio: &[i16], marks: &mut Vec<Mark>) {
        while !audio.is_empty() {
            if let Phase::Idle { .. } = self.phase {
                marks.push(Mark::Started(self.base));
                self.phase = Phase::Speech { start: self.base, spoken: 0, hang: None };
            }
            let room = usize::try_from(self.max.saturating_sub(self.tape.len() as u64)).unwrap_or(usize::MAX);
            let (now, later) = audio.split_at(room.min(audio.len()));
            self.tape.extend(now);
            audio = later;
            if self.tape.len() as u64 >= self.max {
                let span = self.base..self.position();
                let spoken = span.end - span.start;
                let shared = self.audio(span.end - self.overlap..span.end);
                self.end(span.clone(), spoken, Why::Length, marks);
                self.base -= shared.len() as u64;
                self.tape.extend(shared);
                self.phase = IDLE;
            }
        }
        self.scored = self.position();
    }

    /// Takes the score of the frame that ends at `scored`.
    fn step(&mut self, score: f32, rules: Rules, marks: &mut Vec<Mark>) {
        let frame = FRAME as u64;
        let before = self.scored - frame;
        match self.phase {
            Phase::Idle { onset, run } => {
                let (onset, run) = match score {
                    score if score >= rules.threshold && run == 0 => (before, frame),
                    score if score >= rules.threshold => (onset, run + frame),
                    score if score >= rules.threshold - HYSTERESIS && before < onset + 4 * rules.start => {
                        (onset, run)
                    }
                    _ => (0, 0),
                };
                self.phase = Phase::Idle { onset, run };
                if run > 0 && run >= rules.start {
                    let start = onset.saturating_sub(rules.pad).max(self.base);
                    self.phase = Phase::Speech { start, spoken: run, hang: None };
                    self.scores.clear();
                    self.forget(start);
                    marks.push(Mark::Started(start));
                }
            }
            Phase::Speech { start, spoken, hang } => {
                let is_speech = score >= rules.threshold;
                let hang = match hang {
                    _ if is_speech => None,
                    None if score < rules.threshold - HYSTERESIS => Some(before),
                    hang => hang,
                };
                let spoken = spoken + if is_speech { frame } else { 0 };
                self.phase = Phase::Speech { start, spoken, hang };
                self.remember(score);
                if hang.is_some_and(|since| self.scored - since >= rules.silence) {
                    self.end(start..self.scored, spoken, Why::Silence, marks);
                    self.phase = IDLE;
                } else if self.scored - start >= self.max {
                    self.force(start, spoken, hang, rules, marks);
                }
            }
        }
    }

    /// Cuts a segment that is too long where it is least like speech, and goes on behind the cut.
    fn force(&mut self, start: u64, spoken: u64, hang: Option<u64>, rules: Rules, marks: &mut Vec<Mark>) {
        let frame = FRAME as u64;
        let count = self.scores.len();
        // The last of equals: the shorter the rest, the less is decoded again.
        let lowest =
            (0..count).min_by(|a, b| self.scores[*a].total_cmp(&self.scores[*b]).then_with(|| b.cmp(a)));
        let behind = lowest.map_or(0, |lowest| count - 1 - lowest);
        let cut = self.scored - behind as u64 * frame;
        let rest = self.scores.range(count - behind..).filter(|score| **score >= rules.threshold).count();
        let later = rest as u64 * frame;
        self.end(start..cut, spoken.saturating_sub(later), Why::Length, marks);
        marks.push(Mark::Started(cut));
        let hang = hang.map(|since| since.max(cut));
        self.phase = Phase::Speech { start: cut, spoken: later, hang };
        self.scores.drain(..count - behind);
    }

    fn remember(&mut self, score: f32) {
        // At least half of a segment lies before a forced cut.
        let frames = CUT_WITHIN.min(self.max / 2) / FRAME as u64;
        if self.scores.len() as u64 >= frames {
            self.scores.pop_front();
        }
        self.scores.push_back(score);
    }

    fn end(&mut self, span: Range<u64>, spoken: u64, why: Why, marks: &mut Vec<Mark>) {
        let audio = self.audio(span.clone());
        self.forget(span.end);
        self.given = span.end;
        marks.push(Mark::Ended(Segment { span, audio, spoken, why }));
    }

    /// Drops the audio before a position.
    fn forget(&mut self, position: u64) {
        let count = position.saturating_sub(self.base).min(self.tape.len() as u64);
        self.tape.drain(..count as usize);
        self.base += count;
    }
}

#[cfg(test)]
mod tests;
