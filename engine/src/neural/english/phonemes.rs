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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::analysis::analyze;

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
