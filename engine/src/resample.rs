//! Band-limited conversion of the sample rate, a piece at a time.

use audioadapter_buffers::direct::InterleavedSlice;
use rubato::{
    Async, FixedAsync, Indexing, Resampler as _, SincInterpolationParameters, SincInterpolationType,
    WindowFunction,
};

/// Frames that one step takes in: 16 ms at 16 kHz.
const CHUNK_FRAMES: usize = 256;

/// The rates asked for cannot be converted.
#[derive(Debug, thiserror::Error)]
#[error("unable to convert {from_hz} Hz to {to_hz} Hz")]
pub struct Error {
    from_hz: u32,
    to_hz: u32,
}

/// Converts one mono stream. The output starts with the first input sample (no filter delay) and its length is
/// the input's times the ratio, to the sample.
pub struct Resampler {
    /// `None` when both rates are equal.
    filter: Option<Async<f32>>,
    from_hz: u32,
    to_hz: u32,
    pending: Vec<f32>,
    scratch: Vec<f32>,
    /// Output frames still to drop: the filter's delay.
    skip: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// A converter from `from_hz` to `to_hz`.
    ///
    /// # Errors
    /// When a rate is zero or the ratio is beyond what the filter can do.
    pub fn new(from_hz: u32, to_hz: u32) -> Result<Self, Error> {
        let refuse = || Error { from_hz, to_hz };
        if from_hz == 0 || to_hz == 0 {
            return Err(refuse());
        }
        let mut filter = None;
        if from_hz != to_hz {
            let parameters = SincInterpolationParameters {
                sinc_len: 128,
                f_cutoff: None,
                oversampling_factor: 256,
                interpolation: SincInterpolationType::Linear,
                window: WindowFunction::BlackmanHarris2,
            };
            let ratio = f64::from(to_hz) / f64::from(from_hz);
            let made = Async::new_sinc(ratio, 1.0, &parameters, CHUNK_FRAMES, 1, FixedAsync::Input);
            filter = Some(made.map_err(|_| refuse())?);
        }
        let skip = filter.as_ref().map_or(0, rubato::Resampler::output_delay);
        let scratch = vec![0.0; filter.as_ref().map_or(0, rubato::Resampler::output_frames_max)];
        Ok(Self { filter, from_hz, to_hz, pending: Vec::new(), scratch, skip, taken: 0, given: 0 })
    }

    /// Takes `input` and appends what is finished to `output`.
    pub fn push(&mut self, input: &[f32], output: &mut Vec<f32>) {
        self.taken += input.len() as u64;
        if self.filter.is_none() {
            output.extend_from_slice(input);
            return;
        }
        self.pending.extend_from_slice(input);
        let mut start = 0;
        while self.pending.len() - start >= CHUNK_FRAMES {
            self.step(start, CHUNK_FRAMES, output);
            start += CHUNK_FRAMES;
        }
        self.pending.drain(..start);
    }

    /// Appends the rest of the stream to `output`.
    pub fn finish(mut self, output: &mut Vec<f32>) {
        if self.filter.is_none() {
            return;
        }
        let rest = self.pending.len();
        self.pending.resize(CHUNK_FRAMES, 0.0);
        self.step(0, rest, output);
        let whole = self.whole_length();
        // Zeros push the tail out of the filter; each step yields frames, so few steps do.
        for _ in 0..64 {
            if self.given >= whole {
                break;
            }
            self.step(0, 0, output);
        }
    }

    /// Output frames that the input taken so far amounts to.
    fn whole_length(&self) -> u64 {
        (self.taken * u64::from(self.to_hz) + u64::from(self.from_hz) / 2) / u64::from(self.from_hz)
    }

    /// Feeds `frames` of `pending` from `start`, the rest of the chunk as silence.
    fn step(&mut self, start: usize, frames: usize, output: &mut Vec<f32>) {
        let Some(filter) = &mut self.filter else { return };
        let capacity = self.scratch.len();
        let (Ok(input), Ok(mut made)) = (
            InterleavedSlice::new(&self.pending[start..], 1, CHUNK_FRAMES),
            InterleavedSlice::new_mut(&mut self.scratch, 1, capacity),
        ) else {
            return;
        };
        let indexing = Indexing::new().partial_len(frames);
        let Ok((_, count)) = filter.process_into_buffer(&input, &mut made, Some(&indexing)) else { return };
        let dropped = self.skip.min(count);
        self.skip -= dropped;
        let room = usize::try_from(self.whole_length() - self.given).unwrap_or(usize::MAX);
        let kept = (count - dropped).min(room);
        output.extend_from_slice(&self.scratch[dropped..dropped + kept]);
        self.given += kept as u64;
    }
}

/// Samples of -1.0 to 1.0.
pub fn to_float(samples: &[i16], floats: &mut Vec<f32>) {
    floats.clear();
    floats.extend(samples.iter().map(|sample| f32::from(*sample) / 32_768.0));
}

/// One sample of -1.0 to 1.0 as 16 bits, clipped.
#[must_use]
#[allow(clippy::cast_possible_truncation)]
pub fn to_pcm(sample: f32) -> i16 {
    (sample * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(frequency: f32, rate_hz: u32, seconds: f32) -> Vec<f32> {
        let count = (rate_hz as f32 * seconds) as usize;
        (0..count)
            .map(|i| (std::f32::consts::TAU * frequency * i as f32 / rate_hz as f32).sin() * 0.5)
            .collect()
    }

    fn convert(input: &[f32], from_hz: u32, to_hz: u32, piece: usize) -> Vec<f32> {
        let mut resampler = Resampler::new(from_hz, to_hz).unwrap();
        let mut output = Vec::new();
        for part in input.chunks(piece) {
            resampler.push(part, &mut output);
        }
        resampler.finish(&mut output);
        output
    }

    fn level(samples: &[f32]) -> f32 {
        (samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32).sqrt()
    }

    #[test]
    fn duration_is_kept_to_the_sample_at_any_rate_and_piece_size() {
        let input = tone(440.0, 16_000, 0.73);
        for to_hz in [8_000, 11_025, 16_000, 22_050, 22_051, 24_000, 44_100, 48_000] {
            for piece in [1, 100, 1040, 1_000_000] {
                let output = convert(&input, 16_000, to_hz, piece);
                let expected = (input.len() as f64 * f64::from(to_hz) / 16_000.0).round() as usize;
                assert_eq!(output.len(), expected, "{to_hz} Hz in pieces of {piece}");
            }
        }
        assert!(convert(&[], 16_000, 48_000, 1).is_empty());
    }

    #[test]
    fn tone_below_the_new_limit_passes_and_one_above_is_suppressed() {
        let kept = convert(&tone(3_000.0, 48_000, 0.5), 48_000, 16_000, 480);
        assert!((level(&kept[200..7_000]) - 0.5 / 2f32.sqrt()).abs() < 0.005);
        let alias = convert(&tone(11_000.0, 48_000, 0.5), 48_000, 16_000, 480);
        assert!(level(&alias[200..7_000]) < 0.0005, "{}", level(&alias[200..7_000]));
    }

    #[test]
    fn impulse_stays_in_place() {
        for (from_hz, to_hz) in [(48_000, 16_000), (16_000, 44_100)] {
            let mut input = vec![0.0; 6_000];
            input[3_000] = 1.0;
            let output = convert(&input, from_hz, to_hz, 480);
            let peak = (0..output.len()).max_by(|a, b| output[*a].total_cmp(&output[*b])).unwrap();
            let expected = 3_000.0 * f64::from(to_hz) / f64::from(from_hz);
            assert!((peak as f64 - expected).abs() <= 2.0, "{from_hz} to {to_hz}: {peak}, not {expected}");
        }
    }

    #[test]
    fn zero_rate_is_refused() {
        assert!(Resampler::new(0, 16_000).is_err());
        assert!(Resampler::new(16_000, 0).is_err());
    }
}
