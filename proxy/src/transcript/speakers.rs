//! Step 1 of the merge, turns: each speaker's talk as sorted spans that neither touch nor overlap.

use std::collections::BTreeMap;

use super::Turn;
use super::span::{Span, micros};

/// Most speakers that are distinguished, so that the cost per word is bounded: one for each bit of
/// [`super::assign::Assigned::covered_by`]. Diarizers stop at 4 to 8.
const MAX_SPEAKERS: usize = 32;

/// One speaker of the recording.
#[derive(Debug)]
pub(super) struct Speaker {
    pub(super) label: String,
    /// Sorted, disjoint, none empty.
    pub(super) spans: Vec<Span>,
    /// Talk before each span; one longer than `spans`, so the last is the whole.
    talk_before: Vec<i64>,
}

impl Speaker {
    fn new(label: &str, spans: Vec<Span>) -> Self {
        let spans = union(spans);
        let mut talk = 0;
        let mut talk_before = Vec::with_capacity(spans.len() + 1);
        talk_before.push(talk);
        for span in &spans {
            talk += span.duration();
            talk_before.push(talk);
        }
        Self { label: label.to_owned(), spans, talk_before }
    }

    /// Talk of the whole recording.
    fn talk(&self) -> i64 {
        self.talk_before.last().copied().unwrap_or(0)
    }

    /// Talk inside the spans `from..to`.
    pub(super) fn talk_in(&self, from: usize, to: usize) -> i64 {
        self.talk_before[to] - self.talk_before[from]
    }
}

/// Sorts spans and joins those that touch or overlap: a padded diarizer's turns would else count twice.
pub(super) fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => joined.push(span),
        }
    }
    joined
}

/// Groups turns by speaker, in order of appearance. Turns with a non-finite end, no length or a blank label are
/// dropped; beyond [`MAX_SPEAKERS`], so are those who talk least.
pub(super) fn collect(turns: &[Turn]) -> Vec<Speaker> {
    let mut spans_of: BTreeMap<&str, Vec<Span>> = BTreeMap::new();
    for turn in turns {
        let (Some(start), Some(end)) = (micros(turn.start), micros(turn.end)) else { continue };
        if end <= start || turn.speaker.trim().is_empty() {
            continue;
        }
        spans_of.entry(&turn.speaker).or_default().push(Span { start, end });
    }
    let mut speakers: Vec<Speaker> =
        spans_of.into_iter().map(|(label, spans)| Speaker::new(label, spans)).collect();
    // Both sorts are stable over label order, so that the label decides only between equal turns.
    speakers.sort_by(|a, b| a.spans.cmp(&b.spans));
    if speakers.len() > MAX_SPEAKERS {
        speakers.sort_by_key(|speaker| std::cmp::Reverse(speaker.talk()));
        speakers.truncate(MAX_SPEAKERS);
        speakers.sort_by(|a, b| a.spans.cmp(&b.spans));
    }
    speakers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(start: f64, end: f64, speaker: &str) -> Turn {
        Turn { start, end, speaker: speaker.to_owned() }
    }

    #[test]
    fn touching_and_overlapping_turns_of_one_speaker_become_one() {
        let turns = [turn(2.0, 3.0, "A"), turn(0.0, 1.0, "A"), turn(1.0, 1.5, "A"), turn(0.5, 1.2, "A")];
        let speakers = collect(&turns);
        let expected = [Span { start: 0, end: 1_500_000 }, Span { start: 2_000_000, end: 3_000_000 }];
        assert_eq!(speakers[0].spans, expected);
        assert_eq!(speakers[0].talk(), 2_500_000);
    }

    #[test]
    fn unusable_turns_are_dropped_and_speakers_come_in_order_of_appearance() {
        let turns = [
            turn(5.0, 6.0, "A"),
            turn(f64::NAN, 1.0, "N"),
            turn(0.0, f64::INFINITY, "I"),
            turn(2.0, 2.0, "Z"),
            turn(1.0, 2.0, " "),
            turn(4.0, 6.0, "B"),
        ];
        let labels: Vec<String> = collect(&turns).into_iter().map(|speaker| speaker.label).collect();
        assert_eq!(labels, ["B", "A"]);
    }

    #[test]
    fn a_crowd_is_cut_to_those_who_talk_most() {
        let turns: Vec<Turn> =
            (0..100).map(|n| turn(0.0, 1.0 + f64::from(n % 50), &format!("S{n}"))).collect();
        let speakers = collect(&turns);
        assert_eq!(speakers.len(), MAX_SPEAKERS);
        assert!(speakers.iter().all(|speaker| speaker.talk() > 34_000_000));
    }
}
