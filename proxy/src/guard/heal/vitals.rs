//! How busy the engine's processes are: a second signal beside requests and probes.
//!
//! | file | part |
//! |---|---|
//! | `source` | where samples come from: the liveness helper's file, or `/proc` for a process of our own |
//! | `group` | a process group in `/proc` |
//! | `pressure` | how much all processes of the node wait for a CPU |
//! | `recorder` | takes samples, shows them as metrics, answers the health loop |

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub mod group;
mod metrics;
pub mod pressure;
pub mod recorder;
pub mod source;

/// Samples that are kept.
const MAX_SAMPLES: usize = 128;

/// What the processes of one engine instance had used, and what they did, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was measured.
    pub at: Instant,
    /// CPU time used so far, with that of children that were waited for. In steps of 10 ms.
    pub cpu: Duration,
    /// Time for which the CPU limit held them back so far; zero where there is no limit or it cannot be read.
    pub throttled: Duration,
    /// Time for which threads that could run waited for a CPU so far; zero where it cannot be read.
    pub waited: Duration,
    /// Threads on a CPU or waiting for one (state R).
    pub running: u32,
    /// Threads waiting inside the kernel, where no signal reaches them (state D).
    pub blocked: u32,
    /// Threads that have not ended.
    pub threads: u32,
    /// Memory in use, bytes: of the container, or resident in the processes. Zero if it cannot be read.
    pub memory: u64,
}

/// What a window of samples says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activity {
    /// CPU time over time: the number of cores used.
    pub cpu_share: f64,
    /// Share of the time for which the CPU limit held the processes back, 0 to 1.
    pub throttled_share: f64,
    /// Share of the time for which threads that could run waited for a CPU, added up over threads, 0 to 1.
    pub waiting_share: f64,
    /// Whether every sample had a thread in state D. Reading a model from disk looks so too.
    pub blocked: bool,
    /// Time since the last sample.
    pub age: Duration,
}

/// The last samples of the present instance, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    instance: String,
    samples: VecDeque<Sample>,
}

impl Activity {
    /// Share of the time for which the processes were kept from the CPU, by a limit or by other processes.
    pub fn held_back(&self) -> f64 {
        self.throttled_share.max(self.waiting_share)
    }
}

impl History {
    /// Adds a sample. Another instance counts from zero, so samples of the one before are dropped.
    pub fn record(&mut self, instance: &str, sample: Sample) {
        if self.instance != instance {
            instance.clone_into(&mut self.instance);
            self.samples.clear();
        }
        if self.samples.len() == MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Sums up the samples of the last `window` before the newest one. `None` for fewer than two.
    pub fn activity(&self, window: Duration, now: Instant) -> Option<Activity> {
        let newest = self.samples.back()?;
        let within = |sample: &&Sample| newest.at.saturating_duration_since(sample.at) <= window;
        let oldest = self.samples.iter().find(within)?;
        let seconds = newest.at.saturating_duration_since(oldest.at).as_secs_f64();
        if seconds <= 0.0 {
            return None;
        }
        // What has ended without being waited for is missing in the newer sum.
        let share = |newer: Duration, older: Duration| newer.saturating_sub(older).as_secs_f64() / seconds;
        Some(Activity {
            cpu_share: share(newest.cpu, oldest.cpu),
            throttled_share: share(newest.throttled, oldest.throttled).min(1.0),
            waiting_share: share(newest.waited, oldest.waited).min(1.0),
            blocked: self.samples.iter().filter(within).all(|sample| sample.blocked > 0),
            age: now.saturating_duration_since(newest.at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sample(start: Instant, second: u32, cpu_ms: u64) -> Sample {
        Sample {
            at: start + SECOND * second,
            cpu: Duration::from_millis(cpu_ms),
            throttled: Duration::ZERO,
            waited: Duration::ZERO,
            running: 1,
            blocked: 0,
            threads: 8,
            memory: 1 << 30,
        }
    }

    #[test]
    fn shares_are_those_of_the_window() {
        let start = Instant::now();
        let mut history = History::default();
        assert_eq!(history.activity(SECOND, start), None);
        history.record("1", sample(start, 0, 0));
        assert_eq!(history.activity(SECOND, start), None, "one sample shows no use");
        // Two cores for 5 seconds, then nothing for 5 seconds, throttled for half of that time.
        history.record("1", sample(start, 5, 10_000));
        let throttled = Duration::from_millis(2500);
        let waited = Duration::from_millis(4000);
        history.record("1", Sample { throttled, waited, ..sample(start, 10, 10_000) });
        let now = start + SECOND * 12;
        let last = history.activity(SECOND * 5, now).unwrap();
        let (throttled_share, waiting_share) = (0.5, 0.8);
        let expected =
            Activity { cpu_share: 0.0, throttled_share, waiting_share, blocked: false, age: SECOND * 2 };
        assert_eq!(last, expected);
        assert_eq!(history.activity(SECOND * 60, now).unwrap().cpu_share, 1.0);
    }

    #[test]
    fn blocked_is_what_every_sample_shows() {
        let start = Instant::now();
        let mut history = History::default();
        history.record("1", sample(start, 0, 0));
        for second in 1..4 {
            history.record("1", Sample { blocked: 1, ..sample(start, second, 0) });
        }
        let now = start + SECOND * 3;
        assert!(history.activity(SECOND * 2, now).unwrap().blocked);
        assert!(!history.activity(SECOND * 3, now).unwrap().blocked);
    }

    #[test]
    fn another_instance_starts_anew_and_sums_that_fall_are_no_use() {
        let start = Instant::now();
        let mut history = History::default();
        history.record("1", sample(start, 0, 90_000));
        history.record("2", sample(start, 1, 100));
        assert_eq!(history.activity(SECOND * 60, start), None);
        history.record("2", sample(start, 2, 50));
        assert_eq!(history.activity(SECOND * 60, start).unwrap().cpu_share, 0.0);
    }

    #[test]
    fn the_history_is_bounded() {
        let start = Instant::now();
        let mut history = History::default();
        for second in 0..1000 {
            history.record("1", sample(start, second, 0));
        }
        assert_eq!(history.samples.len(), MAX_SAMPLES);
        assert_eq!(history.samples.back().unwrap().at, start + SECOND * 999);
    }
}
