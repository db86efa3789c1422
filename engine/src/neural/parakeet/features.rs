//! The spectrum that NVIDIA's NeMo models hear: logarithmic mel bands with mean 0 and deviation 1 over the piece.

use crate::neural::spectrum::{MelBank, Scale, Window};

/// Samples of a transform, of a frame, and between frames, at 16 kHz.
const SIZE: usize = 512;
const FRAME: usize = 400;
const HOP: usize = 160;
/// What is added before the logarithm: 2^-24.
const FLOOR: f32 = 5.960_464_5e-8;

/// The spectrum of a piece at 16 kHz, by bands, and its number of frames, at least one.
pub fn spectrum(samples: &[i16], bands: usize) -> (usize, Vec<f32>) {
    const EMPHASIS: f32 = 0.97;
    let mut bank = MelBank::new(SIZE, Window::SymmetricHann(FRAME), Scale::Slaney, bands);
    let floats: Vec<f32> = samples.iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
    let emphasized: Vec<f32> = (0..floats.len())
        .map(|index| floats[index] - index.checked_sub(1).map_or(0.0, |before| EMPHASIS * floats[before]))
        .collect();
    let frames = (samples.len() / HOP).max(1);
    let mut values = vec![0.0; bands * frames];
    let (mut frame, mut energies) = ([0.0; FRAME], vec![0.0; bands]);
    for index in 0..frames {
        // A frame stands around its middle; around the piece there is silence.
        let start = (index * HOP) as isize - (FRAME / 2) as isize;
        for (sample, place) in frame.iter_mut().zip(start..) {
            *sample =
                usize::try_from(place).ok().and_then(|place| emphasized.get(place)).copied().unwrap_or(0.0);
        }
        bank.energies(&frame, &mut energies);
        for (band, energy) in energies.iter().enumerate() {
            values[band * frames + index] = (energy + FLOOR).ln();
        }
    }
    for row in values.chunks_exact_mut(frames) {
        let mean = row.iter().sum::<f32>() / frames as f32;
        let squares: f32 = row.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / (frames - 1).max(1) as f32).sqrt() + 1e-5;
        row.iter_mut().for_each(|value| *value = (*value - mean) / deviation);
    }
    (frames, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_have_mean_zero_and_deviation_one() {
        let samples: Vec<i16> =
            (0..16_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 18) as i16 - 8_192).collect();
        let (frames, values) = spectrum(&samples, 128);
        assert_eq!((frames, values.len()), (100, 12_800));
        for row in values.chunks_exact(frames) {
            let mean = row.iter().sum::<f32>() / 100.0;
            let square = row.iter().map(|value| value * value).sum::<f32>() / 99.0;
            assert!(mean.abs() < 1e-3 && (square - 1.0).abs() < 0.02, "{mean} {square}");
        }
        assert_eq!(spectrum(&[], 128).0, 1);
    }
}
