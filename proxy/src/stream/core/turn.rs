//! How much silence ends a turn: as it was set, or by how its text ends.

use crate::stream::clock::samples;
use crate::stream::segmenter::Rules;
use crate::stream::settings::Settings;

/// Silence that ends a turn by the end of its text: a sentence, neither, something that goes on.
const AFTER_SENTENCE: u64 = samples(300);
const AFTER_WORDS: u64 = samples(700);

/// The rules that a segment begins with.
pub(super) fn opening(settings: &Settings) -> Option<Rules> {
    settings.rules.map(|rules| match settings.eagerness {
        Some(longest) => Rules { silence: AFTER_WORDS.min(longest), ..rules },
        None => rules,
    })
}

/// The silence that ends a turn with that text. A rule of thumb: there is no model of turns.
pub(super) fn silence_after(text: &str, longest: u64) -> u64 {
    const GOES_ON: [&str; 14] =
        ["and", "but", "or", "so", "because", "the", "a", "to", "of", "um", "uh", "er", "hmm", "well"];
    let text = text.trim();
    let last = text.rsplit(char::is_whitespace).next().unwrap_or_default().to_lowercase();
    if text.ends_with(['.', '?', '!', '。', '？', '！']) && !text.ends_with("...") {
        AFTER_SENTENCE.min(longest)
    } else if text.ends_with([',', ';', ':', '…', '、', '，'])
        || text.ends_with("...")
        || GOES_ON.contains(&&*last)
    {
        longest
    } else {
        AFTER_WORDS.min(longest)
    }
}
