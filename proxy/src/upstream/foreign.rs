//! Files whose codec this program does not decode: ffmpeg does, where it is installed.

use std::future::ready;

use futures::StreamExt;
use http_body_util::BodyExt;

use super::Upstreams;
use super::outgoing::Upload;
use super::prepare::MAX_SECONDS;
use super::spool::Replay;
use crate::audio::convert::RATE;
use crate::error::Error;
use crate::ffmpeg;

impl Upstreams {
    /// Whether files of any codec can be converted.
    pub(super) fn decodes_all(&self) -> bool {
        ffmpeg::find(&self.inner.config.get().gateway.ffmpeg).is_some()
    }

    /// Converts a complete file, whose codec is named in a refusal. The work ends with the future.
    pub(super) async fn convert_foreign(&self, file: &Upload, codec: &str) -> Result<Replay, Error> {
        let undecodable = |reason: &str| {
            let message = format!("the audio codec {codec} is not supported: {reason}");
            Error::Undecodable { message }
        };
        let Some(program) = ffmpeg::find(&self.inner.config.get().gateway.ffmpeg) else {
            return Err(undecodable("this gateway has no ffmpeg to decode it"));
        };
        let bytes = file.bytes.reader().into_data_stream().filter_map(|bytes| ready(bytes.ok()));
        let samples = ffmpeg::decode(&program, bytes.boxed(), RATE, MAX_SECONDS).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, program = %program.display(), "no decoder");
            undecodable("ffmpeg does not start on this gateway")
        })?;
        let nothing = undecodable("ffmpeg finds no audio in it");
        let failed = move |error: ffmpeg::Error| {
            tracing::info!(error = &error as &dyn std::error::Error, "ffmpeg decoded nothing");
            nothing.clone()
        };
        let samples = samples.map(move |read| read.map_err(&failed)).boxed();
        let converted = Replay::new(samples, None, self.budget());
        converted.fill().await;
        converted.failure().map_or(Ok(()), Err)?;
        match converted.len() {
            Some(0) => Err(undecodable("ffmpeg finds no audio in it")),
            _ if converted.is_replayable() => Ok(converted),
            _ => Err(Error::NoRoom { retry_after: self.retry_after_busy() }),
        }
    }
}
