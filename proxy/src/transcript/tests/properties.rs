//! What holds for every input.

use proptest::prelude::*;

use super::*;

/// Times on the millisecond grid, so that shifting them is exact.
fn milliseconds() -> impl Strategy<Value = f64> {
    (0u32..20_000).prop_map(|ms| f64::from(ms) / 1000.0)
}

fn sane_words() -> impl Strategy<Value = Vec<Word>> {
    let text = prop::sample::select(vec!["the", "yeah", "end.", "Right?", "word"]);
    let word = (0u32..20_000, 0u32..900, text).prop_map(|(start, length, text)| {
        word(f64::from(start) / 1000.0, f64::from(start + length) / 1000.0, text)
    });
    prop::collection::vec(word, 0..40).prop_map(|mut words| {
        words.sort_by(|a, b| a.start.total_cmp(&b.start));
        words
    })
}

fn sane_turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = (milliseconds(), 1u32..4000, 0usize..4)
        .prop_map(|(start, length, who)| turn(start, start + f64::from(length) / 1000.0, &format!("S{who}")));
    prop::collection::vec(turn, 0..20)
}

fn any_time() -> impl Strategy<Value = f64> {
    prop_oneof![4 => -5.0..30.0f64, 1 => any::<f64>(), 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)]
}

fn any_words() -> impl Strategy<Value = Vec<Word>> {
    let text = prop_oneof![" ?[a-z]{0,9}[.?,]?", ".{0,12}"];
    let word = (any_time(), any_time(), text).prop_map(|(start, end, text)| Word { start, end, text });
    prop::collection::vec(word, 0..30)
}

fn any_turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn =
        (any_time(), any_time(), "[A-D]?").prop_map(|(start, end, speaker)| Turn { start, end, speaker });
    prop::collection::vec(turn, 0..20)
}

proptest! {
    #[test]
    fn the_order_of_turns_says_nothing(words in sane_words(), turns in sane_turns().prop_shuffle()) {
        let mut sorted = turns.clone();
        sorted.sort_by(|a, b| a.start.total_cmp(&b.start));
        prop_assert_eq!(merge(&words, &turns, &CONTINUITY), merge(&words, &sorted, &CONTINUITY));
    }

    #[test]
    fn names_say_nothing(words in sane_words(), turns in sane_turns()) {
        // Two speakers with the very same turns differ by name alone: leave those out.
        let mut own: Vec<Vec<(u64, u64)>> = vec![Vec::new(); 4];
        for turn in &turns {
            let who = turn.speaker[1..].parse::<usize>().unwrap();
            own[who].push((turn.start.to_bits(), turn.end.to_bits()));
        }
        own.iter_mut().for_each(|turns| turns.sort_unstable());
        prop_assume!((0..4).all(|a| (0..a).all(|b| own[a].is_empty() || own[a] != own[b])));
        let names = [("S0", "Zoe"), ("S1", "Max"), ("S2", "Eva"), ("S3", "Ada")];
        let renamed = |label: &str| -> String {
            names.iter().find(|(old, _)| *old == label).map_or(label, |(_, new)| new).to_owned()
        };
        let other: Vec<Turn> = turns.iter().map(|t| turn(t.start, t.end, &renamed(&t.speaker))).collect();
        let (before, after) = (merge(&words, &turns, &CONTINUITY), merge(&words, &other, &CONTINUITY));
        let expected: Vec<String> = labels(&before).iter().map(|label| renamed(label)).collect();
        prop_assert_eq!(expected, labels(&after));
        prop_assert_eq!(before.speakers, after.speakers);
    }

    #[test]
    fn shifting_all_times_shifts_the_blocks(words in sane_words(), turns in sane_turns(), by in 0i64..100_000) {
        let shift = |time: f64| ((time * 1000.0).round() + by as f64) / 1000.0;
        let late_words: Vec<Word> = words.iter().map(|w| word(shift(w.start), shift(w.end), &w.text)).collect();
        let late_turns: Vec<Turn> = turns.iter().map(|t| turn(shift(t.start), shift(t.end), &t.speaker)).collect();
        let mut expected = merge(&words, &turns, &CONTINUITY);
        for block in &mut expected.blocks {
            block.start_ms += by;
            block.end_ms += by;
        }
        prop_assert_eq!(merge(&late_words, &late_turns, &CONTINUITY), expected);
    }

    #[test]
    fn every_word_is_in_one_block_in_order(words in any_words(), turns in any_turns(), legacy in any::<bool>()) {
        let merged = merge(&words, &turns, if legacy { &LEGACY } else { &CONTINUITY });
        prop_assert_eq!(merged.speakers.len(), words.len());
        let mut next = 0;
        for block in &merged.blocks {
            prop_assert_eq!(block.words.start, next);
            prop_assert!(block.words.end > next);
            next = block.words.end;
            for index in block.words.clone() {
                prop_assert_eq!(merged.label(index).unwrap_or(SPEAKER_UNKNOWN), block.speaker.as_str());
            }
            prop_assert!(legacy || (0 <= block.start_ms && block.start_ms <= block.end_ms));
        }
        prop_assert_eq!(next, words.len());
    }

    #[test]
    fn one_speaker_in_is_one_label_out(words in sane_words(), turns in sane_turns()) {
        let turns: Vec<Turn> = turns.iter().map(|t| turn(t.start, t.end, "A")).collect();
        let merged = merge(&words, &turns, &CONTINUITY);
        prop_assert!(labels(&merged).iter().all(|label| *label == "A" || *label == SPEAKER_UNKNOWN));
    }

    #[test]
    fn clean_turns_give_no_error(lengths in prop::collection::vec((1usize..9, 0u32..4, 0u32..900), 1..20)) {
        let (mut words, mut turns, mut truth) = (Vec::new(), Vec::new(), Vec::new());
        let mut now = 0.0;
        for (count, who, pause) in lengths {
            let (start, speaker) = (now, format!("S{who}"));
            for _ in 0..count {
                words.push(word(now, now + 0.3, "word"));
                truth.push(speaker.clone());
                now += 0.3;
            }
            turns.push(turn(start, now, &speaker));
            now += f64::from(pause) / 1000.0;
        }
        prop_assert_eq!(&labels(&merge(&words, &turns, &CONTINUITY)), &truth);
        prop_assert_eq!(&labels(&merge(&words, &turns, &LEGACY)), &truth);
    }

    #[test]
    fn repaired_words_have_times(words in any_words()) {
        let mut repaired = words.clone();
        repair(&mut repaired);
        for (word, before) in repaired.iter().zip(&words) {
            prop_assert!(word.start.is_finite() && word.end.is_finite() && word.start <= word.end);
            prop_assert_eq!(&word.text, &before.text);
        }
    }

    #[test]
    fn cuts_leave_out_no_text(words in any_words(), turns in any_turns()) {
        let solid = |text: &str| text.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect::<String>();
        let all: String = words.iter().map(|word| solid(&word.text)).collect();
        let segments = segments::segments(&words, None);
        prop_assert_eq!(segments.iter().map(|s| solid(&s.text)).collect::<String>(), all.clone());
        prop_assert!(segments.iter().all(|s| 0.0 <= s.start && s.start <= s.end));

        let merged = merge(&words, &turns, &CONTINUITY);
        for merged in [None, Some(&merged)] {
            let cues = cues(&words, merged);
            let text: String = cues.iter().flat_map(|cue| &cue.lines).map(|line| solid(line)).collect();
            prop_assert_eq!(text, all.clone());
            prop_assert!(cues.iter().all(|cue| 0 <= cue.start_ms && cue.start_ms < cue.end_ms));
            prop_assert!(cues.windows(2).all(|pair| pair[0].end_ms <= pair[1].start_ms));
            prop_assert!(cues.iter().all(|cue| (1..=2).contains(&cue.lines.len())));
        }
    }
}
