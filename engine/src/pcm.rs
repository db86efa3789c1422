//! Samples without a container: linear, mu-law and A-law to 16 kHz.

use crate::decode::{Error, RATE_HZ};
use crate::resample::{Resampler, to_float, to_pcm};

/// How samples without a container are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raw {
    /// 16 bit signed little-endian.
    Linear,
    /// G.711 mu-law.
    MuLaw,
    /// G.711 A-law.
    ALaw,
}

impl Raw {
    /// Bytes of one sample.
    #[must_use]
    pub fn sample_bytes(self) -> usize {
        match self {
            Self::Linear => 2,
            Self::MuLaw | Self::ALaw => 1,
        }
    }

    /// Samples as 16 bits; an incomplete one at the end is dropped.
    #[must_use]
    pub fn expand(self, bytes: &[u8]) -> Vec<i16> {
        match self {
            Self::Linear => {
                bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
            }
            Self::MuLaw => bytes.iter().map(|byte| mu_law(*byte)).collect(),
            Self::ALaw => bytes.iter().map(|byte| a_law(*byte)).collect(),
        }
    }

    /// All samples of a recording of `rate_hz`, at 16 kHz.
    ///
    /// # Errors
    /// When there is not one sample, or the rate cannot be converted.
    pub fn decode(self, bytes: &[u8], rate_hz: u32) -> Result<Vec<i16>, Error> {
        let mut stream = Stream::new(self, rate_hz)?;
        let mut samples = Vec::new();
        stream.push(bytes, &mut samples);
        stream.finish(&mut samples);
        if samples.is_empty() { Err(Error::NoAudio) } else { Ok(samples) }
    }
}

/// Converts one stream of raw samples to 16 kHz as it arrives.
pub struct Stream {
    coding: Raw,
    resampler: Resampler,
    /// The first byte of a sample whose second has not arrived.
    half: Option<u8>,
    floats: Vec<f32>,
    converted: Vec<f32>,
}

impl Stream {
    /// A stream of samples at `rate_hz`.
    ///
    /// # Errors
    /// When the rate cannot be converted.
    pub fn new(coding: Raw, rate_hz: u32) -> Result<Self, Error> {
        let resampler = Resampler::new(rate_hz, RATE_HZ).map_err(Error::Rate)?;
        Ok(Self { coding, resampler, half: None, floats: Vec::new(), converted: Vec::new() })
    }

    /// Takes `bytes`, cut anywhere, and appends what is finished to `samples`.
    pub fn push(&mut self, bytes: &[u8], samples: &mut Vec<i16>) {
        let mut bytes = bytes.to_vec();
        if let Some(half) = self.half.take() {
            bytes.insert(0, half);
        }
        if !bytes.len().is_multiple_of(self.coding.sample_bytes()) {
            self.half = bytes.pop();
        }
        to_float(&self.coding.expand(&bytes), &mut self.floats);
        self.resampler.push(&self.floats, &mut self.converted);
        samples.extend(self.converted.drain(..).map(to_pcm));
    }

    /// Appends the rest to `samples`.
    pub fn finish(mut self, samples: &mut Vec<i16>) {
        self.resampler.finish(&mut self.converted);
        samples.extend(self.converted.drain(..).map(to_pcm));
    }
}

fn mu_law(byte: u8) -> i16 {
    const BIAS: i16 = 0x84;
    let byte = !byte;
    let magnitude = ((i16::from(byte & 0x0f) << 3) + BIAS) << ((byte >> 4) & 7);
    if byte & 0x80 == 0 { magnitude - BIAS } else { BIAS - magnitude }
}

fn a_law(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (exponent, mantissa) = ((byte >> 4) & 7, i16::from(byte & 0x0f) << 4);
    let magnitude = if exponent == 0 { mantissa + 8 } else { (mantissa + 0x108) << (exponent - 1) };
    if byte & 0x80 == 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companded_samples_have_the_values_of_the_standard() {
        let known = [(0xff, 0), (0x7f, 0), (0x80, 32_124), (0x00, -32_124), (0xf0, 120), (0xce, 988)];
        assert_eq!(known.map(|(byte, _)| mu_law(byte)), known.map(|(_, sample)| sample));
        let known = [(0xd5, 8), (0x55, -8), (0xaa, 32_256), (0x2a, -32_256), (0xc5, 264), (0xf5, 528)];
        assert_eq!(known.map(|(byte, _)| a_law(byte)), known.map(|(_, sample)| sample));
    }

    #[test]
    fn stream_cut_anywhere_gives_the_samples_of_the_whole() {
        let tone: Vec<u8> = (0..8_000_i16).flat_map(|i| ((i % 80 - 40) * 200).to_le_bytes()).collect();
        for rate_hz in [8_000, 16_000, 44_100] {
            let whole = Raw::Linear.decode(&tone, rate_hz).unwrap();
            let mut stream = Stream::new(Raw::Linear, rate_hz).unwrap();
            let mut samples = Vec::new();
            for piece in tone.chunks(333) {
                stream.push(piece, &mut samples);
            }
            stream.finish(&mut samples);
            assert_eq!(samples, whole, "{rate_hz} Hz");
            assert_eq!(whole.len(), (8_000.0 * 16_000.0 / f64::from(rate_hz)).round() as usize);
        }
        assert!(matches!(Raw::MuLaw.decode(&[], 8_000), Err(Error::NoAudio)));
        assert!(matches!(Raw::Linear.decode(&[1], 8_000), Err(Error::NoAudio)));
    }
}
