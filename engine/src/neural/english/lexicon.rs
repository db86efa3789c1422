//! The sound of words: two dictionaries of US English, endings, and words that depend on what follows them.
//!
//! After misaki 0.9.4 (Apache-2.0, hexgrad), with which the voice was trained.

use std::collections::HashMap;

use serde::Deserialize;

const VOWELS: &str = "AIOQWYaiuæɑɒɔəɛɜɪʊʌᵻ";
const CONSONANTS: &str = "bdfhjklmnpstvwzðŋɡɹɾʃʒʤʧθ";
/// Vowels after which a `t` between vowels is flapped.
const FLAPPING: &str = "AIOWYiuæɑəɛɪɹʊʌ";
const PRIMARY: char = 'ˈ';
const SECONDARY: char = 'ˌ';

/// One sound, or one for each part of speech.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    One(String),
    ByTag(HashMap<String, Option<String>>),
}

/// What follows a word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Following {
    /// Whether a vowel does; `None` before a pause.
    pub vowel: Option<bool>,
    /// Whether the word `to` does.
    pub to: bool,
}

impl Following {
    /// What comes before a word that sounds like this.
    #[must_use]
    pub fn before(self, word: &str, sound: &str) -> Self {
        let first =
            sound.chars().find(|sign| VOWELS.contains(*sign) || CONSONANTS.contains(*sign) || pause(*sign));
        let vowel = match first {
            Some(sign) if pause(sign) => None,
            Some(sign) => Some(VOWELS.contains(sign)),
            None => self.vowel,
        };
        Self { vowel, to: word.eq_ignore_ascii_case("to") }
    }
}

fn pause(sign: char) -> bool {
    ";:,.!?—…".contains(sign)
}

/// The dictionaries: the first is checked, the second is not.
pub struct Lexicon {
    gold: HashMap<String, Entry>,
    silver: HashMap<String, Entry>,
}

impl Lexicon {
    /// Reads both from JSON; `None` when one is malformed.
    #[must_use]
    pub fn parse(gold: &str, silver: &str) -> Option<Self> {
        Some(Self { gold: serde_json::from_str(gold).ok()?, silver: serde_json::from_str(silver).ok()? })
    }

    /// The sound of a word with this part of speech; `None` when it is not known.
    #[must_use]
    pub fn sound(&self, word: &str, tag: &str, next: Following) -> Option<String> {
        if let Some(special) = self.special(word, tag, next) {
            return Some(special);
        }
        let lower = word.to_lowercase();
        // Capitals alone make a word louder, at the start of a sentence a little.
        let stress = match word {
            word if word == lower => None,
            word if word == word.to_uppercase() && word.chars().count() > 1 => Some(2.0),
            _ => Some(0.5),
        };
        let listed = self.entry(word).is_some();
        let word = if listed { word } else { lower.as_str() };
        self.plain(word, tag, stress, next).or_else(|| self.contraction(word, tag, next))
    }

    /// Whether a word is in a dictionary as it is written, or with another capital.
    #[must_use]
    pub fn knows(&self, word: &str) -> bool {
        self.entry(word).is_some()
    }

    /// The letters of a word, one by one; the last one has the stress.
    #[must_use]
    pub fn spelled(&self, word: &str) -> Option<String> {
        let letters = word.chars().filter(|sign| sign.is_alphabetic());
        let letter = |sign: char| match self.gold.get(&sign.to_uppercase().to_string()) {
            Some(Entry::One(sound)) => Some(sound.clone()),
            Some(Entry::ByTag(sounds)) => sounds.get("DEFAULT").cloned().flatten(),
            None => None,
        };
        let all = letters.map(letter).collect::<Option<Vec<_>>>()?.concat();
        let quiet = stressed(&all, Some(0.0));
        let Some(last) = quiet.rfind(SECONDARY) else { return Some(quiet) };
        Some(format!("{}{PRIMARY}{}", &quiet[..last], &quiet[last + SECONDARY.len_utf8()..]))
    }

    fn special(&self, word: &str, tag: &str, next: Following) -> Option<String> {
        let noun = tag.starts_with("NN");
        let sound = match word {
            "a" | "A" => {
                if tag == "DT" || word == "a" {
                    "ɐ"
                } else {
                    "ˈA"
                }
            }
            "am" if next.vowel.is_some() => "ɐm",
            "an" | "An" => "ɐn",
            "I" => "ˌI",
            "by" | "By" if tag.starts_with("RB") => "bˈI",
            "to" | "To" => match next.vowel {
                None => return self.look_up("to", tag, None, next),
                Some(false) => "tə",
                Some(true) => "tʊ",
            },
            "in" | "In" => {
                if next.vowel.is_none() || tag != "IN" {
                    "ˈɪn"
                } else {
                    "ɪn"
                }
            }
            "the" | "The" | "THE" => {
                if next.vowel == Some(true) {
                    "ði"
                } else {
                    "ðə"
                }
            }
            "used" | "Used" if matches!(tag, "VBD" | "JJ") && next.to => "jˈust",
            "used" | "Used" => "jˈuzd",
            "AM" | "PM" if noun => return self.spelled(word),
            _ => return None,
        };
        Some(sound.to_owned())
    }

    fn entry(&self, word: &str) -> Option<&Entry> {
        self.form(&self.gold, word).or_else(|| self.form(&self.silver, word))
    }

    /// A word of a dictionary; a capital at its start matters only where both forms are listed.
    fn form<'a>(&self, words: &'a HashMap<String, Entry>, word: &str) -> Option<&'a Entry> {
        if let Some(entry) = words.get(word) {
            return Some(entry);
        }
        let lower = word.to_lowercase();
        let capital: String =
            lower.chars().take(1).flat_map(char::to_uppercase).chain(lower.chars().skip(1)).collect();
        if word == lower {
            words.get(&capital)
        } else if word == capital {
            words.get(&lower)
        } else {
            None
        }
    }

    fn look_up(&self, word: &str, tag: &str, stress: Option<f32>, next: Following) -> Option<String> {
        let sound = match self.entry(word)? {
            Entry::One(sound) => sound.clone(),
            Entry::ByTag(sounds) => {
                let key = if next.vowel.is_none() && sounds.contains_key("None") {
                    "None"
                } else if sounds.contains_key(tag) {
                    tag
                } else {
                    parent(tag)
                };
                sounds.get(key).or_else(|| sounds.get("DEFAULT"))?.clone().or_else(|| self.spelled(word))?
            }
        };
        Some(stressed(&sound, stress))
    }

    /// A word that is listed, or an ending of one that is.
    fn plain(&self, word: &str, tag: &str, stress: Option<f32>, next: Following) -> Option<String> {
        let stem = |stem: String, stress| self.look_up(&stem, tag, stress, next);
        if let Some(sound) = self.look_up(word, tag, stress, next) {
            return Some(sound);
        }
        let owned = word.strip_suffix("s'").and_then(|owner| stem(format!("{owner}s"), stress));
        if owned.is_some() {
            return owned;
        }
        let with_s = || {
            let bare = word
                .strip_suffix("'s")
                .or_else(|| word.strip_suffix('s').filter(|bare| !bare.ends_with('s')))?;
            let singular = stem(bare.to_owned(), stress)
                .or_else(|| stem(bare.strip_suffix('e').filter(|bare| bare.len() > 2)?.to_owned(), stress))
                .or_else(|| stem(format!("{}y", bare.strip_suffix("ie")?), stress));
            singular.map(|sound| add_s(&sound))
        };
        let with_ed = || {
            let bare = word.strip_suffix('d').filter(|bare| bare.len() > 2 && !bare.ends_with('d'))?;
            let present = stem(bare.to_owned(), stress).or_else(|| {
                let bare = bare.strip_suffix('e')?;
                stem(bare.to_owned(), stress)
                    .or_else(|| stem(format!("{}y", bare.strip_suffix('i')?), stress))
                    .or_else(|| stem(undoubled(bare)?, stress))
            });
            present.map(|sound| add_ed(&sound))
        };
        let with_ing = || {
            let bare = word.strip_suffix("ing").filter(|bare| bare.len() > 1)?;
            let stress = stress.or(Some(0.5));
            let present = stem(bare.to_owned(), stress)
                .or_else(|| stem(format!("{bare}e"), stress))
                .or_else(|| stem(undoubled(bare)?, stress));
            present.map(|sound| add_ing(&sound))
        };
        with_s().or_else(with_ed).or_else(with_ing)
    }

    /// A word with a short form behind an apostrophe that is not listed as a whole.
    fn contraction(&self, word: &str, tag: &str, next: Following) -> Option<String> {
        let (bare, short) = word.rsplit_once('\'')?;
        let end = match short {
            "ll" => "əl",
            "ve" => "əv",
            "re" => "əɹ",
            "d" => "d",
            "t" | "m" => short,
            _ => return None,
        };
        Some(self.plain(bare, tag, None, next)? + end)
    }
}

/// A stem without the doubling of its last consonant.
fn undoubled(stem: &str) -> Option<String> {
    let mut signs = stem.chars().rev();
    let (last, before) = (signs.next()?, signs.next()?);
    (last == before || (last == 'k' && before == 'c'))
        .then(|| stem[..stem.len() - last.len_utf8()].to_owned())
}

fn parent(tag: &str) -> &str {
    match tag {
        tag if tag.starts_with("VB") => "VERB",
        tag if tag.starts_with("NN") => "NOUN",
        tag if tag.starts_with("RB") => "ADV",
        tag if tag.starts_with("JJ") => "ADJ",
        other => other,
    }
}

fn add_s(stem: &str) -> String {
    match stem.chars().last() {
        Some('p' | 't' | 'k' | 'f' | 'θ') => format!("{stem}s"),
        Some('s' | 'z' | 'ʃ' | 'ʒ' | 'ʧ' | 'ʤ') => format!("{stem}ᵻz"),
        _ => format!("{stem}z"),
    }
}

/// Whether a sound ends in a `t` that is flapped before a vowel; then the sound without it.
fn flapped(stem: &str) -> Option<&str> {
    let bare = stem.strip_suffix('t')?;
    bare.ends_with(|sign| FLAPPING.contains(sign)).then_some(bare)
}

fn add_ed(stem: &str) -> String {
    match stem.chars().last() {
        Some('p' | 'k' | 'f' | 'θ' | 'ʃ' | 's' | 'ʧ') => format!("{stem}t"),
        Some('d') => format!("{stem}ᵻd"),
        Some('t') => flapped(stem).map_or_else(|| format!("{stem}ᵻd"), |bare| format!("{bare}ɾᵻd")),
        _ => format!("{stem}d"),
    }
}

fn add_ing(stem: &str) -> String {
    flapped(stem).map_or_else(|| format!("{stem}ɪŋ"), |bare| format!("{bare}ɾɪŋ"))
}

/// A sound with more or less stress, as misaki has it: below -1 none, -1 and less one step down, above 0 one step up, 2 in
/// full.
fn stressed(sound: &str, stress: Option<f32>) -> String {
    let Some(stress) = stress else { return sound.to_owned() };
    let (primary, secondary) = (sound.contains(PRIMARY), sound.contains(SECONDARY));
    let down = || sound.replace(SECONDARY, "").replace(PRIMARY, &SECONDARY.to_string());
    if stress < -1.0 {
        sound.replace([PRIMARY, SECONDARY], "")
    } else if stress <= -1.0 || (stress <= 0.0 && primary) {
        down()
    } else if (0.0..=1.0).contains(&stress) && !primary && !secondary {
        before_vowel(sound, SECONDARY)
    } else if stress >= 1.0 && !primary && secondary {
        sound.replace(SECONDARY, &PRIMARY.to_string())
    } else if stress > 1.0 && !primary && !secondary {
        before_vowel(sound, PRIMARY)
    } else {
        sound.to_owned()
    }
}

fn before_vowel(sound: &str, mark: char) -> String {
    match sound.find(|sign| VOWELS.contains(sign)) {
        Some(place) => format!("{}{mark}{}", &sound[..place], &sound[place..]),
        None => sound.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lexicon() -> Lexicon {
        let gold = r#"{"wait":"wˈAt","cat":"kˈæt","dish":"dˈɪʃ","read":{"DEFAULT":"ɹˈid","VBD":"ɹˈɛd"},"A":"ˈA","B":"bˈi",
            "stop":"stˈɑp","carry":"kˈæɹi","make":"mˈAk","to":"tˈu","of":"ʌv","who":"hˌu"}"#;
        Lexicon::parse(gold, r#"{"hosta":"hˈɑstə"}"#).unwrap()
    }

    #[test]
    fn endings_are_added_to_what_is_listed() {
        let lexicon = lexicon();
        let sound = |word| lexicon.sound(word, "NN", Following::default()).unwrap_or_default();
        for (word, expected) in [
            ("cats", "kˈæts"),
            ("dishes", "dˈɪʃᵻz"),
            ("waited", "wˈAɾᵻd"),
            ("waiting", "wˈAɾɪŋ"),
            ("stopped", "stˈɑpt"),
            ("carries", "kˈæɹiz"),
            ("making", "mˈAkɪŋ"),
            ("cat's", "kˈæts"),
            ("who'll", "hˌuəl"),
            ("Hosta", "hˈɑstə"),
            ("zyx", ""),
        ] {
            assert_eq!(sound(word), expected, "{word}");
        }
        assert_eq!(lexicon.sound("read", "VBD", Following::default()).unwrap(), "ɹˈɛd");
        assert_eq!(lexicon.spelled("AB").unwrap(), "ˌAbˈi");
    }

    #[test]
    fn small_words_depend_on_what_follows() {
        let lexicon = lexicon();
        let vowel = Following::default().before("apple", "ˈæpᵊl");
        let consonant = vowel.before("cat", "kˈæt");
        assert_eq!(
            (vowel.vowel, consonant.vowel, vowel.before("", ".").vowel),
            (Some(true), Some(false), None)
        );
        assert_eq!(lexicon.sound("the", "DT", vowel).unwrap(), "ði");
        assert_eq!(lexicon.sound("the", "DT", consonant).unwrap(), "ðə");
        assert_eq!(lexicon.sound("to", "TO", Following::default()).unwrap(), "tˈu");
        assert!(consonant.before("to", "tə").to);
        assert_eq!(stressed("ʌv", Some(2.0)), "ˈʌv");
    }
}
