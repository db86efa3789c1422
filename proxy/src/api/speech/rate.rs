//! Samples at the rate that the client gets, whatever rate the engine has.

use crate::audio::resample::{Error, Resampler};

/// A converter of one stream; passes samples through when both rates are equal.
pub(super) struct Rate {
    resampler: Option<Resampler>,
    input: Vec<f32>,
    output: Vec<f32>,
}

impl Rate {
    /// A converter from `from` to `to` samples per second.
    ///
    /// # Errors
    /// When a rate is one that audio does not have.
    pub(super) fn new(from: u32, to: u32) -> Result<Self, Error> {
        let resampler = if from == to { None } else { Some(Resampler::new(from, to)?) };
        Ok(Self { resampler, input: Vec::new(), output: Vec::new() })
    }

    /// Takes samples; gives those that are finished.
    pub(super) fn convert(&mut self, samples: Vec<i16>) -> Vec<i16> {
        let Some(resampler) = &mut self.resampler else { return samples };
        self.input.clear();
        self.input.extend(samples.iter().map(|sample| f32::from(*sample) / SCALE));
        self.output.clear();
        // The resampler refuses only buffers of a wrong size, and makes its own.
        let _ = resampler.push(&self.input, &mut self.output);
        rounded(&self.output)
    }

    /// The rest of the stream.
    pub(super) fn finish(self) -> Vec<i16> {
        let mut rest = Vec::new();
        if let Some(resampler) = self.resampler {
            let _ = resampler.finish(&mut rest);
        }
        rounded(&rest)
    }
}

const SCALE: f32 = 32_768.0;

fn rounded(samples: &[f32]) -> Vec<i16> {
    samples.iter().map(|sample| (sample * SCALE).round() as i16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_stays_a_second() {
        let tone = |rate: u32| -> Vec<i16> {
            let radians = |at: u32| f64::from(at) / f64::from(rate) * 440.0 * std::f64::consts::TAU;
            (0..rate).map(|at| (radians(at).sin() * 8_000.0) as i16).collect()
        };
        let mut rate = Rate::new(22_050, 24_000).unwrap();
        let mut made = Vec::new();
        for chunk in tone(22_050).chunks(1_000) {
            made.extend(rate.convert(chunk.to_vec()));
        }
        made.extend(rate.finish());
        assert_eq!(made.len(), 24_000);
        let error = made.iter().zip(tone(24_000)).skip(2_000).take(20_000);
        let worst = error.map(|(a, b)| (i32::from(*a) - i32::from(b)).abs()).max().unwrap();
        assert!(worst < 200, "{worst}");
        let mut same = Rate::new(24_000, 24_000).unwrap();
        assert_eq!(same.convert(vec![1, -2]), [1, -2]);
    }
}
