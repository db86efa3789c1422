//! Cues and their two written forms.

use super::subtitle::{Cue, srt, vtt};
use super::*;

fn spoken(text: &str, pace: f64) -> Vec<Word> {
    text.split(' ').enumerate().map(|(n, w)| word(n as f64 * pace, n as f64 * pace + pace, w)).collect()
}

fn lines(cues: &[Cue]) -> Vec<Vec<&str>> {
    cues.iter().map(|cue| cue.lines.iter().map(String::as_str).collect()).collect()
}

#[test]
fn lines_are_even_and_not_overfilled() {
    let text =
        "it was the best of times it was the worst of times it was the age of wisdom it was the age of";
    let cues = cues(&spoken(text, 0.2), None);
    assert_eq!(
        lines(&cues),
        [
            vec!["it was the best of times it was the"],
            vec!["worst of times it was the age", "of wisdom it was the age of"],
        ]
    );
    assert_eq!((cues[0].start_ms, cues[0].end_ms, cues[1].start_ms, cues[1].end_ms), (0, 1800, 1800, 4650));
}

#[test]
fn cues_end_with_sentences_pauses_and_seven_seconds() {
    let mut words = spoken("That is all. Well now then", 0.5);
    words[5].start = 3.2;
    words[5].end = 3.5;
    assert_eq!(lines(&cues(&words, None)), [["That is all."], ["Well now"], ["then"]]);
    let slow = cues(&spoken("a b c d e f g h i j", 0.8), None);
    assert!(slow.len() == 2 && slow.iter().all(|cue| cue.end_ms - cue.start_ms <= 7000), "{slow:?}");
    let endless = cues(&[word(0.0, 60.0, "hm")], None);
    assert_eq!((endless[0].start_ms, endless[0].end_ms), (0, 7000));
}

#[test]
fn no_cue_ends_inside_a_sentence_that_fits_into_the_next() {
    let text =
        "The weather in the north is very nice. Will it stay like that until the weekend, do you think?";
    assert_eq!(
        lines(&cues(&spoken(text, 0.25), None)),
        [
            vec!["The weather in the north is very nice."],
            vec!["Will it stay like that until", "the weekend, do you think?"],
        ]
    );
}

#[test]
fn a_turn_of_a_dialogue_has_a_cue_of_its_own() {
    let mut words = Vec::new();
    for turn in 0..4 {
        let begin = f64::from(turn) * 2.2;
        words.extend(
            (0..5).map(|at| word(begin + f64::from(at) * 0.3, begin + f64::from(at) * 0.3 + 0.3, "well")),
        );
    }
    let times: Vec<(i64, i64)> = cues(&words, None).iter().map(|cue| (cue.start_ms, cue.end_ms)).collect();
    assert_eq!(times, [(0, 1500), (2200, 3700), (4400, 5900), (6600, 8100)]);
    assert_eq!(segments::cut(&words, |_| false), [0..5, 5..10, 10..15, 15..20]);
}

#[test]
fn no_word_is_left_alone() {
    let text =
        "a person who reads a long line to its end dislikes a single word that comes on the next screen";
    for pace in [0.15, 0.3, 0.6] {
        let cues = cues(&spoken(text, pace), None);
        let short = cues.iter().flat_map(|cue| &cue.lines).filter(|line| !line.contains(' ')).count();
        assert_eq!(short, 0, "{cues:?}");
    }
}

#[test]
fn a_short_sentence_stays_with_its_neighbour_and_long_enough_on_screen() {
    let cues = cues(&spoken("Yes. I think that you are right.", 0.3), None);
    assert_eq!(lines(&cues), [["Yes. I think that you are right."]]);
    let fast = super::cues(&spoken("extraordinarily incomprehensible", 0.2), None);
    assert_eq!((fast[0].start_ms, fast[0].end_ms), (0, 1600), "20 columns a second");
}

#[test]
fn cues_change_with_the_speaker() {
    let words = spoken("one two three four", 0.4);
    let turns = [turn(0.0, 0.8, "A"), turn(0.8, 1.6, "B")];
    let cues = cues(&words, Some(&merge(&words, &turns, &CONTINUITY)));
    assert_eq!(lines(&cues), [["one two"], ["three four"]]);
    assert_eq!(cues[0].speaker.as_deref(), Some("A"));
    assert_eq!(cues[1].speaker.as_deref(), Some("B"));
}

#[test]
fn a_word_is_never_parted_from_its_punctuation_or_itself() {
    let pieces =
        [" extra", "ordinari", "ly", " incompre", "hensible", " ", " counter", "revolution", "aries", "!"];
    let words: Vec<Word> =
        pieces.iter().enumerate().map(|(n, w)| word(n as f64 * 0.2, n as f64 * 0.2 + 0.2, w)).collect();
    let expected = [vec!["extraordinarily incomprehensible", "counterrevolutionaries!"]];
    assert_eq!(lines(&cues(&words, None)), expected);
}

#[test]
fn ideographs_take_two_columns() {
    let words: Vec<Word> =
        (0..30).map(|n| word(f64::from(n) * 0.1, f64::from(n) * 0.1 + 0.1, "今日")).collect();
    let cues = cues(&words, None);
    assert!(cues.iter().flat_map(|cue| &cue.lines).all(|line| line.chars().count() <= 21), "{cues:?}");
    assert_eq!(cues[0].lines.len(), 2);
}

#[test]
fn cues_at_one_moment_still_follow_one_another() {
    let words =
        [word(-1.0, 2.0, "One."), word(0.5, 2.5, "Two."), word(0.1, 0.1, "Three."), word(0.0, 9.0, "Four.")];
    let cues = cues(&words, None);
    let times: Vec<(i64, i64)> = cues.iter().map(|cue| (cue.start_ms, cue.end_ms)).collect();
    assert_eq!(times, [(0, 500), (500, 800), (800, 7800)]);
}

#[test]
fn srt_is_numbered_and_has_no_false_arrow() {
    let cues = [
        Cue { start_ms: 0, end_ms: 1500, speaker: None, lines: vec!["a --> b".to_owned(), "c".to_owned()] },
        Cue {
            start_ms: 3_661_001,
            end_ms: 3_662_000,
            speaker: Some("Speaker_1".to_owned()),
            lines: vec!["d & e".to_owned()],
        },
    ];
    let expected = "1\n00:00:00,000 --> 00:00:01,500\na -> b\nc\n\n\
                    2\n01:01:01,001 --> 01:01:02,000\nSpeaker_1: d & e\n\n";
    assert_eq!(srt(&cues), expected);
    assert_eq!(srt(&[]), "");
}

#[test]
fn vtt_has_a_header_and_escapes_markup() {
    let cues = [Cue {
        start_ms: 360_000_000,
        end_ms: 360_000_001,
        speaker: Some("A&B".to_owned()),
        lines: vec!["1 < 2 & 3 --> 4".to_owned()],
    }];
    let expected = "WEBVTT\n\n100:00:00.000 --> 100:00:00.001\n<v A&amp;B>1 &lt; 2 &amp; 3 --&gt; 4\n\n";
    assert_eq!(vtt(&cues), expected);
    assert_eq!(vtt(&[]), "WEBVTT\n\n");
}
