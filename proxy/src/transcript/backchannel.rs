//! Step 5 of the merge: a "yeah" inside another's talk goes to the speaker with a short turn just there.

use super::Word;
use super::assign::Assigned;
use super::span::{MILLISECOND, SECOND, Span};
use super::speakers::Speaker;

/// A turn shorter than this may be a backchannel.
const TURN_LIMIT: i64 = SECOND;
/// Share of the time of word and turn together that both must have in common.
const MIN_IOU: f64 = 0.25;
/// The word is taken to last at least this long: such turns are longer than their words.
const MIN_SPAN: i64 = 160 * MILLISECOND;
/// Turns of one speaker looked at for one word.
const TURNS_SEEN: usize = 16;
/// Longest word of any lexicon below, in bytes.
const WORD_LIMIT: usize = 10;

const ENGLISH: &[&str] = &[
    "yeah", "yes", "yep", "yup", "mhm", "mm", "mmm", "mm-hmm", "mmhmm", "mhmm", "hmm", "hm", "uh-huh",
    "uhuh", "huh", "okay", "ok", "right", "no", "nope", "oh", "ah", "aha", "sure", "wow", "true", "exactly",
    "really",
];
const GERMAN: &[&str] =
    &["ja", "jo", "nein", "nee", "mhm", "hm", "okay", "ok", "genau", "ach", "oh", "stimmt", "klar"];
const SPANISH: &[&str] =
    &["sí", "si", "no", "ajá", "mhm", "vale", "claro", "ok", "okay", "ah", "oh", "bueno", "ya"];
const FRENCH: &[&str] = &["oui", "ouais", "non", "mhm", "hm", "ok", "okay", "ah", "oh", "voilà", "bien"];
const ITALIAN: &[&str] =
    &["sì", "si", "no", "mhm", "ok", "okay", "ah", "oh", "certo", "esatto", "già", "bene"];

/// Words that one says while another talks; `None` for a language without a list.
///
/// Takes a code ("en", "en-US") or an English name.
fn lexicon(language: &str) -> Option<&'static [&'static str]> {
    let primary = language.split(['-', '_']).next().unwrap_or_default().trim();
    let lexicons: [(&[&str], &'static [&'static str]); 5] = [
        (&["en", "eng", "english"], ENGLISH),
        (&["de", "deu", "ger", "german"], GERMAN),
        (&["es", "spa", "spanish"], SPANISH),
        (&["fr", "fra", "fre", "french"], FRENCH),
        (&["it", "ita", "italian"], ITALIAN),
    ];
    lexicons
        .into_iter()
        .find(|(names, _)| names.iter().any(|name| name.eq_ignore_ascii_case(primary)))
        .map(|(_, words)| words)
}

/// Gives lexicon words to another speaker with a fitting short turn. Without a known language, nothing changes:
/// the same geometry without a lexicon does more harm than good.
pub(super) fn reassign(
    words: &[Word],
    spans: &[Span],
    speakers: &[Speaker],
    language: Option<&str>,
    assigned: &mut [Assigned],
) {
    let Some(lexicon) = language.and_then(lexicon) else { return };
    for ((word, &span), assigned) in words.iter().zip(spans).zip(assigned) {
        let Some(current) = assigned.speaker else { continue };
        let others = assigned.covered_by & !(1 << current);
        if others == 0 || !contains(lexicon, &word.text) {
            continue;
        }
        let widen = (MIN_SPAN - span.duration()).max(0) / 2;
        let span = Span { start: span.start - widen, end: span.end + widen };
        let mut best: Option<(f64, usize)> = None;
        for (index, speaker) in speakers.iter().enumerate() {
            if others & (1 << index) == 0 {
                continue;
            }
            let iou = best_short_turn(speaker, span);
            if iou >= MIN_IOU && best.is_none_or(|(most, _)| iou > most) {
                best = Some((iou, index));
            }
        }
        if let Some((_, speaker)) = best {
            assigned.speaker = Some(speaker);
        }
    }
}

fn contains(lexicon: &[&str], word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    !word.is_empty()
        && word.len() <= WORD_LIMIT
        && lexicon.iter().any(|entry| entry.eq_ignore_ascii_case(word))
}

/// Best intersection over union of the word with one of the speaker's short turns.
fn best_short_turn(speaker: &Speaker, word: Span) -> f64 {
    let first = speaker.spans.partition_point(|turn| turn.end <= word.start);
    let mut best = 0.0f64;
    for &turn in speaker.spans[first..].iter().take(TURNS_SEEN) {
        if turn.start >= word.end {
            break;
        }
        if turn.duration() < TURN_LIMIT {
            let shared = turn.overlap(word);
            best = best.max(shared as f64 / (turn.duration() + word.duration() - shared) as f64);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_is_read_from_codes_and_names() {
        for language in ["en", "EN-us", "en_GB", "English"] {
            assert_eq!(lexicon(language), Some(ENGLISH));
        }
        assert_eq!(lexicon("de"), Some(GERMAN));
        for language in ["", "auto", "multi", "ja", "e"] {
            assert_eq!(lexicon(language), None);
        }
    }

    #[test]
    fn lexicon_words_are_found_whatever_their_case_and_punctuation() {
        for word in [" Yeah,", "uh-huh.", "OK!", "“Right”"] {
            assert!(contains(ENGLISH, word), "{word}");
        }
        for word in ["the", "", "...", "yeah-but-no", "rightly"] {
            assert!(!contains(ENGLISH, word), "{word}");
        }
        assert!(contains(SPANISH, "Sí."));
    }

    #[test]
    fn limit_covers_every_entry() {
        for entry in [ENGLISH, GERMAN, SPANISH, FRENCH, ITALIAN].concat() {
            assert!(entry.len() <= WORD_LIMIT, "{entry}");
        }
    }
}
