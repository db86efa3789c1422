//! A span of time in whole microseconds.

/// Microseconds in a second.
pub(super) const SECOND: i64 = 1_000_000;
/// Microseconds in a millisecond.
pub(super) const MILLISECOND: i64 = 1_000;

/// Times further from zero than this (30 years) are clamped: sums of a few of them cannot overflow.
const LIMIT_S: f64 = 1e9;

/// Half-open span `start..end` in microseconds, `start <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Span {
    pub(super) fn duration(self) -> i64 {
        self.end - self.start
    }

    /// Time shared with `other`, 0 if they do not meet.
    pub(super) fn overlap(self, other: Span) -> i64 {
        (self.end.min(other.end) - self.start.max(other.start)).max(0)
    }
}

/// Seconds to microseconds; `None` unless finite.
pub(super) fn micros(seconds: f64) -> Option<i64> {
    seconds.is_finite().then(|| (seconds.clamp(-LIMIT_S, LIMIT_S) * 1e6).round() as i64)
}

/// Microseconds to whole milliseconds, rounded, never negative: audio starts at 0.
pub(super) fn millis(micros: i64) -> i64 {
    (micros + MILLISECOND / 2).div_euclid(MILLISECOND).max(0)
}

/// Microseconds to seconds.
pub(super) fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}
