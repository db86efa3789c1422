//! Joins voiceprints that are alike into speakers.

use super::voiceprint::{CEPSTRUM, Voiceprint};

/// Voiceprints of fewer voiced frames (0.4 s) are too unsure to found a speaker.
const SURE_FRAMES: usize = 20;

/// Clusters further apart than this are different speakers. Measured on flite's voices: of 300 dialogues of one to
/// four voices, short answers among them, two got a speaker too many.
const APART: f32 = 1.4;

/// A voiceprint of this many voiced frames (0.8 s) counts as half as far away as it seems.
const UNSURE_FRAMES: f32 = 40.0;

/// Spread within one voice of log2 pitch (about a semitone) and of each coefficient of the cepstrum.
const PITCH_SPREAD: f32 = 0.08;
const CEPSTRUM_SPREAD: [f32; CEPSTRUM] = [1.4, 0.9, 1.2, 1.0, 0.5, 0.6, 0.4, 0.4, 0.4, 0.3, 0.3, 0.3];

/// Gives every stretch a speaker, numbered in order of first appearance. A stretch without a voiceprint goes with
/// the one before it (or, at the start, after it).
pub fn cluster(prints: &[Option<Voiceprint>]) -> Vec<usize> {
    let longest = prints.iter().flatten().map(|print| print.frames).max().unwrap_or(0);
    let sure = SURE_FRAMES.min(longest);
    let mut members: Vec<Vec<usize>> = Vec::new();
    let mut centers: Vec<Voiceprint> = Vec::new();
    for (index, print) in prints.iter().enumerate() {
        if let Some(print) = print.as_ref().filter(|print| print.frames >= sure) {
            members.push(vec![index]);
            centers.push(print.clone());
        }
    }
    agglomerate(&mut centers, &mut members);
    let mut labels: Vec<Option<usize>> = vec![None; prints.len()];
    for (speaker, indices) in members.iter().enumerate() {
        for index in indices {
            labels[*index] = Some(speaker);
        }
    }
    for index in 0..prints.len() {
        if labels[index].is_none() {
            labels[index] = prints[index].as_ref().and_then(|print| nearest(print, &centers));
        }
    }
    in_order(&labels)
}

/// Merges the two nearest clusters until all are [`APART`]. Quadratic time: each cluster remembers its nearest.
fn agglomerate(centers: &mut Vec<Voiceprint>, members: &mut Vec<Vec<usize>>) {
    let closest = |centers: &[Voiceprint], from: usize| {
        (0..centers.len())
            .filter(|other| *other != from)
            .map(|other| (other, distance(&centers[from], &centers[other])))
            .min_by(|a, b| a.1.total_cmp(&b.1))
    };
    let mut nearest: Vec<Option<(usize, f32)>> =
        (0..centers.len()).map(|index| closest(centers, index)).collect();
    loop {
        let pair =
            nearest.iter().enumerate().filter_map(|(from, to)| to.map(|(to, apart)| (from, to, apart)));
        let Some((from, to, apart)) = pair.min_by(|a, b| a.2.total_cmp(&b.2)) else { return };
        if apart > APART {
            return;
        }
        let (keep, gone) = (from.min(to), from.max(to));
        let moved = members.swap_remove(gone);
        members[keep].extend(moved);
        let merged = centers.swap_remove(gone);
        centers[keep] = pooled(&centers[keep], &merged);
        nearest.swap_remove(gone);
        // The last cluster now sits at `gone`.
        let last = centers.len();
        for index in 0..centers.len() {
            let stale = match nearest[index] {
                Some((to, _)) => to == gone || to == keep,
                None => true,
            };
            if stale || index == keep {
                nearest[index] = closest(centers, index);
            } else if let Some((to, apart)) = nearest[index] {
                let to = if to == last { gone } else { to };
                let merged = distance(&centers[index], &centers[keep]);
                nearest[index] = Some(if merged < apart { (keep, merged) } else { (to, apart) });
            }
        }
    }
}

fn nearest(print: &Voiceprint, centers: &[Voiceprint]) -> Option<usize> {
    (0..centers.len()).min_by(|a, b| distance(print, &centers[*a]).total_cmp(&distance(print, &centers[*b])))
}

fn pooled(one: &Voiceprint, other: &Voiceprint) -> Voiceprint {
    let share = other.frames as f32 / (one.frames + other.frames) as f32;
    let mix = |a: f32, b: f32| a + (b - a) * share;
    let mut cepstrum = one.cepstrum;
    for (value, theirs) in cepstrum.iter_mut().zip(&other.cepstrum) {
        *value = mix(*value, *theirs);
    }
    Voiceprint { pitch: mix(one.pitch, other.pitch), cepstrum, frames: one.frames + other.frames }
}

/// Root mean square of the differences, each in units of its spread within a voice (pitch counts as six), less for
/// short voiceprints, whose means stray.
fn distance(one: &Voiceprint, other: &Voiceprint) -> f32 {
    const PITCH_WEIGHT: f32 = 6.0;
    let pitch = (one.pitch - other.pitch) / PITCH_SPREAD;
    let spectrum: f32 = one
        .cepstrum
        .iter()
        .zip(&other.cepstrum)
        .zip(&CEPSTRUM_SPREAD)
        .map(|((a, b), spread)| ((a - b) / spread).powi(2))
        .sum();
    let apart = ((PITCH_WEIGHT * pitch * pitch + spectrum) / (PITCH_WEIGHT + CEPSTRUM as f32)).sqrt();
    apart / (1.0 + UNSURE_FRAMES / one.frames.min(other.frames).max(1) as f32)
}

fn in_order(labels: &[Option<usize>]) -> Vec<usize> {
    let mut heard: Vec<usize> = Vec::new();
    let mut last = labels.iter().flatten().next().copied().unwrap_or(0);
    labels
        .iter()
        .map(|label| {
            last = label.unwrap_or(last);
            heard.iter().position(|speaker| *speaker == last).unwrap_or_else(|| {
                heard.push(last);
                heard.len() - 1
            })
        })
        .collect()
}
