//! Decodes files of any common container and codec, a packet at a time.

mod aac;
mod movie;
pub(super) mod opus;
mod pcm;
mod source;
mod tracks;

use std::io::{Read, Seek};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::convert::Error;
use super::format::Container;
use source::Source;

/// Decoded frames of one packet.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Frames per second.
    pub(super) rate: u32,
    /// Channels of the file.
    pub(super) channels: u16,
    /// Channels that are interleaved in `samples`: as many, or one if they were mixed already.
    pub(super) interleaved: u16,
    /// Full scale is -1.0 to 1.0, which may be exceeded; also NaN.
    pub(super) samples: Vec<f32>,
}

/// A file being decoded.
pub(super) enum Decoder<R> {
    Pcm(pcm::Reader<R>),
    Tracks(Box<tracks::Reader>),
}

impl<R: Read + Seek + Send + Sync + 'static> Decoder<R> {
    /// Opens a file. It ends early with [`Error::Cancelled`] once `stop` is set.
    pub(super) fn open(reader: R, container: Container, stop: Arc<AtomicBool>) -> Result<Self, Error> {
        let mut source = Source::new(reader, stop)?;
        if container == Container::Wav
            && let Some(wav) = pcm::find(&mut source)?
        {
            return Ok(Self::Pcm(pcm::Reader::new(source, wav)?));
        }
        caught(|| tracks::Reader::open(source, container)).map(|tracks| Self::Tracks(Box::new(tracks)))
    }

    /// 16-bit mono samples without a header.
    pub(super) fn of_samples(reader: R, rate: u32, stop: Arc<AtomicBool>) -> Result<Self, Error> {
        Ok(Self::Pcm(pcm::Reader::of_samples(Source::new(reader, stop)?, rate)))
    }

    /// Decodes the next packet into `block`; `false` at the end of what can be read.
    pub(super) fn next(&mut self, block: &mut Block) -> Result<bool, Error> {
        match self {
            Self::Pcm(reader) => reader.next(block),
            Self::Tracks(tracks) => caught(|| tracks.next(block)),
        }
    }
}

/// Some malformed files make symphonia panic: arithmetic that overflows, assertions, indices.
fn caught<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    std::panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or(Err(Error::Corrupted { reason: "the decoder gave up" }))
}
