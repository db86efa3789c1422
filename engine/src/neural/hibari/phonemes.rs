//! A sentence to the phonemes that the voice knows.

use super::lexicon::{Following, Lexicon};
use super::tagger::Tagger;
use crate::ffi::analysis::Token;

/// A word to be spoken and the marks around it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    before: String,
    text: String,
    after: String,
    /// Whether its letters are said one by one.
    spelled: bool,
}

/// The phonemes of a sentence. `unknown` gives the sound of words that are in no dictionary.
pub fn phonemes(
    tokens: &[Token],
    lexicon: &Lexicon,
    tagger: &Tagger,
    unknown: &mut dyn FnMut(&str) -> Option<String>,
) -> String {
    let words = words(tokens, lexicon);
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let tags = tagger.tags(&texts);
    // From the end, as the sound of small words depends on what follows them.
    let mut next = Following::default();
    let mut spoken: Vec<String> = Vec::with_capacity(words.len());
    for (word, tag) in words.iter().zip(tags).rev() {
        next = next.before("", &word.after);
        let known =
            if word.spelled { lexicon.spelled(&word.text) } else { lexicon.sound(&word.text, tag, next) };
        let sound = known.or_else(|| unknown(&word.text)).unwrap_or_default();
        next = next.before(&word.text, &sound).before_mark(&word.before, &word.text);
        spoken.push(format!("{}{sound}{}", word.before, word.after));
    }
    spoken.reverse();
    spoken.retain(|word| !word.is_empty());
    spoken.join(" ").replace('ɾ', "T").replace('ʔ', "t")
}

impl Following {
    /// What comes before a mark in front of a word.
    fn before_mark(self, mark: &str, word: &str) -> Self {
        Self { to: word.eq_ignore_ascii_case("to"), ..self.before("", mark) }
    }
}

/// Each token as it is written where a dictionary has it so, else the words that flite reads it as.
fn words(tokens: &[Token], lexicon: &Lexicon) -> Vec<Word> {
    let mut words = Vec::new();
    for token in tokens {
        let same = token.words.len() == 1 && token.words[0].eq_ignore_ascii_case(&token.text);
        let letters = token.text.chars().filter(|sign| sign.is_ascii_alphabetic()).count();
        let capitals = letters > 1 && token.text.chars().all(|sign| sign.is_ascii_uppercase());
        let dotted =
            letters > 1 && token.text.contains('.') && token.text.split('.').all(|part| part.len() < 3);
        let plain = token.text.chars().all(|sign| sign.is_ascii_alphabetic() || sign == '\'');
        let single = token.words.len() == letters && token.words.iter().all(|word| word.len() == 1);
        let as_written = plain && (same || lexicon.knows(&token.text));
        let spelled = (capitals && !lexicon.knows(&token.text) && single) || (dotted && single);
        let texts: Vec<String> =
            if as_written || spelled { vec![token.text.clone()] } else { token.words.clone() };
        let first = words.len();
        words.extend(texts.into_iter().filter(|text| !text.is_empty()).map(|text| {
            // A letter among the words of a number or an abbreviation is said by its name.
            let letter = !as_written && text.len() == 1 && text != "a";
            Word { before: String::new(), spelled: spelled || letter, text, after: String::new() }
        }));
        let (before, after) = (opening(&token.before), closing(&token.after));
        match words.get_mut(first) {
            Some(word) => word.before = before,
            // Marks alone belong to the word before them.
            None => {
                if let Some(last) = words.last_mut() {
                    last.after.push_str(&closing(&token.text));
                }
            }
        }
        if let Some(last) = words.last_mut() {
            last.after.push_str(&after);
        }
    }
    words
}

fn opening(marks: &str) -> String {
    marks
        .chars()
        .filter_map(|mark| match mark {
            '"' => Some('“'),
            '(' | '[' => Some('('),
            _ => None,
        })
        .collect()
}

fn closing(marks: &str) -> String {
    marks
        .chars()
        .filter_map(|mark| match mark {
            '"' => Some('”'),
            ')' | ']' => Some(')'),
            '-' => Some('—'),
            ';' | ':' | ',' | '.' | '!' | '?' => Some(mark),
            _ => None,
        })
        .collect()
}

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
    use crate::ffi::analysis::analyze;

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

    #[test]
    fn words_keep_their_marks_and_numbers_are_read() {
        let lexicon =
            Lexicon::parse(r#"{"hi":"hˈI","ten":"tˈɛn","N":"ˈɛn","A":"ˈA","S":"ˈɛs","the":"ðə"}"#, "{}")
                .unwrap();
        let tagger: Tagger =
            serde_json::from_str(r#"{"tags":[],"tagdict":{},"vocab":[],"weights":{}}"#).unwrap();
        let mut asked = Vec::new();
        let tokens = analyze("\"Hi,\" the 10 NASA men.").unwrap();
        let sounds = phonemes(&tokens, &lexicon, &tagger, &mut |word| {
            asked.push(word.to_owned());
            Some("mˈɛn".into())
        });
        assert_eq!(sounds, "“hˌI,” ðə tˈɛn nˈæsə mˈɛn.".replace("nˈæsə", "mˈɛn").replace("hˌI", "hˈI"));
        assert_eq!(asked, ["men", "NASA"]);
    }
}
