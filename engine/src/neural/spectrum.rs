//! Samples to mel spectra, as the networks were trained on them.

use std::f32::consts::TAU;
use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

/// Samples per second of all features.
const RATE_HZ: f32 = 16_000.0;

/// How a frame is cut out and weighed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Window {
    /// Raised cosine with this many samples, periodic.
    Hann(usize),
    /// Raised cosine with this many samples that ends in zero on both sides.
    SymmetricHann(usize),
    /// Kaldi's: a raised cosine to the power of 0.85, with pre-emphasis and without the mean of the frame.
    Povey(usize),
}

/// How frequencies are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Slaney's: linear below 1 kHz, each band with the same area.
    Slaney,
    /// Kaldi's: logarithmic from 20 Hz, each band with the same height.
    Kaldi,
}

/// Turns frames into the energies of mel bands.
pub struct MelBank {
    window: Vec<f32>,
    povey: bool,
    fft: Arc<dyn RealToComplex<f32>>,
    /// The first bin of each band, and its weights.
    bands: Vec<(usize, Vec<f32>)>,
    frame: Vec<f32>,
    bins: Vec<realfft::num_complex::Complex<f32>>,
    power: Vec<f32>,
}

impl MelBank {
    /// A bank of `bands` mel bands up to 8 kHz, over a transform of `size` samples.
    #[must_use]
    pub fn new(size: usize, window: Window, scale: Scale, bands: usize) -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(size);
        let weights = match window {
            Window::Hann(length) => cosine(length, length as f32, 1.0),
            Window::SymmetricHann(length) => cosine(length, length as f32 - 1.0, 1.0),
            Window::Povey(length) => cosine(length, length as f32 - 1.0, 0.85),
        };
        Self {
            window: weights,
            povey: matches!(window, Window::Povey(_)),
            frame: fft.make_input_vec(),
            bins: fft.make_output_vec(),
            power: vec![0.0; size / 2 + 1],
            bands: filters(size, scale, bands),
            fft,
        }
    }

    /// The energy of each band in one frame; `samples` is as long as the window.
    pub fn energies(&mut self, samples: &[f32], into: &mut [f32]) {
        let length = self.window.len().min(samples.len());
        // A window shorter than the transform stands in its middle, Kaldi's at its start.
        let start = if self.povey { 0 } else { (self.frame.len() - self.window.len()) / 2 };
        self.frame.fill(0.0);
        let frame = &mut self.frame[start..start + length];
        frame.copy_from_slice(&samples[..length]);
        if self.povey {
            const EMPHASIS: f32 = 0.97;
            let mean = frame.iter().sum::<f32>() / length.max(1) as f32;
            frame.iter_mut().for_each(|sample| *sample -= mean);
            for index in (1..length).rev() {
                frame[index] -= EMPHASIS * frame[index - 1];
            }
            if let Some(first) = frame.first_mut() {
                *first -= EMPHASIS * *first;
            }
        }
        frame.iter_mut().zip(&self.window).for_each(|(sample, weight)| *sample *= weight);
        // The buffers are of the lengths that the plan asks for, its only errors.
        let _sizes_fit = self.fft.process(&mut self.frame, &mut self.bins);
        self.power.iter_mut().zip(&self.bins).for_each(|(power, bin)| *power = bin.norm_sqr());
        for (energy, (first, weights)) in into.iter_mut().zip(&self.bands) {
            *energy = weights.iter().zip(&self.power[*first..]).map(|(weight, power)| weight * power).sum();
        }
    }
}

fn cosine(length: usize, period: f32, power: f32) -> Vec<f32> {
    (0..length).map(|i| (0.5 - 0.5 * (TAU * i as f32 / period).cos()).max(0.0).powf(power)).collect()
}

/// The triangles of the bands: first bin and weights.
fn filters(size: usize, scale: Scale, bands: usize) -> Vec<(usize, Vec<f32>)> {
    let lowest = if scale == Scale::Kaldi { 20.0 } else { 0.0 };
    let (low, high) = (to_mel(scale, lowest), to_mel(scale, RATE_HZ / 2.0));
    let edge = |index: usize| low + (high - low) * index as f32 / (bands + 1) as f32;
    let bin_hz = RATE_HZ / size as f32;
    let band = |index: usize| {
        let (left, middle, right) = (edge(index), edge(index + 1), edge(index + 2));
        // Kaldi's triangles are straight on the mel scale, Slaney's in Hz.
        let (left, middle, right) = match scale {
            Scale::Kaldi => (left, middle, right),
            Scale::Slaney => (to_hz(left), to_hz(middle), to_hz(right)),
        };
        let area = if scale == Scale::Slaney { 2.0 / (right - left) } else { 1.0 };
        let weight = |bin: usize| {
            let hz = bin as f32 * bin_hz;
            let place = if scale == Scale::Kaldi { to_mel(scale, hz) } else { hz };
            ((place - left) / (middle - left)).min((right - place) / (right - middle)).max(0.0) * area
        };
        let weights: Vec<f32> = (0..=size / 2).map(weight).collect();
        let first = weights.iter().position(|weight| *weight > 0.0).unwrap_or(0);
        let last = weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0);
        (first, weights[first..=last].to_vec())
    };
    (0..bands).map(band).collect()
}

/// Hz per mel of Slaney's linear part, and where it ends.
const LINEAR_HZ: f32 = 200.0 / 3.0;
const LOGARITHMIC_HZ: f32 = 1_000.0;

fn to_mel(scale: Scale, hz: f32) -> f32 {
    match scale {
        Scale::Kaldi => 1_127.0 * (1.0 + hz / 700.0).ln(),
        Scale::Slaney if hz < LOGARITHMIC_HZ => hz / LINEAR_HZ,
        Scale::Slaney => LOGARITHMIC_HZ / LINEAR_HZ + (hz / LOGARITHMIC_HZ).ln() / slaney_step(),
    }
}

/// The inverse of Slaney's scale.
fn to_hz(mel: f32) -> f32 {
    let linear = LOGARITHMIC_HZ / LINEAR_HZ;
    if mel < linear { mel * LINEAR_HZ } else { LOGARITHMIC_HZ * ((mel - linear) * slaney_step()).exp() }
}

fn slaney_step() -> f32 {
    6.4_f32.ln() / 27.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f32, count: usize) -> Vec<f32> {
        (0..count).map(|i| (TAU * hz * i as f32 / RATE_HZ).sin()).collect()
    }

    #[test]
    fn a_tone_is_loudest_in_its_band() {
        for (window, scale, size) in [
            (Window::Hann(400), Scale::Slaney, 400),
            (Window::SymmetricHann(400), Scale::Slaney, 512),
            (Window::Povey(400), Scale::Kaldi, 512),
        ] {
            let mut bank = MelBank::new(size, window, scale, 80);
            for hz in [300.0, 1_000.0, 4_000.0] {
                let mut energies = [0.0; 80];
                bank.energies(&tone(hz, 400), &mut energies);
                let loudest = (0..80).max_by(|a, b| energies[*a].total_cmp(&energies[*b])).unwrap();
                let lowest = if scale == Scale::Kaldi { to_mel(scale, 20.0) } else { 0.0 };
                let width = (to_mel(scale, 8_000.0) - lowest) / 81.0;
                let expected = (to_mel(scale, hz) - lowest) / width - 1.0;
                assert!(
                    (loudest as f32 - expected).abs() < 1.2,
                    "{scale:?} {hz} Hz: band {loudest}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn slaney_scale_is_its_own_inverse_and_bands_have_one_area() {
        for hz in [0.0, 500.0, 1_000.0, 5_000.0] {
            assert!((to_hz(to_mel(Scale::Slaney, hz)) - hz).abs() < 0.01, "{hz}");
        }
        // librosa.filters.mel(sr=16000, n_fft=400, n_mels=80)[0, 1] and [79, 197].
        let bands = filters(400, Scale::Slaney, 80);
        assert!((bands[0].1[0] - 0.024_862_6).abs() < 1e-5, "{:?}", bands[0]);
    }
}
