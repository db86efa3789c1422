//! Tests of the whole: the merge's promises, both rules against each other, and the cuts.

mod cues;
mod legacy;
mod properties;
mod random;
mod synthetic;
mod vectors;

use super::*;

fn word(start: f64, end: f64, text: &str) -> Word {
    Word { start, end, text: text.to_owned() }
}

fn turn(start: f64, end: f64, speaker: &str) -> Turn {
    Turn { start, end, speaker: speaker.to_owned() }
}

const LEGACY: Params<'_> = Params { rule: Rule::Legacy, language: None, confidences: false };
const CONTINUITY: Params<'_> = Params { rule: Rule::Continuity, language: Some("en"), confidences: false };

/// Speaker of each word, [`SPEAKER_UNKNOWN`] included.
fn labels(merged: &Merged) -> Vec<String> {
    let label = |word| merged.label(word).unwrap_or(SPEAKER_UNKNOWN).to_owned();
    (0..merged.speakers.len()).map(label).collect()
}
