//! A recognition request's configuration, checked.

use crate::backend::Capability;
use crate::decode::Container;
use crate::grpc::messages::nvidia::riva::AudioEncoding;
use crate::grpc::messages::nvidia::riva::asr::RecognitionConfig;
use crate::language;
use crate::pcm::Raw;
use crate::work::Refusal;
use crate::work::transcribe::Wanted;

/// The most speakers when a request leaves it open.
const MAX_SPEAKERS: usize = 8;

/// How the audio of a request is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Samples without a header, or a WAV file all the same.
    Raw(Raw),
    /// A file of this container.
    Container(Container),
    /// A file of any container that is recognized.
    Unspecified,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How its audio is coded.
    pub coding: Coding,
    /// Whether words have times.
    pub words: bool,
    /// The most speakers, when they are to be told apart.
    pub speakers: Option<usize>,
    /// Code of the language; `None` to have it heard.
    pub language: Option<&'static str>,
    rate_hz: i32,
}

/// No model does what the configuration asks for.
pub fn unavailable(config: &RecognitionConfig) -> Refusal {
    let text = format!(
        "Error: Unavailable model requested given these parameters: language_code={}; sample_rate={}; model={};",
        config.language_code, config.sample_rate_hertz, config.model
    );
    Refusal::parameter("language_code", text)
}

impl Options {
    /// Checks a configuration; what has no effect here is ignored.
    ///
    /// # Errors
    /// Names the field that cannot be served.
    pub fn check(config: &RecognitionConfig, capability: &Capability) -> Result<Self, Refusal> {
        let model_known = config.model.is_empty() || config.model == capability.model;
        if !language::recognized(&config.language_code, capability.multilingual) || !model_known {
            return Err(unavailable(config));
        }
        if config.audio_channel_count > 1 {
            let text =
                format!("audio_channel_count is {}: only mono is supported", config.audio_channel_count);
            return Err(Refusal::parameter("audio_channel_count", text));
        }
        let coding = match AudioEncoding::try_from(config.encoding) {
            Ok(AudioEncoding::EncodingUnspecified) => Coding::Unspecified,
            Ok(AudioEncoding::LinearPcm) => Coding::Raw(Raw::Linear),
            Ok(AudioEncoding::Mulaw) => Coding::Raw(Raw::MuLaw),
            Ok(AudioEncoding::Alaw) => Coding::Raw(Raw::ALaw),
            Ok(AudioEncoding::Flac) => Coding::Container(Container::Flac),
            Ok(AudioEncoding::Oggopus) => Coding::Container(Container::OggOpus),
            Err(_) => {
                let text = format!("encoding {} is not known", config.encoding);
                return Err(Refusal::parameter("encoding", text));
            }
        };
        let diarization =
            config.diarization_config.filter(|diarization| diarization.enable_speaker_diarization);
        let speakers = diarization.map(|diarization| match usize::try_from(diarization.max_speaker_count) {
            Ok(0) | Err(_) => MAX_SPEAKERS,
            Ok(count) => count,
        });
        let (words, rate_hz) = (config.enable_word_time_offsets, config.sample_rate_hertz);
        let language = language::code(&config.language_code);
        Ok(Self { coding, words, speakers, language, rate_hz })
    }

    /// The rate of samples without a header, in Hz.
    ///
    /// # Errors
    /// When it is below 8,000.
    pub fn raw_rate_hz(&self) -> Result<u32, Refusal> {
        let rate_hz = u32::try_from(self.rate_hz).ok().filter(|rate| *rate >= 8_000);
        rate_hz.ok_or_else(|| {
            let text = format!("sample_rate_hertz must be at least 8000, not {}", self.rate_hz);
            Refusal::parameter("sample_rate_hertz", text)
        })
    }

    /// What a transcript is to have.
    #[must_use]
    pub fn wanted(&self, speakers: bool) -> Wanted {
        Wanted { speakers, language: self.language }
    }

    /// The tag of a speaker: from 1 to the most that were asked for, 0 for none.
    #[must_use]
    pub fn tag(&self, speaker: Option<usize>) -> i32 {
        match (speaker, self.speakers) {
            (Some(speaker), Some(most)) => i32::try_from(speaker.min(most - 1) + 1).unwrap_or(i32::MAX),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Models;
    use crate::grpc::messages::nvidia::riva::asr::SpeakerDiarizationConfig;
    use crate::kind::Kind;

    fn capability() -> Capability {
        Models::default().capability(Kind::Stt)
    }

    fn config() -> RecognitionConfig {
        RecognitionConfig { language_code: "en-US".into(), sample_rate_hertz: 16_000, ..Default::default() }
    }

    #[test]
    fn what_cannot_be_served_is_named() {
        for (config, named) in [
            (RecognitionConfig { language_code: String::new(), ..config() }, "language_code"),
            (RecognitionConfig { language_code: "de-DE".into(), ..config() }, "de-DE"),
            (RecognitionConfig { model: "canary".into(), ..config() }, "canary"),
            (RecognitionConfig { audio_channel_count: 2, ..config() }, "mono"),
            (RecognitionConfig { encoding: 99, ..config() }, "99"),
        ] {
            let error = Options::check(&config, &capability()).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        for rate_hz in [-1, 0, 7_999] {
            let options =
                Options::check(&RecognitionConfig { sample_rate_hertz: rate_hz, ..config() }, &capability())
                    .unwrap();
            assert!(options.raw_rate_hz().is_err(), "{rate_hz}");
        }
    }

    #[test]
    fn speakers_are_tagged_from_one_up_to_the_most() {
        let diarization = |enable_speaker_diarization, max_speaker_count| RecognitionConfig {
            diarization_config: Some(SpeakerDiarizationConfig {
                enable_speaker_diarization,
                max_speaker_count,
            }),
            ..config()
        };
        let tags = |config| {
            let options = Options::check(&config, &capability()).unwrap();
            [Some(0), Some(1), Some(9), None].map(|speaker| options.tag(speaker))
        };
        assert_eq!(tags(diarization(true, 2)), [1, 2, 2, 0]);
        assert_eq!(tags(diarization(true, 0)), [1, 2, 8, 0]);
        assert_eq!(tags(diarization(false, 2)), [0; 4]);
        assert_eq!(tags(config()), [0; 4]);
    }
}
