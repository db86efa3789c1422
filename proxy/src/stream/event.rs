//! What a session tells its dialect.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::segmenter::Why;
use super::speakers::Talk;
use crate::error::Error;
use crate::job::work::Transcript;
use crate::transcript::{Params, Turn, merge};

/// Number of a segment within its session, from 0.
pub type SegmentId = u64;

/// What happened. Positions count 16 kHz samples from the start of the session.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A segment began.
    Started {
        /// Which.
        segment: SegmentId,
        /// Where its audio begins, padding included.
        at: u64,
    },
    /// It has ended; its text follows with [`Event::Final`] or [`Event::Failed`], in the order of segments.
    Committed {
        /// Which.
        segment: SegmentId,
        /// Where its audio lies.
        span: Range<u64>,
        /// Why it ended.
        why: Why,
    },
    /// Text of the segment that runs.
    Partial(Partial),
    /// The text of a segment.
    Final(Final),
    /// A segment has no text because its decode failed.
    Failed {
        /// Which.
        segment: SegmentId,
        /// Where its audio lies.
        span: Range<u64>,
        /// Why.
        error: Error,
    },
    /// A commit found no audio.
    Empty,
    /// The audio that was not committed is dropped.
    Cleared,
    /// The next samples of what is being spoken, s16le, never empty.
    Speech(Bytes),
    /// What was being spoken has ended.
    Spoken(Result<(), Error>),
    /// All audio and control before the end is dealt with.
    Done,
    /// The session cannot go on: the clock failed.
    Broken,
}

/// Text that may still change.
#[derive(Clone, Debug, PartialEq)]
pub struct Partial {
    /// The segment.
    pub segment: SegmentId,
    /// Where the audio that was heard lies.
    pub span: Range<u64>,
    /// What is committed now and was not before: all of them together are `committed`.
    pub added: String,
    /// The part that stays.
    pub committed: String,
    /// The part that may change, with the space before it and without the word that may be cut.
    pub tail: String,
}

impl Partial {
    /// All of the text.
    pub fn text(&self) -> String {
        format!("{}{}", self.committed, self.tail)
    }
}

/// Text that stays.
#[derive(Clone, Debug, PartialEq)]
pub struct Final {
    /// The segment.
    pub segment: SegmentId,
    /// Where its audio lies.
    pub span: Range<u64>,
    /// What was heard. Times of words count from the start of the segment.
    pub transcript: Transcript,
    /// What the text adds to the committed part of the partial texts, for a client that appends texts to one another; see
    /// [`Settings::appends`](super::Settings::appends).
    pub rest: String,
    /// Who speaks when, in order; empty unless it was asked for and could be told.
    pub speakers: Vec<Talk>,
}

impl Final {
    /// The speaker of each word; `None` where none can be named.
    pub fn speakers_of_words(&self) -> Vec<Option<usize>> {
        let turn = |talk: &Talk| Turn {
            start: talk.span.start,
            end: talk.span.end,
            speaker: talk.speaker.to_string(),
        };
        let turns: Vec<Turn> = self.speakers.iter().map(turn).collect();
        let params = Params { language: self.transcript.language.as_deref(), ..Params::default() };
        let merged = merge(&self.transcript.words, &turns, &params);
        (0..self.transcript.words.len()).map(|word| merged.label(word)?.parse().ok()).collect()
    }

    /// Who speaks most.
    pub fn speaker(&self) -> Option<usize> {
        let mut talked: BTreeMap<usize, f64> = BTreeMap::new();
        for talk in &self.speakers {
            *talked.entry(talk.speaker).or_default() += talk.span.end - talk.span.start;
        }
        // Of those who speak as much, the one who was heard first.
        talked.into_iter().rev().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(speaker, _)| speaker)
    }
}
