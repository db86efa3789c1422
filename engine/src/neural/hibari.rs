//! Text to speech by hibari: one English voice of 24 kHz, made faster than it is heard by far.

mod vocoder;

use std::path::Path;

use rten::ValueOrView;
use rten_tensor::NdTensor;

use super::net::{Net, Threads};
use super::{Error, files};
pub use vocoder::RATE_HZ;
use vocoder::{BINS, Spectra, Vocoder};

/// The voice of Kokoro that it was made after.
pub const SAME_AS: &str = "af_heart";
/// Phonemes that the network takes at once.
pub const LONGEST: usize = 400;
/// Another speaker, made of the one voice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timbre {
    /// Factor of the pitch.
    pub pitch: f32,
    /// Factor of the resonances: below 1 for a longer throat.
    pub throat: f32,
}

/// The voice, loaded.
pub struct Hibari {
    voice: Net,
    vocoder: Vocoder,
}

impl Hibari {
    /// Loads the published files of a folder.
    ///
    /// # Errors
    /// When a file cannot be read, is not the published one, or malformed.
    pub fn load(models: &Path, threads: &Threads) -> Result<Self, Error> {
        let voice = Net::load("hibari", files::read(models, "hibari/hibari.onnx")?, None, threads)?;
        Ok(Self { voice, vocoder: Vocoder::new() })
    }

    /// The samples of at most [`LONGEST`] phonemes, -1 to 1. `stretch` multiplies durations.
    ///
    /// # Errors
    /// When the network fails.
    pub fn say(&self, numbers: Vec<i32>, timbre: Timbre, stretch: f32) -> Result<Vec<f32>, Error> {
        let numbers = NdTensor::from_data([1, numbers.len()], numbers);
        let speed = NdTensor::from_data([1], vec![stretch.clamp(0.25, 4.0).recip()]);
        let mut outputs =
            self.voice.run(vec![ValueOrView::from(numbers), ValueOrView::from(speed)])?.into_iter();
        let mut part = || Ok::<_, Error>(self.voice.floats(outputs.next())?.1);
        let mut spectra = Spectra {
            pulses: part()?,
            turn: part()?,
            noise: part()?,
            free: part()?,
            phase: part()?,
            pitch_hz: part()?,
        };
        timbre.apply(&mut spectra);
        self.vocoder.samples(&spectra).ok_or_else(|| self.voice.unexpected())
    }
}

impl Timbre {
    /// The voice as it is.
    pub const OWN: Self = Self { pitch: 1.0, throat: 1.0 };

    /// Moves pitch and resonances.
    fn apply(self, spectra: &mut Spectra) {
        let frames = spectra.pitch_hz.len();
        spectra.pitch_hz.iter_mut().for_each(|hz| *hz *= self.pitch);
        if self.throat == 1.0 {
            return;
        }
        for part in [
            &mut spectra.pulses,
            &mut spectra.turn,
            &mut spectra.noise,
            &mut spectra.free,
            &mut spectra.phase,
        ] {
            if part.len() != BINS * frames {
                continue;
            }
            let from = part.clone();
            for bin in 0..BINS {
                let source = ((bin as f32 / self.throat).round() as usize).min(BINS - 1);
                part[bin * frames..(bin + 1) * frames]
                    .copy_from_slice(&from[source * frames..(source + 1) * frames]);
            }
        }
    }
}
