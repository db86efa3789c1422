//! The legacy rule against a naive transcription of the proxy that defined it.

use super::random::Random;
use super::*;

type Row = (i64, i64, String, String);

/// That proxy's assignment, statement by statement.
fn oracle_speaker(word: &Word, turns: &[Turn]) -> String {
    let word_mid = (word.start + word.end) / 2.0;
    for t in turns {
        if t.start <= word_mid && word_mid <= t.end {
            return t.speaker.clone();
        }
    }
    let mut best_speaker = "Speaker_unknown".to_owned();
    let mut best_overlap = 0.0;
    for t in turns {
        let earlier_end = if t.end < word.end { t.end } else { word.end };
        let later_start = if t.start > word.start { t.start } else { word.start };
        let overlap = if earlier_end - later_start > 0.0 { earlier_end - later_start } else { 0.0 };
        if overlap > best_overlap {
            best_overlap = overlap;
            best_speaker = t.speaker.clone();
        }
    }
    best_speaker
}

/// That proxy's grouping, statement by statement.
fn oracle(words: &[Word], turns: &[Turn]) -> Vec<Row> {
    struct Current {
        texts: Vec<String>,
        speaker: String,
        start_s: f64,
        end_s: f64,
    }
    fn row(current: &Current) -> Row {
        const SPACES: &str = "\t\n\u{b}\u{c}\r\u{1c}\u{1d}\u{1e}\u{1f} \u{85}\u{a0}\u{1680}\u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\u{2005}\u{2006}\u{2007}\u{2008}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}";
        let text = current.texts.concat();
        let text = text.trim_matches(|c| SPACES.contains(c)).to_owned();
        let int = |x: f64| x.trunc() as i64;
        (int(current.start_s * 1000.0), int(current.end_s * 1000.0), current.speaker.clone(), text)
    }
    let mut blocks = Vec::new();
    let mut current: Option<Current> = None;
    for w in words {
        let spk = oracle_speaker(w, turns);
        match &mut current {
            Some(cur) if spk == cur.speaker && (w.start - cur.end_s <= 1.5) => {
                cur.texts.push(w.text.clone());
                cur.end_s = w.end;
            }
            _ => {
                blocks.extend(current.as_ref().map(row));
                let texts = vec![w.text.clone()];
                current = Some(Current { texts, speaker: spk, start_s: w.start, end_s: w.end });
            }
        }
    }
    blocks.extend(current.as_ref().map(row));
    blocks
}

fn rows(words: &[Word], turns: &[Turn]) -> Vec<Row> {
    let blocks = merge(words, turns, &LEGACY).blocks;
    blocks.into_iter().map(|block| (block.start_ms, block.end_ms, block.speaker, block.text)).collect()
}

/// Seconds as engines print them: frames, hundredths, milliseconds, or all digits; now and then negative.
fn time(random: &mut Random, limit: f64) -> f64 {
    let seconds = random.between(-0.05 * limit, limit);
    match random.below(4) {
        0 => (seconds / 0.08).round() * 0.08,
        1 => (seconds * 100.0).round() / 100.0,
        2 => (seconds * 1000.0).round() / 1000.0,
        _ => seconds,
    }
}

fn case(random: &mut Random, most_words: usize, most_turns: usize) -> (Vec<Word>, Vec<Turn>) {
    const TEXTS: [&str; 10] =
        [" the", "word", "", " ", ".", "\u{a0}x", "\u{1c}", "é\u{85}", " 今日\n", "\u{200b}y "];
    const LABELS: [&str; 5] = ["Speaker_0", "Speaker_1", "Speaker_2", "", "Speaker_unknown"];
    let limit = random.between(0.5, 40.0);
    let word = |random: &mut Random| {
        let start = time(random, limit);
        let end = match random.below(8) {
            0 => start,
            1 => time(random, limit),
            _ => start + time(random, 0.8).abs(),
        };
        Word { start, end, text: (*random.pick(&TEXTS)).to_owned() }
    };
    let turn = |random: &mut Random| {
        let start = time(random, limit);
        let end = if random.chance(0.1) { time(random, limit) } else { start + time(random, 3.0).abs() };
        Turn { start, end, speaker: (*random.pick(&LABELS)).to_owned() }
    };
    let mut words: Vec<Word> = (0..random.below(most_words + 1)).map(|_| word(random)).collect();
    let turns = (0..random.below(most_turns + 1)).map(|_| turn(random)).collect();
    if random.chance(0.7) {
        words.sort_by(|a, b| a.start.total_cmp(&b.start));
    }
    (words, turns)
}

#[test]
fn legacy_equals_its_definition_on_ten_thousand_cases() {
    let mut random = Random::new(1);
    for number in 0..10_000 {
        let (words, turns) = case(&mut random, 16, 10);
        assert_eq!(rows(&words, &turns), oracle(&words, &turns), "case {number}");
    }
}

#[test]
fn legacy_equals_its_definition_with_many_turns() {
    let mut random = Random::new(2);
    for number in 0..50 {
        let (words, turns) = case(&mut random, 400, 700);
        assert_eq!(rows(&words, &turns), oracle(&words, &turns), "case {number}");
    }
}

#[test]
fn legacy_cuts_milliseconds_off_towards_zero() {
    let words = [word(2.01, 2.6, " a"), word(-0.0295, -0.0009, "b")];
    let turns = [turn(-1.0, 10.0, "A")];
    assert_eq!(rows(&words, &turns), [(2009, 0, "A".to_owned(), "ab".to_owned())]);
}

#[test]
fn legacy_outlives_times_that_are_no_numbers() {
    let words = [word(f64::NAN, f64::NAN, "a"), word(f64::INFINITY, 1.0, "b"), word(0.1, f64::NAN, "c")];
    let turns = [turn(f64::NAN, 1.0, "A"), turn(f64::NEG_INFINITY, f64::INFINITY, "B")];
    let merged = merge(&words, &turns, &LEGACY);
    assert_eq!(labels(&merged), [SPEAKER_UNKNOWN, "B", SPEAKER_UNKNOWN]);
}
