//! Who speaks when, by segmentation of overlapping windows, a print of each voice in each window, and agglomeration of the
//! prints to speakers.

use std::ops::Range;
use std::path::Path;

use kodama::{Method, linkage};

use super::Error;
use super::net::Threads;
use super::segmentation::{FIRST, FRAMES, Frames, SPEAKERS, STEP, Segmentation, WINDOW};
use super::voiceprint::Voiceprints;
use crate::activity::FRAME;
use crate::diarize::Turn;

/// Samples per second.
const RATE_HZ: usize = 16_000;
/// Windows begin this many samples apart: 2 s. In long recordings further, so that there are at most so many.
const SHIFT: usize = 2 * RATE_HZ;
const MAX_WINDOWS: usize = 1_500;
/// Prints that are further apart, as 1 - cosine, are of two speakers. Chosen on two conversations.
const APART: f32 = 0.7;
/// Shorter speech of a voice in a window, in frames of 17 ms, has no print of its own.
const SHORTEST_PRINT: usize = 24;
/// Pauses of a speaker that do not end a turn, and turns that are too short to count, in frames of 17 ms.
const PAUSE: usize = 30;
const SHORTEST_TURN: usize = 12;

/// The two networks.
pub struct Diarizer {
    segmentation: Segmentation,
    prints: Voiceprints,
}

/// A window of the recording and who speaks in it.
struct Window {
    /// The frame of the recording at which it begins.
    first: usize,
    frames: Frames,
}

/// A voice of a window.
struct Voice {
    window: usize,
    speaker: usize,
    print: Vec<f32>,
}

impl Diarizer {
    /// Loads the published files of a folder.
    ///
    /// # Errors
    /// When a file cannot be read, is not the published one, or malformed.
    pub fn load(models: &Path, threads: &Threads) -> Result<Self, Error> {
        let segmentation = Segmentation::load(models, threads)?;
        Ok(Self { segmentation, prints: Voiceprints::load(models, threads)? })
    }

    /// Stretches of speech of a recording at 16 kHz, in frames of 10 ms.
    ///
    /// # Errors
    /// When a network fails.
    pub fn speech(&self, samples: &[i16]) -> Result<Vec<Range<usize>>, Error> {
        // A frame near the end of a window is heard less well: windows overlap by a second on both sides.
        const MARGIN: usize = RATE_HZ;
        let mut spoken = vec![false; samples.len() / STEP + 1];
        let mut start = 0;
        while start < samples.len() {
            let frames = self.segmentation.window(&samples[start..])?;
            let from = if start == 0 { 0 } else { MARGIN };
            for (index, speakers) in frames.iter().enumerate() {
                let place = index * STEP;
                let last = start + WINDOW >= samples.len();
                let heard = place >= from && (place < WINDOW - MARGIN || last);
                if let Some(frame) = spoken.get_mut(start / STEP + index).filter(|_| heard) {
                    *frame = speakers.contains(&true);
                }
            }
            start += (WINDOW - 2 * MARGIN) / STEP * STEP;
        }
        let tens = |frame: usize| (frame * STEP + FIRST - STEP / 2) / FRAME;
        let all = samples.len() / FRAME;
        let stretch = |run: &Range<usize>| tens(run.start).min(all)..tens(run.end).min(all);
        Ok(runs(&spoken).iter().map(stretch).filter(|stretch| !stretch.is_empty()).collect())
    }

    /// The turns of a recording at 16 kHz, in order of their beginnings; turns of two speakers may overlap.
    ///
    /// # Errors
    /// When a network fails.
    pub fn turns(&self, samples: &[i16]) -> Result<Vec<Turn>, Error> {
        let shift = SHIFT.max(samples.len() / MAX_WINDOWS).min(WINDOW) / STEP * STEP;
        let (mut windows, mut start) = (Vec::new(), 0);
        loop {
            windows.push(Window {
                first: start / STEP,
                frames: self.segmentation.window(&samples[start.min(samples.len())..])?,
            });
            start += shift;
            if start + WINDOW >= samples.len() + shift {
                break;
            }
        }
        let mut voices = Vec::new();
        for (window, content) in windows.iter().enumerate() {
            for speaker in 0..SPEAKERS {
                if let Some(print) = self.print(samples, content, speaker)? {
                    voices.push(Voice { window, speaker, print });
                }
            }
        }
        let labels = clusters(&voices);
        Ok(merge(&windows, &voices, &labels, samples.len()))
    }

    /// The print of a voice of a window where it speaks alone, or else wherever it speaks; `None` when that is too short.
    fn print(&self, samples: &[i16], window: &Window, speaker: usize) -> Result<Option<Vec<f32>>, Error> {
        let active = |frame: &[bool; SPEAKERS]| frame[speaker];
        let alone =
            |frame: &[bool; SPEAKERS]| frame[speaker] && frame.iter().filter(|speaks| **speaks).count() == 1;
        let count = |test: &dyn Fn(&[bool; SPEAKERS]) -> bool| {
            window.frames.iter().filter(|frame| test(frame)).count()
        };
        if count(&active) < SHORTEST_PRINT {
            return Ok(None);
        }
        let lonely = count(&alone) >= SHORTEST_PRINT;
        let mut speech = Vec::new();
        for (index, frame) in window.frames.iter().enumerate() {
            if if lonely { alone(frame) } else { active(frame) } {
                let start = (window.first + index) * STEP + FIRST - STEP / 2;
                speech.extend_from_slice(
                    samples.get(start..(start + STEP).min(samples.len())).unwrap_or_default(),
                );
            }
        }
        self.prints.print(&speech)
    }
}

/// A label for each voice: complete linkage, so that all prints of a speaker are alike.
fn clusters(voices: &[Voice]) -> Vec<usize> {
    let count = voices.len();
    if count < 2 {
        return vec![0; count];
    }
    let mut distances = Vec::with_capacity(count * (count - 1) / 2);
    for (index, one) in voices.iter().enumerate() {
        for other in &voices[index + 1..] {
            let cosine: f32 = one.print.iter().zip(&other.print).map(|(a, b)| a * b).sum();
            distances.push(1.0 - cosine);
        }
    }
    let tree = linkage(&mut distances, count, Method::Complete);
    // Clusters are numbered from `count` on in the order in which they are made.
    let mut parents: Vec<usize> = (0..2 * count).collect();
    for (index, step) in tree.steps().iter().enumerate() {
        if step.dissimilarity <= APART {
            parents[step.cluster1] = count + index;
            parents[step.cluster2] = count + index;
        }
    }
    let root = |mut node: usize| {
        while parents[node] != node {
            node = parents[node];
        }
        node
    };
    let mut roots: Vec<usize> = Vec::new();
    (0..count)
        .map(|voice| {
            let root = root(voice);
            roots.iter().position(|known| *known == root).unwrap_or_else(|| {
                roots.push(root);
                roots.len() - 1
            })
        })
        .collect()
}

/// The turns that all windows together tell of.
fn merge(windows: &[Window], voices: &[Voice], labels: &[usize], samples: usize) -> Vec<Turn> {
    let frames = samples.saturating_sub(FIRST) / STEP + 1;
    let speakers = labels.iter().map(|label| label + 1).max().unwrap_or(0);
    let mut votes = vec![0_u16; frames * speakers];
    let (mut speaking, mut looked) = (vec![0_u16; frames], vec![0_u16; frames]);
    for window in windows {
        for (index, frame) in window.frames.iter().enumerate().take(FRAMES) {
            let Some(looked) = looked.get_mut(window.first + index) else { break };
            *looked += 1;
            speaking[window.first + index] += frame.iter().filter(|speaks| **speaks).count() as u16;
        }
    }
    for (voice, label) in voices.iter().zip(labels) {
        let window = &windows[voice.window];
        for (index, frame) in window.frames.iter().enumerate() {
            if frame[voice.speaker] && window.first + index < frames {
                votes[(window.first + index) * speakers + label] += 1;
            }
        }
    }
    let mut active = vec![vec![false; frames]; speakers];
    for frame in 0..frames {
        // As many as the windows saw on average, those with most votes.
        let many = usize::from((speaking[frame] * 2 + looked[frame]) / (2 * looked[frame]).max(1));
        let row = &votes[frame * speakers..(frame + 1) * speakers];
        let mut order: Vec<usize> = (0..speakers).filter(|speaker| row[*speaker] > 0).collect();
        order.sort_by_key(|speaker| std::cmp::Reverse(row[*speaker]));
        order.iter().take(many).for_each(|speaker| active[*speaker][frame] = true);
    }
    let seconds = |frame: usize| ((frame * STEP + FIRST - STEP / 2).min(samples)) as f64 / RATE_HZ as f64;
    let mut turns: Vec<Turn> = Vec::new();
    for (speaker, active) in active.iter().enumerate() {
        let mut joined: Vec<Range<usize>> = Vec::new();
        for run in runs(active) {
            match joined.last_mut() {
                Some(last) if run.start - last.end < PAUSE => last.end = run.end,
                _ => joined.push(run),
            }
        }
        joined.retain(|run| run.len() >= SHORTEST_TURN);
        turns.extend(joined.iter().map(|run| Turn {
            start_s: seconds(run.start),
            end_s: seconds(run.end),
            speaker,
        }));
    }
    turns.sort_by(|a, b| a.start_s.total_cmp(&b.start_s));
    number(&mut turns);
    turns
}

/// Numbers speakers in the order in which they are first heard.
fn number(turns: &mut [Turn]) {
    let mut known: Vec<usize> = Vec::new();
    for turn in turns {
        let place = known.iter().position(|speaker| *speaker == turn.speaker);
        turn.speaker = place.unwrap_or_else(|| {
            known.push(turn.speaker);
            known.len() - 1
        });
    }
}

fn runs(active: &[bool]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, _) in active.iter().enumerate().filter(|(_, active)| **active) {
        match runs.last_mut() {
            Some(last) if last.end == index => last.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_that_are_alike_are_of_one_speaker() {
        let voice = |x: f32, y: f32| Voice { window: 0, speaker: 0, print: vec![x, y] };
        let voices = [voice(1.0, 0.0), voice(0.0, 1.0), voice(0.8, 0.6), voice(-0.6, 0.8)];
        assert_eq!(clusters(&voices), [0, 1, 0, 1]);
        assert!(clusters(&[]).is_empty());
    }

    #[test]
    fn windows_agree_on_turns_and_on_overlaps() {
        let frame = |index: usize| match index {
            0..200 => [true, false, false],
            200..240 => [true, true, false],
            240..400 => [false, true, false],
            _ => [false; 3],
        };
        let window = Window { first: 0, frames: (0..FRAMES).map(frame).collect() };
        let voice = |speaker| Voice { window: 0, speaker, print: Vec::new() };
        let turns = merge(&[window], &[voice(0), voice(1)], &[1, 0], WINDOW);
        assert_eq!(turns.iter().map(|turn| turn.speaker).collect::<Vec<_>>(), [0, 1]);
        assert!(
            (turns[0].end_s - 240.0 * 0.016_875).abs() < 0.05
                && (turns[1].start_s - 200.0 * 0.016_875).abs() < 0.05
        );
        assert!(merge(&[], &[], &[], 0).is_empty());
    }
}
