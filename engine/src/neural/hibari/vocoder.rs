//! Spectra to samples, as the voice hibari asks for: a train of pulses shaped by a filter, noise shaped by another, a part of
//! free phase, and one inverse transform with overlapping frames.

use std::f32::consts::{PI, TAU};
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

/// Samples per second.
pub const RATE_HZ: u32 = 24_000;
/// Samples of a frame's transform, and between frames.
const SIZE: usize = 1_200;
const HOP: usize = 300;
/// Frequencies of a frame.
pub const BINS: usize = SIZE / 2 + 1;
/// Below this a frame has no pitch, in Hz.
const VOICED_HZ: f32 = 40.0;
/// Harmonics end here, in Hz.
const HIGHEST_HZ: f32 = 11_000.0;
/// Logarithms of magnitudes are held below this.
const LOUDEST: f32 = 7.0;

/// What the network says of each frame; every part but the pitch is `[BINS, frames]`.
pub struct Spectra {
    /// Logarithm of the magnitude of the pulses.
    pub pulses: Vec<f32>,
    /// Their phase, before the hyperbolic tangent.
    pub turn: Vec<f32>,
    /// Logarithm of the magnitude of the noise.
    pub noise: Vec<f32>,
    /// Logarithm of the magnitude of the free part.
    pub free: Vec<f32>,
    /// The phase of the free part.
    pub phase: Vec<f32>,
    /// Pitch of each frame in Hz.
    pub pitch_hz: Vec<f32>,
}

/// The transforms, planned once.
pub struct Vocoder {
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    window: Vec<f32>,
}

impl Vocoder {
    /// Plans the transforms.
    #[must_use]
    pub fn new() -> Self {
        let mut planner = RealFftPlanner::new();
        let window = (0..SIZE).map(|i| 0.5 - 0.5 * (TAU * i as f32 / SIZE as f32).cos()).collect();
        Self { forward: planner.plan_fft_forward(SIZE), inverse: planner.plan_fft_inverse(SIZE), window }
    }

    /// The samples of a sentence, -1 to 1; `HOP` for each frame. `None` when the parts are not of one length.
    #[must_use]
    pub fn samples(&self, spectra: &Spectra) -> Option<Vec<f32>> {
        let frames = spectra.pitch_hz.len();
        let parts = [&spectra.pulses, &spectra.turn, &spectra.noise, &spectra.free, &spectra.phase];
        if parts.iter().any(|part| part.len() != BINS * frames) {
            return None;
        }
        let train = mirrored(&pulses(&spectra.pitch_hz));
        let mut noise = Noise(0x2545_f491_4f6c_dd1d);
        let (mut frame, mut bins) = (self.forward.make_input_vec(), self.forward.make_output_vec());
        let mut sum = vec![0.0; (frames + SIZE / HOP) * HOP];
        let mut weights = vec![0.0; sum.len()];
        for index in 0..frames {
            // A pulse of height one has a peak of one in the spectrum.
            let scaled = self.window.iter().map(|weight| weight / (SIZE / 4) as f32);
            let source = train.get(index * HOP..index * HOP + SIZE)?;
            frame.iter_mut().zip(source).zip(scaled).for_each(|((to, from), weight)| *to = from * weight);
            self.forward.process(&mut frame, &mut bins).ok()?;
            for (bin, value) in bins.iter_mut().enumerate() {
                let at = bin * frames + index;
                let loud = |logarithm: f32| logarithm.min(LOUDEST).exp();
                let harmonic = Complex::from_polar(loud(spectra.pulses[at]), PI * spectra.turn[at].tanh());
                let free = Complex::from_polar(loud(spectra.free[at]), spectra.phase[at]);
                *value = *value * harmonic + noise.pair() * loud(spectra.noise[at]) + free;
            }
            // A real signal has none at both ends.
            bins[0].im = 0.0;
            bins[BINS - 1].im = 0.0;
            self.inverse.process(&mut bins, &mut frame).ok()?;
            let at = index * HOP..index * HOP + SIZE;
            for ((to, from), weight) in sum[at.clone()].iter_mut().zip(&frame).zip(&self.window) {
                *to += from / SIZE as f32 * weight;
            }
            weights[at].iter_mut().zip(&self.window).for_each(|(to, weight)| *to += weight * weight);
        }
        let start = SIZE / 2;
        let made = sum.iter().zip(&weights).skip(start).take(frames * HOP);
        Some(made.map(|(sample, weight)| sample / weight.max(1e-11)).collect())
    }
}

/// A train of pulses with all harmonics below [`HIGHEST_HZ`] at the same height, silent where there is no pitch.
fn pulses(pitch_hz: &[f32]) -> Vec<f32> {
    let mut train = Vec::with_capacity(pitch_hz.len() * HOP);
    let last = pitch_hz.len().saturating_sub(1);
    let mut turns = 0.0_f64;
    for frame in 0..pitch_hz.len() {
        for sample in 0..HOP {
            // A frame's pitch holds in its middle; between two middles it is interpolated.
            let place = (sample as f32 + 0.5) / HOP as f32 - 0.5;
            let (from, to, share) = if place < 0.0 {
                (frame.saturating_sub(1), frame, place + 1.0)
            } else {
                (frame, (frame + 1).min(last), place)
            };
            let hz = pitch_hz[from] * (1.0 - share) + pitch_hz[to] * share;
            let held = hz.max(VOICED_HZ);
            turns = (turns + f64::from(held) / f64::from(RATE_HZ)).fract();
            let angle = (turns * std::f64::consts::TAU) as f32;
            let harmonics = (HIGHEST_HZ / held).floor() + 0.5;
            let below = 2.0 * (angle * 0.5).sin();
            let height = if below.abs() <= 2e-3 { harmonics } else { (harmonics * angle).sin() / below };
            train.push(if hz > VOICED_HZ { height - 0.5 } else { 0.0 });
        }
    }
    train
}

/// The samples with half a frame mirrored on both sides.
fn mirrored(samples: &[f32]) -> Vec<f32> {
    let half = (SIZE / 2) as isize;
    let last = samples.len() as isize - 1;
    let at = |index: isize| {
        let index = index.abs();
        let index = if index > last { 2 * last - index } else { index };
        usize::try_from(index).ok().and_then(|index| samples.get(index)).copied().unwrap_or(0.0)
    };
    (-half..samples.len() as isize + half).map(at).collect()
}

/// Normally distributed numbers, the same in each run: xorshift, then Box and Muller's method.
struct Noise(u64);

impl Noise {
    fn even(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 40) as f32 + 0.5) / (1_u64 << 24) as f32
    }

    fn pair(&mut self) -> Complex<f32> {
        let radius = (-2.0 * self.even().ln()).sqrt();
        Complex::from_polar(radius, TAU * self.even())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_filter_gives_back_the_pulses() {
        let frames = 40;
        let flat = |value: f32| vec![value; BINS * frames];
        let spectra = Spectra {
            pulses: flat(0.0),
            turn: flat(0.0),
            noise: flat(-100.0),
            free: flat(-100.0),
            phase: flat(0.0),
            pitch_hz: vec![200.0; frames],
        };
        let made = Vocoder::new().samples(&spectra).unwrap();
        assert_eq!(made.len(), frames * HOP);
        let expected = pulses(&spectra.pitch_hz);
        for index in SIZE..made.len() - SIZE {
            let given = expected[index] / (SIZE / 4) as f32;
            assert!((made[index] - given).abs() < 1e-3, "sample {index}: {}, not {given}", made[index]);
        }
        // One pulse in each 120 samples.
        let peaks = expected.iter().filter(|sample| **sample > 40.0).count();
        assert!((95..=105).contains(&peaks), "{peaks}");
        assert!(Vocoder::new().samples(&Spectra { turn: Vec::new(), ..spectra }).is_none());
    }

    #[test]
    fn noise_is_normal() {
        let mut noise = Noise(1);
        let drawn: Vec<f32> = (0..20_000).map(|_| noise.pair().re).collect();
        let mean = drawn.iter().sum::<f32>() / drawn.len() as f32;
        let square = drawn.iter().map(|value| value * value).sum::<f32>() / drawn.len() as f32;
        assert!(mean.abs() < 0.03 && (square - 1.0).abs() < 0.05, "{mean} {square}");
    }
}
