//! NVIDIA's English speakers, each played by a voice of flite.

use crate::ffi::Voice;

/// What all names begin with: model and language.
pub const MODEL: &str = "Magpie-Multilingual.EN-US";
/// Who speaks when no voice is named, and how much the speech is stretched: Mia.
pub const DEFAULT: (Voice, f32) = (Voice::Slt, 1.0);

/// Speaker, who plays it, and the emotions listed for it.
const SPEAKERS: [(&str, Voice, &[&str]); 10] = [
    ("Aria", Voice::Slt, &["Calm", "Happy", "Angry", "Sad"]),
    ("Jason", Voice::Rms, &["Calm", "Happy", "Angry"]),
    ("Leo", Voice::Awb, &["Calm", "Sad"]),
    ("Sofia", Voice::Slt, &["Calm", "Happy"]),
    ("Mia", Voice::Slt, &["Calm", "Happy", "Sad"]),
    ("Ray", Voice::Kal16, &[]),
    ("Louise", Voice::Slt, &[]),
    ("Diego", Voice::Rms, &[]),
    ("Isabela", Voice::Slt, &[]),
    ("Pascal", Voice::Awb, &[]),
];

/// OpenAI's voices, each played by a voice of flite.
const OPENAI: [(&str, Voice); 13] = [
    ("alloy", Voice::Slt),
    ("ash", Voice::Rms),
    ("ballad", Voice::Awb),
    ("cedar", Voice::Kal16),
    ("coral", Voice::Slt),
    ("echo", Voice::Rms),
    ("fable", Voice::Awb),
    ("marin", Voice::Slt),
    ("nova", Voice::Slt),
    ("onyx", Voice::Kal16),
    ("sage", Voice::Slt),
    ("shimmer", Voice::Slt),
    ("verse", Voice::Rms),
];

/// The flite voice of one of OpenAI's voices.
#[must_use]
pub fn openai(name: &str) -> Option<(Voice, f32)> {
    OPENAI.iter().find(|(known, _)| *known == name).map(|(_, voice)| (*voice, 1.0))
}

/// All voices without the model's name: speakers and their emotions.
#[must_use]
pub fn subvoices() -> Vec<String> {
    let variants = |(speaker, _, emotions): &(&str, Voice, &[&str])| {
        let emotional: Vec<String> = emotions.iter().map(|emotion| format!("{speaker}.{emotion}")).collect();
        std::iter::once((*speaker).to_owned()).chain(emotional)
    };
    SPEAKERS.iter().flat_map(variants).collect()
}

/// All voice names, speakers and their emotions.
#[must_use]
pub fn names() -> Vec<String> {
    subvoices().iter().map(|voice| format!("{MODEL}.{voice}")).collect()
}

/// The flite voice of a name and how much it is stretched; emotion is only a matter of tempo here.
#[must_use]
pub fn find(name: &str) -> Option<(Voice, f32)> {
    let mut parts = name.strip_prefix(MODEL)?.strip_prefix('.')?.splitn(2, '.');
    let (speaker, emotion) = (parts.next()?, parts.next());
    let (_, voice, emotions) = SPEAKERS.iter().find(|(known, _, _)| *known == speaker)?;
    let stretch = match emotion {
        None => 1.0,
        Some(unknown) if !emotions.contains(&unknown) => return None,
        Some("Calm") => 1.15,
        Some("Sad") => 1.25,
        Some("Happy") => 0.95,
        Some(_) => 0.9,
    };
    Some((*voice, stretch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_is_found_and_no_other() {
        let names = names();
        assert!(names.contains(&"Magpie-Multilingual.EN-US.Aria.Calm".to_owned()));
        assert!(names.iter().all(|name| find(name).is_some()));
        for unknown in ["", "Aria", "Magpie-Multilingual.EN-US.", "Magpie-Multilingual.EN-US.Ray.Angry"] {
            assert_eq!(find(unknown), None, "{unknown}");
        }
    }
}
