//! Names of voices as NVIDIA builds them: `Model.LOCALE.Speaker[.Emotion]`.

/// Shortest and longest recording of a voice that is to be imitated, seconds; and its samples per second.
pub const PROMPT_SECONDS: std::ops::RangeInclusive<f64> = 3.0..=10.0;
/// See [`PROMPT_SECONDS`].
pub const PROMPT_RATE: u32 = 22_050;

/// The parts of a voice's name, `Magpie-Multilingual.EN-US.Mia.Angry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoiceName<'a> {
    /// Model, locale and speaker: the name without its emotion.
    pub base: &'a str,
    /// `EN-US`.
    pub locale: &'a str,
    /// `Mia`.
    pub speaker: &'a str,
    /// `Angry`, if the name has an emotion.
    pub emotion: Option<&'a str>,
}

impl<'a> VoiceName<'a> {
    /// The parts of `name`, if it is built so.
    pub fn parse(name: &'a str) -> Option<Self> {
        let mut parts = name.split('.');
        let (model, locale, speaker) = (parts.next()?, parts.next()?, parts.next()?);
        let emotion = parts.next();
        let whole = parts.next().is_none() && [model, locale, speaker].iter().all(|part| !part.is_empty());
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        let (primary, region) = locale.split_once('-')?;
        if !whole || !plain || primary.is_empty() || region.is_empty() {
            return None;
        }
        let base = &name[..model.len() + locale.len() + speaker.len() + 2];
        Some(Self { base, locale, speaker, emotion })
    }

    /// The voice's language as forms name it: `en-US`.
    pub fn language(&self) -> String {
        let (primary, region) = self.locale.split_once('-').unwrap_or((self.locale, ""));
        format!("{}-{}", primary.to_ascii_lowercase(), region.to_ascii_uppercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart() {
        let name = VoiceName::parse("Magpie-Multilingual.ES-US.Diego.Calm").unwrap();
        assert_eq!(name.base, "Magpie-Multilingual.ES-US.Diego");
        assert_eq!(name.language(), "es-US");
        assert_eq!((name.speaker, name.emotion), ("Diego", Some("Calm")));
        for wrong in ["alloy", "", "a.b.c", "a.EN-US", "a.EN-US.", "a.EN-US.b.c.d", "a.EN-US.b\r\nx: y"] {
            assert_eq!(VoiceName::parse(wrong), None, "{wrong}");
        }
    }
}
