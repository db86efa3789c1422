//! The encoder of a speech: one of this program, or ffmpeg's.

use bytes::Bytes;

use crate::api::Context;
use crate::audio::{Encoder, OutputFormat, encode};
use crate::error::Error;
use crate::ffmpeg;

/// Encodes one stream of samples.
pub(super) enum Coder {
    Own(Encoder),
    Aac(Box<ffmpeg::Aac>),
}

/// Why samples are not encoded: a fault of this machine.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Own(#[from] encode::Error),
    #[error(transparent)]
    Ffmpeg(#[from] ffmpeg::Error),
}

impl Coder {
    /// # Errors
    /// A rate that the format does not have; a format whose program is missing.
    pub(super) fn new(context: &Context, format: OutputFormat, rate: u32) -> Result<Self, Error> {
        let refused = |error: encode::Error| Error::param("sample_rate_hz", error.to_string());
        if format != OutputFormat::Aac {
            return Encoder::new(format, rate).map(Self::Own).map_err(refused);
        }
        format.check(rate).map_err(refused)?;
        let Some(program) = ffmpeg::find(&context.config.get().gateway.ffmpeg) else {
            let message = "aac is encoded by ffmpeg, which this gateway does not have: install it or set gateway.ffmpeg, \
                           or use mp3, opus, flac, wav or pcm";
            return Err(Error::param("response_format", message));
        };
        ffmpeg::Aac::start(&program, rate).map(|aac| Self::Aac(Box::new(aac))).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, program = %program.display(), "no aac");
            Error::param("response_format", "aac cannot be encoded: ffmpeg does not start on this gateway")
        })
    }

    /// What is ready to leave once these samples are in, often nothing yet.
    pub(super) async fn encode(&mut self, samples: &[i16]) -> Result<Bytes, Failure> {
        match self {
            Self::Own(encoder) => Ok(encoder.encode(samples)?),
            Self::Aac(_) if samples.is_empty() => Ok(Bytes::new()),
            Self::Aac(aac) => Ok(aac.encode(samples).await?),
        }
    }

    /// The rest of the stream.
    pub(super) async fn finish(self) -> Result<Bytes, Failure> {
        match self {
            Self::Own(encoder) => Ok(encoder.finish()?),
            Self::Aac(aac) => Ok(aac.finish().await?),
        }
    }
}
