//! Step 7 of the merge: runs of one speaker's words become blocks.

use std::ops::Range;

use super::span::{SECOND, Span, millis};
use super::text::{Spacing, join};
use super::{SPEAKER_UNKNOWN, Word};

/// A silence longer than this ends a block even within one speaker.
const SILENCE: i64 = 3 * SECOND / 2;

/// Consecutive words of one speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Start of the first word in milliseconds. Under [`super::Rule::Legacy`] negative if the engine's time is.
    pub start_ms: i64,
    /// End of the last word in milliseconds.
    pub end_ms: i64,
    /// Speaker label, or [`SPEAKER_UNKNOWN`].
    pub speaker: String,
    /// The words' text.
    pub text: String,
    /// Which words, as indices into the merged list.
    pub words: Range<usize>,
}

/// Groups words by speaker and silence. `reported` are the times to show, `speakers` index `labels`.
pub(super) fn group(
    words: &[Word],
    reported: &[Span],
    labels: &[String],
    speakers: &[Option<usize>],
) -> Vec<Block> {
    let spacing = Spacing::of(words);
    let mut blocks = Vec::new();
    let mut first = 0;
    for next in 1..=words.len() {
        let goes_on = next < words.len()
            && speakers[next] == speakers[first]
            && reported[next].start - reported[next - 1].end <= SILENCE;
        if goes_on {
            continue;
        }
        let start = reported[first].start;
        blocks.push(Block {
            start_ms: millis(start),
            end_ms: millis(reported[next - 1].end.max(start)),
            speaker: speakers[first].map_or(SPEAKER_UNKNOWN, |speaker| &labels[speaker]).to_owned(),
            text: join(&words[first..next], spacing),
            words: first..next,
        });
        first = next;
    }
    blocks
}
