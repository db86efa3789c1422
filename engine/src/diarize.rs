//! Who speaks when: stretches of speech, each described by pitch and spectrum, clustered into speakers. Pure.
//!
//! It tells a handful of clean voices apart and is no match for a trained model. Method: log pitch by normalized
//! autocorrelation, mel cepstrum averaged over voiced frames, average-linkage agglomeration to a distance.

use std::ops::Range;

mod cluster;
mod voiceprint;

use crate::activity::{self, FRAME};
use cluster::cluster;
use voiceprint::voiceprints;

/// A stretch of speech by one speaker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    /// In seconds from the start of the file.
    pub start_s: f64,
    /// In seconds from the start of the file.
    pub end_s: f64,
    /// Speakers are numbered in the order in which they are first heard.
    pub speaker: usize,
}

/// Finds the turns of a recording at 16 kHz.
#[must_use]
pub fn diarize(samples: &[i16]) -> Vec<Turn> {
    let levels = activity::levels(samples);
    let stretches = activity::speech(&levels);
    let prints = voiceprints(samples, &stretches);
    let labels = cluster(&prints);
    turns(&stretches, &labels)
}
/// Pauses of a speaker shorter than this many frames do not end the turn.
const PAUSE: usize = 60;

fn turns(stretches: &[Range<usize>], labels: &[usize]) -> Vec<Turn> {
    let seconds = |frame: usize| (frame * FRAME) as f64 / 16_000.0;
    let mut turns: Vec<Turn> = Vec::new();
    for (stretch, speaker) in stretches.iter().zip(labels) {
        let (start_s, end_s) = (seconds(stretch.start), seconds(stretch.end));
        match turns.last_mut() {
            Some(last) if last.speaker == *speaker && start_s - last.end_s < seconds(PAUSE) => {
                last.end_s = end_s
            }
            _ => turns.push(Turn { start_s, end_s, speaker: *speaker }),
        }
    }
    turns
}

#[cfg(test)]
mod tests;
