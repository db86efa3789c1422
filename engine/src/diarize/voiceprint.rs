//! Pitch and spectrum of a stretch of speech.

use std::ops::Range;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

use crate::activity::FRAME;

/// Coefficients of the mel cepstrum that are kept, without the level.
pub const CEPSTRUM: usize = 12;

const FFT: usize = 512;
const BANDS: usize = 24;
const RATE_HZ: f32 = 16_000.0;
/// Every second frame is described: 20 ms.
const HOP_FRAMES: usize = 2;

/// What tells one voice from another.
#[derive(Debug, Clone, PartialEq)]
pub struct Voiceprint {
    /// Median of log2 of the pitch in Hz.
    pub pitch: f32,
    /// Mean mel cepstrum of voiced frames.
    pub cepstrum: [f32; CEPSTRUM],
    /// Voiced frames described: how far the means can be trusted.
    pub frames: usize,
}

/// Describes each stretch (in frames of 10 ms); `None` where nothing is voiced.
#[must_use]
pub fn voiceprints(samples: &[i16], stretches: &[Range<usize>]) -> Vec<Option<Voiceprint>> {
    let mut analysis = Analysis::new();
    stretches.iter().map(|stretch| analysis.describe(samples, stretch.clone())).collect()
}

struct Analysis {
    pitch: Pitch,
    fft: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    /// First bin and weights of each mel band.
    bands: Vec<(usize, Vec<f32>)>,
    /// Rows of the cosine transform.
    cosines: Vec<[f32; CEPSTRUM]>,
    frame: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
}

impl Analysis {
    fn new() -> Self {
        let mut planner = RealFftPlanner::new();
        let fft = planner.plan_fft_forward(FFT);
        let window =
            (0..FFT).map(|i| 0.5 - 0.5 * (std::f32::consts::TAU * i as f32 / FFT as f32).cos()).collect();
        let (frame, spectrum) = (fft.make_input_vec(), fft.make_output_vec());
        let angle = |band: usize, order: usize| {
            std::f32::consts::PI * (order + 1) as f32 * (band as f32 + 0.5) / BANDS as f32
        };
        let cosines = (0..BANDS)
            .map(|band| std::array::from_fn(|order| angle(band, order).cos() * (2.0 / BANDS as f32).sqrt()))
            .collect();
        Self { pitch: Pitch::new(&mut planner), fft, window, bands: mel_bands(), cosines, frame, spectrum }
    }

    fn describe(&mut self, samples: &[i16], stretch: Range<usize>) -> Option<Voiceprint> {
        let mut print = Voiceprint { pitch: 0.0, cepstrum: [0.0; CEPSTRUM], frames: 0 };
        let mut pitches = Vec::new();
        for index in stretch.step_by(HOP_FRAMES) {
            let Some(frame) = samples.get(index * FRAME..index * FRAME + 2 * FFT) else { break };
            let Some(pitch_hz) = self.pitch.find(frame) else { continue };
            pitches.push(pitch_hz.log2());
            let cepstrum = self.cepstrum(&frame[FFT / 2..FFT / 2 + FFT]);
            for (sum, value) in print.cepstrum.iter_mut().zip(cepstrum) {
                *sum += value;
            }
            print.frames += 1;
        }
        if print.frames == 0 {
            return None;
        }
        let share = 1.0 / print.frames as f32;
        pitches.sort_by(f32::total_cmp);
        print.pitch = pitches[pitches.len() / 2];
        print.cepstrum.iter_mut().for_each(|value| *value *= share);
        Some(print)
    }

    fn cepstrum(&mut self, samples: &[i16]) -> [f32; CEPSTRUM] {
        for ((slot, sample), weight) in self.frame.iter_mut().zip(samples).zip(&self.window) {
            *slot = f32::from(*sample) * weight;
        }
        let mut cepstrum = [0.0; CEPSTRUM];
        if self.fft.process(&mut self.frame, &mut self.spectrum).is_err() {
            return cepstrum;
        }
        for ((first, weights), cosines) in self.bands.iter().zip(&self.cosines) {
            let power: f32 = weights
                .iter()
                .zip(&self.spectrum[*first..])
                .map(|(weight, bin)| weight * bin.norm_sqr())
                .sum();
            let level = power.max(1.0).ln();
            for (value, cosine) in cepstrum.iter_mut().zip(cosines) {
                *value += level * cosine;
            }
        }
        cepstrum
    }
}

/// Triangular bands, evenly spaced in mel from 100 to 7000 Hz.
fn mel_bands() -> Vec<(usize, Vec<f32>)> {
    let mel = |hz: f32| 2595.0 * (1.0 + hz / 700.0).log10();
    let hz = |mel: f32| 700.0 * (10f32.powf(mel / 2595.0) - 1.0);
    let (low, high) = (mel(100.0), mel(7000.0));
    let edge =
        |index: usize| hz(low + (high - low) * index as f32 / (BANDS + 1) as f32) * FFT as f32 / RATE_HZ;
    (0..BANDS)
        .map(|band| {
            let (left, center, right) = (edge(band), edge(band + 1), edge(band + 2));
            let first = left.floor() as usize;
            let weights = (first..=right.ceil() as usize)
                .map(|bin| {
                    ((bin as f32 - left) / (center - left))
                        .min((right - bin as f32) / (right - center))
                        .max(0.0)
                })
                .collect();
            (first, weights)
        })
        .collect()
}

/// Finds the pitch of a frame by its normalized autocorrelation, at 8 kHz, by way of the power spectrum.
struct Pitch {
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    /// 64 ms, then as many zeros so that nothing wraps around.
    frame: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    correlation: Vec<f32>,
}

impl Pitch {
    fn new(planner: &mut RealFftPlanner<f32>) -> Self {
        let (forward, inverse) = (planner.plan_fft_forward(2 * FFT), planner.plan_fft_inverse(2 * FFT));
        let (frame, spectrum) = (forward.make_input_vec(), forward.make_output_vec());
        let correlation = inverse.make_output_vec();
        Self { forward, inverse, frame, spectrum, correlation }
    }

    /// Pitch of 64 ms of sound in Hz, `None` when unvoiced: the first strong peak.
    fn find(&mut self, samples: &[i16]) -> Option<f32> {
        const LONGEST: usize = 133; // 60 Hz
        const SHORTEST: usize = 20; // 400 Hz
        const VOICED: f32 = 0.55;
        self.frame.fill(0.0);
        for (slot, pair) in self.frame.iter_mut().zip(samples.chunks_exact(2)) {
            *slot = (f32::from(pair[0]) + f32::from(pair[1])) * 0.5;
        }
        let mut head: f32 = self.frame.iter().map(|value| value * value).sum();
        if head < FFT as f32 * 400.0 {
            return None;
        }
        let half = self.frame[..FFT].to_vec();
        self.forward.process(&mut self.frame, &mut self.spectrum).ok()?;
        for bin in &mut self.spectrum {
            *bin = Complex::new(bin.norm_sqr() / (2 * FFT) as f32, 0.0);
        }
        self.inverse.process(&mut self.spectrum, &mut self.correlation).ok()?;
        let mut tail = head;
        let mut strength = [0.0f32; LONGEST + 2];
        for lag in 1..=LONGEST + 1 {
            head -= half[FFT - lag] * half[FFT - lag];
            tail -= half[lag - 1] * half[lag - 1];
            strength[lag] = self.correlation[lag] / (head.max(1.0) * tail.max(1.0)).sqrt();
        }
        let best = strength[SHORTEST..=LONGEST].iter().copied().fold(0.0, f32::max);
        if best < VOICED {
            return None;
        }
        // A longer lag of equal strength is a multiple of the period.
        let lag = (SHORTEST..=LONGEST).find(|&lag| {
            let peak = strength[lag];
            peak > best * 0.88 && peak >= strength[lag - 1] && peak >= strength[lag + 1]
        })?;
        let (left, middle, right) = (strength[lag - 1], strength[lag], strength[lag + 1]);
        let bend = left - 2.0 * middle + right;
        let shift = if bend < 0.0 { 0.5 * (left - right) / bend } else { 0.0 };
        Some(8_000.0 / (lag as f32 + shift))
    }
}
