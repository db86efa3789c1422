//! A text to sentences, and the phonemes of a long sentence to parts.

/// The sentences of a text, each with its mark at the end. A period behind a title or an initial, or before a small letter,
/// ends none.
pub fn sentences(text: &str) -> Vec<&str> {
    const TITLES: [&str; 14] =
        ["Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Mt", "Gen", "Gov", "Sen", "Rep", "Capt", "Lt", "Col"];
    let mut sentences = Vec::new();
    for line in text.lines() {
        let mut start = 0;
        for (place, sign) in line.char_indices() {
            let rest = &line[place + sign.len_utf8()..];
            let behind = rest.trim_start_matches(['"', '”', '’', ')', '\'', ']']);
            if !matches!(sign, '.' | '!' | '?' | '…') || !behind.starts_with(char::is_whitespace) {
                continue;
            }
            let before = line[start..place].rsplit(char::is_whitespace).next().unwrap_or_default();
            let initial = before.chars().count() == 1 && before.chars().all(char::is_uppercase);
            let small = behind.trim_start().starts_with(char::is_lowercase);
            if sign == '.' && (TITLES.contains(&before) || initial) || small {
                continue;
            }
            let end = line.len() - behind.len();
            sentences.push(line[start..end].trim());
            start = end;
        }
        sentences.push(line[start..].trim());
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

/// Phonemes in parts of at most `longest`, cut behind marks, or else between words.
pub fn parts(phonemes: &str, longest: usize) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for word in phonemes.split(' ') {
        let length = word.chars().count();
        match parts.last_mut() {
            Some(last)
                if last.chars().count() + 1 + length <= longest
                    && !(last.chars().count() > longest / 2 && last.ends_with([',', ';', ':', '—'])) =>
            {
                last.push(' ');
                last.push_str(word);
            }
            _ => parts.push(word.chars().take(longest).collect()),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_into_sentences() {
        let text = "Dr. Smith met J. Doe. \"Really?\" he said. Yes!\nA title without a mark\n\n3.5 is a number. e.g. this";
        assert_eq!(
            sentences(text),
            [
                "Dr. Smith met J. Doe.",
                "\"Really?\" he said.",
                "Yes!",
                "A title without a mark",
                "3.5 is a number. e.g. this"
            ]
        );
        assert!(sentences(" \n ").is_empty());
    }

    #[test]
    fn long_sentences_are_cut_at_marks() {
        let long = format!("{} one, two three", "word ".repeat(3).trim());
        assert_eq!(parts(&long, 30), ["word word word one,", "two three"]);
        assert_eq!(parts(&"x".repeat(50), 30)[0].len(), 30);
    }
}
