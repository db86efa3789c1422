//! Languages as NVIDIA's recognition servers name them: a language with its region, or `multi`.

use super::Settings;

/// Lets the server detect the language.
const MULTI: &str = "multi";

/// The tag that the servers have for a language without a region.
#[rustfmt::skip]
const LOCALES: [(&str, &str); 37] = [
    ("ar", "ar-AR"), ("bg", "bg-BG"), ("cs", "cs-CZ"), ("da", "da-DK"), ("de", "de-DE"), ("el", "el-GR"),
    ("en", "en-US"), ("es", "es-US"), ("et", "et-EE"), ("fi", "fi-FI"), ("fr", "fr-FR"), ("he", "he-IL"),
    ("hi", "hi-IN"), ("hr", "hr-HR"), ("hu", "hu-HU"), ("it", "it-IT"), ("ja", "ja-JP"), ("ko", "ko-KR"),
    ("lt", "lt-LT"), ("lv", "lv-LV"), ("mt", "mt-MT"), ("nb", "nb-NO"), ("nl", "nl-NL"), ("nn", "nn-NO"),
    ("no", "nb-NO"), ("pl", "pl-PL"), ("pt", "pt-BR"), ("ro", "ro-RO"), ("ru", "ru-RU"), ("sk", "sk-SK"),
    ("sl", "sl-SI"), ("sv", "sv-SE"), ("th", "th-TH"), ("tr", "tr-TR"), ("uk", "uk-UA"), ("vi", "vi-VN"),
    ("zh", "zh-CN"),
];

/// The language to send: the client's, else the engine's configured one, else `multi`.
///
/// A tag with a region, and what is not listed, is sent as it is: the server then names it in its refusal.
pub(super) fn locale<'a>(wanted: Option<&'a str>, engine: &'a Settings) -> &'a str {
    let Some(language) = wanted.or(engine.language.as_deref()) else { return MULTI };
    let listed = LOCALES.iter().find(|(code, _)| language.eq_ignore_ascii_case(code));
    listed.map_or(language, |(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_get_their_region() {
        let (unset, german) =
            (Settings::default(), Settings { language: Some("de".into()), ..Settings::default() });
        for (wanted, engine, sent) in [
            (Some("en"), &unset, "en-US"),
            (Some("ZH"), &unset, "zh-CN"),
            (Some("en-GB"), &german, "en-GB"),
            (Some("yue"), &german, "yue"),
            (None, &german, "de-DE"),
            (None, &unset, "multi"),
        ] {
            assert_eq!(locale(wanted, engine), sent);
        }
    }
}
