//! What sizes in a row say of a download (pure).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use contract::{CacheActivity, ModelCache};

use crate::guard::heal::model_cache::walk::Size;

/// Over which growth is measured, and after which a size that stays is no growth.
const WINDOW: Duration = Duration::from_secs(60);
/// Between two reports: each one costs the operator a write of a status.
const REPORT_PERIOD: Duration = Duration::from_secs(30);

/// The sizes of one start of an engine.
#[derive(Debug, Default)]
pub struct Progress {
    /// The last ones, oldest first.
    sizes: VecDeque<(Instant, u64)>,
    /// Last growth, or the first look: by both clocks.
    unchanged_since: Option<(Instant, u64)>,
    reported: Option<(Instant, ModelCache)>,
}

impl Progress {
    /// Adds a size; what is reported then. `busy`: whether the engine's processes compute or wait for the disk.
    pub fn add(&mut self, size: Size, busy: bool, now: Instant, unix_ms: u64) -> ModelCache {
        let last = self.sizes.back().map(|(_, bytes)| *bytes);
        let grew = last.is_some_and(|last| size.bytes > last);
        let since = self.unchanged_since.filter(|_| !grew).unwrap_or((now, unix_ms));
        self.unchanged_since = Some(since);
        self.sizes.push_back((now, size.bytes));
        while self.sizes.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW) {
            self.sizes.pop_front();
        }

        let activity = match now.saturating_duration_since(since.0) < WINDOW {
            true => CacheActivity::Growing,
            false if busy => CacheActivity::Loading,
            false => CacheActivity::Quiet,
        };
        let cache = ModelCache {
            bytes: size.bytes,
            partial: size.partial,
            bytes_per_second: self.rate(),
            unchanged_since_unix_ms: since.1,
            activity,
        };
        match &self.reported {
            Some((at, reported)) if now.saturating_duration_since(*at) < REPORT_PERIOD => reported.clone(),
            _ => {
                self.reported = Some((now, cache.clone()));
                cache
            }
        }
    }

    fn rate(&self) -> u64 {
        let (Some((first, from)), Some((last, to))) = (self.sizes.front(), self.sizes.back()) else {
            return 0;
        };
        let millis = last.saturating_duration_since(*first).as_millis();
        let rate = u128::from(to.saturating_sub(*from)).saturating_mul(1000).checked_div(millis);
        rate.and_then(|rate| u64::try_from(rate).ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is reported of sizes that are measured every ten seconds, from second 0 on.
    fn reported(sizes: &[u64], busy: bool) -> Vec<ModelCache> {
        let (mut progress, start) = (Progress::default(), Instant::now());
        let mut second = 0;
        let add = |bytes: &u64| {
            let now = start + Duration::from_secs(second);
            let cache = progress.add(Size { bytes: *bytes, partial: false }, busy, now, second * 1000);
            second += 10;
            cache
        };
        sizes.iter().map(add).collect()
    }

    #[test]
    fn growth_has_a_rate_and_is_reported_twice_a_minute() {
        let all = reported(&[0, 100, 200, 300, 400, 500, 600], false);
        let shown: Vec<_> = all.iter().map(|cache| (cache.bytes, cache.bytes_per_second)).collect();
        assert_eq!(shown, [(0, 0), (0, 0), (0, 0), (300, 10), (300, 10), (300, 10), (600, 10)]);
        assert!(all.iter().all(|cache| cache.activity == CacheActivity::Growing));
        assert_eq!(all[6].unchanged_since_unix_ms, 60_000);
    }

    #[test]
    fn what_stays_for_a_minute_is_quiet_or_loading_since_it_last_grew() {
        let stalled = [0, 100, 100, 100, 100, 100, 100, 100, 100, 100];
        for (busy, activity) in [(false, CacheActivity::Quiet), (true, CacheActivity::Loading)] {
            let all = reported(&stalled, busy);
            assert_eq!(all[6].activity, CacheActivity::Growing, "50 seconds");
            assert_eq!(all[9].activity, activity);
            assert_eq!((all[9].unchanged_since_unix_ms, all[9].bytes_per_second), (10_000, 0));
        }
        let mut resumed = stalled.to_vec();
        resumed.extend([200, 300, 400]);
        let last = reported(&resumed, false).pop().unwrap();
        assert_eq!((last.activity, last.unchanged_since_unix_ms), (CacheActivity::Growing, 120_000));
    }

    #[test]
    fn a_full_cache_has_not_grown_since_the_first_look_and_a_smaller_one_is_no_growth() {
        let last = reported(&[900; 8], true).pop().unwrap();
        assert_eq!((last.activity, last.unchanged_since_unix_ms), (CacheActivity::Loading, 0));
        let last = reported(&[900, 900, 900, 900, 900, 900, 500, 500, 500, 500], false).pop().unwrap();
        assert_eq!((last.activity, last.bytes_per_second), (CacheActivity::Quiet, 0));
        assert_eq!(last.bytes, 500);
    }
}
