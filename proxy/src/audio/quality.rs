//! Cheap statistics of PCM that tell speech from silence, noise, tones and stuck samples.

/// Level of digital silence, in place of minus infinity.
const FLOOR_DBFS: f64 = -120.0;
/// Frames quieter than this count as this: how silent a pause is does not matter.
const FRAME_FLOOR_DBFS: f64 = -70.0;
/// Frames of 20 ms, the pace at which speech changes.
const FRAMES_PER_SECOND: u32 = 50;
/// All values of a sample.
const VALUES: usize = 1 << 16;

/// Gathers statistics of 16-bit mono samples as they come, in 8 KiB of memory.
#[derive(Clone, Debug)]
pub struct Quality {
    rate: u32,
    samples: u64,
    sum_of_squares: u64,
    clipped: u64,
    crossings: u64,
    last: i16,
    /// One bit for each value seen.
    seen: Box<[u64; VALUES / 64]>,
    frame: Frame,
    levels: Spread,
}

/// The 20 ms being filled.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    samples: u32,
    sum_of_squares: u64,
}

/// Running mean and variance (Welford 1962).
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    count: u64,
    mean: f64,
    squares: f64,
}

/// What [`Quality`] found. Every number is finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Length of the audio.
    pub seconds: f64,
    /// Root mean square level; 0 is a full-scale square wave, -120 stands for silence.
    pub rms_dbfs: f64,
    /// Different sample values, as part of those possible in so many samples: near 0 for stuck or repeating output.
    pub distinct_ratio: f64,
    /// Part of the samples at full scale.
    pub clipped_ratio: f64,
    /// Part of neighbouring samples that differ in sign: 0.5 for white noise, under 0.3 for speech.
    pub zero_crossing_ratio: f64,
    /// Standard deviation of the level from one 20 ms frame to the next, in dB: under 1 for steady noise and tones, 5 and
    /// more for speech, which has syllables and pauses.
    pub level_spread_db: f64,
}

impl Quality {
    /// No samples yet, of a stream at `rate` Hz.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        Self {
            rate: rate.max(1),
            samples: 0,
            sum_of_squares: 0,
            clipped: 0,
            crossings: 0,
            last: 0,
            seen: Box::new([0; VALUES / 64]),
            frame: Frame::default(),
            levels: Spread::default(),
        }
    }

    /// Takes the next samples into account.
    pub fn push(&mut self, pcm: &[i16]) {
        let frame_len = self.rate.div_ceil(FRAMES_PER_SECOND);
        for &sample in pcm {
            let square = u64::from(sample.unsigned_abs()).pow(2);
            self.sum_of_squares = self.sum_of_squares.saturating_add(square);
            self.clipped += u64::from(sample == i16::MAX || sample == i16::MIN);
            self.crossings += u64::from((sample < 0) != (self.last < 0));
            self.last = sample;
            let value = usize::from(sample as u16);
            self.seen[value / 64] |= 1 << (value % 64);
            self.frame.sum_of_squares += square;
            self.frame.samples += 1;
            if self.frame.samples == frame_len {
                let level = dbfs(self.frame.sum_of_squares, u64::from(frame_len));
                self.levels.push(level.max(FRAME_FLOOR_DBFS));
                self.frame = Frame::default();
            }
        }
        self.samples += pcm.len() as u64;
    }

    /// The statistics of all samples so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let distinct = self.seen.iter().map(|word| u64::from(word.count_ones())).sum();
        Report {
            seconds: self.samples as f64 / f64::from(self.rate),
            rms_dbfs: dbfs(self.sum_of_squares, self.samples),
            distinct_ratio: ratio(distinct, self.samples.min(VALUES as u64)),
            clipped_ratio: ratio(self.clipped, self.samples),
            zero_crossing_ratio: ratio(self.crossings, self.samples),
            level_spread_db: self.levels.deviation(),
        }
    }
}

impl Report {
    /// Nothing to hear: under -60 dBFS.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.rms_dbfs < -60.0
    }

    /// Not speech: as steady as a hum or a hiss, or as rough as white noise. Below half a second there is too little to tell,
    /// and the answer is `false`.
    #[must_use]
    pub fn is_noise(&self) -> bool {
        self.seconds >= 0.5
            && !self.is_silent()
            && (self.level_spread_db < 3.0 || self.zero_crossing_ratio > 0.4)
    }
}

impl Spread {
    fn push(&mut self, value: f64) {
        self.count += 1;
        let delta = value - self.mean;
        self.mean += delta / self.count as f64;
        self.squares += delta * (value - self.mean);
    }

    fn deviation(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.squares.max(0.0) / self.count as f64).sqrt() }
    }
}

fn dbfs(sum_of_squares: u64, samples: u64) -> f64 {
    if sum_of_squares == 0 || samples == 0 {
        return FLOOR_DBFS;
    }
    let mean = sum_of_squares as f64 / samples as f64;
    (10.0 * (mean / (32_768.0 * 32_768.0)).log10()).max(FLOOR_DBFS)
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audio::signal::{speech, tone, white_noise};

    fn report(pcm: &[i16]) -> Report {
        let mut quality = Quality::new(24_000);
        quality.push(pcm);
        quality.report()
    }

    #[test]
    fn speech_is_told_from_noise_tone_and_silence() {
        let spoken = report(&speech(24_000, 4.0));
        assert!(!spoken.is_noise() && !spoken.is_silent(), "{spoken:?}");
        assert!(spoken.level_spread_db > 8.0 && spoken.zero_crossing_ratio < 0.25, "{spoken:?}");
        let noise = report(&white_noise(48_000, 8000.0));
        assert!(noise.is_noise(), "{noise:?}");
        assert!((noise.zero_crossing_ratio - 0.5).abs() < 0.02 && noise.level_spread_db < 1.0, "{noise:?}");
        let beep = report(&tone(24_000, 440.0, 48_000, 8000.0));
        assert!(beep.is_noise() && beep.level_spread_db < 0.5, "{beep:?}");
        let silence = report(&[0; 48_000]);
        assert!(silence.is_silent() && !silence.is_noise(), "{silence:?}");
        assert!(!report(&white_noise(1000, 8000.0)).is_noise());
    }

    #[test]
    fn levels_are_relative_to_full_scale() {
        let full = report(&[i16::MIN, i16::MIN]);
        assert_eq!((full.rms_dbfs, full.clipped_ratio), (0.0, 1.0));
        let sine = report(&tone(24_000, 100.0, 24_000, 16_384.0));
        assert!((sine.rms_dbfs - -9.03).abs() < 0.01, "{sine:?}");
        assert_eq!(sine.clipped_ratio, 0.0);
        assert_eq!(sine.seconds, 1.0);
    }

    #[test]
    fn stuck_output_has_few_distinct_values() {
        assert_eq!(report(&[5; 1000]).distinct_ratio, 0.001);
        let all: Vec<i16> = (i16::MIN..=i16::MAX).collect();
        assert_eq!(report(&all).distinct_ratio, 1.0);
        assert!(report(&speech(24_000, 2.0)).distinct_ratio > 0.05);
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing_and_all_is_finite(pcm in prop::collection::vec(any::<i16>(), 0..3000), chunk in 1usize..700, rate in 0u32..50_000) {
            let (mut whole, mut parts) = (Quality::new(rate), Quality::new(rate));
            whole.push(&pcm);
            for chunk in pcm.chunks(chunk) {
                parts.push(chunk);
            }
            let report = parts.report();
            prop_assert_eq!(report, whole.report());
            let Report { seconds, rms_dbfs, distinct_ratio, clipped_ratio, zero_crossing_ratio, level_spread_db } = report;
            for number in [seconds, rms_dbfs, distinct_ratio, clipped_ratio, zero_crossing_ratio, level_spread_db] {
                prop_assert!(number.is_finite());
            }
        }
    }
}
