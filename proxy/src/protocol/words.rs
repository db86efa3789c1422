//! Words with times and speakers in the JSON of engines, and the speaker turns that such words make.

use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::Value;

use super::json::{Number, seconds};
use crate::job::work::Turns;
use crate::transcript::{Turn, Word};

/// A word of `words[]`; times are seconds.
#[derive(Deserialize)]
pub(super) struct TimedWord {
    start: Option<Number>,
    end: Option<Number>,
    #[serde(alias = "word")]
    text: Option<String>,
    /// From 1, where the engine tells speakers apart.
    speaker: Option<Value>,
    /// 0 to 1, where the engine says it.
    confidence: Option<Number>,
}

impl TimedWord {
    /// The word.
    pub(super) fn into_word(self) -> Word {
        Word { start: seconds(self.start), end: seconds(self.end), text: self.text.unwrap_or_default() }
    }

    /// How sure the engine is of it; NaN when it does not say.
    pub(super) fn confidence(&self) -> f32 {
        seconds(self.confidence) as f32
    }

    /// The number of its speaker, if it has one.
    pub(super) fn speaker(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.speaker.as_ref()?.as_u64()?.try_into().ok()?)
    }
}

/// How sure an engine is of each of its words; none unless it says it of at least one. What is no share counts as 0.
pub(super) fn confidences(words: impl Iterator<Item = f32>) -> Vec<f32> {
    let share = |confidence: f32| if (0.0..=1.0).contains(&confidence) { confidence } else { 0.0 };
    let said: Vec<f32> = words.map(share).collect();
    if said.iter().any(|confidence| *confidence > 0.0) { said } else { Vec::new() }
}

/// The label of the speaker that an engine gives this number: `Speaker_0` for 1.
pub(super) fn label(speaker: NonZeroU32) -> String {
    format!("Speaker_{}", speaker.get() - 1)
}

/// The turns of words with their speakers: one for consecutive words of one speaker. `None` when no word has a speaker.
pub(super) fn turns<'a>(
    words: impl Iterator<Item = (Option<NonZeroU32>, &'a Word)>,
    duration: Option<f64>,
) -> Option<Turns> {
    let mut turns: Vec<Turn> = Vec::new();
    let mut before = None;
    for (speaker, word) in words {
        match (speaker, turns.last_mut()) {
            (None, _) => {}
            (Some(_), Some(turn)) if speaker == before => {
                // A bound that is NaN gives way.
                turn.start = turn.start.min(word.start);
                turn.end = turn.end.max(word.end);
            }
            (Some(speaker), _) => {
                turns.push(Turn { start: word.start, end: word.end, speaker: label(speaker) });
            }
        }
        before = speaker;
    }
    (!turns.is_empty()).then(|| listed(turns, duration))
}

/// Turns with their speakers in order of first appearance.
pub(super) fn listed(turns: Vec<Turn>, duration: Option<f64>) -> Turns {
    let mut speakers: Vec<String> = Vec::new();
    for turn in &turns {
        if !speakers.contains(&turn.speaker) {
            speakers.push(turn.speaker.clone());
        }
    }
    Turns { turns, speakers, duration, model: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_words_of_one_speaker_are_one_turn() {
        let words: Vec<(Option<NonZeroU32>, Word)> = [
            (2, 0.0, 0.4),
            (2, 0.5, f64::NAN),
            (1, 1.0, 1.2),
            (0, 1.3, 1.4),
            (1, 1.5, 1.6),
            (2, f64::NAN, 2.0),
            (2, 1.9, 2.5),
        ]
        .map(|(tag, start, end)| (NonZeroU32::new(tag), Word { start, end, text: "a".into() }))
        .into();
        let made = turns(words.iter().map(|(tag, word)| (*tag, word)), Some(3.0)).unwrap();
        let turn = |start, end, speaker: &str| Turn { start, end, speaker: speaker.into() };
        let expected = [
            turn(0.0, 0.4, "Speaker_1"),
            turn(1.0, 1.2, "Speaker_0"),
            turn(1.5, 1.6, "Speaker_0"),
            turn(1.9, 2.5, "Speaker_1"),
        ];
        assert_eq!(made.turns, expected);
        assert_eq!(made.speakers, ["Speaker_1", "Speaker_0"]);
        assert_eq!(turns(words.iter().map(|(_, word)| (None, word)), None), None);
    }

    #[test]
    fn speakers_are_numbers_from_one() {
        let speaker = |json: &str| serde_json::from_str::<TimedWord>(json).unwrap().speaker();
        assert_eq!(speaker(r#"{"word":"a","speaker":3}"#), NonZeroU32::new(3));
        for none in
            [r#"{"speaker":0}"#, r#"{"speaker":null}"#, r#"{"speaker":"A"}"#, r#"{"speaker":-1}"#, "{}"]
        {
            assert_eq!(speaker(none), None, "{none}");
        }
    }
}
