//! Small scenes with known answers, most of them mistakes of rules in use.

use super::*;

/// Labels of words alone in a scene.
fn continuity(words: &[Word], turns: &[Turn]) -> Vec<String> {
    labels(&merge(words, turns, &CONTINUITY))
}

fn legacy(words: &[Word], turns: &[Turn]) -> Vec<String> {
    labels(&merge(words, turns, &LEGACY))
}

#[test]
fn a_word_across_a_boundary_goes_to_the_larger_part() {
    assert_eq!(continuity(&[word(1.0, 1.4, "w")], &[turn(0.0, 1.3, "A"), turn(1.3, 3.0, "B")]), ["A"]);
}

#[test]
fn a_word_in_a_gap_goes_to_the_nearer_edge() {
    let (words, turns) = ([word(1.05, 1.2, "w")], [turn(0.0, 1.0, "A"), turn(2.0, 3.0, "B")]);
    assert_eq!(continuity(&words, &turns), ["A"]);
    assert_eq!(legacy(&words, &turns), [SPEAKER_UNKNOWN]);
}

#[test]
fn a_word_without_length_goes_to_the_nearer_edge() {
    assert_eq!(continuity(&[word(1.0, 1.0, "w")], &[turn(0.0, 0.99, "A"), turn(1.2, 2.0, "B")]), ["A"]);
}

#[test]
fn nearness_counts_from_the_edge_of_a_long_turn() {
    assert_eq!(continuity(&[word(60.2, 60.4, "w")], &[turn(0.0, 60.0, "A"), turn(62.0, 62.5, "B")]), ["A"]);
}

#[test]
fn a_backchannel_goes_to_the_short_turn_and_only_it() {
    let turns = [turn(0.0, 10.0, "A"), turn(4.98, 5.24, "B")];
    assert_eq!(continuity(&[word(5.0, 5.2, "Yeah.")], &turns), ["B"]);
    assert_eq!(continuity(&[word(5.0, 5.2, "the")], &turns), ["A"]);
    let nobody_knows = Params { rule: Rule::Continuity, language: None, confidences: false };
    assert_eq!(labels(&merge(&[word(5.0, 5.2, "Yeah.")], &turns, &nobody_knows)), ["A"]);
}

#[test]
fn fluent_speech_is_not_broken_by_a_sliver_of_another() {
    let fluent = [word(4.6, 5.0, "one"), word(5.0, 5.08, "a"), word(5.08, 5.5, "day."), word(5.5, 5.9, "we")];
    let sliver = [turn(5.0, 5.045, "B"), turn(0.0, 4.99, "A"), turn(5.09, 9.0, "A")];
    assert_eq!(continuity(&fluent, &sliver), ["A", "A", "A", "A"]);
    assert_eq!(legacy(&fluent, &sliver)[1], "B");
}

#[test]
fn a_word_between_pauses_may_be_anothers() {
    let paused = [word(4.0, 4.4, "one"), word(5.0, 5.08, "a"), word(5.68, 6.0, "day."), word(6.0, 6.4, "we")];
    let turns = [turn(0.0, 4.4, "A"), turn(5.0, 5.08, "B"), turn(5.68, 9.0, "A")];
    assert_eq!(continuity(&paused, &turns), ["A", "B", "A", "A"]);
}

#[test]
fn absurd_input_gives_every_word_a_place() {
    let nan = f64::NAN;
    let words = [
        word(nan, nan, "a"),
        word(0.5, 0.2, "b"),
        word(nan, 0.9, "c"),
        word(-5.0, f64::NEG_INFINITY, "d"),
        word(1e300, 1.2, "e"),
    ];
    let turns = [
        turn(2.0, 1.0, "A"),
        turn(0.0, 1.0, "A"),
        turn(0.0, 1.0, "A"),
        turn(nan, 3.0, "B"),
        turn(0.0, 9.0, ""),
        turn(-1e300, 0.1, "C"),
    ];
    let merged = merge(&words, &turns, &CONTINUITY);
    assert_eq!(merged.labels, ["C", "A"]);
    assert_eq!(labels(&merged)[..4], ["A", "A", "A", "A"]);
    assert_eq!(merged.blocks.iter().map(|block| block.words.len()).sum::<usize>(), 5);
    assert!(merged.blocks.iter().all(|block| 0 <= block.start_ms && block.start_ms <= block.end_ms));
}

#[test]
fn words_without_any_time_are_unknown() {
    let merged = merge(&[word(f64::NAN, f64::NAN, "a")], &[turn(0.0, 1.0, "A")], &CONTINUITY);
    assert_eq!(labels(&merged), [SPEAKER_UNKNOWN]);
}

#[test]
fn no_turns_and_no_words_are_fine() {
    let merged = merge(&[word(0.0, 1.0, "a"), word(1.0, 2.0, "b")], &[], &CONTINUITY);
    assert_eq!(merged.blocks.len(), 1);
    assert_eq!((merged.blocks[0].speaker.as_str(), merged.blocks[0].text.as_str()), (SPEAKER_UNKNOWN, "a b"));
    let merged = merge(&[], &[turn(0.0, 1.0, "A")], &CONTINUITY);
    assert_eq!((merged.labels.len(), merged.blocks.len()), (1, 0));
}

#[test]
fn a_long_silence_breaks_a_block_and_a_short_one_does_not() {
    let turns = [turn(0.0, 9.0, "A")];
    for (silence, blocks) in [(1.4, 1), (1.5, 1), (1.6, 2)] {
        let words = [word(0.0, 1.0, "a"), word(1.0 + silence, 4.0, "b")];
        assert_eq!(merge(&words, &turns, &CONTINUITY).blocks.len(), blocks, "{silence}");
        assert_eq!(merge(&words, &turns, &LEGACY).blocks.len(), blocks, "{silence}");
    }
}

#[test]
fn blocks_join_bare_words_and_round_milliseconds() {
    let words = [word(8.03, 8.6, "Good"), word(8.6, 9.0, "day"), word(9.0, 9.1, "."), word(9.2, 9.5, "Hi")];
    let turns = [turn(8.0, 9.1, "A"), turn(9.15, 10.0, "B"), turn(20.0, 21.0, "C")];
    let merged = merge(&words, &turns, &CONTINUITY);
    let expected = [
        Block {
            start_ms: 8030,
            end_ms: 9100,
            speaker: "A".to_owned(),
            text: "Good day.".to_owned(),
            words: 0..3,
        },
        Block { start_ms: 9200, end_ms: 9500, speaker: "B".to_owned(), text: "Hi".to_owned(), words: 3..4 },
    ];
    assert_eq!(merged.blocks, expected);
    assert_eq!(merged.labels, ["A", "B", "C"]);
}
