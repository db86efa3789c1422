//! The clock of a session: audio of any rate becomes 16 kHz mono, and every sample has a position that never drifts.

use crate::audio::Sample;
use crate::audio::resample::{Error, Resampler};

/// Samples per second of all audio behind the clock.
pub const RATE: u32 = 16_000;
/// Longest sample, bytes.
const MAX_SAMPLE_BYTES: usize = 8;

/// Audio as a client sends it, one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// How a sample is stored.
    pub sample: Sample,
    /// Samples per second.
    pub rate: u32,
}

/// Samples of a time.
pub const fn samples(milliseconds: u64) -> u64 {
    milliseconds * RATE as u64 / 1000
}

/// Whole milliseconds of a position or a length.
pub const fn millis(samples: u64) -> u64 {
    samples * 1000 / RATE as u64
}

/// Seconds of a position or a length.
pub fn seconds(samples: u64) -> f64 {
    samples as f64 / f64::from(RATE)
}

/// Turns bytes into samples. Positions count 16 kHz samples from the first one of the session.
pub struct Clock {
    format: Format,
    resampler: Resampler,
    /// Bytes of a sample that is not whole yet.
    part: [u8; MAX_SAMPLE_BYTES],
    part_len: usize,
    /// Position at which the present format began.
    base: u64,
    /// Samples taken in the present format.
    taken: u64,
    /// Position behind the last sample given.
    given: u64,
    floats: Vec<f32>,
}

impl Clock {
    /// A clock at 0.
    ///
    /// # Errors
    /// A rate that audio does not have.
    pub fn new(format: Format) -> Result<Self, Error> {
        Ok(Self {
            format,
            resampler: Resampler::new(format.rate, RATE)?,
            part: [0; MAX_SAMPLE_BYTES],
            part_len: 0,
            base: 0,
            taken: 0,
            given: 0,
            floats: Vec::new(),
        })
    }

    /// Position behind the last sample given.
    pub fn position(&self) -> u64 {
        self.given
    }

    /// Bytes that make so many seconds of input.
    pub fn bytes_per_second(&self) -> usize {
        self.format.rate as usize * self.format.sample.bytes()
    }

    /// Takes bytes, which may end within a sample, and appends the samples that are finished.
    ///
    /// # Errors
    /// As [`Resampler::push`].
    pub fn push(&mut self, bytes: &[u8], output: &mut Vec<i16>) -> Result<(), Error> {
        self.floats.clear();
        let (size, mut bytes) = (self.format.sample.bytes(), bytes);
        if self.part_len > 0 {
            let missing = (size - self.part_len).min(bytes.len());
            let (first, rest) = bytes.split_at(missing);
            self.part[self.part_len..self.part_len + missing].copy_from_slice(first);
            self.part_len += missing;
            bytes = rest;
            if self.part_len < size {
                return Ok(());
            }
            self.format.sample.read(&self.part[..size], &mut self.floats);
            self.part_len = 0;
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % size);
        self.format.sample.read(whole, &mut self.floats);
        self.part[..rest.len()].copy_from_slice(rest);
        self.part_len = rest.len();
        self.taken += self.floats.len() as u64;
        for sample in &mut self.floats {
            // One sample that is no number would spoil all that the filter gives from then on.
            *sample = if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 };
        }
        let mut made = Vec::with_capacity(self.floats.len());
        self.resampler.push(&self.floats, &mut made)?;
        self.give(&made, output);
        Ok(())
    }

    /// Appends what the filter still holds, so that the position is that of all input. A part of a sample is dropped.
    ///
    /// # Errors
    /// As [`Resampler::finish`].
    pub fn flush(&mut self, output: &mut Vec<i16>) -> Result<(), Error> {
        self.part_len = 0;
        let fresh = Resampler::new(self.format.rate, RATE)?;
        let mut made = Vec::new();
        std::mem::replace(&mut self.resampler, fresh).finish(&mut made)?;
        // Each flush rounds on its own. The clock is right, the filter is corrected by at most a sample.
        let wanted = usize::try_from(self.received().saturating_sub(self.given)).unwrap_or(usize::MAX);
        let last = made.last().copied().unwrap_or(0.0);
        if wanted <= made.len() + 1 {
            made.resize(wanted, last);
        }
        self.give(&made, output);
        Ok(())
    }

    /// As [`Clock::flush`]; what comes next has another format.
    ///
    /// # Errors
    /// A rate that audio does not have: then nothing has changed.
    pub fn change(&mut self, format: Format, output: &mut Vec<i16>) -> Result<(), Error> {
        if format == self.format {
            return Ok(());
        }
        let resampler = Resampler::new(format.rate, RATE)?;
        self.flush(output)?;
        (self.format, self.resampler) = (format, resampler);
        (self.base, self.taken) = (self.given, 0);
        Ok(())
    }

    /// Position of all input that was taken.
    fn received(&self) -> u64 {
        let rate = u64::from(self.format.rate);
        self.base + (self.taken * u64::from(RATE) + rate / 2) / rate
    }

    fn give(&mut self, made: &[f32], output: &mut Vec<i16>) {
        self.given += made.len() as u64;
        output.extend(made.iter().map(|sample| (sample * 32_768.0).round() as i16));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(format: Format, bytes: &[u8], cuts: &[usize], flush_at: Option<usize>) -> (Vec<i16>, u64) {
        let mut clock = Clock::new(format).unwrap();
        let (mut output, mut at) = (Vec::new(), 0);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend(flush_at);
        cuts.push(bytes.len());
        cuts.sort_unstable();
        for cut in cuts {
            clock.push(&bytes[at..cut], &mut output).unwrap();
            if Some(cut) == flush_at && at < cut {
                clock.flush(&mut output).unwrap();
            }
            at = cut;
        }
        clock.flush(&mut output).unwrap();
        (output, clock.position())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_chunking_gives_the_same_samples(
            bytes in prop::collection::vec(any::<u8>(), 0..6000),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
            rate in prop::sample::select(vec![8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000]),
            sample in prop::sample::select(vec![Sample::S16, Sample::F32, Sample::MuLaw]),
        ) {
            let format = Format { sample, rate };
            prop_assert_eq!(run(format, &bytes, &cuts, None), run(format, &bytes, &[], None));
        }
    }

    #[test]
    fn odd_pieces_and_flushes_end_at_the_exact_sample() {
        for (rate, seconds) in [(8_000, 400), (11_025, 200), (24_000, 100)] {
            let mut clock = Clock::new(Format { sample: Sample::MuLaw, rate }).unwrap();
            let (mut left, mut pieces, mut output) = (rate as usize * seconds, 0_u32, Vec::new());
            while left > 0 {
                let piece = left.min(rate as usize / 2 + 13);
                clock.push(&vec![0xFF; piece], &mut output).unwrap();
                pieces += 1;
                if pieces.is_multiple_of(5) {
                    clock.flush(&mut output).unwrap();
                }
                left -= piece;
                output.clear();
            }
            clock.flush(&mut output).unwrap();
            assert_eq!(clock.position(), seconds as u64 * 16_000, "{rate} Hz");
        }
    }

    #[test]
    fn a_part_of_a_sample_waits_for_its_rest() {
        let mut clock = Clock::new(Format { sample: Sample::F32, rate: 16_000 }).unwrap();
        let mut output = Vec::new();
        for byte in 0.5_f32.to_le_bytes() {
            clock.push(&[byte], &mut output).unwrap();
        }
        assert_eq!(output, [16_384]);
        clock.push(&[1, 2, 3], &mut output).unwrap();
        clock.flush(&mut output).unwrap();
        assert_eq!(output.len(), 1, "a part of a sample is not audio");
    }

    #[test]
    fn what_is_no_number_is_silence() {
        let mut clock = Clock::new(Format { sample: Sample::F32, rate: 16_000 }).unwrap();
        let mut output = Vec::new();
        for value in [f32::NAN, f32::INFINITY, 7.0, -7.0] {
            clock.push(&value.to_le_bytes(), &mut output).unwrap();
        }
        assert_eq!(output, [0, 0, 32_767, -32_768]);
    }

    #[test]
    fn a_change_of_format_keeps_the_time() {
        let mut clock = Clock::new(Format { sample: Sample::S16, rate: 24_000 }).unwrap();
        let mut output = Vec::new();
        clock.push(&vec![0; 48_000], &mut output).unwrap();
        clock.change(Format { sample: Sample::MuLaw, rate: 8_000 }, &mut output).unwrap();
        assert_eq!(clock.position(), 16_000);
        clock.push(&vec![0xFF; 8_000], &mut output).unwrap();
        clock.flush(&mut output).unwrap();
        assert_eq!((clock.position(), output.len()), (32_000, 32_000));
        assert!(clock.change(Format { sample: Sample::S16, rate: 1 }, &mut output).is_err());
        assert_eq!(clock.bytes_per_second(), 8_000, "nothing has changed");
    }
}
