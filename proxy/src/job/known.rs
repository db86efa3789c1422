//! Speakers that are known by a recording: joined ahead of the audio, so that the engine's own diarizer matches them.
//!
//! Labels of a diarizer hold within one file only. The joint file begins with the references, a pause after each. The
//! label of a reference's span gets that speaker's name, and the turns behind the references are shifted back.

use bytes::{BufMut, Bytes, BytesMut};

use super::work::Turns;
use crate::audio::convert::RATE;
use crate::transcript::Turn;

/// Shortest and longest recording of a speaker, seconds.
pub const SECONDS: std::ops::RangeInclusive<f64> = 2.0..=10.0;
/// Most of them in a request.
pub const MAX_SPEAKERS: usize = 4;
/// Silence after each reference, seconds: a diarizer must not let one turn run into the next.
const PAUSE: f64 = 0.8;
/// Least part of a reference that must be heard as one speaker.
const LEAST_SHARE: f64 = 0.3;

/// A speaker that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The name that transcripts show.
    pub name: String,
    /// How the speaker sounds: 16 kHz, mono, s16le.
    pub pcm: Bytes,
}

/// References in a row, as a joint file begins with.
#[derive(Clone, Debug, PartialEq)]
pub struct Lead {
    /// 16 kHz, mono, s16le.
    pub pcm: Bytes,
    /// Name, start and end in seconds of each reference.
    spans: Vec<(String, f64, f64)>,
}

impl Lead {
    /// Joins references.
    pub fn new(references: &[Reference]) -> Self {
        let pause = vec![0; (PAUSE * f64::from(RATE)) as usize * 2];
        let mut pcm = BytesMut::new();
        let mut spans = Vec::with_capacity(references.len());
        for reference in references {
            let start = seconds(pcm.len());
            pcm.put_slice(&reference.pcm);
            spans.push((reference.name.clone(), start, seconds(pcm.len())));
            pcm.put_slice(&pause);
        }
        Self { pcm: pcm.freeze(), spans }
    }

    /// How long it plays.
    pub fn seconds(&self) -> f64 {
        seconds(self.pcm.len())
    }

    /// The turns of a joint file as those of the audio behind the references, whose speakers have their names.
    ///
    /// Of all pairs of reference and label those that are heard together longest are matched first, each once.
    pub fn named(&self, turns: Turns) -> Turns {
        let lead = self.seconds();
        let mut pairs: Vec<(f64, usize, &str)> = Vec::new();
        let mut labels: Vec<&str> = Vec::new();
        for turn in &turns.turns {
            if !labels.contains(&turn.speaker.as_str()) {
                labels.push(&turn.speaker);
            }
        }
        for (nth, (_, start, end)) in self.spans.iter().enumerate() {
            for label in &labels {
                let of_label = turns.turns.iter().filter(|turn| turn.speaker == *label);
                let heard: f64 =
                    of_label.map(|turn| (turn.end.min(*end) - turn.start.max(*start)).max(0.0)).sum();
                if heard >= LEAST_SHARE * (end - start) {
                    pairs.push((heard / (end - start), nth, label));
                }
            }
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut found: Vec<(&str, usize)> = Vec::new();
        for (_, nth, label) in pairs {
            if !found.iter().any(|(known, taken)| *known == label || *taken == nth) {
                found.push((label, nth));
            }
        }
        let name = |label: &str| {
            let known = found.iter().find(|(known, _)| *known == label);
            known.map_or_else(|| self.unnamed(label), |(_, nth)| self.spans[*nth].0.clone())
        };
        let behind = turns.turns.iter().filter(|turn| turn.end > lead);
        let shifted: Vec<Turn> = behind
            .map(|turn| Turn {
                start: (turn.start - lead).max(0.0),
                end: turn.end - lead,
                speaker: name(&turn.speaker),
            })
            .collect();
        let mut speakers: Vec<String> = Vec::new();
        for turn in &shifted {
            if !speakers.contains(&turn.speaker) {
                speakers.push(turn.speaker.clone());
            }
        }
        let duration = turns.duration.map(|duration| (duration - lead).max(0.0));
        Turns { turns: shifted, speakers, duration, model: turns.model }
    }

    /// A label of someone else, who must not get the name of a reference by chance.
    fn unnamed(&self, label: &str) -> String {
        let mut label = label.to_owned();
        while self.spans.iter().any(|(name, _, _)| *name == label) {
            label.push('_');
        }
        label
    }
}

fn seconds(bytes: usize) -> f64 {
    bytes as f64 / 2.0 / f64::from(RATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead(names: &[&str]) -> Lead {
        let reference =
            |name: &&str| Reference { name: (*name).into(), pcm: vec![1; 2 * 3 * RATE as usize].into() };
        Lead::new(&names.iter().map(reference).collect::<Vec<_>>())
    }

    fn turns(all: &[(f64, f64, &str)]) -> Turns {
        let turn = |(start, end, speaker): &(f64, f64, &str)| Turn {
            start: *start,
            end: *end,
            speaker: (*speaker).into(),
        };
        Turns { turns: all.iter().map(turn).collect(), duration: Some(20.0), ..Turns::default() }
    }

    fn shown(turns: &Turns) -> Vec<(f64, f64, &str)> {
        let shown = |turn: &Turn| (turn.start * 10.0).round() / 10.0;
        turns
            .turns
            .iter()
            .map(|turn| (shown(turn), (turn.end * 10.0).round() / 10.0, turn.speaker.as_str()))
            .collect()
    }

    #[test]
    fn references_name_the_speakers_and_times_are_those_of_the_audio() {
        let lead = lead(&["Ada", "Ben"]);
        assert_eq!(lead.seconds(), 7.6);
        let heard = turns(&[
            (0.1, 2.9, "s1"),
            (3.9, 6.7, "s0"),
            (7.4, 9.6, "s0"),
            (9.6, 12.0, "s2"),
            (12.0, 13.0, "s1"),
        ]);
        let named = lead.named(heard);
        assert_eq!(shown(&named), [(0.0, 2.0, "Ben"), (2.0, 4.4, "s2"), (4.4, 5.4, "Ada")]);
        assert_eq!(named.speakers, ["Ben", "s2", "Ada"]);
        assert!((named.duration.unwrap() - 12.4).abs() < 1e-9);
    }

    #[test]
    fn one_voice_has_one_name_and_a_short_sound_has_none() {
        let lead = lead(&["Ada", "Ben"]);
        let named = lead.named(turns(&[(0.0, 3.0, "s0"), (3.8, 5.0, "s0"), (8.0, 9.0, "s0")]));
        assert_eq!(shown(&named), [(0.4, 1.4, "Ada")]);
        let named = lead.named(turns(&[(0.0, 0.5, "s0"), (8.0, 9.0, "s0")]));
        assert_eq!(shown(&named), [(0.4, 1.4, "s0")]);
    }

    #[test]
    fn a_label_that_equals_a_name_is_not_taken_for_it() {
        let lead = lead(&["s0"]);
        let named = lead.named(turns(&[(0.0, 3.0, "s1"), (4.0, 5.0, "s1"), (5.0, 6.0, "s0")]));
        assert_eq!(named.speakers, ["s0", "s0_"]);
    }
}
