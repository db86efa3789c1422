//! Step 3 of the merge: how well each speaker's turns explain a word, seen alone.

use std::sync::LazyLock;

use super::span::{MILLISECOND, SECOND, Span};
use super::speakers::Speaker;

/// Log score of a speaker with no talk anywhere near the word.
const FLOOR_LOG: f32 = -3.912_023; // ln FLOOR
const FLOOR: f32 = 0.02;
/// Log score of a speaker who talks through the whole word.
const COVERED_LOG: f32 = 0.019_802_628; // ln (1 + FLOOR)
/// Weight of being near to the part of the word that is not covered, and the distance over which it fades.
const NEAR: f32 = 0.3;
const NEAR_REACH: f32 = 0.5 * SECOND as f32;
/// Beyond this, nearness is below a thousandth of the floor: nothing.
const NEAR_LIMIT: i64 = 5 * SECOND;

/// One speaker's claim on one word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// Log score: `ln(0.02 + f + 0.3 * exp(-d / 0.5 s) * (1 - f))` for the covered share f and the distance d to
    /// the nearest edge.
    pub(super) log: f32,
    /// Covered time of the word.
    pub(super) covered: i64,
    /// Time to the nearest edge of the speaker's talk, 0 if it covers any of the word.
    pub(super) distance: i64,
    /// Start of the nearest turn.
    pub(super) onset: i64,
}

/// Walks all speakers' turns beside the words.
pub(super) struct Scorer<'a> {
    speakers: &'a [Speaker],
    /// First span of each speaker that ends after the last word's start.
    next: Vec<usize>,
    claims: Vec<Claim>,
}

impl<'a> Scorer<'a> {
    pub(super) fn new(speakers: &'a [Speaker]) -> Self {
        Self { speakers, next: vec![0; speakers.len()], claims: Vec::with_capacity(speakers.len()) }
    }

    /// Every speaker's claim on a word. Words must come in ascending order of start.
    pub(super) fn score(&mut self, word: Span) -> &[Claim] {
        self.claims.clear();
        for (speaker, next) in self.speakers.iter().zip(&mut self.next) {
            while speaker.spans.get(*next).is_some_and(|span| span.end <= word.start) {
                *next += 1;
            }
            self.claims.push(claim(speaker, *next, word));
        }
        &self.claims
    }
}

fn claim(speaker: &Speaker, next: usize, word: Span) -> Claim {
    let after = speaker.spans.get(next).copied();
    if let Some(span) = after
        && span.start < word.end
    {
        let covered = if span.end >= word.end { span.overlap(word) } else { talk_in(speaker, next, word) };
        return Claim { log: covered_log(covered, word.duration()), covered, distance: 0, onset: span.start };
    }
    let before = next.checked_sub(1).map(|index| speaker.spans[index]);
    let (distance, onset) = match (before, after) {
        (Some(before), Some(after)) if after.start - word.end < word.start - before.end => {
            (after.start - word.end, after.start)
        }
        (Some(before), _) => (word.start - before.end, before.start),
        (None, Some(after)) => (after.start - word.end, after.start),
        // A speaker has at least one turn.
        (None, None) => (i64::MAX, i64::MAX),
    };
    Claim { log: nearness_log(distance), covered: 0, distance, onset }
}

/// Talk inside a word that outlasts the span it begins with. A word meets few spans, but nothing forbids a
/// diarizer to send thousands: find the last by bisection and take the difference of the running sums.
fn talk_in(speaker: &Speaker, first: usize, word: Span) -> i64 {
    let behind = first + speaker.spans[first..].partition_point(|span| span.start < word.end);
    let head = (word.start - speaker.spans[first].start).max(0);
    let tail = (speaker.spans[behind - 1].end - word.end).max(0);
    speaker.talk_in(first, behind) - head - tail
}

fn covered_log(covered: i64, duration: i64) -> f32 {
    if covered == duration {
        return COVERED_LOG;
    }
    let share = covered as f32 / duration as f32;
    (FLOOR + share + NEAR * (1.0 - share)).ln()
}

fn nearness_log(distance: i64) -> f32 {
    usize::try_from(distance / MILLISECOND)
        .ok()
        .and_then(|ms| NEARNESS_LOGS.get(ms))
        .copied()
        .unwrap_or(FLOOR_LOG)
}

/// Log scores by distance in whole milliseconds: to compute each anew is a fifth of the time of a merge.
static NEARNESS_LOGS: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let log = |ms: i64| (FLOOR + NEAR * (-((ms * MILLISECOND) as f32) / NEAR_REACH).exp()).ln();
    (0..NEAR_LIMIT / MILLISECOND).map(log).collect()
});

#[cfg(test)]
mod tests {
    use super::super::{Turn, speakers};
    use super::*;

    fn speaker(turns: &[(f64, f64)]) -> Vec<Speaker> {
        let turns: Vec<Turn> =
            turns.iter().map(|&(start, end)| Turn { start, end, speaker: "A".to_owned() }).collect();
        speakers::collect(&turns)
    }

    fn word(start_ms: i64, end_ms: i64) -> Span {
        Span { start: start_ms * 1000, end: end_ms * 1000 }
    }

    #[test]
    fn constants_are_the_logarithms_they_stand_for() {
        assert!((FLOOR_LOG - FLOOR.ln()).abs() < 1e-6);
        assert!((COVERED_LOG - (1.0 + FLOOR).ln()).abs() < 1e-6);
    }

    #[test]
    fn covered_time_is_summed_over_turns() {
        let speakers = speaker(&[(0.0, 1.0), (1.1, 1.2), (1.3, 1.4), (1.45, 9.0)]);
        let claim = Scorer::new(&speakers).score(word(900, 1500))[0];
        assert_eq!((claim.covered, claim.distance, claim.onset), (350_000, 0, 0));
        let claim = Scorer::new(&speakers).score(word(500, 600))[0];
        assert_eq!((claim.covered, claim.log), (100_000, COVERED_LOG));
    }

    #[test]
    fn distance_is_to_the_nearest_edge_not_to_the_middle() {
        let speakers = speaker(&[(0.0, 60.0), (62.0, 62.5)]);
        let mut scorer = Scorer::new(&speakers);
        let claim = scorer.score(word(60_200, 60_400))[0];
        assert_eq!((claim.covered, claim.distance, claim.onset), (0, 200_000, 0));
        let claim = scorer.score(word(61_000, 61_500))[0];
        assert_eq!((claim.distance, claim.onset), (500_000, 62_000_000));
        let claim = scorer.score(word(63_000, 63_500))[0];
        assert_eq!((claim.distance, claim.onset), (500_000, 62_000_000));
    }

    #[test]
    fn claims_fall_with_coverage_then_with_distance() {
        let speakers = speaker(&[(1.0, 2.0)]);
        let mut last = f32::INFINITY;
        for start in [1000, 1900, 1950, 2000, 2100, 3000, 5000, 20_000] {
            let log = Scorer::new(&speakers).score(word(start, start + 100))[0].log;
            assert!(log < last || start == 1900, "{start}: {log}");
            assert!(log >= FLOOR_LOG);
            last = log;
        }
    }
}
