//! Signals for tests: something like speech, and what is not speech.

use std::f64::consts::TAU;

/// Mono samples that have speech's pitch, formants and syllables, with short pauses, at about -20 dBFS.
pub(crate) fn speech(rate: u32, seconds: f64) -> Vec<i16> {
    let count = (f64::from(rate) * seconds).round() as usize;
    let mut noise = Noise(7);
    let sample = |at: usize| {
        let time = at as f64 / f64::from(rate);
        // Four syllables a second, each fifth silent.
        let syllable = time * 4.0;
        let loud = if syllable as u64 % 5 == 4 { 0.0 } else { (syllable.fract() * TAU / 2.0).sin().powi(2) };
        let pitch = 120.0 + 20.0 * (time * 1.3).sin();
        let voiced: f64 = (1..=20)
            .map(|harmonic| {
                let frequency = pitch * f64::from(harmonic);
                let formant = |centre: f64| (-((frequency - centre) / 150.0).powi(2)).exp();
                let level = 0.02 + formant(600.0) + 0.5 * formant(1400.0);
                level * (TAU * 120.0 * f64::from(harmonic) * time).sin()
            })
            .sum();
        (voiced * loud * 6000.0 + noise.next() * 20.0) as i16
    };
    (0..count).map(sample).collect()
}

/// White noise of that peak.
pub(crate) fn white_noise(count: usize, peak: f64) -> Vec<i16> {
    let mut noise = Noise(1);
    (0..count).map(|_| (noise.next() * peak) as i16).collect()
}

/// A sine of that peak.
pub(crate) fn tone(rate: u32, frequency: f64, count: usize, peak: f64) -> Vec<i16> {
    (0..count)
        .map(|at| ((TAU * frequency * at as f64 / f64::from(rate)).sin() * peak).round() as i16)
        .collect()
}

/// A small generator (xorshift), even in -1 to 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// The signal of the fixture files, full scale is 1.0: a sweep from 200 to 1800 Hz in 1.5 s whose level swells three times a
/// second.
pub(crate) fn sweep(rate: u32) -> Vec<f64> {
    const SECONDS: f64 = 1.5;
    let sample = |at: usize| {
        let time = at as f64 / f64::from(rate);
        let phase = TAU * (200.0 * time + (1800.0 - 200.0) / (2.0 * SECONDS) * time * time);
        (0.25 + 0.2 * (TAU * 3.0 * time).sin()) * phase.sin()
    };
    (0..(f64::from(rate) * SECONDS) as usize).map(sample).collect()
}
