//! The spectrum that Whisper hears: 80 logarithmic mel bands, a frame each 10 ms, always 30 s.

use rten_tensor::NdTensor;

use crate::neural::spectrum::{MelBank, Scale, Window};

/// Mel bands.
pub const BANDS: usize = 80;
/// Frames of 10 ms in 30 s.
pub const FRAMES: usize = 3_000;
/// Samples of one frame's step, at 16 kHz.
pub const HOP: usize = 160;
/// Samples of one frame.
const SIZE: usize = 400;

/// Computes spectra.
pub struct Features {
    bank: MelBank,
}

impl Features {
    /// Ready to compute.
    #[must_use]
    pub fn new() -> Self {
        Self { bank: MelBank::new(SIZE, Window::Hann(SIZE), Scale::Slaney, BANDS) }
    }

    /// The spectrum of up to 30 s at 16 kHz, `[1, BANDS, FRAMES]`; what lacks is silence.
    pub fn spectrum(&mut self, samples: &[i16]) -> NdTensor<f32, 3> {
        let floats: Vec<f32> =
            samples.iter().take(FRAMES * HOP).map(|sample| f32::from(*sample) / 32_768.0).collect();
        // Around the start samples are mirrored, behind the end there is silence.
        let at = |index: isize| floats.get(index.unsigned_abs()).copied().unwrap_or(0.0);
        let mut logarithms = vec![-10.0_f32; BANDS * FRAMES];
        let (mut frame, mut energies) = ([0.0; SIZE], [0.0; BANDS]);
        let heard = (floats.len() + SIZE / 2).div_ceil(HOP).min(FRAMES);
        for index in 0..heard {
            let start = (index * HOP) as isize - (SIZE / 2) as isize;
            frame.iter_mut().zip(start..).for_each(|(sample, place)| *sample = at(place));
            self.bank.energies(&frame, &mut energies);
            for (band, energy) in energies.iter().enumerate() {
                logarithms[band * FRAMES + index] = energy.max(1e-10).log10();
            }
        }
        let loudest = logarithms.iter().copied().fold(f32::MIN, f32::max);
        logarithms.iter_mut().for_each(|value| *value = (value.max(loudest - 8.0) + 4.0) / 4.0);
        NdTensor::from_data([1, BANDS, FRAMES], logarithms)
    }
}
