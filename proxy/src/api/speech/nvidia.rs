//! A speech as NVIDIA's services are asked for it, over gRPC and over HTTP: the same values under their own names.

use contract::Capability;

use super::{Speech, language_of, text, voice, voice_in};
use crate::api::Context;
use crate::audio::OutputFormat;
use crate::edge::RequestId;
use crate::error::Error;
use crate::job::language;

/// Samples per second that a request may name.
const RATES: std::ops::RangeInclusive<i64> = 8_000..=48_000;
/// Rates of Opus, of which the next higher one is taken.
const OPUS_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];
/// Longest list of pronunciations, bytes.
const DICTIONARY_BYTES: usize = 16 * 1024;

/// What a request says; empty texts are unset.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What to say.
    pub text: &'a str,
    /// Name of the parameter with the language, and the language.
    pub language: (&'static str, &'a str),
    /// Name of the parameter with the voice, and the voice.
    pub voice: (&'static str, &'a str),
    /// Samples per second.
    pub sample_rate: i64,
    /// What the client gets.
    pub format: OutputFormat,
    /// Pronunciations.
    pub dictionary: &'a str,
}

impl Asked<'_> {
    /// The speech that is asked for.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub async fn check(&self, context: &Context, request_id: &RequestId) -> Result<Speech, Error> {
        let input = text("text", self.text)?;
        let sample_rate = sample_rate(self.sample_rate, self.format)?;
        if self.dictionary.len() > DICTIONARY_BYTES {
            let message = format!("custom_dictionary must have at most {DICTIONARY_BYTES} bytes");
            return Err(Error::param("custom_dictionary", message));
        }
        let dictionary = Some(self.dictionary.trim()).filter(|text| !text.is_empty()).map(str::to_owned);
        let (param, name) = self.language;
        let asked = language::requested(name).map_err(|_| {
            let name: String = name.chars().take(32).collect();
            Error::param(param, format!("'{name}' is not a language code such as en-US"))
        })?;
        let voice = match (self.voice.0, self.voice.1.trim()) {
            (_, "") => voice_in(context, param, asked.as_deref()).await?,
            (param, name) => voice(context, param, name).await?,
        };
        let language = asked.unwrap_or_else(|| language_of(&voice));
        let route = context.route(request_id, None, Capability::Tts)?;
        let (format, speed) = (self.format, 1.0);
        let (volume, prompt) = (1.0, None);
        Ok(Speech { input, voice, language, format, sample_rate, speed, dictionary, volume, prompt, route })
    }
}

/// The rate of the audio. Opus has few rates; players take any of them for the same sound.
fn sample_rate(wanted: i64, format: OutputFormat) -> Result<u32, Error> {
    let rate = u32::try_from(wanted).ok().filter(|_| RATES.contains(&wanted)).ok_or_else(|| {
        Error::param("sample_rate_hz", format!("sample_rate_hz must be from 8000 to 48000, not {wanted}"))
    })?;
    let opus = OPUS_RATES.into_iter().find(|opus| *opus >= rate);
    Ok(opus.filter(|_| format == OutputFormat::Opus).unwrap_or(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_request_but_for_opus() {
        for (wanted, format, expected) in [
            (44_100, OutputFormat::Pcm, 44_100),
            (22_050, OutputFormat::Opus, 24_000),
            (16_000, OutputFormat::Opus, 16_000),
            (44_100, OutputFormat::Opus, 48_000),
        ] {
            assert_eq!(sample_rate(wanted, format).unwrap(), expected);
        }
        for wrong in [-1, 0, 7_999, 48_001, i64::MAX] {
            let error = sample_rate(wrong, OutputFormat::Pcm).unwrap_err();
            assert_eq!(error.param_name(), Some("sample_rate_hz"), "{wrong}");
        }
    }
}
