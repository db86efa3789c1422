//! Cuts a text that still grows into sentences to speak.

use crate::job::plain::plain;
use crate::job::sentence;

/// Letters below which a sentence waits for the next one; the first one does not.
const LEAST: usize = 24;
/// Letters at which a text without the end of a sentence is cut.
const MOST: usize = 300;

/// A text that grows.
#[derive(Debug, Default)]
pub struct Sentences {
    rest: String,
    begun: bool,
}

impl Sentences {
    /// Adds to the text; gives the sentences that are whole now, without Markdown and what else is not spoken.
    pub fn push(&mut self, more: &str) -> Vec<String> {
        self.rest.push_str(more);
        let mut sentences = Vec::new();
        while let Some(end) = sentence::first_end(&self.rest, if self.begun { LEAST } else { 1 }, MOST) {
            let after = self.rest.split_off(end);
            let sentence = std::mem::replace(&mut self.rest, after.trim_start().to_owned());
            sentences.extend(self.spoken(&sentence));
        }
        sentences
    }

    /// What is left at the end of the text.
    pub fn finish(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.rest);
        self.spoken(&rest)
    }

    fn spoken(&mut self, sentence: &str) -> Option<String> {
        let sentence = plain(sentence.trim());
        let speakable = sentence.chars().any(char::is_alphanumeric);
        self.begun |= speakable;
        speakable.then(|| sentence.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&str]) -> Vec<String> {
        let mut sentences = Sentences::default();
        let mut all: Vec<String> = pieces.iter().flat_map(|piece| sentences.push(piece)).collect();
        all.extend(sentences.finish());
        all
    }

    #[test]
    fn sentences_come_as_soon_as_they_are_whole() {
        let text = "Yes. It costs 3.50 at Dr. Miller's shop. Anything else? No. Bye.";
        let expected = ["Yes.", "It costs 3.50 at Dr. Miller's shop.", "Anything else? No. Bye."];
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        assert_eq!(cut(&letters), expected);
        assert_eq!(cut(&[text]), expected);
        let mut sentences = Sentences::default();
        assert!(sentences.push("It is done.").is_empty(), "more of the number or the name may follow");
        assert_eq!(sentences.push(" N"), ["It is done."]);
    }

    #[test]
    fn long_texts_are_cut_and_what_is_not_spoken_is_left_out() {
        let long = "word ".repeat(200);
        let pieces = cut(&[&long]);
        assert!(pieces.len() >= 3 && pieces.iter().all(|piece| piece.len() <= MOST), "{pieces:?}");
        assert_eq!(cut(&["**Hello** there. ", "🙂 ", "…"]), ["Hello there."]);
        assert!(cut(&["", " \n"]).is_empty());
    }
}
