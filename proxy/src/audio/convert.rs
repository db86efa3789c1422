//! Converts files of any common container and codec to what engines take: 16 kHz, mono, signed 16-bit little-endian.

#[cfg(test)]
mod tests;

use std::io::{Read, Seek, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::decode::{Block, Decoder};
use super::format::Container;
use super::resample::Resampler;

/// The sample rate of converted audio, in Hz.
pub const RATE: u32 = 16_000;

/// Where a conversion ends early.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longer audio is refused: a small file can hold days of silence.
    pub max_seconds: f64,
    /// Samples per second of what is written, [`RATE`] for engines.
    pub rate: u32,
    /// Once set, the conversion ends within a packet or a read of the source.
    pub stop: Arc<AtomicBool>,
}

/// What was converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Samples written, at least one.
    pub samples: u64,
    /// Sample rate of the source in Hz: that of the decoder, which is 16,000 for Opus.
    pub source_rate: u32,
    /// Channels of the source.
    pub source_channels: u16,
}

/// Why a file was not converted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No audio track, or one without audio.
    #[error("the file holds no decodable audio")]
    NoAudio,
    /// A container or codec without a decoder here.
    #[error("the audio codec {codec} is not supported")]
    UnsupportedCodec {
        /// Its name, or that of the container, or its four-character code.
        codec: String,
    },
    /// The file breaks the rules of its container, or all of its packets those of their codec.
    #[error("the audio file is corrupted: {reason}")]
    Corrupted {
        /// What the demuxer or decoder says, without content of the file.
        reason: &'static str,
    },
    /// It is longer than [`Limits::max_seconds`]; what was converted until then is written.
    #[error("the audio is longer than {max_seconds} seconds")]
    TooLong {
        /// The limit.
        max_seconds: f64,
    },
    /// The source could not be read.
    #[error("unable to read the audio")]
    Read(#[source] std::io::Error),
    /// The output could not be written.
    #[error("unable to write the converted audio")]
    Write(#[source] std::io::Error),
    /// [`Limits::stop`] was set.
    #[error("the conversion was cancelled")]
    Cancelled,
}

/// Decodes a file, averages its channels, resamples it and writes the samples to `out` as they come.
///
/// The first audio track that can be decoded is taken. The encoder's priming is cut off where the file states it (Ogg, MP4
/// edit lists, LAME headers). A file that breaks off gives what it has; a packet that cannot be decoded gives silence. Memory
/// is bounded by the container's index, which for MP4 is a few bytes for each packet. It blocks on `source` and `out`.
///
/// # Errors
/// [`Error`]; a file without audio is one.
pub fn to_pcm(
    source: impl Read + Seek + Send + Sync + 'static,
    container: Container,
    limits: &Limits,
    out: &mut impl Write,
) -> Result<Converted, Error> {
    let mut conversion = Conversion::open(source, container, limits)?;
    while conversion.step(out)? {}
    match conversion.source {
        Some((source_rate, source_channels)) => {
            Ok(Converted { samples: conversion.samples(), source_rate, source_channels })
        }
        None => Err(Error::NoAudio),
    }
}

/// A file that is converted a packet at a time, as [`to_pcm`] does as a whole.
pub struct Conversion<R> {
    decoder: Decoder<R>,
    sink: Sink,
    block: Block,
    /// Sample rate and channels of the first packet.
    source: Option<(u32, u16)>,
}

impl<R: Read + Seek + Send + Sync + 'static> Conversion<R> {
    /// Reads the head of the file.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(source: R, container: Container, limits: &Limits) -> Result<Self, Error> {
        let decoder = Decoder::open(source, container, Arc::clone(&limits.stop))?;
        Ok(Self { decoder, sink: Sink::new(limits), block: Block::default(), source: None })
    }

    /// Samples as this conversion writes them.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn of_samples(source: R, limits: &Limits) -> Result<Self, Error> {
        let decoder = Decoder::of_samples(source, limits.rate, Arc::clone(&limits.stop))?;
        Ok(Self { decoder, sink: Sink::new(limits), block: Block::default(), source: None })
    }

    /// Writes the samples of the next packet to `out`; `false` once those of the last one are written.
    ///
    /// # Errors
    /// [`Error`]; a file that ends without audio is one.
    pub fn step(&mut self, out: &mut impl Write) -> Result<bool, Error> {
        if self.decoder.next(&mut self.block)? {
            self.source.get_or_insert((self.block.rate, self.block.channels));
            self.sink.push(&self.block, out)?;
            return Ok(true);
        }
        self.sink.close(out)?;
        if self.sink.samples == 0 { Err(Error::NoAudio) } else { Ok(false) }
    }

    /// Samples written so far.
    pub fn samples(&self) -> u64 {
        self.sink.samples
    }
}

/// Mixes, resamples, rounds and writes.
struct Sink {
    max_seconds: f64,
    rate: u32,
    resampler: Option<(u32, Resampler)>,
    mono: Vec<f32>,
    resampled: Vec<f32>,
    bytes: Vec<u8>,
    samples: u64,
}

impl Sink {
    fn new(limits: &Limits) -> Self {
        let (mono, resampled, bytes) = (Vec::new(), Vec::new(), Vec::new());
        let Limits { max_seconds, rate, .. } = *limits;
        Self { max_seconds, rate, resampler: None, mono, resampled, bytes, samples: 0 }
    }

    fn push(&mut self, block: &Block, out: &mut impl Write) -> Result<(), Error> {
        // A filter would spread what is not a number, or far beyond full scale, over all that is near.
        const MAX_LEVEL: f32 = 4.0;
        let channels = usize::from(block.interleaved.max(1));
        let share = 1.0 / channels as f32;
        self.mono.clear();
        self.mono.extend(block.samples.chunks_exact(channels).map(|frame| {
            let mean = frame.iter().sum::<f32>() * share;
            if mean.is_nan() { 0.0 } else { mean.clamp(-MAX_LEVEL, MAX_LEVEL) }
        }));
        // A chained stream may change its rate: what was before is closed first.
        if self.resampler.as_ref().is_none_or(|(rate, _)| *rate != block.rate) {
            self.close(out)?;
            self.resampler =
                Some((block.rate, Resampler::new(block.rate, self.rate).map_err(not_resampled)?));
        }
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.push(&self.mono, &mut self.resampled).map_err(not_resampled)?;
        }
        self.write(out)
    }

    fn close(&mut self, out: &mut impl Write) -> Result<(), Error> {
        if let Some((_, resampler)) = self.resampler.take() {
            resampler.finish(&mut self.resampled).map_err(not_resampled)?;
        }
        self.write(out)
    }

    fn write(&mut self, out: &mut impl Write) -> Result<(), Error> {
        self.bytes.clear();
        // The cast saturates.
        let rounded = self.resampled.drain(..).map(|sample| (sample * 32_768.0).round() as i16);
        self.bytes.extend(rounded.flat_map(i16::to_le_bytes));
        out.write_all(&self.bytes).map_err(Error::Write)?;
        self.samples += self.bytes.len() as u64 / 2;
        if self.samples as f64 > self.max_seconds * f64::from(self.rate) {
            return Err(Error::TooLong { max_seconds: self.max_seconds });
        }
        Ok(())
    }
}

fn not_resampled(_: super::resample::Error) -> Error {
    Error::Corrupted { reason: "no audio has such a sample rate" }
}
