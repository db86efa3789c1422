//! Languages by their codes and BCP-47 tags.

/// The tag of the language of the fallback.
pub const ENGLISH: &str = "en-US";
/// The tag by which a client leaves the choice to the engine.
pub const MULTI: &str = "multi";

/// Codes and English names of the languages that Whisper knows, in the order of its tokens.
const NAMES: &str = "en english zh chinese de german es spanish ru russian ko korean fr french ja japanese pt portuguese \
tr turkish pl polish ca catalan nl dutch ar arabic sv swedish it italian id indonesian hi hindi fi finnish vi vietnamese \
he hebrew uk ukrainian el greek ms malay cs czech ro romanian da danish hu hungarian ta tamil no norwegian th thai ur urdu \
hr croatian bg bulgarian lt lithuanian la latin mi maori ml malayalam cy welsh sk slovak te telugu fa persian lv latvian \
bn bengali sr serbian az azerbaijani sl slovenian kn kannada et estonian mk macedonian br breton eu basque is icelandic \
hy armenian ne nepali mn mongolian bs bosnian kk kazakh sq albanian sw swahili gl galician mr marathi pa punjabi \
si sinhala km khmer sn shona yo yoruba so somali af afrikaans oc occitan ka georgian be belarusian tg tajik sd sindhi \
gu gujarati am amharic yi yiddish lo lao uz uzbek fo faroese ht haitian_creole ps pashto tk turkmen nn nynorsk mt maltese \
sa sanskrit lb luxembourgish my myanmar bo tibetan tl tagalog mg malagasy as assamese tt tatar haw hawaiian ln lingala \
ha hausa ba bashkir jw javanese su sundanese";

fn pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    let words: Vec<&str> = NAMES.split_whitespace().collect();
    (0..words.len() / 2).map(move |index| (words[2 * index], words[2 * index + 1]))
}

/// The English name of a language, in lower case, as OpenAI's API has it; the code itself when it is not known.
#[must_use]
pub fn name(code: &str) -> String {
    let found = pairs().find(|(known, _)| *known == code);
    found.map_or(code, |(_, name)| name).replace('_', " ")
}

/// The code of a language that is given by code, tag or English name; `None` when it is not known.
#[must_use]
pub fn code(given: &str) -> Option<&'static str> {
    let given = given.trim().to_ascii_lowercase();
    let start = given.split(['-', '_']).next().unwrap_or_default();
    let named = given.replace(' ', "_");
    pairs().find(|(code, name)| *code == start || *name == named).map(|(code, _)| code)
}

/// The tag of a language's code: English has a region, as in NVIDIA's engines.
#[must_use]
pub fn tag(code: &str) -> &str {
    if code == "en" { ENGLISH } else { code }
}

/// Whether recognition takes this tag: a language with its region, or `multi`. As in NVIDIA's recognition NIM, a language
/// without a region is no tag. The fallback takes English only.
#[must_use]
pub fn recognized(tag: &str, multilingual: bool) -> bool {
    let with_region = tag.contains('-') && code(tag).is_some();
    tag.eq_ignore_ascii_case(ENGLISH) || tag.eq_ignore_ascii_case(MULTI) || multilingual && with_region
}

/// A language that can be spoken.
#[derive(Debug, PartialEq, Eq)]
pub struct Spoken {
    /// Its tag in NVIDIA's synthesis NIM.
    pub tag: &'static str,
    /// Its name in espeak-ng.
    pub espeak: &'static str,
}

/// English of the United States.
pub const AMERICAN: Spoken = Spoken { tag: ENGLISH, espeak: "en" };
/// Spanish of Latin America.
pub const SPANISH: Spoken = Spoken { tag: "es-US", espeak: "es-419" };
/// French.
pub const FRENCH: Spoken = Spoken { tag: "fr-FR", espeak: "fr-fr" };
/// Italian.
pub const ITALIAN: Spoken = Spoken { tag: "it-IT", espeak: "it" };
/// Portuguese of Brazil.
pub const PORTUGUESE: Spoken = Spoken { tag: "pt-BR", espeak: "pt-br" };
const SPOKEN: [&Spoken; 5] = [&AMERICAN, &SPANISH, &FRENCH, &ITALIAN, &PORTUGUESE];

/// The language that synthesis takes for a tag, or for a code without a region. Other regions of English are refused.
#[must_use]
pub fn spoken(tag: &str, multilingual: bool) -> Option<&'static Spoken> {
    let same = |spoken: &&&Spoken| {
        tag.eq_ignore_ascii_case(spoken.tag) || tag.eq_ignore_ascii_case(&spoken.tag[..2])
    };
    let other = |spoken: &&&Spoken| spoken.tag != ENGLISH && code(tag) == Some(&spoken.tag[..2]);
    let found = SPOKEN.iter().find(same).or_else(|| SPOKEN.iter().find(other))?;
    (multilingual || found.tag == ENGLISH).then_some(*found)
}

/// The tags that synthesis takes, for people.
#[must_use]
pub fn spoken_tags(multilingual: bool) -> String {
    let tags: Vec<&str> =
        SPOKEN.iter().filter(|one| multilingual || one.tag == ENGLISH).map(|one| one.tag).collect();
    tags.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognition_needs_a_region_and_synthesis_does_not() {
        assert!(recognized("en-us", false) && recognized("multi", false) && spoken("EN", false).is_some());
        for other in ["", "en", "de-DE", "en-GB"] {
            assert!(!recognized(other, false), "{other}");
        }
        assert!(recognized("de-DE", true) && !recognized("de", true) && !recognized("xx-XX", true));
        for other in ["multi", "de-DE", "en-GB", ""] {
            assert_eq!(spoken(other, true), None, "{other}");
        }
        assert_eq!((spoken("es-ES", true), spoken("es-ES", false)), (Some(&SPANISH), None));
        assert_eq!((spoken_tags(false), spoken("pt", true)), ("en-US".into(), Some(&PORTUGUESE)));
    }

    #[test]
    fn languages_go_by_code_tag_and_name() {
        assert_eq!(pairs().count(), 99);
        assert_eq!(
            (name("de"), name("ht"), name("qq")),
            ("german".into(), "haitian creole".into(), "qq".into())
        );
        for (given, expected) in [
            ("DE", Some("de")),
            ("pt-BR", Some("pt")),
            ("Haitian Creole", Some("ht")),
            ("qq", None),
            ("", None),
        ] {
            assert_eq!(code(given), expected, "{given}");
        }
        assert_eq!((tag("en"), tag("fr")), ("en-US", "fr"));
    }
}
