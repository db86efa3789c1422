//! The rule of the proxy that this one replaces, kept for clients that rely on it and as a yardstick.
//!
//! A word belongs to the first turn, in the diarizer's order, that holds its midpoint, else to the first of
//! those that share most time with it. The results equal that proxy's to the byte: it computes in floats, so
//! this does too, operation by operation. Only its scan of all turns for each word is replaced by an index.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::blocks::Block;
use super::{SPEAKER_UNKNOWN, Turn, Word};

/// A silence longer than this, in seconds, ends a block even within one speaker.
const SILENCE_S: f64 = 1.5;
/// Turns that are skipped together when none of them reaches far enough.
const CHUNK: usize = 64;

/// Labels in order of first turn, and for each word the index of its label; `None` is [`SPEAKER_UNKNOWN`].
pub(super) fn assign(words: &[Word], turns: &[Turn]) -> (Vec<String>, Vec<Option<usize>>) {
    let mut labels: Vec<String> = Vec::new();
    let mut index_of: HashMap<&str, Option<usize>> = HashMap::from([(SPEAKER_UNKNOWN, None)]);
    let label_of: Vec<Option<usize>> = turns
        .iter()
        .map(|turn| {
            *index_of.entry(&turn.speaker).or_insert_with(|| {
                labels.push(turn.speaker.clone());
                Some(labels.len() - 1)
            })
        })
        .collect();
    let index = Index::new(turns);
    let speakers = words.iter().map(|word| index.turn_of(word).and_then(|turn| label_of[turn])).collect();
    (labels, speakers)
}

/// Groups words into blocks: text joined without spaces, milliseconds cut off, not rounded.
pub(super) fn group(words: &[Word], labels: &[String], speakers: &[Option<usize>]) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut first = 0;
    for next in 1..=words.len() {
        let goes_on = next < words.len() && speakers[next] == speakers[first] && {
            let silence = words[next].start - words[next - 1].end;
            // Also when the silence is no number.
            silence <= SILENCE_S || silence.is_nan()
        };
        if goes_on {
            continue;
        }
        let text: String = words[first..next].iter().map(|word| word.text.as_str()).collect();
        blocks.push(Block {
            start_ms: (words[first].start * 1000.0) as i64,
            end_ms: (words[next - 1].end * 1000.0) as i64,
            speaker: speakers[first].map_or(SPEAKER_UNKNOWN, |speaker| &labels[speaker]).to_owned(),
            text: text.trim_matches(is_python_space).to_owned(),
            words: first..next,
        });
        first = next;
    }
    blocks
}

/// What Python's `str.strip` takes for space: Unicode's white space and the four ASCII separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Turns by start, with the furthest end of each chunk, so that turns long past are skipped.
struct Index {
    entries: Vec<Entry>,
    chunk_ends: Vec<f64>,
}

#[derive(Clone, Copy)]
struct Entry {
    start: f64,
    end: f64,
    /// Place in the diarizer's list.
    turn: usize,
}

impl Index {
    fn new(turns: &[Turn]) -> Self {
        let mut entries: Vec<Entry> = turns
            .iter()
            .enumerate()
            .map(|(turn, &Turn { start, end, .. })| Entry { start, end, turn })
            .filter(|entry| !entry.start.is_nan() && !entry.end.is_nan())
            .collect();
        entries.sort_by(|a, b| a.start.partial_cmp(&b.start).unwrap_or(Ordering::Equal));
        let chunk_ends = entries
            .chunks(CHUNK)
            .map(|chunk| chunk.iter().fold(f64::NEG_INFINITY, |end, entry| end.max(entry.end)))
            .collect();
        Self { entries, chunk_ends }
    }

    fn turn_of(&self, word: &Word) -> Option<usize> {
        let middle = (word.start + word.end) / 2.0;
        if let Some(turn) = self.touching(middle, middle).map(|entry| entry.turn).min() {
            return Some(turn);
        }
        let mut best: Option<(f64, usize)> = None;
        for entry in self.touching(word.start, word.end) {
            let overlap = word.end.min(entry.end) - word.start.max(entry.start);
            let better =
                best.is_none_or(|(most, turn)| overlap > most || (overlap == most && entry.turn < turn));
            if overlap > 0.0 && better {
                best = Some((overlap, entry.turn));
            }
        }
        best.map(|(_, turn)| turn)
    }

    /// Turns that share at least an instant with `from..=to`.
    fn touching(&self, from: f64, to: f64) -> impl Iterator<Item = &Entry> {
        let behind = self.entries.partition_point(|entry| entry.start <= to);
        self.entries[..behind]
            .chunks(CHUNK)
            .zip(&self.chunk_ends)
            .filter(move |(_, end)| **end >= from)
            .flat_map(|(chunk, _)| chunk)
            .filter(move |entry| entry.end >= from)
    }
}
