//! Band-limited conversion of the sample rate of one stream, a piece at a time.

use audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler as _};

/// Rates that audio has. Those outside are errors in a file's header, and would need filters of any size.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=768_000;
/// Length of the filter, about: the transition band is some 150 Hz wide.
const FILTER_SECONDS: f64 = 0.04;

/// The rates asked for cannot be converted.
#[derive(Debug, thiserror::Error)]
#[error("unable to convert {from} Hz to {to} Hz")]
pub struct Error {
    from: u32,
    to: u32,
}

/// Converts mono samples from one rate to another. The output begins with the first input sample, without the filter's delay,
/// and is as long as the input to the sample.
pub struct Resampler {
    /// `None` when both rates are equal.
    filter: Option<Fft<f32>>,
    from: u32,
    to: u32,
    pending: Vec<f32>,
    scratch: Vec<f32>,
    /// Output samples still to drop: the filter's delay.
    skip: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// A converter from `from` Hz to `to` Hz, both 4 to 768 kHz.
    ///
    /// # Errors
    /// A rate beyond those.
    pub fn new(from: u32, to: u32) -> Result<Self, Error> {
        let refused = || Error { from, to };
        if !RATES.contains(&from) || !RATES.contains(&to) {
            return Err(refused());
        }
        let mut filter = None;
        if from != to {
            let chunk = (f64::from(from) * FILTER_SECONDS) as usize;
            let made = Fft::new_custom(
                from as usize,
                to as usize,
                chunk,
                1,
                1,
                rubato::WindowFunction::BlackmanHarris2,
                FixedSync::Both,
            );
            filter = Some(made.map_err(|_| refused())?);
        }
        let skip = filter.as_ref().map_or(0, rubato::Resampler::output_delay);
        let scratch = vec![0.0; filter.as_ref().map_or(0, rubato::Resampler::output_frames_max)];
        Ok(Self { filter, from, to, pending: Vec::new(), scratch, skip, taken: 0, given: 0 })
    }

    /// Takes `input` and appends what is finished to `output`.
    ///
    /// # Errors
    /// The filter refuses its buffers; the converter must not be used any more.
    pub fn push(&mut self, input: &[f32], output: &mut Vec<f32>) -> Result<(), Error> {
        self.taken += input.len() as u64;
        let Some(filter) = &self.filter else {
            output.extend_from_slice(input);
            return Ok(());
        };
        let chunk = filter.input_frames_next();
        self.pending.extend_from_slice(input);
        let mut start = 0;
        while self.pending.len() - start >= chunk {
            self.step(start, chunk, output)?;
            start += chunk;
        }
        self.pending.drain(..start);
        Ok(())
    }

    /// Appends the rest of the stream to `output`.
    ///
    /// # Errors
    /// As [`Resampler::push`].
    pub fn finish(mut self, output: &mut Vec<f32>) -> Result<(), Error> {
        let Some(filter) = &self.filter else { return Ok(()) };
        let (chunk, mut rest) = (filter.input_frames_next(), self.pending.len());
        self.pending.resize(chunk, 0.0);
        // Each step gives a chunk: the second is all that the delay can need.
        while self.given < self.whole_len() {
            self.step(0, rest, output)?;
            self.pending.fill(0.0);
            rest = 0;
        }
        Ok(())
    }

    /// Output samples that the input so far amounts to.
    fn whole_len(&self) -> u64 {
        (self.taken * u64::from(self.to) + u64::from(self.from) / 2) / u64::from(self.from)
    }

    /// Feeds `frames` of `pending` from `start`, the rest of the chunk as silence.
    fn step(&mut self, start: usize, frames: usize, output: &mut Vec<f32>) -> Result<(), Error> {
        let whole = self.whole_len();
        let refused = Error { from: self.from, to: self.to };
        let Some(filter) = &mut self.filter else { return Ok(()) };
        let (chunk, capacity) = (filter.input_frames_next(), self.scratch.len());
        let (Ok(input), Ok(mut made)) = (
            InterleavedSlice::new(&self.pending[start..], 1, chunk),
            InterleavedSlice::new_mut(&mut self.scratch, 1, capacity),
        ) else {
            return Err(refused);
        };
        let indexing = Indexing::new().partial_len(frames);
        let Ok((_, count)) = filter.process_into_buffer(&input, &mut made, Some(&indexing)) else {
            return Err(refused);
        };
        let dropped = self.skip.min(count);
        self.skip -= dropped;
        let room = usize::try_from(whole - self.given).unwrap_or(usize::MAX);
        let kept = (count - dropped).min(room);
        output.extend_from_slice(&self.scratch[dropped..dropped + kept]);
        self.given += kept as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(frequency: f32, rate: u32, seconds: f32) -> Vec<f32> {
        let count = (rate as f32 * seconds) as usize;
        (0..count)
            .map(|at| (std::f32::consts::TAU * frequency * at as f32 / rate as f32).sin() * 0.5)
            .collect()
    }

    fn convert(input: &[f32], from: u32, to: u32, piece: usize) -> Vec<f32> {
        let mut resampler = Resampler::new(from, to).unwrap();
        let mut output = Vec::new();
        for part in input.chunks(piece) {
            resampler.push(part, &mut output).unwrap();
        }
        resampler.finish(&mut output).unwrap();
        output
    }

    fn level_db(samples: &[f32]) -> f32 {
        10.0 * (samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32).log10()
    }

    #[test]
    fn length_is_kept_to_the_sample_at_any_rate_and_piece_size() {
        for from in [8_000, 11_025, 16_000, 22_050, 22_051, 24_000, 32_000, 44_100, 47_999, 48_000, 96_000] {
            for len in [0, 1, 100, from as usize / 3] {
                let input = vec![0.1; len];
                for piece in [97, 1_000_000] {
                    let output = convert(&input, from, 16_000, piece);
                    let expected = (len as f64 * 16_000.0 / f64::from(from)).round() as usize;
                    assert_eq!(output.len(), expected, "{len} samples of {from} Hz in pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn tones_pass_up_to_7_khz_and_do_not_alias_above_8_5_khz() {
        for from in [22_050, 24_000, 32_000, 44_100, 48_000, 96_000] {
            let full = level_db(&tone(1000.0, 16_000, 0.5));
            for frequency in [100.0, 1000.0, 4000.0, 7000.0] {
                let kept = convert(&tone(frequency, from, 0.5), from, 16_000, 480);
                assert!((level_db(&kept[800..7200]) - full).abs() < 0.1, "{frequency} Hz of {from} Hz");
            }
            for frequency in [8_500.0, 9_000.0, 10_500.0] {
                let alias = convert(&tone(frequency, from, 0.5), from, 16_000, 480);
                let level = level_db(&alias[800..7200]) - full;
                assert!(level < -60.0, "{frequency} Hz of {from} Hz: {level} dB");
            }
        }
    }

    #[test]
    fn impulse_stays_in_place() {
        for (from, to) in [(48_000, 16_000), (8_000, 16_000), (16_000, 44_100)] {
            let mut input = vec![0.0; 6_000];
            input[3_000] = 1.0;
            let output = convert(&input, from, to, 480);
            let peak = (0..output.len()).max_by(|a, b| output[*a].total_cmp(&output[*b])).unwrap();
            let expected = 3_000.0 * f64::from(to) / f64::from(from);
            assert!((peak as f64 - expected).abs() <= 2.0, "{from} to {to}: {peak}, not {expected}");
        }
    }

    #[test]
    fn rates_that_audio_does_not_have_are_refused() {
        for rate in [0, 1, 3_999, 768_001, u32::MAX] {
            assert!(Resampler::new(rate, 16_000).is_err(), "{rate}");
        }
    }
}
