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

/// Whether synthesis takes this tag.
#[must_use]
pub fn synthesized(tag: &str) -> bool {
    tag.eq_ignore_ascii_case(ENGLISH) || tag.eq_ignore_ascii_case("en")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognition_needs_a_region_and_synthesis_does_not() {
        assert!(recognized("en-us", false) && recognized("multi", false) && synthesized("EN"));
        for other in ["", "en", "de-DE", "en-GB"] {
            assert!(!recognized(other, false), "{other}");
        }
        assert!(recognized("de-DE", true) && !recognized("de", true) && !recognized("xx-XX", true));
        assert!(!synthesized("multi") && !synthesized("de-DE"));
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
