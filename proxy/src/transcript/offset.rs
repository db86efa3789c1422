//! Step 2 of the merge: the constant by which the words' clock runs late against the turns' clock.

use super::span::{MILLISECOND, SECOND, Span};
use super::speakers::{Speaker, union};

/// Offsets tried: every [`STEP`] up to [`REACH`] to either side.
const REACH: i64 = 400 * MILLISECOND;
const STEP: i64 = 40 * MILLISECOND;
/// Share of all word time that an offset must gain for each second of it, so that small offsets win ties.
const PENALTY_PER_SECOND: f64 = 0.02;
/// Share of all word time that an offset must bring inside the turns to be believed.
const MIN_GAIN: f64 = 0.005;
/// With fewer words the estimate is noise.
const MIN_WORDS: usize = 50;
/// Words looked at, evenly spread: more add time and no precision.
const SAMPLE: usize = 2048;

/// Estimates how late the words are, in microseconds; 0 if nothing is to be gained.
///
/// Engines emit a word late, or one of the two trims padding: the words then fall out of the turns on one side.
/// The offset is the shift that brings most word time back inside the union of all turns.
pub(super) fn estimate(words: &[Span], speakers: &[Speaker]) -> i64 {
    if words.len() < MIN_WORDS || speakers.is_empty() {
        return 0;
    }
    let talk = union(speakers.iter().flat_map(|speaker| speaker.spans.iter().copied()).collect());
    let sample: Vec<Span> = words.iter().copied().step_by(words.len().div_ceil(SAMPLE)).collect();
    let starts: Vec<i64> = sample.iter().map(|span| span.start).collect();
    let mut ends: Vec<i64> = sample.iter().map(|span| span.end).collect();
    ends.sort_unstable();
    let total = sample.iter().map(|span| span.duration()).sum::<i64>() as f64;

    // Talk inside a word is talk before its end less talk before its start: two walks that only go forward.
    let covered =
        |late: i64| (talk_before(&talk, &ends, late) - talk_before(&talk, &starts, late)) as f64 / total;
    let aligned = covered(0);
    let mut best = (0, aligned);
    for step in 1..=REACH / STEP {
        for late in [step * STEP, -step * STEP] {
            let share = covered(late);
            let score = share - PENALTY_PER_SECOND * (late.abs() as f64 / SECOND as f64);
            if score > best.1 && share - aligned >= MIN_GAIN {
                best = (late, score);
            }
        }
    }
    best.0
}

/// Sum, over all instants less `late`, of the talk that lies before them. Both lists ascend. The talk is counted
/// from its first span on, which cancels between starts and ends.
fn talk_before(talk: &[Span], instants: &[i64], late: i64) -> i64 {
    let mut sum = 0;
    let mut passed = 0;
    let mut spans = talk.iter();
    let mut current = spans.next();
    for &instant in instants {
        let instant = instant - late;
        while let Some(span) = current {
            if span.end > instant {
                break;
            }
            passed += span.duration();
            current = spans.next();
        }
        let inside = current.map_or(0, |span| (instant - span.start).max(0));
        sum += passed + inside;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::{Turn, speakers};
    use super::*;

    /// Sixty words of 0.3 s in pairs, each pair within a turn of its own.
    fn scene(late_ms: i64) -> (Vec<Span>, Vec<Speaker>) {
        let mut words = Vec::new();
        let mut turns = Vec::new();
        for pair in 0..30 {
            let start = pair * SECOND;
            turns.push(Turn {
                start: pair as f64,
                end: pair as f64 + 0.6,
                speaker: format!("S{}", pair % 2),
            });
            for start in [start, start + 300 * MILLISECOND] {
                let start = start + late_ms * MILLISECOND;
                words.push(Span { start, end: start + 300 * MILLISECOND });
            }
        }
        (words, speakers::collect(&turns))
    }

    #[test]
    fn a_constant_delay_is_found_either_way() {
        for late_ms in [-320, -160, 0, 200, 400] {
            let (words, speakers) = scene(late_ms);
            assert_eq!(estimate(&words, &speakers), late_ms * MILLISECOND);
        }
    }

    #[test]
    fn few_words_or_no_turns_say_nothing() {
        let (words, speakers) = scene(200);
        assert_eq!(estimate(&words[..49], &speakers), 0);
        assert_eq!(estimate(&words, &[]), 0);
    }

    #[test]
    fn turns_that_cover_everything_say_nothing() {
        let (words, _) = scene(200);
        let turns = [Turn { start: 0.0, end: 100.0, speaker: "A".to_owned() }];
        assert_eq!(estimate(&words, &speakers::collect(&turns)), 0);
    }
}
