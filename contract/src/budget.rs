//! The arithmetic of repair budgets, which the operator and a guard without one share. Pure.

use std::time::Duration;

/// Restarts left in a bucket that holds `burst` of them and earns one more in each `refill`, after restarts so long ago, the
/// oldest first. Never more than `burst`; below 0 when restarts were done beyond it.
#[must_use]
pub fn tokens(ages: impl Iterator<Item = Duration>, burst: u32, refill: Duration) -> f64 {
    let burst = f64::from(burst);
    let refill = refill.as_secs_f64().max(f64::EPSILON);
    let mut tokens = burst;
    let mut before: Option<Duration> = None;
    for age in ages {
        if let Some(before) = before {
            tokens = (tokens + before.saturating_sub(age).as_secs_f64() / refill).min(burst);
        }
        tokens -= 1.0;
        before = Some(age);
    }
    before.map_or(burst, |last| (tokens + last.as_secs_f64() / refill).min(burst))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_by_its_burst_and_refills_with_time() {
        let of = |ages: &[u64]| {
            let ages = ages.iter().map(|age| Duration::from_secs(*age));
            tokens(ages, 3, Duration::from_secs(600))
        };
        let is = |ages: &[u64], expected: f64| (of(ages) - expected).abs() < 0.001;
        assert!(is(&[], 3.0));
        assert!(is(&[0], 2.0));
        assert!(is(&[300, 0], 1.5));
        assert!(is(&[0, 0, 0], 0.0));
        assert!(is(&[0, 0, 0, 0], -1.0));
        assert!(is(&[6000, 0], 2.0), "never more than the burst");
    }
}
