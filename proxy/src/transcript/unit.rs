//! Pieces of text that no cut may part: a word with its punctuation, or the fragments of one word.

use std::ops::Range;

use super::Word;
use unicode_width::UnicodeWidthStr;

use super::span::{MILLISECOND, Span};
use super::text::{Joint, Spacing, push};

/// A silence longer than this ends a cue, and a segment.
pub(super) const PAUSE: i64 = 600 * MILLISECOND;
/// Fragments stop joining beyond this width, lest text without any space become one unit.
const WIDTH_LIMIT: usize = 42;

/// One or more consecutive words that stay together.
#[derive(Debug)]
pub(super) struct Unit {
    /// Which words, as indices into the list.
    pub(super) words: Range<usize>,
    /// Their text on one line, trimmed.
    pub(super) text: String,
    /// How it follows the unit before: never [`Joint::Tight`].
    pub(super) joint: Joint,
    pub(super) span: Span,
}

/// Groups words into units. `split_before` forces a cut; blank words join what comes before them.
pub(super) fn units(
    words: &[Word],
    spans: &[Span],
    spacing: Spacing,
    split_before: impl Fn(usize) -> bool,
) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for (index, (word, &span)) in words.iter().zip(spans).enumerate() {
        let text = one_line(&word.text);
        let blank = text.trim().is_empty();
        let Some(last) = units.last_mut() else {
            if !blank {
                units.push(Unit::new(index, text, Joint::Space, span));
            }
            continue;
        };
        let joint = spacing.joint(&words[index - 1].text, &text);
        let fits = width(&last.text) + width(&text) <= WIDTH_LIMIT;
        if blank || (joint == Joint::Tight && fits && !split_before(index)) {
            push(&mut last.text, text.trim(), Spacing::Carried);
            last.words.end = index + 1;
            last.span.end = last.span.end.max(span.end);
            continue;
        }
        let joint = if joint == Joint::Space { Joint::Space } else { Joint::Loose };
        units.push(Unit::new(index, text, joint, span));
    }
    units
}

impl Unit {
    fn new(index: usize, text: String, joint: Joint, span: Span) -> Self {
        Self { words: index..index + 1, text: text.trim().to_owned(), joint, span }
    }
}

/// Columns that text takes on a screen (Unicode Standard Annex 11): ideographs take two, combining marks none.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// Line breaks and control characters become spaces.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pieces: &[&str], split: usize) -> Vec<String> {
        let words: Vec<Word> =
            pieces.iter().map(|&text| Word { start: 0.0, end: 0.0, text: text.to_owned() }).collect();
        let spans = vec![Span { start: 0, end: 0 }; words.len()];
        let units = units(&words, &spans, Spacing::of(&words), |index| index == split);
        let mut next = units.first().map_or(0, |unit| unit.words.start);
        for unit in &units {
            assert_eq!(unit.words.start, next);
            next = unit.words.end;
        }
        units.into_iter().map(|unit| unit.text).collect()
    }

    #[test]
    fn fragments_and_punctuation_stay_with_their_word() {
        assert_eq!(texts(&[" Good", " mor", "ning", "."], 9), ["Good", "morning."]);
        assert_eq!(texts(&["(", "sic", ")", "he", "said"], 9), ["(sic)", "he", "said"]);
        assert_eq!(texts(&["a", " ", "b\nc"], 9), ["a", "b c"]);
        assert_eq!(texts(&["", " "], 9), [""; 0]);
    }

    #[test]
    fn a_forced_cut_parts_even_fragments() {
        assert_eq!(texts(&[" Good", " mor", "ning"], 2), ["Good", "mor", "ning"]);
    }

    #[test]
    fn text_without_spaces_is_cut_all_the_same() {
        let pieces =
            vec![" ab"; 1].into_iter().chain(vec!["สวัสดี"; 20]).chain(vec![" x"; 30]).collect::<Vec<_>>();
        assert!(texts(&pieces, 99).iter().all(|text| width(text) <= WIDTH_LIMIT));
    }
}
