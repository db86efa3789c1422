//! Reads the samples of uncompressed WAV files, whatever their header says of its lengths.

use std::io::{Read, Seek};

use super::Block;
use super::source::Source;
use crate::audio::convert::Error;
use crate::audio::sample::Sample;
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

    /// Reads 16-bit mono samples without a header from the source's position on.
    pub(super) fn of_samples(source: Source<R>, rate: u32) -> Self {
        let bytes = vec![0; BLOCK_FRAMES * Sample::S16.bytes()];
        Self { source, sample: Sample::S16, rate, channels: 1, left: u64::MAX, bytes }
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
