//! How long files are split.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};

/// Files that are cut at pauses and heard in pieces by several engines.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Long {
    /// Longer audio is split; zero never splits.
    #[serde(with = "duration")]
    pub split_after: Duration,
    /// Longest piece.
    #[serde(with = "duration")]
    pub piece: Duration,
    /// Audio that neighbours share.
    #[serde(with = "duration")]
    pub overlap: Duration,
    /// Least length of a pause to cut at.
    #[serde(with = "duration")]
    pub pause: Duration,
    /// Score of voice activity from which sound is speech, 0 to 1.
    pub threshold: f32,
    /// Pieces of one file at engines at a time, at most one for each engine.
    pub parallel: usize,
    /// How long a piece is tried while engines are busy or restart.
    #[serde(with = "duration")]
    pub patience: Duration,
}

impl Default for Long {
    fn default() -> Self {
        Self {
            split_after: Duration::from_secs(120),
            piece: Duration::from_secs(120),
            overlap: Duration::from_secs(3),
            pause: Duration::from_millis(200),
            threshold: 0.5,
            parallel: 8,
            patience: Duration::from_secs(180),
        }
    }
}

impl Long {
    /// What of these cannot be: the field and the reason.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        // The permits for pieces are made for pieces of this length, and a gRPC message of 4 MiB takes it with its overlap.
        const PIECES: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(120);
        const LONGEST: Duration = Duration::from_secs(130);
        if !PIECES.contains(&self.piece) {
            return Some(("piece", "must be from 5s to 120s"));
        }
        if self.piece + self.overlap > LONGEST {
            return Some(("overlap", "must be at most 130s together with piece"));
        }
        if self.overlap > self.piece / 4 {
            return Some(("overlap", "must be at most a quarter of piece"));
        }
        if !self.split_after.is_zero() && self.split_after < self.piece {
            return Some(("split_after", "must be 0s or at least piece"));
        }
        if !(0.2..=0.95).contains(&self.threshold) {
            return Some(("threshold", "must be from 0.2 to 0.95"));
        }
        (self.parallel == 0).then_some(("parallel", "must be at least 1"))
    }
}
