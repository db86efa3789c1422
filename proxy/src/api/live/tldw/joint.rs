//! The text of segments that share audio at their joints, each word once.

use crate::transcript::Word;

/// Most words of a joint.
const MOST_WORDS: usize = 8;
/// A word that ends so long before the joint does was heard whole by the segment before, seconds.
const MARGIN: f64 = 0.1;

/// What the last segment ended with.
#[derive(Debug, Default)]
pub(super) struct Joint {
    tail: Vec<String>,
}

impl Joint {
    /// What of a text is new when its audio begins with `overlap` seconds of the segment before.
    pub(super) fn peek(&self, text: &str, words: &[Word], overlap: f64) -> String {
        let all: Vec<&str> = text.split_whitespace().collect();
        let repeated = if overlap > 0.0 { self.repeated(&all, words, overlap) } else { 0 };
        all[repeated..].join(" ")
    }

    /// As [`Joint::peek`]; the next segment follows this one.
    pub(super) fn take(&mut self, text: &str, words: &[Word], overlap: f64) -> String {
        let fresh = self.peek(text, words, overlap);
        let keys = text.split_whitespace().map(key);
        let keys: Vec<String> = keys.collect();
        self.tail = keys[keys.len().saturating_sub(MOST_WORDS + 1)..].to_vec();
        fresh
    }

    /// How many words at the start repeat the end of the segment before.
    fn repeated(&self, all: &[&str], words: &[Word], overlap: f64) -> usize {
        let keys: Vec<String> = all.iter().take(MOST_WORDS).map(|word| key(word)).collect();
        // The last word before the joint may have been cut, so that it does not match.
        for cut in [0, 1] {
            let Some(end) = self.tail.len().checked_sub(cut) else { continue };
            for count in (1..=keys.len().min(end)).rev() {
                if self.tail[end - count..end] == keys[..count] {
                    return count;
                }
            }
        }
        if words.len() != all.len() {
            return 0;
        }
        words.iter().take_while(|word| word.end.is_finite() && word.end <= overlap - MARGIN).count()
    }
}

fn key(word: &str) -> String {
    word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_joint_are_given_once() {
        let mut joint = Joint::default();
        assert_eq!(joint.take("She told me that the", &[], 0.0), "She told me that the");
        assert_eq!(joint.take("That the train was la", &[], 0.5), "train was la");
        // The word that was cut is heard whole now, and given.
        assert_eq!(joint.take("train was late again.", &[], 0.5), "late again.");
        assert_eq!(joint.take("and then", &[], 0.5), "and then");
        assert_eq!(joint.take("then", &[], 0.0), "then", "nothing is shared");
    }

    #[test]
    fn where_the_words_differ_their_times_decide() {
        let word = |text: &str, start: f64, end: f64| Word { start, end, text: text.into() };
        let mut joint = Joint::default();
        joint.take("one two", &[], 0.0);
        let words = [word("too", 0.0, 0.3), word("three", 0.4, 0.9)];
        assert_eq!(joint.take("too three", &words, 0.5), "three");
        assert_eq!(joint.peek("", &[], 0.5), "");
    }
}
