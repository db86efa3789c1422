//! Dialogues of flite's voices.

use super::*;
use crate::ffi::{Voice, Voices};
use crate::say;

const LINES: [&str; 6] = [
    "good morning and thank you for coming to see us today",
    "the pleasure is mine, I hope the journey was not too long for you",
    "we need to finish the report before the meeting starts",
    "can you tell me how to get to the city hospital",
    "the weather will be cold and rainy this weekend",
    "open the window and let some fresh air into the room",
];

/// Samples of a dialogue and the speaker (index into `voices`) of every frame that is spoken.
fn dialogue(voices: &[Voice], turns: usize, pause_s: f32) -> (Vec<i16>, Vec<Option<usize>>) {
    let mut loaded = Voices::load(false).unwrap();
    let mut samples = vec![0; 4_800];
    let mut truth = vec![None; 30];
    for turn in 0..turns {
        let speaker = turn % voices.len();
        let line = say::speak(&mut loaded, voices[speaker], LINES[turn % LINES.len()]).unwrap();
        let loud = |sample: &i16| sample.unsigned_abs() > 300;
        let (start, end) = (line.iter().position(loud).unwrap(), line.iter().rposition(loud).unwrap());
        samples.extend_from_slice(&line[start..end]);
        truth.resize(samples.len() / FRAME, Some(speaker));
        samples.resize(samples.len() + (pause_s * 16_000.0) as usize, 0);
        truth.resize(samples.len() / FRAME, None);
    }
    (samples, truth)
}

/// Share of spoken frames with the right speaker, and the number of speakers found. Speakers are numbered by first
/// appearance on both sides, so that equal numbers mean the same voice.
fn accuracy(turns: &[Turn], truth: &[Option<usize>]) -> (f64, usize) {
    let spoken = truth.iter().flatten().count();
    let mut right = 0;
    for (frame, speaker) in truth.iter().enumerate() {
        let at_s = (frame as f64 + 0.5) * 0.01;
        let said = turns.iter().find(|turn| turn.start_s <= at_s && at_s < turn.end_s);
        right += usize::from(speaker.is_some() && said.map(|turn| turn.speaker) == *speaker);
    }
    let speakers = turns.iter().map(|turn| turn.speaker + 1).max().unwrap_or(0);
    (right as f64 / spoken as f64, speakers)
}

#[test]
fn every_pair_of_voices_is_distinguished() {
    for (index, one) in Voice::ALL.into_iter().enumerate() {
        for other in Voice::ALL.into_iter().skip(index + 1) {
            for (voices, pause_s) in [([one, other], 0.2), ([other, one], 0.6)] {
                let (samples, truth) = dialogue(&voices, 4, pause_s);
                let (right, speakers) = accuracy(&diarize(&samples), &truth);
                assert_eq!(speakers, 2, "{voices:?} {pause_s}");
                assert!(right >= 0.9, "{voices:?} {pause_s}: {right:.3}");
            }
        }
    }
}

#[test]
fn one_voice_is_one_speaker() {
    for voice in Voice::ALL {
        let (samples, truth) = dialogue(&[voice], 6, 0.5);
        let (right, speakers) = accuracy(&diarize(&samples), &truth);
        assert_eq!(speakers, 1, "{voice:?}");
        assert!(right >= 0.9, "{voice:?}: {right:.3}");
    }
}

#[test]
fn three_and_four_voices_are_counted() {
    for voices in [&Voice::ALL[..3], &Voice::ALL[1..], &Voice::ALL[..]] {
        let (samples, truth) = dialogue(voices, voices.len() * 2, 0.4);
        let (right, speakers) = accuracy(&diarize(&samples), &truth);
        assert_eq!(speakers, voices.len());
        assert!(right >= 0.9, "{voices:?}: {right:.3}");
    }
}

#[test]
fn silence_noise_and_scraps_give_no_nonsense() {
    assert!(diarize(&[]).is_empty());
    assert!(diarize(&[0; 100]).is_empty());
    assert!(diarize(&[0; 160_000]).is_empty());
    let mut state = 1u32;
    let noise: Vec<i16> = (0..80_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 20) as i16
        })
        .collect();
    let turns = diarize(&noise);
    assert!(turns.iter().all(|turn| turn.start_s < turn.end_s && turn.end_s <= 5.0 && turn.speaker == 0));
}
