//! Where texts are cut, and that nothing is lost.

use proptest::prelude::*;

use crate::job::sentence::*;

fn pieces(text: &str, limit: usize) -> Vec<&str> {
    split(text, Limit::all(limit))
}

#[test]
fn short_text_is_left_whole() {
    assert_eq!(pieces("Hello there. How are you?", 100), ["Hello there. How are you?"]);
    assert_eq!(pieces("  \n ", 10), Vec::<&str>::new());
    assert_eq!(pieces("", 0), Vec::<&str>::new());
}

#[test]
fn sentences_are_kept_together_and_packed() {
    assert_eq!(pieces("One fish. Two fish. Red fish.", 20), ["One fish. Two fish.", "Red fish."]);
    assert_eq!(pieces("Is it so? It is! “Well.” Good.", 18), ["Is it so? It is!", "“Well.” Good."]);
    assert_eq!(pieces("First paragraph\n\nSecond, or not", 25), ["First paragraph", "Second, or not"]);
}

#[test]
fn abbreviations_initials_and_decimals_end_no_sentence() {
    for (text, expected) in [
        ("I met Dr. Jones of Acme Inc. there. He left.", ["I met Dr. Jones of Acme Inc. there.", "He left."]),
        ("We saw Mrs. Smith. She ate.", ["We saw Mrs. Smith.", "She ate."]),
        ("It cost pi, i.e. 3.14 or so. Cheap.", ["It cost pi, i.e. 3.14 or so.", "Cheap."]),
        ("Read J. R. R. Tolkien, e.g. Lord. Bye.", ["Read J. R. R. Tolkien, e.g. Lord.", "Bye."]),
        ("So am I. You too, he said then.", ["So am I.", "You too, he said then."]),
        ("Sie kam z.B. Montag. Er nicht.", ["Sie kam z.B. Montag.", "Er nicht."]),
        ("“Go!” she said (loudly). Then he went.", ["“Go!” she said (loudly).", "Then he went."]),
        ("It was in 1999. Later it was not.", ["It was in 1999.", "Later it was not."]),
    ] {
        let limit = expected.iter().map(|piece| spoken_length(piece)).max().unwrap();
        assert_eq!(pieces(text, limit), expected, "{text}");
    }
}

#[test]
fn clauses_then_blanks_then_letters_are_cut() {
    assert_eq!(pieces("when it rains, it pours down", 20), ["when it rains,", "it pours down"]);
    assert_eq!(pieces("nothing but words in here", 12), ["nothing but", "words in", "here"]);
    assert_eq!(pieces("incomprehensibilities", 8), ["incompre", "hensibil", "ities"]);
}

#[test]
fn chinese_and_japanese_end_without_blanks() {
    assert_eq!(pieces("今天天气很好。我们去公园吧！好的", 10), ["今天天气很好。", "我们去公园吧！好的"]);
    assert_eq!(pieces("「そうです。」と言った。", 8), ["「そうです。」", "と言った。"]);
    assert_eq!(pieces("我喜欢苹果，不喜欢梨子", 8), ["我喜欢苹果，", "不喜欢梨子"]);
}

#[test]
fn numbers_count_as_spoken() {
    assert_eq!(spoken_length("1,000,000"), 7 * 6 + 2);
    assert_eq!(spoken_length("5%"), 12);
    assert_eq!(pieces("Pay 1234 now", 30), ["Pay 1234", "now"]);
}

#[test]
fn first_piece_may_be_shorter() {
    let text = "Hello. This is a much longer sentence than that. And one more.";
    assert_eq!(
        split(text, Limit { first: 20, rest: 60 }),
        ["Hello.", "This is a much longer sentence than that. And one more."]
    );
}

#[test]
fn letters_drawn_as_one_stay_together() {
    let family = "👨\u{200D}👩\u{200D}👧";
    assert_eq!(pieces(&format!("ab{family}"), 6), ["ab", family]);
    assert_eq!(pieces("eee\u{301}\u{308}", 3), ["ee", "e\u{301}\u{308}"]);
    assert_eq!(pieces("ab🇫🇷", 3), ["ab", "🇫🇷"]);
}

#[test]
fn hopeless_limits_still_end() {
    assert_eq!(pieces("a1b", 0), ["a", "1", "b"]);
    assert_eq!(pieces("12", 3), ["1", "2"]);
}

#[test]
fn abbreviations_are_sorted() {
    // Found by binary search.
    for word in ["abb.", "etc.", "vs.", "Dr.", "No", "max."] {
        assert_eq!(is_abbreviation(word), word != "No", "{word}");
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_and_pieces_are_within_the_limit(
        text in "([a-zA-Z0-9,;:.!?%\"() \n\u{301}é中。、，🇫👩\u{200D}]|Dr\\. |3\\.14|\\. ){0,120}",
        first in 0usize..40,
        rest in 0usize..80,
    ) {
        let pieces = split(&text, Limit { first, rest });
        let letters = |text: &str| text.chars().filter(|letter| !letter.is_whitespace()).collect::<String>();
        prop_assert_eq!(letters(&pieces.concat()), letters(&text));
        for (index, piece) in pieces.iter().enumerate() {
            let limit = if index == 0 { first } else { rest };
            prop_assert!(!piece.is_empty() && piece.trim() == *piece);
            prop_assert!(spoken_length(piece) <= limit || piece.chars().count() == 1, "{piece:?} of {limit}");
        }
    }

    #[test]
    fn any_text_is_split(text in any::<String>(), limit in 0usize..30) {
        let _ = split(&text, Limit { first: limit / 2, rest: limit });
    }
}
