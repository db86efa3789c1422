//! Reads the samples of uncompressed WAV files, whatever their header says of its lengths.

use std::io::{Read, Seek};

use super::Block;
use super::source::Source;
use crate::audio::convert::Error;
use crate::audio::wav::{self, Coding, Search, Wav};

/// Frames of one block.
const BLOCK_FRAMES: usize = 4096;
/// Chunks before the samples, a picture among them, are not longer.
const MAX_HEADER_BYTES: usize = 16 << 20;

/// The header of a WAV file, if its samples are uncompressed.
pub(super) fn find<R: Read + Seek>(source: &mut Source<R>) -> Result<Option<Wav>, Error> {
    let mut head = vec![0; 4096];
    let mut filled = 0;
    let wav = loop {
        let count = source.fill(&mut head[filled..])?;
        filled += count;
        match wav::search(&head[..filled]) {
            Search::Found(wav) => break wav,
            Search::Incomplete if count > 0 && filled < MAX_HEADER_BYTES => head.resize(filled * 2, 0),
            Search::Incomplete if filled < MAX_HEADER_BYTES => {
                return Err(Error::Corrupted { reason: "the WAV file ends within its header" });
            }
            Search::Incomplete | Search::NotWav => {
                return Err(Error::Corrupted { reason: "the WAV header has no samples" });
            }
        }
    };
    let plain = !matches!(wav.coding, Coding::Other(_));
    source.go_to(if plain { wav.data_offset as u64 } else { 0 })?;
    Ok(Some(wav).filter(|_| plain))
}

/// How one sample is stored.
#[derive(Clone, Copy)]
enum Sample {
    U8,
    S16,
    S24,
    S32,
    F32,
    F64,
    ALaw,
    MuLaw,
}

/// The samples of a WAV file.
pub(in crate::audio) struct Reader<R> {
    source: Source<R>,
    sample: Sample,
    rate: u32,
    channels: u16,
    /// Bytes of samples that are to come.
    left: u64,
    bytes: Vec<u8>,
}

impl<R: Read + Seek> Reader<R> {
    /// Reads from the source's position on.
    pub(super) fn new(source: Source<R>, wav: Wav) -> Result<Self, Error> {
        let sample = match (wav.coding, wav.bits.div_ceil(8)) {
            (Coding::Pcm, 1) => Sample::U8,
            (Coding::Pcm, 2) => Sample::S16,
            (Coding::Pcm, 3) => Sample::S24,
            (Coding::Pcm, 4) => Sample::S32,
            (Coding::Float, 4) => Sample::F32,
            (Coding::Float, 8) => Sample::F64,
            (Coding::ALaw, 1) => Sample::ALaw,
            (Coding::MuLaw, 1) => Sample::MuLaw,
            (coding, _) => {
                return Err(Error::UnsupportedCodec { codec: format!("{coding:?} of {} bits", wav.bits) });
            }
        };
        if wav.channels == 0 {
            return Err(Error::Corrupted { reason: "the WAV header has no channels" });
        }
        let bytes = vec![0; BLOCK_FRAMES * sample.bytes() * usize::from(wav.channels)];
        let left = wav.data_len.unwrap_or(u64::MAX);
        Ok(Self { source, sample, rate: wav.rate, channels: wav.channels, left, bytes })
    }

    /// Reads the next frames; `false` at the end. A frame that is cut is dropped.
    pub(super) fn next(&mut self, block: &mut Block) -> Result<bool, Error> {
        self.source.watch().check()?;
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.bytes.len());
        let count = self.source.fill(&mut self.bytes[..wanted])?;
        self.left -= count as u64;
        let frame = self.sample.bytes() * usize::from(self.channels);
        let whole = &self.bytes[..count - count % frame];
        (block.rate, block.channels, block.interleaved) = (self.rate, self.channels, self.channels);
        block.samples.clear();
        self.sample.read(whole, &mut block.samples);
        Ok(!whole.is_empty())
    }
}

impl Sample {
    fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::ALaw | Self::MuLaw => 1,
            Self::S16 => 2,
            Self::S24 => 3,
            Self::S32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Appends all samples in `bytes`. Integers of a size between are stored in the upper bits, so they need no more.
    fn read(self, bytes: &[u8], samples: &mut Vec<f32>) {
        const S16: f32 = 32_768.0;
        match self {
            Self::U8 => samples.extend(bytes.iter().map(|byte| (f32::from(*byte) - 128.0) / 128.0)),
            Self::ALaw => samples.extend(bytes.iter().map(|byte| f32::from(a_law(*byte)) / S16)),
            Self::MuLaw => samples.extend(bytes.iter().map(|byte| f32::from(mu_law(*byte)) / S16)),
            Self::S16 => {
                let read = |pair: &[u8; 2]| f32::from(i16::from_le_bytes(*pair)) / S16;
                samples.extend(bytes.as_chunks().0.iter().map(read));
            }
            Self::S24 => {
                let read = |[a, b, c]: &[u8; 3]| i32::from_le_bytes([0, *a, *b, *c]) as f32 / 2_147_483_648.0;
                samples.extend(bytes.as_chunks().0.iter().map(read));
            }
            Self::S32 => {
                let read = |four: &[u8; 4]| i32::from_le_bytes(*four) as f32 / 2_147_483_648.0;
                samples.extend(bytes.as_chunks().0.iter().map(read));
            }
            Self::F32 => samples.extend(bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four))),
            Self::F64 => {
                samples.extend(bytes.as_chunks().0.iter().map(|eight| f64::from_le_bytes(*eight) as f32));
            }
        }
    }
}

/// Expands an A-law byte (ITU-T G.711, table 1a).
fn a_law(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (segment, step) = ((byte >> 4) & 7, i16::from(byte & 0x0F) << 4);
    let level = match segment {
        0 => step + 8,
        segment => (step + 0x108) << (segment - 1),
    };
    if byte & 0x80 == 0 { -level } else { level }
}

/// Expands a µ-law byte (ITU-T G.711, table 2a).
fn mu_law(byte: u8) -> i16 {
    const BIAS: i16 = 0x84;
    let byte = !byte;
    let level = (((i16::from(byte & 0x0F) << 3) + BIAS) << ((byte >> 4) & 7)) - BIAS;
    if byte & 0x80 == 0 { level } else { -level }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g711_follows_the_tables() {
        // The ends and the middle of the tables of ITU-T G.711, scaled to 16 bits.
        assert_eq!([0x00, 0x0F, 0x7F, 0x80, 0xFF].map(mu_law), [-32_124, -16_764, 0, 32_124, 0]);
        assert_eq!([0x2A, 0xAA, 0x55, 0xD5].map(a_law), [-32_256, 32_256, -8, 8]);
        // Each step up in code is a step up in level.
        let levels: Vec<i16> = (0x80..=0xFF).rev().map(mu_law).collect();
        assert!(levels.is_sorted());
        let levels: Vec<i16> = (0..=0x7F).map(|code: u8| a_law((code | 0x80) ^ 0x55)).collect();
        assert!(levels.is_sorted());
    }
}
