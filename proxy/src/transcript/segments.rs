//! Words cut into the segments of OpenAI's `verbose_json`.

use std::ops::Range;

use serde::Serialize;
use utoipa::ToSchema;

use super::sanitise::reported_spans;
use super::span::{SECOND, Span, millis};
use super::text::{Spacing, ends_sentence, join};
use super::unit::{PAUSE, units};
use super::{Merged, SPEAKER_UNKNOWN, Word};

/// No segment is longer than this, single words aside.
const DURATION_LIMIT: i64 = 15 * SECOND;
/// No segment has more bytes of text than this, single words aside.
const TEXT_LIMIT: usize = 240;

/// A segment of `verbose_json`. OpenAI's schema requires every field. Those that describe Whisper's decoder,
/// which this engine does not have, hold neutral values: they pass the customary filters on silence
/// (`no_speech_prob`), doubt (`avg_logprob`) and repetition (`compression_ratio`), and say nothing.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = TranscriptSegment)]
pub struct Segment {
    /// Place in the list, from 0.
    pub id: usize,
    /// Neutral: 0.
    pub seek: u32,
    /// Seconds, to the millisecond.
    pub start: f64,
    /// Seconds, to the millisecond, not before `start`.
    pub end: f64,
    /// The words' text, trimmed.
    pub text: String,
    /// Neutral: none.
    pub tokens: Vec<u32>,
    /// Neutral: 0.
    pub temperature: f32,
    /// Neutral: 0.
    pub avg_logprob: f32,
    /// Neutral: 1.
    pub compression_ratio: f32,
    /// Neutral: 0.
    pub no_speech_prob: f32,
    /// Who speaks, when that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
}

/// Makes segments from words; with a merge of the same words, also by speaker. Every word that is not blank is in one of them, in
/// order.
pub fn segments(words: &[Word], merged: Option<&Merged>) -> Vec<Segment> {
    let speaker = |word: usize| merged.map(|merged| merged.label(word).unwrap_or(SPEAKER_UNKNOWN));
    let spans = spans(words);
    let spacing = Spacing::of(words);
    cut(words, |word| speaker(word) != speaker(word - 1))
        .into_iter()
        .enumerate()
        .map(|(id, range)| {
            let start = millis(spans[range.start].start);
            let end = spans[range.clone()].iter().map(|span| millis(span.end)).max().unwrap_or(start);
            Segment {
                id,
                seek: 0,
                start: start as f64 / 1000.0,
                end: end.max(start) as f64 / 1000.0,
                text: join(&words[range.clone()], spacing),
                tokens: Vec::new(),
                temperature: 0.0,
                avg_logprob: 0.0,
                compression_ratio: 1.0,
                no_speech_prob: 0.0,
                speaker: speaker(range.start).map(str::to_owned),
            }
        })
        .collect()
}

/// Cuts words at the ends of sentences, at pauses, where a segment grows too long, and before words that ask for it. The ranges
/// ascend and leave out nothing but blank words.
pub fn cut(words: &[Word], split_before: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut cuts: Vec<Range<usize>> = Vec::new();
    let mut first = Span { start: 0, end: 0 };
    let mut last_end = 0;
    let mut bytes = 0;
    let mut sentence_ended = true;
    for unit in units(words, &spans(words), Spacing::of(words), &split_before) {
        let forced = unit.words.start > 0 && split_before(unit.words.start);
        let goes_on = !(sentence_ended || forced)
            && unit.span.start - last_end <= PAUSE
            && unit.span.end - first.start <= DURATION_LIMIT
            && bytes + unit.text.len() < TEXT_LIMIT;
        match cuts.last_mut() {
            Some(range) if goes_on => {
                range.end = unit.words.end;
                bytes += 1 + unit.text.len();
            }
            _ => {
                cuts.push(unit.words);
                first = unit.span;
                bytes = unit.text.len();
            }
        }
        last_end = unit.span.end;
        sentence_ended = ends_sentence(&unit.text);
    }
    cuts
}

fn spans(words: &[Word]) -> Vec<Span> {
    reported_spans(words).unwrap_or_else(|| vec![Span { start: 0, end: 0 }; words.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(texts: &[(f64, &str)]) -> Vec<Word> {
        texts.iter().map(|&(start, text)| Word { start, end: start + 0.3, text: text.to_owned() }).collect()
    }

    #[test]
    fn segments_end_with_sentences_and_silences() {
        let words =
            words(&[(0.0, "Yes"), (0.4, "."), (0.8, "Well"), (1.2, "then"), (2.6, "go"), (3.0, "on")]);
        let segments = segments(&words, None);
        let texts: Vec<&str> = segments.iter().map(|segment| segment.text.as_str()).collect();
        assert_eq!(texts, ["Yes.", "Well then", "go on"]);
        assert_eq!((segments[1].id, segments[1].start, segments[1].end), (1, 0.8, 1.5));
    }

    #[test]
    fn endless_talk_is_cut_by_time_and_by_length() {
        let talk: Vec<(f64, &str)> = (0..200).map(|n| (f64::from(n) * 0.3, "word")).collect();
        assert!(segments(&words(&talk), None).iter().all(|segment| segment.end - segment.start <= 15.0));
        let rush: Vec<(f64, &str)> = (0..200).map(|n| (f64::from(n) * 0.01, "word")).collect();
        let segments = segments(&words(&rush), None);
        assert!(segments.iter().all(|segment| segment.text.len() <= TEXT_LIMIT));
        assert_eq!(segments.len(), 5);
    }

    #[test]
    fn every_required_field_is_on_the_wire() {
        let json = serde_json::to_value(segments(&words(&[(0.0, "Hi.")]), None)).unwrap();
        let expected = serde_json::json!([{
            "id": 0, "seek": 0, "start": 0.0, "end": 0.3, "text": "Hi.", "tokens": [], "temperature": 0.0,
            "avg_logprob": 0.0, "compression_ratio": 1.0, "no_speech_prob": 0.0,
        }]);
        assert_eq!(json, expected);
    }

    #[test]
    fn untimed_and_blank_words_make_no_trouble() {
        assert_eq!(segments(&[], None), []);
        let nan = f64::NAN;
        let blank = [Word { start: nan, end: nan, text: " ".to_owned() }];
        assert_eq!(segments(&blank, None), []);
        let untimed = [Word { start: nan, end: nan, text: "hi".to_owned() }];
        assert_eq!((segments(&untimed, None)[0].start, segments(&untimed, None)[0].end), (0.0, 0.0));
    }
}
