//! Who speaks in a segment, by numbers that mean the same voice through the whole session.
//!
//! Engines number the speakers of each recording anew. So a segment is asked about together with a few seconds of each voice that
//! is known, before it: a speaker whom the engine hears there too has that voice's number. The cost of a segment does not grow with the
//! session.

use std::ops::Range;

use super::clock::{RATE, samples, seconds};
use crate::transcript::Turn;

/// Kept of a voice.
const VOICE: usize = samples(8_000) as usize;
/// Silence after each voice, and between what is kept of one.
const GAP: usize = samples(300) as usize;
/// Least speech by which a further voice is known: shorter stretches are told apart badly.
const LEAST_SPEECH: f64 = 0.8;
/// Share of what is kept of a voice that a speaker of the engine must have to be it.
const LEAST_SHARE: f64 = 0.3;
/// Voices of a session; engines tell no more apart.
const MAX_VOICES: usize = 8;

/// A stretch of a segment in which one speaker talks.
#[derive(Clone, Debug, PartialEq)]
pub struct Talk {
    /// Seconds from the start of the segment.
    pub span: Range<f64>,
    /// From 0, in the order in which the voices of the session were first heard.
    pub speaker: usize,
}

/// The voices of a session.
#[derive(Debug, Default)]
pub struct Voices {
    known: Vec<Vec<i16>>,
}

/// Where the parts of a recording lie that was made by [`Voices::recording`], seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    voices: Vec<Range<f64>>,
    segment: Range<f64>,
}

impl Voices {
    /// The recording by which the speakers of a segment are told, 16 kHz.
    pub fn recording(&self, segment: &[i16]) -> (Vec<i16>, Parts) {
        let mut audio = Vec::new();
        let mut voices = Vec::new();
        for voice in &self.known {
            let from = audio.len();
            audio.extend_from_slice(voice);
            voices.push(length(from)..length(audio.len()));
            audio.resize(audio.len() + GAP, 0);
        }
        let from = audio.len();
        audio.extend_from_slice(segment);
        let segment = length(from)..length(audio.len());
        (audio, Parts { voices, segment })
    }

    /// What the engine's turns of that recording say of the segment. New voices are known from now on.
    pub fn tell(&mut self, parts: &Parts, turns: &[Turn], segment: &[i16]) -> Vec<Talk> {
        let turns: Vec<&Turn> =
            turns.iter().filter(|turn| turn.start.is_finite() && turn.end > turn.start).collect();
        let mut labels: Vec<&str> = Vec::new();
        for turn in &turns {
            if !labels.contains(&&*turn.speaker) {
                labels.push(&turn.speaker);
            }
        }
        let talk = |label: &str, within: &Range<f64>| -> f64 {
            let mine = turns.iter().filter(|turn| turn.speaker == label);
            mine.map(|turn| (turn.end.min(within.end) - turn.start.max(within.start)).max(0.0)).sum()
        };
        let mut numbers: Vec<Option<usize>> = vec![None; labels.len()];
        let mut claims: Vec<(f64, usize, usize)> = Vec::new();
        for (at, label) in labels.iter().enumerate() {
            for (voice, span) in parts.voices.iter().enumerate() {
                let share = talk(label, span) / (span.end - span.start).max(0.1);
                if share >= LEAST_SHARE {
                    claims.push((share, at, voice));
                }
            }
        }
        // The surest first; each voice is one speaker, and each speaker one voice.
        claims.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, at, voice) in claims {
            if numbers[at].is_none() && !numbers.contains(&Some(voice)) {
                numbers[at] = Some(voice);
            }
        }
        for (at, label) in labels.iter().enumerate() {
            let spoken = talk(label, &parts.segment);
            let is_voice = spoken >= LEAST_SPEECH || (self.known.is_empty() && spoken > 0.0);
            if numbers[at].is_none() && is_voice && self.known.len() < MAX_VOICES {
                numbers[at] = Some(self.known.len());
                self.known.push(Vec::new());
            }
        }
        let mut told = Vec::new();
        for turn in &turns {
            let label = labels.iter().position(|label| *label == turn.speaker);
            let Some(speaker) = label.and_then(|at| numbers[at]) else { continue };
            let from = turn.start.max(parts.segment.start) - parts.segment.start;
            let to = turn.end.min(parts.segment.end) - parts.segment.start;
            if to > from {
                told.push(Talk { span: from..to, speaker });
            }
        }
        told.sort_by(|a, b| a.span.start.total_cmp(&b.span.start));
        self.keep(&told, segment);
        told
    }

    /// Keeps what was said by one voice alone, of those of which little is kept.
    fn keep(&mut self, told: &[Talk], segment: &[i16]) {
        for talk in told {
            let alone = told.iter().all(|other| {
                other.speaker == talk.speaker
                    || other.span.end <= talk.span.start
                    || other.span.start >= talk.span.end
            });
            let Some(voice) = self.known.get_mut(talk.speaker) else { continue };
            // The first words of a voice are kept even if others speak too: there is nothing better.
            if (!alone && !voice.is_empty()) || voice.len() >= VOICE {
                continue;
            }
            let at = |seconds: f64| ((seconds * f64::from(RATE)) as usize).min(segment.len());
            let piece = &segment[at(talk.span.start)..at(talk.span.end)];
            if !voice.is_empty() {
                voice.resize(voice.len() + GAP, 0);
            }
            let room = VOICE.saturating_sub(voice.len());
            voice.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }
}

fn length(count: usize) -> f64 {
    seconds(count as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn audio(seconds: f64) -> Vec<i16> {
        vec![1; (seconds * f64::from(RATE)) as usize]
    }

    fn turn(start: f64, end: f64, speaker: &str) -> Turn {
        Turn { start, end, speaker: speaker.into() }
    }

    /// What an engine finds that hears every voice right, and names them as it likes: `spoken` are the voices of the segment.
    fn heard(
        parts: &Parts,
        voices: &[char],
        spoken: &[(f64, f64, char)],
        name: impl Fn(char) -> String,
    ) -> Vec<Turn> {
        let before =
            parts.voices.iter().zip(voices).map(|(span, voice)| turn(span.start, span.end, &name(*voice)));
        let from = parts.segment.start;
        let in_segment =
            spoken.iter().map(|(start, end, voice)| turn(from + start, from + end, &name(*voice)));
        before.chain(in_segment).collect()
    }

    #[test]
    fn a_voice_keeps_its_number_whatever_the_engine_calls_it() {
        let mut voices = Voices::default();
        let mut known: Vec<char> = Vec::new();
        let segments: [&[(f64, f64, char)]; 4] = [
            &[(0.0, 2.0, 'x')],
            &[(0.0, 1.5, 'y'), (1.6, 3.0, 'x')],
            &[(0.2, 2.0, 'z'), (2.0, 2.9, 'y')],
            &[(0.0, 1.0, 'x')],
        ];
        let expected: [&[usize]; 4] = [&[0], &[1, 0], &[2, 1], &[0]];
        for (at, (spoken, expected)) in segments.into_iter().zip(expected).enumerate() {
            let segment = audio(3.0);
            let (recording, parts) = voices.recording(&segment);
            assert!((length(recording.len()) - parts.segment.end).abs() < 1e-9);
            // Names change from call to call.
            let turns = heard(&parts, &known, spoken, |voice| format!("s{}", (voice as usize + at * 7) % 5));
            let told = voices.tell(&parts, &turns, &segment);
            assert_eq!(told.iter().map(|talk| talk.speaker).collect::<Vec<_>>(), expected, "segment {at}");
            for (_, _, voice) in spoken {
                if !known.contains(voice) {
                    known.push(*voice);
                }
            }
        }
    }

    #[test]
    fn a_short_stretch_makes_no_new_voice() {
        let mut voices = Voices::default();
        let segment = audio(3.0);
        let (_, parts) = voices.recording(&segment);
        assert_eq!(voices.tell(&parts, &[turn(0.0, 0.4, "a")], &segment).len(), 1, "the first one is");
        let (_, parts) = voices.recording(&segment);
        let from = parts.segment.start;
        let turns = [turn(0.0, 0.4, "b"), turn(from, from + 2.0, "b"), turn(from + 2.0, from + 2.5, "c")];
        let told = voices.tell(&parts, &turns, &segment);
        assert_eq!(told, [Talk { span: 0.0..2.0, speaker: 0 }]);
    }

    proptest! {
        #[test]
        fn nothing_grows_and_numbers_count_up(
            calls in prop::collection::vec(prop::collection::vec((-2.0..90.0f64, -1.0..6.0f64, 0u8..12), 0..8), 1..12),
        ) {
            let mut voices = Voices::default();
            let segment = audio(3.0);
            let mut most = 0;
            for call in calls {
                let (recording, parts) = voices.recording(&segment);
                prop_assert!(recording.len() <= MAX_VOICES * (VOICE + GAP) + segment.len());
                let turns: Vec<Turn> = call
                    .iter()
                    .map(|(start, length, name)| turn(*start, start + length, &name.to_string()))
                    .collect();
                for talk in voices.tell(&parts, &turns, &segment) {
                    prop_assert!(talk.span.start >= 0.0 && talk.span.end <= 3.0 + 1e-9);
                    prop_assert!(talk.speaker < MAX_VOICES);
                    most = most.max(talk.speaker + 1);
                }
                prop_assert!(voices.known.len() <= MAX_VOICES && most <= voices.known.len());
            }
        }
    }
}
