//! Decodes Opus in WebM and Ogg while the file is still being recorded: bytes in pieces of any size in, 16 kHz samples out.
//!
//! Browsers record these two. What is in no other way than as a whole file to be decoded is not for this module.

mod ogg;
mod webm;

use super::decode::{Block, opus};

/// Samples per second of what comes out, one channel.
pub const RATE: u32 = opus::RATE;
/// First bytes that tell what a recording is.
const MAGIC_BYTES: usize = 4;

/// Why a recording cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not what its first bytes say.
    #[error("the recording is damaged: {reason}")]
    Damaged {
        /// What is wrong.
        reason: &'static str,
    },
    /// The audio is not Opus.
    #[error("the recording holds {codec}; record Opus, or send the file as a whole")]
    Codec {
        /// As the container names it.
        codec: String,
    },
}

/// What a demuxer found.
enum Found<'a> {
    /// The header of the codec, and the channels that the container names.
    Head(&'a [u8], u16),
    /// A packet of the codec.
    Packet(&'a [u8]),
}

enum Demuxer {
    WebM(webm::Demuxer),
    Ogg(ogg::Demuxer),
}

/// A recording that goes on.
pub struct Recording {
    demuxer: Demuxer,
    decoding: Decoding,
}

/// The codec of a recording, once it is known.
#[derive(Default)]
struct Decoding {
    decoder: Option<opus::Decoder>,
    /// Frames to drop at the start.
    skip: usize,
    block: Block,
    failure: Option<Error>,
}

impl Recording {
    /// The recording that begins with these bytes; `None` when it is of no kind that is decoded here.
    pub fn of(first: &[u8]) -> Option<Self> {
        let demuxer = match first.get(..MAGIC_BYTES)? {
            webm::MAGIC => Demuxer::WebM(webm::Demuxer::default()),
            ogg::MAGIC => Demuxer::Ogg(ogg::Demuxer::default()),
            _ => return None,
        };
        Some(Self { demuxer, decoding: Decoding::default() })
    }

    /// Takes the next bytes and adds the samples in them to `samples`; full scale is -1.0 to 1.0.
    ///
    /// # Errors
    /// Nothing more can be decoded.
    pub fn push(&mut self, bytes: &[u8], samples: &mut Vec<f32>) -> Result<(), Error> {
        let decoding = &mut self.decoding;
        let mut found = |found: Found<'_>| decoding.take(found, samples);
        match &mut self.demuxer {
            Demuxer::WebM(demuxer) => demuxer.push(bytes, &mut found)?,
            Demuxer::Ogg(demuxer) => demuxer.push(bytes, &mut found)?,
        }
        decoding.failure.take().map_or(Ok(()), Err)
    }
}

impl Decoding {
    fn take(&mut self, found: Found<'_>, samples: &mut Vec<f32>) {
        match found {
            Found::Head(head, channels) => match opus::Decoder::new(head, channels) {
                Ok(decoder) => {
                    self.skip = usize::try_from(decoder.pre_skip).unwrap_or(0);
                    self.decoder = Some(decoder);
                }
                Err(_) => self.failure = Some(Error::Damaged { reason: "its Opus header is not valid" }),
            },
            // A packet that is not valid is lost, as on a bad line.
            Found::Packet(packet) => {
                if let Some(decoder) = &mut self.decoder
                    && decoder.decode(packet, 0, &mut self.block)
                {
                    self.mix(samples);
                }
            }
        }
    }

    fn mix(&mut self, samples: &mut Vec<f32>) {
        let channels = usize::from(self.block.interleaved.max(1));
        let frames = self.block.samples.len() / channels;
        let skipped = self.skip.min(frames);
        self.skip -= skipped;
        let frames = self.block.samples.chunks_exact(channels).skip(skipped);
        samples.extend(frames.map(|frame| frame.iter().sum::<f32>() / channels as f32));
    }
}

#[cfg(test)]
mod tests;
