//! Step 1 of the merge, words: missing, reversed, unsorted, empty or over-long times made fit to score.

use super::Word;
use super::span::{MILLISECOND, Span, micros, seconds};

/// One encoder frame of the engine: the least time a word is scored over.
const FRAME: i64 = 80 * MILLISECOND;
/// A word is scored over at most this, or [`SPAN_PER_CHAR`] for each character if that is more: aligners
/// stretch the last word before a silence to seconds.
const SPAN_MIN_CAP: i64 = 600 * MILLISECOND;
const SPAN_PER_CHAR: i64 = 120 * MILLISECOND;
/// Characters that count towards the cap.
const CAP_CHARS: usize = 64;

/// Gives every word finite times with `end >= start`, in place.
///
/// A word without any time shares out the room between its neighbours; without any timed neighbour it gets 0.
pub fn repair(words: &mut [Word]) {
    let spans = reported_spans(words);
    for (index, word) in words.iter_mut().enumerate() {
        // Leave good times exactly as they came.
        if word.start.is_finite() && word.end >= word.start && word.end.is_finite() {
            continue;
        }
        let span = spans.as_ref().map_or(Span { start: 0, end: 0 }, |spans| spans[index]);
        word.start = seconds(span.start);
        word.end = seconds(span.end);
    }
}

/// Times to report, one per word, in the engine's order; `None` if no word has a time at all.
pub(super) fn reported_spans(words: &[Word]) -> Option<Vec<Span>> {
    let mut spans = Vec::with_capacity(words.len());
    let mut index = 0;
    while let Some(word) = words.get(index) {
        if let Some(span) = known_span(word) {
            spans.push(span);
            index += 1;
            continue;
        }
        let untimed = words[index..].iter().take_while(|word| known_span(word).is_none()).count();
        let run_end = index + untimed;
        let before = spans.last().map(|span: &Span| span.end);
        let after = words.get(run_end).and_then(known_span).map(|span| span.start);
        let from = before.or(after)?;
        let to = after.unwrap_or(from).max(from);
        let step = (to - from) / untimed as i64;
        let mut start = from;
        for _ in index..run_end {
            spans.push(Span { start, end: start + step });
            start += step;
        }
        index = run_end;
    }
    Some(spans)
}

/// What the word itself says of its time: one finite end is enough.
fn known_span(word: &Word) -> Option<Span> {
    let start = micros(word.start).or_else(|| micros(word.end))?;
    let end = micros(word.end).unwrap_or(start);
    Some(Span { start, end: end.max(start) })
}

/// Times to score by: in ascending order of start (text order is the truth), one frame long at least and no
/// longer than the text allows.
pub(super) fn scoring_spans(words: &[Word], reported: &[Span]) -> Vec<Span> {
    let mut floor = i64::MIN;
    let mut spans = Vec::with_capacity(reported.len());
    for (word, &Span { mut start, mut end }) in words.iter().zip(reported) {
        if end - start > SPAN_MIN_CAP {
            let chars = word.text.trim().chars().take(CAP_CHARS).count() as i64;
            end = end.min(start + SPAN_MIN_CAP.max(SPAN_PER_CHAR * chars));
        }
        if end - start < FRAME {
            start += (end - start) / 2 - FRAME / 2;
            end = start + FRAME;
        }
        start = start.max(floor);
        if end <= start {
            end = start + FRAME;
        }
        floor = start;
        spans.push(Span { start, end });
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(start: f64, end: f64, text: &str) -> Word {
        Word { start, end, text: text.to_owned() }
    }

    fn span(start_ms: i64, end_ms: i64) -> Span {
        Span { start: start_ms * MILLISECOND, end: end_ms * MILLISECOND }
    }

    #[test]
    fn untimed_words_share_the_room_between_neighbours() {
        let nan = f64::NAN;
        let words = [word(0.0, 1.0, "a"), word(nan, nan, "b"), word(nan, nan, "c"), word(2.0, 2.5, "d")];
        let expected = vec![span(0, 1000), span(1000, 1500), span(1500, 2000), span(2000, 2500)];
        assert_eq!(reported_spans(&words), Some(expected));
    }

    #[test]
    fn untimed_words_at_the_edges_stand_where_the_time_is_known() {
        let nan = f64::NAN;
        let words = [word(nan, nan, "a"), word(1.0, 2.0, "b"), word(nan, f64::INFINITY, "c")];
        assert_eq!(reported_spans(&words), Some(vec![span(1000, 1000), span(1000, 2000), span(2000, 2000)]));
        assert_eq!(reported_spans(&[word(nan, nan, "a")]), None);
    }

    #[test]
    fn one_finite_end_is_enough_and_a_reversed_word_is_a_point() {
        let words = [word(f64::NAN, 1.0, "a"), word(2.0, f64::NAN, "b"), word(4.0, 3.0, "c")];
        assert_eq!(reported_spans(&words), Some(vec![span(1000, 1000), span(2000, 2000), span(4000, 4000)]));
    }

    #[test]
    fn scoring_widens_points_caps_stretches_and_sorts_starts() {
        let words =
            [word(1.0, 1.0, "a"), word(2.0, 9.0, "b"), word(1.5, 1.7, "c"), word(3.0, 9.0, "abcdefghij")];
        let reported = reported_spans(&words).unwrap();
        let expected = vec![span(960, 1040), span(2000, 2600), span(2000, 2080), span(3000, 4200)];
        assert_eq!(scoring_spans(&words, &reported), expected);
    }

    #[test]
    fn repair_leaves_good_times_alone() {
        let mut words = vec![word(0.1, 0.3, "a"), word(f64::NAN, f64::NAN, "b"), word(0.7, 0.6, "c")];
        repair(&mut words);
        assert_eq!(words, [word(0.1, 0.3, "a"), word(0.3, 0.7, "b"), word(0.7, 0.7, "c")]);
        let mut untimed = vec![word(f64::NAN, f64::INFINITY, "a")];
        repair(&mut untimed);
        assert_eq!(untimed, [word(0.0, 0.0, "a")]);
    }
}
