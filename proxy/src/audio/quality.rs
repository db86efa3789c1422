//! Judges whether samples can be speech.

/// Loudness below which speech counts as silence, dB of full scale.
const SILENCE_DBFS: f64 = -50.0;
/// Share of samples at full scale above which speech clips.
const MAX_CLIPPED: f64 = 0.2;
/// Correlation of neighbouring samples below which it is noise; speech has 0.7 and more.
const NOISE_CORRELATION: f64 = 0.3;

/// Why samples are no speech.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Nearly silent.
    #[error("silence at {dbfs:.0} dBFS")]
    Silence {
        /// Its root mean square, without its mean.
        dbfs: f64,
    },
    /// The samples take hardly any values.
    #[error("{distinct} distinct sample values")]
    Constant {
        /// How many.
        distinct: usize,
    },
    /// Too many samples are at full scale.
    #[error("{share:.2} of the samples clip")]
    Clipping {
        /// Share of all samples.
        share: f64,
    },
    /// As rough as white noise.
    #[error("noise")]
    Noise,
}

/// Judges all samples of a mono recording, which may be empty: that is silence.
///
/// # Errors
/// The first [`Fault`] found.
pub fn check(samples: &[i16]) -> Result<(), Fault> {
    let count = samples.len().max(1) as f64;
    let mean = samples.iter().map(|sample| f64::from(*sample)).sum::<f64>() / count;
    let centred = || samples.iter().map(|sample| f64::from(*sample) - mean);
    let power = centred().map(|sample| sample.powi(2)).sum::<f64>() / count;
    let dbfs = 10.0 * (power / f64::from(i16::MAX).powi(2)).max(1e-12).log10();
    if dbfs <= SILENCE_DBFS {
        return Err(Fault::Silence { dbfs });
    }
    let distinct = distinct(samples);
    if distinct < samples.len().min(usize::from(u16::MAX)) / 100 {
        return Err(Fault::Constant { distinct });
    }
    let clipped = samples.iter().filter(|sample| sample.unsigned_abs() >= i16::MAX.unsigned_abs()).count();
    let share = clipped as f64 / count;
    if share > MAX_CLIPPED {
        return Err(Fault::Clipping { share });
    }
    let shared = centred().zip(centred().skip(1)).map(|(left, right)| left * right).sum::<f64>() / count;
    if shared / power < NOISE_CORRELATION { Err(Fault::Noise) } else { Ok(()) }
}

/// How many different values there are.
fn distinct(samples: &[i16]) -> usize {
    let mut seen = vec![0_u64; (1 << 16) / 64];
    for sample in samples {
        let value = usize::from(sample.cast_unsigned());
        seen[value / 64] |= 1 << (value % 64);
    }
    seen.iter().map(|word| word.count_ones() as usize).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audio::signal::{speech, tone, white_noise};

    #[test]
    fn speech_is_distinguished_from_silence_noise_clipping_and_stuck_samples() {
        assert_eq!(check(&speech(24_000, 4.0)), Ok(()));
        assert!(matches!(check(&[]), Err(Fault::Silence { .. })));
        assert!(matches!(check(&[0; 48_000]), Err(Fault::Silence { dbfs }) if dbfs < -100.0));
        assert!(matches!(check(&[12_345; 48_000]), Err(Fault::Silence { .. })));
        assert_eq!(check(&white_noise(48_000, 8000.0)), Err(Fault::Noise));
        let square: Vec<i16> = (0..80_000).map(|at| if at / 50 % 2 == 0 { 8000 } else { -8000 }).collect();
        assert_eq!(check(&square), Err(Fault::Constant { distinct: 2 }));
        let loud: Vec<i16> = speech(24_000, 4.0).iter().map(|sample| sample.saturating_mul(100)).collect();
        assert!(matches!(check(&loud), Err(Fault::Clipping { .. })), "{:?}", check(&loud));
    }

    #[test]
    fn levels_are_relative_to_full_scale() {
        let quiet = tone(24_000, 100.0, 24_000, 100.0);
        let Err(Fault::Silence { dbfs }) = check(&quiet) else { panic!("{:?}", check(&quiet)) };
        assert!((dbfs - -53.3).abs() < 0.1, "{dbfs}");
    }

    proptest! {
        #[test]
        fn any_samples_are_judged_without_panic(samples in prop::collection::vec(any::<i16>(), 0..3000)) {
            let _ = check(&samples);
        }
    }
}
