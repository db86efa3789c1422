//! Partial text by local agreement: words that two decodes in a row agree on are committed, and never change again.

use crate::job::work::Transcript;
use crate::transcript::Word;

/// How far before the end of the last committed word a word may begin and still be a new one, seconds.
const SLACK: f64 = 0.1;

/// Words that are shown behind committed ones though only one decode heard them. More of them come half a second sooner, and are taken back twice as often.
const TAIL_WORDS: usize = 1;

/// A word of a hypothesis with the space before it, as it stands in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// A slice of the text; all of them together are the text.
    pub text: String,
    /// Where it begins and ends, seconds from the start of the utterance, if the engine says.
    pub times: Option<(f64, f64)>,
}

impl Token {
    fn is(&self, other: &Self) -> bool {
        key(&self.text) == key(&other.text)
    }
}

/// What of a word must agree: neither case nor punctuation.
fn key(text: &str) -> String {
    let plain: String = text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    if plain.is_empty() { text.trim().to_owned() } else { plain }
}

/// Cuts text into words. Text without spaces is cut at ideographs.
pub fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut fresh = true;
    for c in text.trim().chars() {
        let ideograph = is_ideograph(c);
        let open = tokens.last_mut().filter(|last| !fresh || last.chars().all(char::is_whitespace));
        match open {
            Some(last) if !c.is_whitespace() && !ideograph => last.push(c),
            Some(last) if last.chars().all(char::is_whitespace) => last.push(c),
            _ => tokens.push(c.to_string()),
        }
        fresh = ideograph;
    }
    tokens
}

/// The words of a decode that began `offset` seconds into the utterance.
pub fn hypothesis(text: &str, words: &[Word], offset: f64) -> Vec<Token> {
    let texts = tokens(text);
    // Engines cut words in their own ways; times are only taken where the words are the same ones.
    let alike = words.len() == texts.len()
        && words.iter().zip(&texts).all(|(word, text)| key(&word.text) == key(text));
    let time = |at: usize| {
        let word = words.get(at).filter(|_| alike)?;
        (word.start.is_finite() && word.end.is_finite()).then_some((word.start + offset, word.end + offset))
    };
    texts.into_iter().enumerate().map(|(at, text)| Token { text, times: time(at) }).collect()
}

/// The text of one utterance while it is spoken.
#[derive(Debug, Default)]
pub struct Agreement {
    committed: Vec<Token>,
    /// What the last decode heard behind them.
    tail: Vec<Token>,
    /// Committed words that lie before the window of the decodes.
    anchor: usize,
}

impl Agreement {
    /// Takes the words of the next decode and returns the text that is committed now and was not before.
    pub fn update(&mut self, hypothesis: Vec<Token>) -> String {
        let fresh = self.behind_committed(hypothesis);
        // The last word may be cut by the end of the audio.
        let most = fresh.len().saturating_sub(1);
        let agreed = self.tail.iter().zip(&fresh).take(most).take_while(|(old, new)| old.is(new)).count();
        let mut fresh = fresh.into_iter();
        let mut added = String::new();
        for token in fresh.by_ref().take(agreed) {
            let space = !self.committed.is_empty();
            added.push_str(if space { &token.text } else { token.text.trim_start() });
            self.committed.push(token);
        }
        self.tail = fresh.collect();
        added
    }

    /// The text that will not change.
    pub fn committed(&self) -> String {
        joined(&self.committed)
    }

    /// What follows it for now, with the space before it: `TAIL_WORDS` once there are committed ones, and never the last word, which the
    /// end of the audio may have cut. Shown, that word would be taken back more often than not.
    pub fn tail(&self) -> String {
        let most = if self.committed.is_empty() { usize::MAX } else { TAIL_WORDS };
        let shown = self.tail.len().saturating_sub(1).min(most);
        joined_behind(&self.committed, &self.tail[..shown])
    }

    /// All that was heard last.
    pub fn text(&self) -> String {
        format!("{}{}", self.committed(), joined_behind(&self.committed, &self.tail))
    }

    /// Whether there is any text to show.
    pub fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.tail.len() < 2
    }

    /// Makes the transcript of the whole utterance begin with the committed words, whatever was heard in their place, and returns
    /// what it adds to them, with the space before it.
    pub fn settle(&self, heard: &mut Transcript) -> String {
        let mut whole = hypothesis(&heard.text, &heard.words, 0.0);
        let count = self.committed.len();
        if whole.len() >= count && self.committed.iter().zip(&whole).all(|(one, other)| one.is(other)) {
            return joined_behind(&self.committed, &whole[count..]);
        }
        let behind = spaced(whole.split_off(self.end_in(&whole)), &self.committed);
        let rest = joined_behind(&self.committed, &behind);
        heard.text = format!("{}{rest}", self.committed());
        heard.words = self.timed(&whole, &behind);
        heard.confidences.clear();
        rest
    }

    /// How many words of a whole utterance stand for the committed ones: the number at which the fewest words differ. Of equal
    /// ones that at which the committed words end by their times, else that at which the last word is the same.
    fn end_in(&self, whole: &[Token]) -> usize {
        let keys: Vec<String> = whole.iter().map(|token| key(&token.text)).collect();
        let mut row: Vec<usize> = (0..=whole.len()).collect();
        for token in &self.committed {
            let own = key(&token.text);
            let mut diagonal = row[0];
            row[0] += 1;
            for (at, other) in keys.iter().enumerate() {
                let replaced = diagonal + usize::from(own != *other);
                diagonal = row[at + 1];
                row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
            }
        }
        let (last, end) = match self.committed.last() {
            Some(last) => (key(&last.text), last.times.map(|(_, end)| end)),
            None => return 0,
        };
        let apart = |count: usize| {
            let starts = whole.get(count).map(|token| token.times.map(|(start, _)| start));
            let ends = count.checked_sub(1).map(|at| whole[at].times.map(|(_, end)| end));
            starts.or(ends).flatten().zip(end).map_or(0.0, |(time, end)| (time - end).abs())
        };
        let differs = |count: usize| count.checked_sub(1).is_none_or(|at| keys[at] != last);
        let better = |a: &usize, b: &usize| {
            let by_times = apart(*a).total_cmp(&apart(*b));
            row[*a].cmp(&row[*b]).then(by_times).then_with(|| differs(*a).cmp(&differs(*b)))
        };
        (0..=whole.len()).rev().min_by(better).unwrap_or_default()
    }

    /// The committed words and those behind them with times; none where times are missing. `instead` was heard in place of the
    /// committed ones: those without times of their own share its time.
    fn timed(&self, instead: &[Token], behind: &[Token]) -> Vec<Word> {
        let begins = instead.first().and_then(|token| token.times).map_or(0.0, |(start, _)| start);
        let ends = instead.last().and_then(|token| token.times).map_or(begins, |(_, end)| end);
        let share = (ends - begins) / self.committed.len().max(1) as f64;
        let shared = |at: usize| (begins + share * at as f64, begins + share * (at + 1) as f64);
        let committed = self
            .committed
            .iter()
            .enumerate()
            .map(|(at, token)| (token, Some(token.times.unwrap_or_else(|| shared(at)))));
        let mut floor = 0.0_f64;
        let words = committed.chain(behind.iter().map(|token| (token, token.times))).map(|(token, times)| {
            let (start, end) = times?;
            floor = floor.max(start);
            Some(Word { start: floor, end: end.max(floor), text: token.text.clone() })
        });
        words.collect::<Option<Vec<_>>>().unwrap_or_default()
    }

    /// Where the window of the next decode begins, seconds into the utterance: at 0 while the utterance is no longer than `max`, then
    /// behind the last committed word. `None` when the window would be longer than `max`.
    pub fn window(&mut self, seconds: f64, max: f64) -> Option<f64> {
        if seconds <= max {
            return Some(self.start());
        }
        if seconds - self.start() > max {
            let known = self.committed.iter().rposition(|token| token.times.is_some());
            self.anchor = known.map_or(self.anchor, |at| at + 1).max(self.anchor);
        }
        (seconds - self.start() <= max).then(|| self.start())
    }

    fn start(&self) -> f64 {
        let last = self.anchor.checked_sub(1).and_then(|at| self.committed.get(at));
        last.and_then(|token| token.times).map_or(0.0, |(_, end)| end)
    }

    /// The words of a hypothesis behind those that are committed.
    fn behind_committed(&self, hypothesis: Vec<Token>) -> Vec<Token> {
        let known = &self.committed[self.anchor.min(self.committed.len())..];
        let same = hypothesis.len() >= known.len() && known.iter().zip(&hypothesis).all(|(a, b)| a.is(b));
        let last = known.last().and_then(|token| token.times);
        if let (false, Some((_, end))) = (same, last)
            && hypothesis.iter().all(|token| token.times.is_some())
        {
            let is_new = |token: &Token| token.times.is_some_and(|(start, _)| start >= end - SLACK);
            return spaced(hypothesis.into_iter().filter(is_new).collect(), &self.committed);
        }
        spaced(hypothesis.into_iter().skip(known.len()).collect(), &self.committed)
    }
}

/// The tokens with a space before the first, if that is due: a decode that begins within the utterance has none there.
fn spaced(mut tokens: Vec<Token>, before: &[Token]) -> Vec<Token> {
    if let Some(first) = tokens.first_mut().filter(|_| !before.is_empty())
        && !first.text.starts_with(char::is_whitespace)
        && first.text.chars().next().is_some_and(|c| !is_ideograph(c))
        && before.last().and_then(|token| token.text.chars().next_back()).is_some_and(|c| !is_ideograph(c))
    {
        first.text.insert(0, ' ');
    }
    tokens
}

/// Whether words of that script stand without spaces.
fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}')
}

fn joined(tokens: &[Token]) -> String {
    joined_behind(&[], tokens)
}

/// The text of tokens that follow others: a space first, unless nothing is before them.
fn joined_behind(before: &[Token], tokens: &[Token]) -> String {
    let text: String = tokens.iter().map(|token| token.text.as_str()).collect();
    if before.is_empty() { text.trim_start().to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heard(text: &str) -> Vec<Token> {
        hypothesis(text, &[], 0.0)
    }

    /// The text of the whole utterance as it is shown, and what it adds.
    fn settled(agreement: &Agreement, text: &str) -> (String, String) {
        let mut whole = Transcript { text: text.into(), ..Transcript::default() };
        let rest = agreement.settle(&mut whole);
        (whole.text, rest)
    }

    #[test]
    fn tokens_add_up_to_the_text() {
        assert_eq!(tokens(" The  train, was\nlate "), ["The", "  train,", " was", "\nlate"]);
        assert_eq!(tokens("早上好 ok、再见"), ["早", "上", "好", " ok、", "再", "见"]);
        assert!(tokens("   ").is_empty());
    }

    #[test]
    fn one_word_is_shown_behind_committed_ones() {
        let mut agreement = Agreement::default();
        agreement.update(heard("The train was"));
        assert_eq!(agreement.tail(), "The train");
        agreement.update(heard("The train is late again"));
        assert_eq!((agreement.committed(), agreement.tail()), ("The train".into(), " is".into()));
    }

    #[test]
    fn two_decodes_that_agree_commit_all_but_the_last_word() {
        let mut agreement = Agreement::default();
        assert_eq!(agreement.update(heard("The train")), "");
        assert_eq!((agreement.committed(), agreement.tail()), (String::new(), "The".into()));
        assert_eq!(agreement.update(heard("the train was.")), "the train");
        assert_eq!((agreement.committed(), agreement.tail()), ("the train".into(), String::new()));
        assert_eq!(agreement.text(), "the train was.");
        assert_eq!(agreement.update(heard("the train was late")), " was");
        assert_eq!(
            settled(&agreement, "The train was late again."),
            ("The train was late again.".into(), " late again.".into())
        );
    }

    #[test]
    fn the_whole_text_keeps_the_committed_words_where_it_differs() {
        let mut agreement = Agreement::default();
        agreement.update(heard("the train was late"));
        agreement.update(heard("the train was late again"));
        for (whole, kept) in [
            ("A train was late again.", "the train was late again."),
            ("The trains late again.", "the train was late again."),
            ("Then the train was very late again.", "the train was late again."),
            ("The train.", "the train was late"),
            ("", "the train was late"),
        ] {
            let (text, rest) = settled(&agreement, whole);
            assert_eq!(text, kept, "{whole}");
            assert_eq!(format!("the train was late{rest}"), text, "{whole}");
        }
    }

    #[test]
    fn words_of_a_text_that_was_kept_have_times_in_order() {
        let word = |text: &str, start: f64| Word { start, end: start + 0.4, text: text.into() };
        let mut agreement = Agreement::default();
        let first = [word("one", 0.0), word("two", 0.5), word("three", 1.0)];
        agreement.update(hypothesis("one two three", &first, 0.0));
        agreement.update(hypothesis("one two three", &first, 0.0));
        let words = vec![word("wonder", 0.1), word("three", 1.0), word("four", 1.5)];
        let mut whole = Transcript { text: "Wonder three four".into(), words, ..Transcript::default() };
        assert_eq!(agreement.settle(&mut whole), " three four");
        let times: Vec<_> = whole.words.iter().map(|word| (word.text.trim(), word.start)).collect();
        assert_eq!(times, [("one", 0.0), ("two", 0.5), ("three", 1.0), ("four", 1.5)]);
        assert_eq!(whole.text, "one two three four");
    }

    #[test]
    fn a_later_decode_does_not_revise_what_is_committed() {
        let mut agreement = Agreement::default();
        agreement.update(heard("a b c d"));
        agreement.update(heard("a b c d"));
        assert_eq!(agreement.committed(), "a b c");
        assert_eq!(agreement.update(heard("x y z d e")), " d");
        assert_eq!(agreement.text(), "a b c d e");
    }

    #[test]
    fn words_with_times_are_told_apart_by_them() {
        let word = |text: &str, start: f64| Word { start, end: start + 0.4, text: text.into() };
        let mut agreement = Agreement::default();
        let first = [word("one", 0.0), word("two", 0.5), word("three", 1.0)];
        agreement.update(hypothesis("one two three", &first, 0.0));
        agreement.update(hypothesis("one two three", &first, 0.0));
        assert_eq!(agreement.committed(), "one two");
        // The first two words became one: counting words would skip "three".
        let second = [word("onetwo", 0.2), word("three", 1.0), word("four", 1.5)];
        agreement.update(hypothesis("onetwo three four", &second, 0.0));
        assert_eq!(agreement.text(), "one two three four");
    }

    #[test]
    fn the_window_of_a_long_utterance_begins_behind_a_committed_word() {
        let word = |text: &str, start: f64| Word { start, end: start + 0.4, text: text.into() };
        let mut agreement = Agreement::default();
        assert_eq!(agreement.window(13.0, 12.0), None, "no word to begin behind");
        let words = [word("one", 1.0), word("two", 4.0), word("three", 9.0)];
        agreement.update(hypothesis("one two three", &words, 0.0));
        agreement.update(hypothesis("one two three", &words, 0.0));
        assert_eq!(agreement.window(12.0, 12.0), Some(0.0));
        assert_eq!(agreement.window(13.0, 12.0), Some(4.4));
        let words = [word("three", 4.6), word("four", 6.0)];
        agreement.update(hypothesis("three four", &words, 4.4));
        assert_eq!(agreement.committed(), "one two three");
        assert_eq!(agreement.text(), "one two three four");
    }

    proptest! {
        #[test]
        fn committed_text_only_grows(
            texts in prop::collection::vec("([abcd][,.]? ){0,12}", 1..30),
            whole in "([abcd][,.]? ){0,12}",
        ) {
            let mut agreement = Agreement::default();
            let (mut before, mut deltas) = (String::new(), String::new());
            for text in &texts {
                deltas.push_str(&agreement.update(heard(text)));
                let committed = agreement.committed();
                prop_assert!(committed.starts_with(&before), "{before:?} became {committed:?}");
                prop_assert_eq!(&deltas, &committed);
                before = committed;
            }
            let (text, rest) = settled(&agreement, &whole);
            prop_assert_eq!(tokens(&text).iter().map(|token| key(token)).collect::<Vec<_>>(),
                tokens(&format!("{before}{rest}")).iter().map(|token| key(token)).collect::<Vec<_>>());
        }

        #[test]
        fn tokens_always_add_up(text in "\\PC{0,60}") {
            prop_assert_eq!(tokens(&text).concat(), text.trim());
        }
    }
}
