//! The arithmetic of quotas: a bucket of requests, and what is used in a day of UTC. The clock is passed in.

use std::collections::VecDeque;
use std::time::Duration;

use crate::error::Unit;

/// Milliseconds of a day.
pub(super) const DAY_MS: u64 = 86_400_000;
/// Days that are kept.
const MAX_DAYS: usize = 31;

/// What was used in a day.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Used {
    /// Requests that cost engine time, and sessions.
    pub requests: u64,
    /// Seconds of audio that were heard.
    pub audio_seconds: f64,
    /// Characters that were spoken.
    pub characters: f64,
}

impl Used {
    /// The amount of a unit.
    pub fn of(&self, unit: Unit) -> f64 {
        match unit {
            Unit::AudioSeconds => self.audio_seconds,
            Unit::Characters => self.characters,
        }
    }

    fn add(&mut self, unit: Unit, amount: f64) {
        match unit {
            Unit::AudioSeconds => self.audio_seconds += amount,
            Unit::Characters => self.characters += amount,
        }
    }
}

/// Requests a minute, of which a minute's worth may come at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Requests that may still come at the time `at`, unless none came before.
    left: Option<f64>,
    /// Unix time, milliseconds.
    at: u64,
}

/// What is left of the requests of a minute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Requests a minute.
    pub limit: u32,
    /// Requests that may come at once.
    pub left: u32,
    /// Until all of them may.
    pub full_in: Duration,
}

impl Rate {
    /// That of a bucket in which so many are left.
    pub(super) fn of(limit: u32, left: f64) -> Self {
        Self { limit, left: left as u32, full_in: until_full(limit, f64::from(limit) - left) }
    }
}

/// Until so many requests are refilled, of so many a minute.
pub(super) fn until_full(limit: u32, missing: f64) -> Duration {
    Duration::from_millis((missing * 60_000.0 / f64::from(limit.max(1))).ceil() as u64)
}

impl Bucket {
    /// Takes a request.
    ///
    /// # Errors
    /// When the next one may come.
    pub fn take(&mut self, limit: u32, now: u64) -> Result<Rate, Duration> {
        let (limit, most) = (limit.max(1), f64::from(limit.max(1)));
        let per_ms = most / 60_000.0;
        // A clock that was set back adds nothing.
        let more = now.saturating_sub(self.at) as f64 * per_ms;
        let left = self.left.map_or(most, |left| (left + more).min(most));
        self.at = now;
        if left < 1.0 {
            self.left = Some(left);
            return Err(until_full(limit, 1.0 - left));
        }
        let left = left - 1.0;
        self.left = Some(left);
        Ok(Rate::of(limit, left))
    }
}

/// What is used by day, and what is set aside for work that runs.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    days: VecDeque<(u64, Used)>,
    reserved: Used,
    /// What other gateways used in a day, as far as this one knows.
    others: (u64, Used),
}

impl Ledger {
    /// Counts a request.
    pub fn request(&mut self, now: u64) {
        self.today(now).requests += 1;
    }

    /// Sets an amount aside before the work.
    ///
    /// # Errors
    /// It goes beyond the day's limit: when the next day begins.
    pub fn reserve(&mut self, unit: Unit, amount: f64, limit: Option<f64>, now: u64) -> Result<(), Duration> {
        let used = self.today(now).of(unit) + self.of_others(unit, now) + self.reserved.of(unit);
        // What is used up takes nothing more, not even work of unknown length.
        if limit.is_some_and(|limit| used + amount > limit || used >= limit) {
            return Err(until_tomorrow(now));
        }
        self.reserved.add(unit, amount);
        Ok(())
    }

    /// Gives back what was set aside.
    pub fn release(&mut self, unit: Unit, amount: f64) {
        self.reserved.add(unit, -amount.min(self.reserved.of(unit)));
    }

    /// Counts what the work took.
    ///
    /// # Errors
    /// The day's limit is used up: when the next day begins. The amount is counted all the same.
    pub fn spend(&mut self, unit: Unit, amount: f64, limit: Option<f64>, now: u64) -> Result<(), Duration> {
        let reserved = self.reserved.of(unit) + self.of_others(unit, now);
        let today = self.today(now);
        today.add(unit, amount);
        match limit {
            Some(limit) if today.of(unit) + reserved > limit => Err(until_tomorrow(now)),
            _ => Ok(()),
        }
    }

    /// Takes over what other gateways used in a day.
    pub fn others(&mut self, day: u64, used: Used) {
        self.others = (day, used);
    }

    fn of_others(&self, unit: Unit, now: u64) -> f64 {
        let (day, used) = self.others;
        if day == now / DAY_MS { used.of(unit) } else { 0.0 }
    }

    /// What is set aside, and what was used today.
    pub fn held(&self, now: u64) -> (Used, Used) {
        let today = self.days.back().filter(|(day, _)| *day == now / DAY_MS);
        (self.reserved, today.map_or_else(Used::default, |(_, used)| *used))
    }

    /// What was used by day, the newest first; a day is counted from the first of 1970.
    pub fn days(&self) -> impl Iterator<Item = (u64, Used)> {
        self.days.iter().rev().copied()
    }

    /// Whether nothing was used today and nothing is set aside.
    pub fn is_at_rest(&self, now: u64) -> bool {
        self.reserved == Used::default() && self.days.back().is_none_or(|(day, _)| *day < now / DAY_MS)
    }

    fn today(&mut self, now: u64) -> &mut Used {
        let day = now / DAY_MS;
        if self.days.back().is_none_or(|(last, _)| *last < day) {
            if self.days.len() >= MAX_DAYS {
                self.days.pop_front();
            }
            self.days.push_back((day, Used::default()));
        }
        let last = self.days.len() - 1;
        &mut self.days[last].1
    }
}

/// Until the next day of UTC begins.
pub(super) fn until_tomorrow(now: u64) -> Duration {
    Duration::from_millis(DAY_MS - now % DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 20_000 * DAY_MS + DAY_MS / 2;

    #[test]
    fn a_minutes_requests_may_come_at_once_and_then_as_they_are_refilled() {
        let mut bucket = Bucket::default();
        let first = bucket.take(60, NOON).unwrap();
        assert_eq!((first.limit, first.left, first.full_in), (60, 59, Duration::from_secs(1)));
        for _ in 0..59 {
            assert!(bucket.take(60, NOON).is_ok());
        }
        assert_eq!(bucket.take(60, NOON), Err(Duration::from_secs(1)));
        assert_eq!(bucket.take(60, NOON + 400), Err(Duration::from_millis(600)));
        assert!(bucket.take(60, NOON + 1000).is_ok());
        assert!(bucket.take(60, NOON - 5_000).is_err(), "a clock that is set back");
        assert!(bucket.take(60, NOON + 600_000).unwrap().left < 60);
        assert!(bucket.take(1, NOON + 600_000).is_ok(), "a lower limit counts at once");
        assert!(bucket.take(1, NOON + 600_000).is_err());
    }

    #[test]
    fn what_runs_counts_until_it_is_settled() {
        let mut ledger = Ledger::default();
        let (unit, limit) = (Unit::AudioSeconds, Some(100.0));
        ledger.reserve(unit, 60.0, limit, NOON).unwrap();
        assert_eq!(ledger.reserve(unit, 60.0, limit, NOON), Err(Duration::from_secs(43_200)));
        assert!(ledger.reserve(unit, 60.0, None, NOON).is_ok(), "without a limit");
        ledger.release(unit, 120.0);
        ledger.reserve(unit, 60.0, limit, NOON).unwrap();
        ledger.release(unit, 60.0);
        assert_eq!(ledger.spend(unit, 99.0, limit, NOON), Ok(()));
        assert_eq!(ledger.spend(unit, 2.0, limit, NOON), Err(Duration::from_secs(43_200)));
        assert!(ledger.reserve(unit, 0.0, limit, NOON).is_err(), "of unknown length, when all is used");
        assert!(ledger.reserve(Unit::Characters, 1.0, Some(1.0), NOON).is_ok());
        assert!(ledger.reserve(unit, 100.0, limit, NOON + DAY_MS / 2).is_ok(), "the next day");
    }

    #[test]
    fn what_other_gateways_used_counts_on_its_day() {
        let mut ledger = Ledger::default();
        let (unit, limit) = (Unit::AudioSeconds, Some(100.0));
        ledger.others(20_000, Used { audio_seconds: 70.0, ..Used::default() });
        assert!(ledger.reserve(unit, 31.0, limit, NOON).is_err());
        ledger.reserve(unit, 30.0, limit, NOON).unwrap();
        assert!(ledger.spend(unit, 1.0, limit, NOON).is_err());
        assert_eq!((ledger.held(NOON).0.audio_seconds, ledger.held(NOON).1.audio_seconds), (30.0, 1.0));
        assert!(ledger.reserve(unit, 70.0, limit, NOON + DAY_MS).is_ok(), "the next day");
    }

    #[test]
    fn so_many_days_are_kept() {
        let mut ledger = Ledger::default();
        for day in 0..40 {
            ledger.request(NOON + day * DAY_MS);
            ledger.request(NOON + day * DAY_MS);
        }
        let days: Vec<_> = ledger.days().collect();
        assert_eq!((days.len(), days[0].0, days[0].1.requests), (MAX_DAYS, 20_039, 2));
        ledger.request(NOON);
        assert_eq!(ledger.days().next().unwrap().1.requests, 3, "a clock that is set back");
        assert!(!ledger.is_at_rest(NOON + 39 * DAY_MS) && ledger.is_at_rest(NOON + 40 * DAY_MS));
    }
}
