//! NVIDIA's speakers and OpenAI's voices, each played by a voice of flite, of hibari or of Kokoro.

use crate::backend::speaking::Speaker;
use crate::ffi::Voice;
use crate::language::{self, ENGLISH, Spoken};
use crate::neural::speakers::{Part, Timbre};

/// What the names of NVIDIA's voices begin with; a language and a speaker follow.
pub const MODEL: &str = "Magpie-Multilingual";
/// Who speaks when no voice is named: Mia.
pub const DEFAULT: Speaker = english(Voice::Slt, "af_heart");

/// NVIDIA's English speakers, who plays them, and the emotions listed for them.
const SPEAKERS: [(&str, Speaker, &[&str]); 10] = [
    ("Aria", english(Voice::Slt, "af_aoede"), &["Calm", "Happy", "Angry", "Sad"]),
    ("Jason", english(Voice::Rms, "am_michael"), &["Calm", "Happy", "Angry"]),
    ("Leo", english(Voice::Awb, "am_liam"), &["Calm", "Sad"]),
    ("Sofia", DEFAULT, &["Calm", "Happy"]),
    ("Mia", DEFAULT, &["Calm", "Happy", "Sad"]),
    ("Ray", english(Voice::Kal16, "am_adam"), &[]),
    ("Louise", english(Voice::Slt, "af_jessica"), &[]),
    ("Diego", english(Voice::Rms, "am_fenrir"), &[]),
    ("Isabela", english(Voice::Slt, "af_kore"), &[]),
    ("Pascal", english(Voice::Awb, "bm_george"), &[]),
];

/// Speakers of other languages: the language, the speaker, and the voice of Kokoro. The first of a language is its default.
const OTHERS: [(&Spoken, &str, &str); 7] = [
    (&language::SPANISH, "Isabela", "ef_dora"),
    (&language::SPANISH, "Diego", "em_alex"),
    (&language::FRENCH, "Louise", "ff_siwis"),
    (&language::ITALIAN, "Isabela", "if_sara"),
    (&language::ITALIAN, "Pascal", "im_nicola"),
    (&language::PORTUGUESE, "Isabela", "pf_dora"),
    (&language::PORTUGUESE, "Diego", "pm_alex"),
];

/// OpenAI's voices.
const OPENAI: [(&str, Speaker); 13] = [
    ("alloy", DEFAULT),
    ("ash", english(Voice::Rms, "am_michael")),
    ("ballad", english(Voice::Awb, "bm_fable")),
    ("cedar", english(Voice::Kal16, "am_fenrir")),
    ("coral", english(Voice::Slt, "af_bella")),
    ("echo", english(Voice::Rms, "am_echo")),
    ("fable", english(Voice::Awb, "bm_fable")),
    ("marin", english(Voice::Slt, "af_sarah")),
    ("nova", english(Voice::Slt, "af_nova")),
    ("onyx", english(Voice::Kal16, "am_onyx")),
    ("sage", english(Voice::Slt, "bf_emma")),
    ("shimmer", english(Voice::Slt, "af_alloy")),
    ("verse", english(Voice::Rms, "am_puck")),
];

const fn english(flite: Voice, kokoro: &'static str) -> Speaker {
    let timbre = match flite {
        Voice::Slt => Timbre::OWN,
        Voice::Rms => Timbre { pitch: 0.6, throat: 0.88 },
        Voice::Awb => Timbre { pitch: 0.72, throat: 0.93 },
        Voice::Kal16 => Timbre { pitch: 0.52, throat: 0.84 },
    };
    Speaker { flite, neural: Part { language: "en", kokoro, timbre }, stretch: 1.0 }
}

const fn other(language: &Spoken, kokoro: &'static str) -> Speaker {
    let neural = Part { language: language.espeak, kokoro, timbre: Timbre::OWN };
    Speaker { flite: Voice::Slt, neural, stretch: 1.0 }
}

/// One of OpenAI's voices.
#[must_use]
pub fn openai(name: &str) -> Option<Speaker> {
    OPENAI.iter().find(|(known, _)| *known == name).map(|(_, speaker)| *speaker)
}

/// Who speaks a language when no voice is named.
#[must_use]
pub fn default_of(language: &Spoken) -> Speaker {
    let first = OTHERS.iter().find(|(of, ..)| *of == language);
    first.map_or(DEFAULT, |(_, _, kokoro)| other(language, kokoro))
}

/// The languages, and the names of the voices of each without the model's: language, speaker, and emotion if there is one.
#[must_use]
pub fn subvoices(multilingual: bool) -> Vec<(&'static str, Vec<String>)> {
    let variants = |(speaker, _, emotions): &(&str, Speaker, &[&str])| {
        let emotional: Vec<String> =
            emotions.iter().map(|emotion| format!("EN-US.{speaker}.{emotion}")).collect();
        std::iter::once(format!("EN-US.{speaker}")).chain(emotional)
    };
    let mut voices: Vec<(_, Vec<String>)> = vec![(ENGLISH, SPEAKERS.iter().flat_map(variants).collect())];
    for (language, speaker, _) in OTHERS.iter().filter(|_| multilingual) {
        let name = format!("{}.{speaker}", language.tag.to_ascii_uppercase());
        match voices.last_mut() {
            Some((last, names)) if *last == language.tag => names.push(name),
            _ => voices.push((language.tag, vec![name])),
        }
    }
    voices
}

/// The voice of a name; emotion is only a matter of tempo here.
#[must_use]
pub fn find(name: &str, multilingual: bool) -> Option<Speaker> {
    let mut parts = name.strip_prefix(MODEL)?.strip_prefix('.')?.splitn(3, '.');
    let (tag, speaker, emotion) = (parts.next()?, parts.next()?, parts.next());
    if tag != "EN-US" {
        let same = |(language, known, _): &&(&Spoken, &str, &str)| {
            language.tag.to_ascii_uppercase() == tag && *known == speaker && emotion.is_none() && multilingual
        };
        return OTHERS.iter().find(same).map(|(language, _, kokoro)| other(language, kokoro));
    }
    let (_, found, emotions) = SPEAKERS.iter().find(|(known, _, _)| *known == speaker)?;
    let stretch = match emotion {
        None => 1.0,
        Some(unknown) if !emotions.contains(&unknown) => return None,
        Some("Calm") => 1.15,
        Some("Sad") => 1.25,
        Some("Happy") => 0.95,
        Some(_) => 0.9,
    };
    Some(Speaker { stretch, ..*found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_is_found_and_no_other() {
        for multilingual in [false, true] {
            let names: Vec<String> = subvoices(multilingual)
                .into_iter()
                .flat_map(|(_, names)| names)
                .map(|name| format!("{MODEL}.{name}"))
                .collect();
            assert!(names.contains(&"Magpie-Multilingual.EN-US.Aria.Calm".to_owned()));
            assert_eq!(names.contains(&"Magpie-Multilingual.ES-US.Diego".to_owned()), multilingual);
            assert!(names.iter().all(|name| find(name, multilingual).is_some()));
        }
        for unknown in ["", "Aria", "Magpie-Multilingual.EN-US.", "Magpie-Multilingual.EN-US.Ray.Angry"] {
            assert_eq!(find(unknown, true), None, "{unknown}");
        }
        assert_eq!(find("Magpie-Multilingual.ES-US.Diego", false), None);
        assert_eq!(default_of(&language::FRENCH).neural.kokoro, "ff_siwis");
    }
}
