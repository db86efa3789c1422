//! How long a job will take, learned from those that were served, and how that compares with the engine's healthy days.

use std::time::{Duration, Instant};

use crate::config;

mod crowding;

use crowding::Crowding;

/// A service-time model of one class of job: `fixed + per_audio_second * audio`, times a factor for the jobs beside it.
///
/// Two estimates share one form. The current one follows the engine within some dozen jobs and predicts. The baseline is
/// taught by the first jobs of each length and then stands still, but for a drift that takes a day upwards: an engine that
/// decays within hours shows as a ratio above one.
#[derive(Clone, Debug)]
pub struct Predictor {
    current: Line,
    /// How much longer a job beside others takes; both lines are for a job alone.
    crowding: Crowding,
    /// The configured guess.
    seed: Line,
    /// Longest audio that was served, seconds.
    longest: f64,
    baseline: Line,
    /// Correction of the baseline; falls within dozens of jobs, rises within a day.
    scale: f64,
    last_drift: Option<Instant>,
}

/// Jobs that exceed the prediction by more than this many standard deviations teach as if they were at that bound.
const OUTLIER: f64 = 2.5;
/// Spread of real service times around a perfect prediction.
const NOISE: f64 = 0.2;
/// Share by which the engine's true constants may wander from one job to the next.
const WANDER: f64 = 0.03;
/// Jobs of a similar length after which the baseline takes no more lessons from that length.
const BASELINE_JOBS: f64 = 30.0;
/// Times the longest audio served beyond which the model is not trusted alone.
const FAR: f64 = 2.0;
/// Uncertainty of a prediction up to which a longer service is put down to the jobs beside it.
const KNOWN: f64 = NOISE * NOISE;
/// How long the baseline takes to accept a slower engine as normal.
const DRIFT: Duration = Duration::from_secs(24 * 3600);

impl Predictor {
    /// A model that knows the configured first guesses only.
    pub fn new(config: &config::Lane) -> Self {
        let seed = Line::seeded(config.fixed_seconds, config.seconds_per_audio_second);
        Self {
            current: seed.clone(),
            crowding: Crowding::default(),
            seed: seed.clone(),
            longest: 0.0,
            baseline: seed,
            scale: 1.0,
            last_drift: None,
        }
    }

    /// Learns from a job of `audio` seconds that the engine served in `service`, as one of `jobs` at a time.
    pub fn learn(&mut self, audio: f64, service: Duration, jobs: usize, now: Instant) {
        let mut service = service.as_secs_f64();
        if !audio.is_finite() || audio < 0.0 || service <= 0.0 {
            return;
        }
        if self.current.uncertainty(audio) <= KNOWN {
            self.crowding.learn(jobs, service / self.current.predict(audio));
        }
        service /= self.crowding.factor(jobs);
        self.current.wander();
        self.current.learn(audio, service);
        self.longest = self.longest.max(audio);
        self.teach_baseline(audio, service, now);
    }

    /// Learns from a golden probe, which is no measure of what is normal for jobs: it predicts, and leaves the baseline.
    pub fn learn_probe(&mut self, audio: f64, service: Duration) {
        if audio.is_finite() && audio >= 0.0 && !service.is_zero() {
            self.current.wander();
            self.current.learn(audio, service.as_secs_f64());
        }
    }

    fn teach_baseline(&mut self, audio: f64, service: f64, now: Instant) {
        let passed = self.last_drift.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last_drift = Some(now);
        if self.baseline.uncertainty(audio) > NOISE * NOISE / BASELINE_JOBS {
            self.baseline.learn(audio, service / self.scale);
            return;
        }
        let ratio = (service / self.baseline.predict(audio)).min(10.0);
        let share =
            if ratio < self.scale { 0.02 } else { 1.0 - (-passed.as_secs_f64() / DRIFT.as_secs_f64()).exp() };
        self.scale += share * (ratio - self.scale);
    }

    /// Predicted service time of `audio` seconds as one of `jobs` at a time, in seconds.
    ///
    /// Short jobs teach little about long ones: far beyond what was served the configured guess is the least. A busy engine
    /// must not look hung.
    pub fn predict(&self, audio: f64, jobs: usize) -> f64 {
        let learned = self.current.predict(audio);
        let alone = if audio > FAR * self.longest { learned.max(self.seed.predict(audio)) } else { learned };
        alone * self.crowding.factor(jobs)
    }

    /// Service time of `audio` seconds as one of `jobs` at a time when the engine was healthy, in seconds.
    pub fn healthy(&self, audio: f64, jobs: usize) -> f64 {
        self.scale * self.baseline.predict(audio) * self.crowding.factor(jobs)
    }

    /// The current model of one of `jobs` at a time.
    pub fn report(&self, jobs: usize) -> contract::Predictor {
        let factor = self.crowding.factor(jobs);
        contract::Predictor {
            fixed: self.current.fixed * factor,
            per_audio_second: self.current.slope * factor,
        }
    }
}

/// A line fitted by recursive least squares on relative errors, so that long jobs do not outweigh short ones. Both
/// coefficients stay non-negative; the configured guess is the prior.
#[derive(Clone, Debug)]
struct Line {
    fixed: f64,
    slope: f64,
    /// Covariance of (fixed, slope): variances and the shared term.
    variance: [f64; 2],
    shared: f64,
    /// Variances of the prior; doubt never grows beyond it.
    prior: [f64; 2],
}

/// Shortest prediction, seconds.
const SHORTEST: f64 = 1e-3;

impl Line {
    fn seeded(fixed: f64, slope: f64) -> Self {
        let (fixed, slope) = (fixed.max(0.0), slope.max(0.0));
        // The guess may be off by several times.
        let prior = [(3.0 * fixed.max(0.02)).powi(2), (3.0 * slope.max(0.002)).powi(2)];
        Self { fixed, slope, variance: prior, shared: 0.0, prior }
    }

    fn predict(&self, audio: f64) -> f64 {
        (self.fixed + self.slope * audio.max(0.0)).max(SHORTEST)
    }

    /// Variance of the relative error of a prediction that comes from not knowing the coefficients.
    fn uncertainty(&self, audio: f64) -> f64 {
        let at = [1.0 / self.predict(audio), audio / self.predict(audio)];
        self.variance[0] * at[0] * at[0]
            + 2.0 * self.shared * at[0] * at[1]
            + self.variance[1] * at[1] * at[1]
    }

    /// The constants may have changed since the last job.
    fn wander(&mut self) {
        for (at, value) in [self.fixed, self.slope].into_iter().enumerate() {
            let grown = self.variance[at] + (WANDER * value).powi(2);
            self.variance[at] = grown.min(self.prior[at]);
        }
    }

    fn learn(&mut self, audio: f64, service: f64) {
        let predicted = self.predict(audio);
        let at = [1.0 / predicted, audio / predicted];
        let gain =
            [self.variance[0] * at[0] + self.shared * at[1], self.shared * at[0] + self.variance[1] * at[1]];
        let total = NOISE * NOISE + at[0] * gain[0] + at[1] * gain[1];
        let error = (service / predicted - 1.0).min(OUTLIER * total.sqrt());
        self.fixed = (self.fixed + gain[0] / total * error).max(0.0);
        self.slope = (self.slope + gain[1] / total * error).max(0.0);
        self.variance[0] = (self.variance[0] - gain[0] * gain[0] / total).max(0.0);
        self.variance[1] = (self.variance[1] - gain[1] * gain[1] / total).max(0.0);
        self.shared -= gain[0] * gain[1] / total;
        // Clamps and rounding must not leave an impossible covariance.
        let limit = (self.variance[0] * self.variance[1]).sqrt();
        self.shared = self.shared.clamp(-limit, limit);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Service times of `fixed + slope * audio` with a spread of 10 %, audio from 1 to 60 s.
    fn jobs(count: usize, fixed: f64, slope: f64) -> impl Iterator<Item = (f64, Duration)> {
        (0..count).map(move |at| {
            let audio = 1.0 + (at * 37 % 60) as f64;
            let noise = 0.9 + 0.2 * ((at * 61 % 100) as f64 / 100.0);
            (audio, Duration::from_secs_f64((fixed + slope * audio) * noise))
        })
    }

    fn taught(count: usize, fixed: f64, slope: f64) -> (Predictor, Instant) {
        let mut predictor = Predictor::new(&config::Lane::default());
        let mut now = Instant::now();
        for (audio, service) in jobs(count, fixed, slope) {
            now += Duration::from_secs(1);
            predictor.learn(audio, service, 1, now);
        }
        (predictor, now)
    }

    /// Service time over that of healthy days: about 1 normally, 3 for an engine that has become three times slower.
    fn ratio(predictor: &Predictor, audio: f64, service: Duration) -> f64 {
        service.as_secs_f64() / predictor.healthy(audio, 1)
    }

    fn close(actual: f64, expected: f64, share: f64) {
        assert!((actual / expected - 1.0).abs() <= share, "{actual} is not near {expected}");
    }

    #[test]
    fn it_predicts_from_the_configured_guess_at_first() {
        let predictor = Predictor::new(&config::Lane::default());
        close(predictor.predict(10.0, 1), 0.7, 1e-9);
    }

    #[test]
    fn it_learns_both_constants() {
        for (fixed, slope) in [(0.08, 1.0 / 120.0), (1.0, 0.2), (0.3, 0.0)] {
            let (predictor, _) = taught(100, fixed, slope);
            for audio in [2.0, 20.0, 60.0] {
                close(predictor.predict(audio, 1), fixed + slope * audio, 0.15);
            }
        }
    }

    #[test]
    fn jobs_of_one_length_do_not_make_it_wild_for_others() {
        let mut predictor = Predictor::new(&config::Lane::default());
        let now = Instant::now();
        for _ in 0..2000 {
            predictor.learn(2.0, Duration::from_secs_f64(0.1), 1, now);
        }
        close(predictor.predict(2.0, 1), 0.1, 0.05);
        assert!(predictor.predict(600.0, 1) < 60.0);
    }

    #[test]
    fn short_jobs_do_not_make_long_ones_look_short() {
        let lane = config::Lane::default();
        let mut predictor = Predictor::new(&lane);
        for _ in 0..2000 {
            predictor.learn(1.0, Duration::from_secs_f64(0.15), 1, Instant::now());
        }
        assert!(predictor.predict(600.0, 1) >= lane.fixed_seconds + lane.seconds_per_audio_second * 600.0);
        predictor.learn(600.0, Duration::from_secs_f64(12.0), 1, Instant::now());
        assert!(predictor.predict(600.0, 1) < 20.0);
    }

    #[test]
    fn one_outlier_changes_little() {
        let (mut predictor, now) = taught(100, 0.2, 0.05);
        let before = predictor.predict(10.0, 1);
        predictor.learn(10.0, Duration::from_secs(600), 1, now);
        close(predictor.predict(10.0, 1), before, 0.15);
    }

    #[test]
    fn it_follows_an_engine_that_has_become_slower() {
        let (mut predictor, now) = taught(100, 0.2, 0.05);
        for (audio, service) in jobs(60, 0.6, 0.15) {
            predictor.learn(audio, service, 1, now);
        }
        close(predictor.predict(10.0, 1), 2.1, 0.2);
    }

    #[test]
    fn slow_decay_shows_against_the_baseline() {
        let (mut predictor, mut now) = taught(200, 0.2, 0.05);
        let mut last = 0.0;
        for (at, (audio, service)) in jobs(600, 0.2, 0.05).enumerate() {
            // A ramp from 1 to 3 within ten minutes.
            let slower = service.mul_f64(1.0 + 2.0 * at as f64 / 600.0);
            now += Duration::from_secs(1);
            predictor.learn(audio, slower, 1, now);
            last = ratio(&predictor, audio, slower);
        }
        assert!(last > 2.5, "{last}");
    }

    #[test]
    fn a_healthy_engine_stays_near_one() {
        let (predictor, _) = taught(500, 0.2, 0.05);
        for (audio, service) in jobs(60, 0.2, 0.05) {
            let ratio = self::ratio(&predictor, audio, service);
            assert!((0.7..1.4).contains(&ratio), "{ratio}");
        }
    }

    #[test]
    fn a_length_not_seen_before_teaches_the_baseline() {
        let mut predictor = Predictor::new(&config::Lane::default());
        let now = Instant::now();
        for _ in 0..200 {
            predictor.learn(1.0, Duration::from_secs_f64(0.25), 1, now);
        }
        for _ in 0..20 {
            predictor.learn(600.0, Duration::from_secs_f64(120.0), 1, now);
        }
        close(ratio(&predictor, 600.0, Duration::from_secs(120)), 1.0, 0.3);
    }

    /// Jobs of 10 s of audio that take 1 s alone and `slower` times that beside seven others.
    fn batches(predictor: &mut Predictor, slower: f64, count: usize, now: Instant) -> f64 {
        for _ in 0..count {
            predictor.learn(10.0, Duration::from_secs_f64(slower), 8, now);
        }
        slower / predictor.healthy(10.0, 8)
    }

    #[test]
    fn a_busy_day_after_a_quiet_night_is_no_decay() {
        let (mut predictor, now) = taught(100, 0.5, 0.05);
        let ratio = batches(&mut predictor, 3.0, 200, now);
        assert!((0.8..1.2).contains(&ratio), "{ratio}");
        close(predictor.predict(10.0, 8), 3.0, 0.1);
        close(predictor.predict(10.0, 1), 1.0, 0.2);
        close(predictor.report(8).fixed + 10.0 * predictor.report(8).per_audio_second, 3.0, 0.1);
    }

    #[test]
    fn an_engine_that_decays_under_load_shows_it() {
        let (mut predictor, mut now) = taught(100, 0.5, 0.05);
        batches(&mut predictor, 3.0, 200, now);
        let mut ratio = 0.0;
        for at in 0..600 {
            now += Duration::from_secs(1);
            ratio = batches(&mut predictor, 3.0 + 6.0 * f64::from(at) / 600.0, 1, now);
        }
        assert!(ratio > 2.2, "{ratio}");
    }

    #[test]
    fn an_engine_that_is_never_alone_is_predicted_as_it_is() {
        let mut predictor = Predictor::new(&config::Lane::default());
        let now = Instant::now();
        let ratio = batches(&mut predictor, 15.0, 100, now);
        assert!((0.8..1.2).contains(&ratio), "{ratio}");
        close(predictor.predict(10.0, 8), 15.0, 0.1);
    }

    proptest! {
        #[test]
        fn no_input_makes_a_prediction_negative_or_infinite(
            samples in proptest::collection::vec((0.0..1e5f64, 0.0..1e5f64, 0..2000_usize), 0..100),
            audio in 0.0..1e5f64,
            beside in 0..2000_usize,
        ) {
            let mut predictor = Predictor::new(&config::Lane::default());
            let now = Instant::now();
            for (audio, service, jobs) in samples {
                predictor.learn(audio, Duration::from_secs_f64(service), jobs, now);
            }
            for value in [predictor.predict(audio, beside), predictor.healthy(audio, beside)] {
                prop_assert!(value.is_finite() && value > 0.0, "{value}");
            }
        }
    }
}
