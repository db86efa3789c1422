//! Encodes 16-bit mono PCM as it arrives into the formats that OpenAI's speech API names.
//!
//! Every encoder streams: what `encode` returns can leave at once, and nothing before it need be changed later.

mod flac;
mod frames;
#[cfg(feature = "mp3lame")]
mod mp3;
mod opus;
mod samples;
mod webm;
mod whole;

#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes, BytesMut};

use super::wav;

pub use samples::Samples;

/// An output format of the speech API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    /// WAV with a header for streams.
    Wav,
    /// Signed 16-bit little-endian samples without a header.
    Pcm,
    /// Native FLAC.
    Flac,
    /// Opus in Ogg.
    Opus,
    /// Opus in WebM.
    Webm,
    /// MP3, if built in.
    Mp3,
    /// AAC in ADTS frames, by a program beside this one: its encoders come with patents or licences of their own.
    Aac,
}

impl OutputFormat {
    /// Reads a `response_format` of the speech API.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "wav" => Some(Self::Wav),
            "pcm" => Some(Self::Pcm),
            "flac" => Some(Self::Flac),
            "opus" => Some(Self::Opus),
            "webm" => Some(Self::Webm),
            "mp3" => Some(Self::Mp3),
            "aac" => Some(Self::Aac),
            _ => None,
        }
    }

    /// The name that [`OutputFormat::parse`] reads.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Pcm => "pcm",
            Self::Flac => "flac",
            Self::Opus => "opus",
            Self::Webm => "webm",
            Self::Mp3 => "mp3",
            Self::Aac => "aac",
        }
    }

    /// Whether the format has this sample rate in Hz: Opus takes 8, 12, 16, 24 and 48 kHz, MP3 and AAC those and 11.025, 22.05, 32
    /// and 44.1 kHz, the others 1 Hz to 655.35 kHz.
    ///
    /// # Errors
    /// [`Error::UnsupportedRate`].
    pub fn check(self, rate: u32) -> Result<(), Error> {
        let supported = match self {
            Self::Wav | Self::Pcm | Self::Flac => (1..=655_350).contains(&rate),
            Self::Opus | Self::Webm => matches!(rate, 8_000 | 12_000 | 16_000 | 24_000 | 48_000),
            Self::Mp3 | Self::Aac => {
                matches!(rate, 8_000 | 11_025 | 12_000 | 16_000 | 22_050 | 24_000 | 32_000 | 44_100 | 48_000)
            }
        };
        if supported { Ok(()) } else { Err(Error::UnsupportedRate { format: self, rate }) }
    }

    /// The Content-Type to answer with: OpenAI's, and `audio/opus` for Opus as other servers send it.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Pcm => "audio/pcm",
            Self::Flac => "audio/flac",
            Self::Opus => "audio/opus",
            Self::Webm => "audio/webm",
            Self::Mp3 => "audio/mpeg",
            Self::Aac => "audio/aac",
        }
    }
}

/// Why audio cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This binary lacks the encoder.
    #[cfg(not(feature = "mp3lame"))]
    #[error("{} output is not built in (cargo feature `{feature}`)", format.name())]
    FormatNotBuilt {
        /// The format asked for.
        format: OutputFormat,
        /// The Cargo feature that brings it.
        feature: &'static str,
    },
    /// No encoder of this program makes it.
    #[error("{} is encoded by another program", format.name())]
    Elsewhere {
        /// The format asked for.
        format: OutputFormat,
    },
    /// The format has no such sample rate; resample first.
    #[error("{} output does not support {rate} Hz", format.name())]
    UnsupportedRate {
        /// The format asked for.
        format: OutputFormat,
        /// The rate asked for, in Hz.
        rate: u32,
    },
    /// libopus refused.
    #[error("unable to encode opus")]
    Opus(#[source] ::opus::Error),
    /// An Ogg page could not be written.
    #[error("unable to write an ogg page")]
    Ogg(#[source] std::io::Error),
    /// The FLAC encoder refused its parameters.
    #[error("unable to set up flac")]
    FlacSetup(#[source] flacenc::error::VerifyError),
    /// The FLAC encoder refused samples.
    #[error("unable to encode flac")]
    Flac(#[source] flacenc::error::EncodeError),
    /// The FLAC encoder took no samples.
    #[error("unable to buffer flac samples")]
    FlacFill(#[source] flacenc::error::SourceError),
    /// FLAC could not be packed into bytes.
    #[error("unable to write flac")]
    FlacWrite(#[source] flacenc::error::OutputError<flacenc::bitsink::ByteSink>),
    /// LAME refused its parameters.
    #[cfg(feature = "mp3lame")]
    #[error("unable to set up mp3: {0}")]
    Mp3Setup(mp3lame_encoder::BuildError),
    /// LAME refused samples.
    #[cfg(feature = "mp3lame")]
    #[error("unable to encode mp3: {0}")]
    Mp3(mp3lame_encoder::EncodeError),
}

/// Encodes one stream of 16-bit mono samples.
pub struct Encoder(Kind);

enum Kind {
    /// Raw samples, after a header that has not left yet, if any.
    Pcm {
        header: Option<[u8; wav::HEADER_LEN]>,
    },
    Flac(Box<flac::Encoder>),
    Opus(Box<opus::Encoder>),
    Webm(Box<webm::Encoder>),
    #[cfg(feature = "mp3lame")]
    Mp3(mp3::Encoder),
}

impl Encoder {
    /// An encoder of samples at `rate` Hz, which is also the rate of the output.
    ///
    /// # Errors
    /// As [`OutputFormat::check`], an encoder that is not built in, or that the library cannot be set up.
    pub fn new(format: OutputFormat, rate: u32) -> Result<Self, Error> {
        format.check(rate)?;
        let kind = match format {
            OutputFormat::Wav => Kind::Pcm { header: Some(wav::header(rate, 1, None)) },
            OutputFormat::Pcm => Kind::Pcm { header: None },
            OutputFormat::Flac => Kind::Flac(Box::new(flac::Encoder::new(rate)?)),
            OutputFormat::Opus => Kind::Opus(Box::new(opus::Encoder::new(rate)?)),
            OutputFormat::Webm => Kind::Webm(Box::new(webm::Encoder::new(rate)?)),
            #[cfg(feature = "mp3lame")]
            OutputFormat::Mp3 => Kind::Mp3(mp3::Encoder::new(rate)?),
            #[cfg(not(feature = "mp3lame"))]
            OutputFormat::Mp3 => return Err(Error::FormatNotBuilt { format, feature: "mp3lame" }),
            OutputFormat::Aac => return Err(Error::Elsewhere { format }),
        };
        Ok(Self(kind))
    }

    /// Encodes the next samples. Returns what is ready to leave, often nothing yet; headers leave with the first audio.
    ///
    /// # Errors
    /// That of the library; the encoder must not be used any more.
    pub fn encode(&mut self, pcm: &[i16]) -> Result<Bytes, Error> {
        if pcm.is_empty() {
            return Ok(Bytes::new());
        }
        match &mut self.0 {
            Kind::Pcm { header } => Ok(raw(header.take(), pcm)),
            Kind::Flac(encoder) => encoder.encode(pcm),
            Kind::Opus(encoder) => encoder.encode(pcm),
            Kind::Webm(encoder) => encoder.encode(pcm),
            #[cfg(feature = "mp3lame")]
            Kind::Mp3(encoder) => encoder.encode(pcm),
        }
    }

    /// Ends the stream and returns the rest of it: a valid file even if there were no samples.
    ///
    /// # Errors
    /// That of the library.
    pub fn finish(self) -> Result<Bytes, Error> {
        match self.0 {
            Kind::Pcm { header } => Ok(raw(header, &[])),
            Kind::Flac(encoder) => encoder.finish(),
            Kind::Opus(encoder) => encoder.finish(),
            Kind::Webm(encoder) => encoder.finish(),
            #[cfg(feature = "mp3lame")]
            Kind::Mp3(encoder) => encoder.finish(),
        }
    }
}

fn raw(header: Option<[u8; wav::HEADER_LEN]>, pcm: &[i16]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(wav::HEADER_LEN + pcm.len() * 2);
    bytes.extend(header.into_iter().flatten());
    for sample in pcm {
        bytes.put_i16_le(*sample);
    }
    bytes.freeze()
}
