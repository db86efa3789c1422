//! Decodes Opus packets straight to 16 kHz: no resampler is needed, and the decoder works on a third of the samples.

use ::opus::{Channels, MSDecoder};

use super::Block;
use crate::audio::convert::Error;

/// The rate of decoded samples.
pub(in crate::audio) const RATE: u32 = 16_000;
/// Time stamps and skips count at this rate.
const CLOCK: u32 = 48_000;
/// The longest packet: 120 ms.
const MAX_FRAMES: usize = RATE as usize * 120 / 1000;

pub(in crate::audio) struct Decoder {
    stream: Stream,
    channels: u16,
    /// Frames to drop at the start.
    pub(in crate::audio) pre_skip: u64,
    output: Vec<f32>,
}

enum Stream {
    /// Mono or stereo, which libopus mixes.
    Mono(::opus::Decoder),
    Surround(MSDecoder),
}

impl Decoder {
    /// A decoder after an identification header (RFC 7845, section 5.1), or the same of MP4, whose numbers are big-endian.
    /// Without a header, which WebM need not have, it is for `channels`.
    pub(in crate::audio) fn new(head: &[u8], channels: u16) -> Result<Self, Error> {
        let failed = |_| Error::Corrupted { reason: "the Opus header is not valid" };
        let number = |at: usize| {
            let bytes = *head.get(at..)?.first_chunk()?;
            Some(if head.get(8) == Some(&0) { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
        };
        let has_header = head.starts_with(b"OpusHead");
        let channels = head.get(9).filter(|_| has_header).map_or(channels, |channels| u16::from(*channels));
        let pre_skip =
            u64::from(number(10).filter(|_| has_header).unwrap_or(0)) * u64::from(RATE) / u64::from(CLOCK);
        let family = head.get(18).filter(|_| has_header).copied().unwrap_or(0);
        let stream = match family {
            0 if channels <= 2 => {
                let mut decoder = ::opus::Decoder::new(RATE, Channels::Mono).map_err(failed)?;
                let gain = number(16).filter(|_| has_header).unwrap_or(0).cast_signed();
                decoder.set_gain(i32::from(gain)).map_err(failed)?;
                Stream::Mono(decoder)
            }
            _ => {
                let mapping = head.get(21..21 + usize::from(channels)).unwrap_or_default();
                let (Some(streams), Some(coupled), false) = (head.get(19), head.get(20), mapping.is_empty())
                else {
                    return Err(Error::Corrupted { reason: "the Opus header has no channel mapping" });
                };
                Stream::Surround(MSDecoder::new(RATE, *streams, *coupled, mapping).map_err(failed)?)
            }
        };
        Ok(Self { stream, channels, pre_skip, output: Vec::new() })
    }

    /// Decodes a packet, without its last `trim_end` frames at 48 kHz. `false` if it is not valid.
    pub(in crate::audio) fn decode(&mut self, packet: &[u8], trim_end: u64, block: &mut Block) -> bool {
        let interleaved = match self.stream {
            Stream::Mono(_) => 1,
            Stream::Surround(_) => self.channels,
        };
        self.output.resize(MAX_FRAMES * usize::from(interleaved), 0.0);
        let decoded = match &mut self.stream {
            // An empty packet would have the decoder make up as much as there is room for.
            _ if packet.is_empty() => return false,
            Stream::Mono(decoder) => decoder.decode_float(packet, &mut self.output, false),
            Stream::Surround(decoder) => decoder.decode_float(packet, &mut self.output, false),
        };
        let Ok(frames) = decoded else { return false };
        let trimmed = usize::try_from(trim_end * u64::from(RATE) / u64::from(CLOCK)).unwrap_or(usize::MAX);
        let frames = frames.saturating_sub(trimmed);
        (block.rate, block.channels, block.interleaved) = (RATE, self.channels, interleaved);
        block.samples.clear();
        block.samples.extend_from_slice(&self.output[..frames * usize::from(interleaved)]);
        true
    }
}
