//! How much longer a job takes beside others than alone: a batching engine serves many at a time, each of them slower.

/// Numbers of jobs at a time that are told apart: 2, 3 to 4, 5 to 8 and so on; the last has all beyond.
const BUCKETS: usize = 8;
/// A factor is the mean over its first jobs, up to so many; then it follows new ones.
const MEMORY: u32 = 200;

/// One factor for each number of jobs. An engine that becomes slower as a whole leaves them as they are: they are learned from
/// service times over the present prediction for a job alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowding {
    buckets: [Factor; BUCKETS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Factor {
    value: f64,
    jobs: u32,
}

impl Crowding {
    /// Times the service time of a job alone that one of so many at a time takes. For a number not seen yet, that of the
    /// next smaller one.
    pub(super) fn factor(&self, jobs: usize) -> f64 {
        let Some(bucket) = bucket(jobs) else { return 1.0 };
        let seen = self.buckets[..=bucket].iter().rev().find(|factor| factor.jobs > 0);
        seen.map_or(1.0, |factor| factor.value)
    }

    /// Learns from one of so many jobs at a time, which took `ratio` times as long as alone. At worst an engine serves them
    /// one after the other.
    pub(super) fn learn(&mut self, jobs: usize, ratio: f64) {
        let Some(factor) = bucket(jobs).and_then(|bucket| self.buckets.get_mut(bucket)) else { return };
        factor.jobs = (factor.jobs + 1).min(MEMORY);
        factor.value += (ratio.clamp(1.0, jobs as f64) - factor.value) / f64::from(factor.jobs);
    }
}

/// `None` for a job alone.
fn bucket(jobs: usize) -> Option<usize> {
    let others = jobs.checked_sub(1)?.checked_ilog2()?;
    Some((others as usize).min(BUCKETS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_alike_share_a_factor() {
        assert_eq!([0, 1].map(bucket), [None, None]);
        assert_eq!([2, 3, 4, 5, 8, 9].map(bucket), [0, 1, 1, 2, 2, 3].map(Some));
        assert_eq!(bucket(usize::MAX), Some(BUCKETS - 1));
    }

    #[test]
    fn a_factor_is_between_none_and_one_after_the_other() {
        let mut crowding = Crowding::default();
        assert_eq!(crowding.factor(8), 1.0);
        crowding.learn(1, 5.0);
        crowding.learn(2, 5.0);
        assert_eq!([1, 2, 8].map(|jobs| crowding.factor(jobs)), [1.0, 2.0, 2.0]);
        crowding.learn(8, 0.5);
        assert_eq!([2, 8, 100].map(|jobs| crowding.factor(jobs)), [2.0, 1.0, 1.0]);
    }
}
