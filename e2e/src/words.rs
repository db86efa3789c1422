//! Compares transcripts: word error, and the share of words that carry the right speaker.

use std::collections::{BTreeMap, BTreeSet};

/// Words in lower case without punctuation.
pub fn normalise(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect())
        .filter(|word: &String| !word.is_empty())
        .collect()
}

/// Substitutions, deletions and insertions over the number of spoken words.
pub fn word_error(spoken: &str, heard: &str) -> f64 {
    let (spoken, heard) = (normalise(spoken), normalise(heard));
    let pairs = align(&spoken, &heard);
    let errors = pairs
        .iter()
        .filter(|pair| match pair {
            (Some(at), Some(other)) => spoken[*at] != heard[*other],
            _ => true,
        })
        .count();
    errors as f64 / spoken.len().max(1) as f64
}

/// What became of the speakers of a dialogue.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeakerScore {
    /// Words spoken.
    pub spoken: usize,
    /// Spoken words that were heard, rightly or wrongly.
    pub heard: usize,
    /// Those of them that carry the right speaker, under the best matching of labels to voices.
    pub right: usize,
}

impl SpeakerScore {
    /// Share of the heard words with the right speaker.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.heard.max(1) as f64
    }
}

/// Scores turns `(speaker, text)` that were heard against those that were spoken.
pub fn speaker_score(spoken: &[(&str, &str)], heard: &[(String, String)]) -> SpeakerScore {
    let (spoken_words, voices) = flatten(spoken.iter().map(|(voice, text)| (*voice, *text)));
    let (heard_words, labels) = flatten(heard.iter().map(|(label, text)| (label.as_str(), text.as_str())));
    // How often each label stands on a word of each voice.
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut both = 0;
    for pair in align(&spoken_words, &heard_words) {
        if let (Some(at), Some(other)) = pair {
            both += 1;
            *counts.entry((labels[other], voices[at])).or_default() += 1;
        }
    }
    let labels: Vec<&str> = labels.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    let voices: Vec<&str> = voices.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    let right = best_matching(&counts, &labels, &voices);
    SpeakerScore { spoken: spoken_words.len(), heard: both, right }
}

fn flatten<'text>(turns: impl Iterator<Item = (&'text str, &'text str)>) -> (Vec<String>, Vec<&'text str>) {
    let mut words = Vec::new();
    let mut names = Vec::new();
    for (name, text) in turns {
        let turn = normalise(text);
        names.extend(std::iter::repeat_n(name, turn.len()));
        words.extend(turn);
    }
    (words, names)
}

/// The most words that a one-to-one matching of labels to voices makes right. Few labels, so all are tried.
fn best_matching(counts: &BTreeMap<(&str, &str), usize>, labels: &[&str], voices: &[&str]) -> usize {
    let Some((label, labels)) = labels.split_first() else { return 0 };
    let unused = best_matching(counts, labels, voices);
    let matched = voices.iter().map(|voice| {
        let others: Vec<&str> = voices.iter().copied().filter(|other| other != voice).collect();
        counts.get(&(*label, *voice)).copied().unwrap_or(0) + best_matching(counts, labels, &others)
    });
    matched.max().unwrap_or(0).max(unused)
}

/// The cheapest alignment of two word sequences, as pairs of indices; `None` is a gap.
fn align(left: &[String], right: &[String]) -> Vec<(Option<usize>, Option<usize>)> {
    let width = right.len() + 1;
    let mut cost = vec![0u32; (left.len() + 1) * width];
    for (column, cell) in cost.iter_mut().take(width).enumerate() {
        *cell = column as u32;
    }
    for row in 1..=left.len() {
        cost[row * width] = row as u32;
        for column in 1..width {
            let differ = u32::from(left[row - 1] != right[column - 1]);
            let across = cost[(row - 1) * width + column - 1] + differ;
            let down = cost[(row - 1) * width + column] + 1;
            let along = cost[row * width + column - 1] + 1;
            cost[row * width + column] = across.min(down).min(along);
        }
    }
    let (mut row, mut column) = (left.len(), right.len());
    let mut pairs = Vec::new();
    while row > 0 || column > 0 {
        let here = cost[row * width + column];
        let across = (row > 0 && column > 0)
            .then(|| cost[(row - 1) * width + column - 1] + u32::from(left[row - 1] != right[column - 1]));
        if across == Some(here) {
            (row, column) = (row - 1, column - 1);
            pairs.push((Some(row), Some(column)));
        } else if row > 0 && cost[(row - 1) * width + column] + 1 == here {
            row -= 1;
            pairs.push((Some(row), None));
        } else {
            column -= 1;
            pairs.push((None, Some(column)));
        }
    }
    pairs.reverse();
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_error_counts_all_three_kinds() {
        assert_eq!(word_error("The train was late again.", "the train was late again"), 0.0);
        assert_eq!(word_error("one two three four", "one too three four five"), 0.5);
        assert_eq!(word_error("one two", ""), 1.0);
    }

    #[test]
    fn labels_are_matched_to_voices_before_counting() {
        let spoken = [("slt", "good morning"), ("rms", "how are you"), ("slt", "very well")];
        let heard = [("Speaker_1", "good morning how"), ("Speaker_0", "are you"), ("Speaker_1", "very well")]
            .map(|(label, text)| (label.to_owned(), text.to_owned()));
        let score = speaker_score(&spoken, &heard);
        assert_eq!(score, SpeakerScore { spoken: 7, heard: 7, right: 6 });
    }

    #[test]
    fn one_label_for_all_is_right_for_one_voice_only() {
        let spoken = [("slt", "one two three"), ("rms", "four five six")];
        let heard = [("Speaker_0".to_owned(), "one two three four five six".to_owned())];
        assert_eq!(speaker_score(&spoken, &heard).accuracy(), 0.5);
    }
}
