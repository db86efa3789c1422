//! Limits on what multiplies work: the retry budget, and the Retry-After of refusals.

use std::time::Duration;

use tower::retry::budget::{Budget, TpsBudget};

use crate::config;

/// How long a request's deposit counts.
const WINDOW: Duration = Duration::from_secs(10);
/// A guess when no endpoint says when it will be back.
const UNKNOWN: Duration = Duration::from_secs(5);

/// Retries of all requests of a process: a share of the requests of the last ten seconds, and a few more.
#[derive(Debug)]
pub struct RetryBudget(TpsBudget);

impl RetryBudget {
    /// The configured budget; a ratio that cannot be counts as its nearest bound.
    pub fn new(config: &config::Retry) -> Self {
        let ratio = if config.ratio.is_nan() { 0.0 } else { config.ratio.clamp(0.0, 1000.0) };
        Self(TpsBudget::new(WINDOW, config.min_per_second.min(1_000_000), ratio))
    }

    /// A request arrived.
    pub fn deposit(&self) {
        self.0.deposit();
    }

    /// Takes one retry if there is one.
    pub fn withdraw(&self) -> bool {
        self.0.withdraw()
    }
}

/// When to come back: the soonest of the endpoints' estimates (seconds), spread by `jitter` (about 1) so that
/// clients do not return together, within the configured bounds.
pub fn retry_after(soonest: Option<f64>, jitter: f64, bounds: &config::RetryAfter) -> Duration {
    let soonest = soonest
        .map_or(UNKNOWN, |seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(bounds.max));
    let bounded = soonest.max(bounds.min).min(bounds.max);
    Duration::try_from_secs_f64(bounded.as_secs_f64() * jitter)
        .unwrap_or(bounded)
        .max(bounds.min)
        .min(bounds.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_truthful_within_its_bounds() {
        let bounds = config::RetryAfter::default();
        let after = |seconds, jitter| retry_after(seconds, jitter, &bounds).as_secs_f64();
        assert_eq!(after(Some(10.0), 1.0), 10.0);
        assert_eq!(after(Some(10.0), 1.2), 12.0);
        assert_eq!(after(Some(0.0), 0.8), 1.0);
        assert_eq!(after(Some(1e9), 1.2), 120.0);
        assert_eq!(after(Some(f64::NAN), 1.0), 1.0);
        assert_eq!(after(None, 1.0), 5.0);
    }

    #[test]
    fn odd_ratios_do_not_panic() {
        for ratio in [f32::NAN, -1.0, 0.0, f32::INFINITY] {
            let budget = RetryBudget::new(&config::Retry { ratio, min_per_second: u32::MAX, attempts: 3 });
            budget.deposit();
            assert!(budget.withdraw());
        }
    }
}
