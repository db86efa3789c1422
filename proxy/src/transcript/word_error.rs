//! How far what was heard is from what was spoken.

/// Wrong, missing and extra words over spoken words; 0 is perfect.
pub fn word_error(spoken: &str, heard: &str) -> f64 {
    let (spoken, heard) = (bare_words(spoken), bare_words(heard));
    if spoken.is_empty() {
        return if heard.is_empty() { 0.0 } else { 1.0 };
    }
    strsim::generic_levenshtein(&spoken, &heard) as f64 / spoken.len() as f64
}

/// Lower-case words without punctuation.
pub fn bare_words(text: &str) -> Vec<String> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '\'')
        .map(|word| word.trim_matches('\'').to_lowercase())
        .filter(|word| !word.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_punctuation_do_not_count() {
        assert_eq!(word_error("we will leave early", "We will leave, early."), 0.0);
        assert_eq!(word_error("don't go", "\u{2014} Don't go!"), 0.0);
    }

    #[test]
    fn each_wrong_missing_and_extra_word_counts() {
        assert_eq!(word_error("a b c d", "a x c d"), 0.25);
        assert_eq!(word_error("a b c d", "a c d"), 0.25);
        assert_eq!(word_error("a b c d", "a b b c d"), 0.25);
        assert_eq!(word_error("a b c d", ""), 1.0);
        assert_eq!(word_error("a b", "x y z w"), 2.0);
    }
}
