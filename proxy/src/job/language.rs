//! Languages as clients and engines name them: ISO 639-1 codes, BCP-47 tags and English names.

/// Code and English name of the languages that OpenAI's transcription models name.
#[rustfmt::skip]
const LANGUAGES: [(&str, &str); 99] = [
    ("af", "afrikaans"), ("am", "amharic"), ("ar", "arabic"), ("as", "assamese"), ("az", "azerbaijani"),
    ("ba", "bashkir"), ("be", "belarusian"), ("bg", "bulgarian"), ("bn", "bengali"), ("bo", "tibetan"),
    ("br", "breton"), ("bs", "bosnian"), ("ca", "catalan"), ("cs", "czech"), ("cy", "welsh"), ("da", "danish"),
    ("de", "german"), ("el", "greek"), ("en", "english"), ("es", "spanish"), ("et", "estonian"), ("eu", "basque"),
    ("fa", "persian"), ("fi", "finnish"), ("fo", "faroese"), ("fr", "french"), ("gl", "galician"),
    ("gu", "gujarati"), ("ha", "hausa"), ("haw", "hawaiian"), ("he", "hebrew"), ("hi", "hindi"),
    ("hr", "croatian"), ("ht", "haitian creole"), ("hu", "hungarian"), ("hy", "armenian"), ("id", "indonesian"),
    ("is", "icelandic"), ("it", "italian"), ("ja", "japanese"), ("jw", "javanese"), ("ka", "georgian"),
    ("kk", "kazakh"), ("km", "khmer"), ("kn", "kannada"), ("ko", "korean"), ("la", "latin"),
    ("lb", "luxembourgish"), ("ln", "lingala"), ("lo", "lao"), ("lt", "lithuanian"), ("lv", "latvian"),
    ("mg", "malagasy"), ("mi", "maori"), ("mk", "macedonian"), ("ml", "malayalam"), ("mn", "mongolian"),
    ("mr", "marathi"), ("ms", "malay"), ("mt", "maltese"), ("my", "myanmar"), ("ne", "nepali"), ("nl", "dutch"),
    ("nn", "nynorsk"), ("no", "norwegian"), ("oc", "occitan"), ("pa", "punjabi"), ("pl", "polish"),
    ("ps", "pashto"), ("pt", "portuguese"), ("ro", "romanian"), ("ru", "russian"), ("sa", "sanskrit"),
    ("sd", "sindhi"), ("si", "sinhala"), ("sk", "slovak"), ("sl", "slovenian"), ("sn", "shona"), ("so", "somali"),
    ("sq", "albanian"), ("sr", "serbian"), ("su", "sundanese"), ("sv", "swedish"), ("sw", "swahili"),
    ("ta", "tamil"), ("te", "telugu"), ("tg", "tajik"), ("th", "thai"), ("tk", "turkmen"), ("tl", "tagalog"),
    ("tr", "turkish"), ("tt", "tatar"), ("uk", "ukrainian"), ("ur", "urdu"), ("uz", "uzbek"),
    ("vi", "vietnamese"), ("yi", "yiddish"), ("yo", "yoruba"), ("zh", "chinese"),
];

/// What a client asked for, as engines take it: a tag as sent, or the code of an English name.
///
/// `Ok(None)` stands for "detect it". `Err(())` if it is built like neither a tag nor a name.
pub fn requested(language: &str) -> Result<Option<String>, Malformed> {
    let language = language.trim();
    if ["", "auto", "multi", "none", "null"].iter().any(|unset| language.eq_ignore_ascii_case(unset)) {
        return Ok(None);
    }
    let named = LANGUAGES.iter().find(|(_, name)| language.eq_ignore_ascii_case(name));
    if let Some((code, _)) = named {
        return Ok(Some((*code).to_owned()));
    }
    let mut subtags = language.split(['-', '_']);
    let primary = subtags.next().unwrap_or_default();
    let alphabetic = primary.bytes().all(|byte| byte.is_ascii_alphabetic());
    let tag = (2..=3).contains(&primary.len())
        && alphabetic
        && subtags.all(|subtag| {
            (2..=8).contains(&subtag.len()) && subtag.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
    if tag { Ok(Some(language.replace('_', "-"))) } else { Err(Malformed) }
}

/// Not built like the name of a language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The ISO 639-1 code of a code, tag or name; its first subtag in lower case if it is not listed.
pub fn code(language: &str) -> String {
    let lower = language.trim().to_ascii_lowercase();
    let primary = lower.split(['-', '_']).next().unwrap_or_default();
    let named = LANGUAGES.iter().find(|(_, name)| *name == lower);
    named.map_or(primary, |(code, _)| code).to_owned()
}

/// The English name that `verbose_json` carries, of a code, tag or name; itself in lower case if not listed.
pub fn english_name(language: &str) -> String {
    let lower = language.trim().to_ascii_lowercase();
    let primary = lower.split(['-', '_']).next().unwrap_or_default();
    let listed = LANGUAGES.iter().find(|(code, _)| *code == primary);
    match listed {
        Some((_, name)) => (*name).to_owned(),
        None => lower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_tags_and_names_are_understood() {
        assert_eq!(requested("en"), Ok(Some("en".into())));
        assert_eq!(requested(" en_US "), Ok(Some("en-US".into())));
        assert_eq!(requested("zh-Hans-CN"), Ok(Some("zh-Hans-CN".into())));
        assert_eq!(requested("German"), Ok(Some("de".into())));
        assert_eq!(requested("yue"), Ok(Some("yue".into())));
        for unset in ["", "auto", "None", " "] {
            assert_eq!(requested(unset), Ok(None), "{unset}");
        }
        for wrong in ["e", "klingon", "en-", "12", "en-u", "e\u{301}n", "en\r\nx"] {
            assert_eq!(requested(wrong), Err(Malformed), "{wrong:?}");
        }
    }

    #[test]
    fn names_are_english() {
        assert_eq!(english_name("en"), "english");
        assert_eq!(english_name("de-CH"), "german");
        assert_eq!(english_name("English"), "english");
        assert_eq!(english_name("yue"), "yue");
    }

    #[test]
    fn codes_are_read_from_tags_and_names() {
        for (language, expected) in
            [("en-US", "en"), ("German", "de"), ("haitian creole", "ht"), ("yue", "yue")]
        {
            assert_eq!(code(language), expected);
        }
    }
}
