//! What the core asks of engines.

use crate::stream::clock::RATE;
use crate::stream::event::SegmentId;

/// What a decode is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Key {
    /// The whole segment.
    Final(SegmentId),
    /// The segment that runs, from so many seconds into it.
    Partial(SegmentId, f64),
    /// The whole segment, which an engine hears while it runs.
    Live(SegmentId),
    /// Who speaks in the segment: its audio after that of the voices that are known.
    Speakers(SegmentId),
}

/// What the engine is to get that hears a segment while it runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Feed {
    /// The segment has begun.
    Open(SegmentId),
    /// Its next samples, 16 kHz mono.
    Audio(SegmentId, Vec<i16>),
    /// It has ended.
    Close(SegmentId),
    /// It is not wanted any more.
    Drop(SegmentId),
}

/// Audio for an engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// What it is for.
    pub key: Key,
    /// 16 kHz mono.
    pub audio: Vec<i16>,
}

impl Order {
    /// Length of the audio.
    pub fn seconds(&self) -> f64 {
        self.audio.len() as f64 / f64::from(RATE)
    }
}
