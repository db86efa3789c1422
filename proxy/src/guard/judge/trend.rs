//! Slow decay: whether service has been slower than the baseline for a whole period that ends now. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Samples kept.
const MAX_SAMPLES: usize = 64;
/// Successes of one slice count as the fastest of them, so that a burst does not push older ones out.
const SLICES: u32 = 24;
/// Samples in a period below which it says nothing.
const LEAST_SAMPLES: usize = 3;
/// Part of the period within which its last success must lie.
const RECENT: u32 = 2;

/// Service times over their baselines, in the order in which jobs ended.
#[derive(Clone, Debug, Default)]
pub struct Trend {
    samples: VecDeque<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    begun: Instant,
    ended: Instant,
    /// The least of its slice.
    ratio: f64,
}

impl Trend {
    /// Records a success whose service took `ratio` times the baseline. `period` is the longest that will be asked for.
    pub fn record(&mut self, ratio: f64, period: Duration, now: Instant) {
        let slice = period / SLICES;
        match self.samples.back_mut() {
            Some(last) if now.saturating_duration_since(last.begun) < slice => {
                (last.ended, last.ratio) = (now, last.ratio.min(ratio));
            }
            _ => {
                if self.samples.len() == MAX_SAMPLES {
                    self.samples.pop_front();
                }
                self.samples.push_back(Sample { begun: now, ended: now, ratio });
            }
        }
    }

    /// Whether every success of the last `period` was slower than `factor`. Silence and single successes say nothing: there
    /// must be several, from the period's start to its end.
    pub fn slower(&self, factor: f64, period: Duration, now: Instant) -> bool {
        let age = |at: Instant| now.saturating_duration_since(at);
        let slow = self.samples.iter().rev().take_while(|sample| sample.ratio > factor);
        let (mut count, mut oldest) = (0, None);
        for sample in slow {
            count += 1;
            oldest = Some(sample.begun);
            if age(sample.begun) >= period {
                break;
            }
        }
        let recent = self.samples.back().is_some_and(|last| age(last.ended) <= period / RECENT);
        recent && count >= LEAST_SAMPLES && oldest.is_some_and(|oldest| age(oldest) >= period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(300);

    fn slower(samples: &[(u64, f64)], now: u64) -> bool {
        let start = Instant::now();
        let mut trend = Trend::default();
        for (at, ratio) in samples {
            trend.record(*ratio, PERIOD, start + Duration::from_secs(*at));
        }
        trend.slower(2.5, PERIOD, start + Duration::from_secs(now))
    }

    fn every(step: usize, until: u64, ratio: f64) -> Vec<(u64, f64)> {
        (0..=until).step_by(step).map(|at| (at, ratio)).collect()
    }

    #[test]
    fn service_that_is_slow_for_the_whole_period_is_a_trend() {
        assert!(slower(&every(1, 310, 3.0), 310));
        assert!(slower(&every(60, 300, 3.0), 310), "also with little traffic");
        assert!(!slower(&every(1, 290, 3.0), 290), "not before the period is over");
    }

    #[test]
    fn one_fast_answer_ends_it() {
        let mut samples = every(10, 300, 3.0);
        samples.insert(20, (195, 1.0));
        assert!(!slower(&samples, 305));
    }

    #[test]
    fn one_slow_answer_and_silence_are_none() {
        assert!(!slower(&[(0, 9.0)], 301));
        assert!(!slower(&[(0, 9.0), (300, 9.0)], 301), "too few");
        assert!(!slower(&every(10, 300, 3.0), 500), "nothing was served of late");
    }

    #[test]
    fn many_successes_do_not_push_the_periods_start_out() {
        let samples: Vec<(u64, f64)> = (0..3000).map(|at| (at / 10, 3.0)).collect();
        assert!(slower(&samples, 301));
    }
}
