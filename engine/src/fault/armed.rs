//! When an armed fault strikes.

use std::time::Instant;

use serde_json::{Value, json};

use super::arming::{Arming, Clear, Trigger};
use super::duration;
use super::mode::Mode;
use super::state_file::Kept;

/// How a mode goes on once its trigger has set it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// Every inference from then on, whatever the trigger.
    Sticky,
    /// A condition of every inference from then on; a chance or a hash picks single ones.
    Condition,
    /// One inference; a chance or a hash picks any number.
    Once,
}

/// An armed fault and how far it has come.
#[derive(Debug, Clone)]
pub struct Armed {
    /// As it was armed.
    pub arming: Arming,
    /// How often it struck.
    pub fired: u64,
    /// It comes from the state file.
    pub restored: bool,
    since: Instant,
    seen: u64,
    tripped: Option<Instant>,
    spent: bool,
    starts_left: Option<u32>,
}

impl Armed {
    /// A fault armed now.
    #[must_use]
    pub fn new(arming: Arming, now: Instant) -> Self {
        let starts_left = match arming.clear {
            Clear::StateFile { restarts } => restarts,
            Clear::Process | Clear::AfterS(_) => None,
        };
        Self {
            arming,
            fired: 0,
            restored: false,
            since: now,
            seen: 0,
            tripped: None,
            spent: false,
            starts_left,
        }
    }

    /// A fault of an earlier process.
    #[must_use]
    pub fn restored(kept: Kept, now: Instant) -> Self {
        let mut armed = Self::new(kept.arming, now);
        armed.restored = true;
        armed.starts_left = kept.starts_left;
        armed.tripped = kept.tripped.then_some(now);
        armed
    }

    /// What the state file keeps of it, if anything. A poison's wedge ends with the process, the poison does not.
    #[must_use]
    pub fn kept(&self) -> Option<Kept> {
        let Clear::StateFile { .. } = self.arming.clear else { return None };
        let tripped = self.tripped.is_some() && !matches!(self.arming.mode, Mode::F23 { .. });
        Some(Kept { arming: self.arming.clone(), tripped, starts_left: self.starts_left })
    }

    /// When it set in.
    #[must_use]
    pub fn tripped(&self) -> Option<Instant> {
        self.tripped
    }

    /// When it set in, by time alone; `None` while it waits or when it is over.
    pub fn set_in(&mut self, now: Instant) -> Option<Instant> {
        if self.over(now) {
            return None;
        }
        // F31 waits for its overlap.
        if self.tripped.is_none()
            && self.course() != Course::Once
            && !matches!(self.arming.mode, Mode::F31 {})
        {
            self.tripped = match self.arming.trigger {
                Trigger::Now => Some(self.since),
                Trigger::AtS(at) => Some(self.since + duration(at)).filter(|due| *due <= now),
                Trigger::AfterN(_) | Trigger::OnInputHash(_) | Trigger::P(_) => None,
            };
        }
        self.tripped
    }

    /// Whether it strikes an inference of this input hash with `ahead` others in flight; `chance` is 0 to 1.
    pub fn strikes(&mut self, hash: u64, ahead: usize, now: Instant, chance: f64) -> bool {
        self.seen += 1;
        if self.over(now) {
            return false;
        }
        let struck = self.set_in(now).is_some() || self.triggered(hash, ahead, now, chance);
        self.fired += u64::from(struck);
        struck
    }

    fn triggered(&mut self, hash: u64, ahead: usize, now: Instant, chance: f64) -> bool {
        let due = match self.arming.trigger {
            _ if matches!(self.arming.mode, Mode::F31 {}) => ahead > 0,
            Trigger::Now => true,
            Trigger::AfterN(count) => self.seen > count,
            Trigger::AtS(at) => now >= self.since + duration(at),
            Trigger::OnInputHash(poison) => poison.0 == hash,
            Trigger::P(p) => chance < p,
        };
        let single = matches!(self.arming.trigger, Trigger::OnInputHash(_) | Trigger::P(_));
        if due {
            match self.course() {
                Course::Sticky => self.tripped = Some(now),
                Course::Condition if !single => self.tripped = Some(now),
                Course::Once if !single => self.spent = true,
                Course::Condition | Course::Once => {}
            }
        }
        due
    }

    fn course(&self) -> Course {
        match self.arming.mode {
            Mode::F1 { .. }
            | Mode::F2 {}
            | Mode::F4 { .. }
            | Mode::F6 { sticky: true, .. }
            | Mode::F7 {}
            | Mode::F8 {}
            | Mode::F10 { .. }
            | Mode::F12 { .. }
            | Mode::F18 { .. }
            | Mode::F22 { .. }
            | Mode::F23 { .. }
            | Mode::F27 { .. }
            | Mode::F31 {} => Course::Sticky,
            Mode::F11 { .. }
            | Mode::F13 { .. }
            | Mode::F14 { .. }
            | Mode::F15 { .. }
            | Mode::F16 { .. }
            | Mode::F17 { .. } => Course::Condition,
            Mode::F6 { oom_above_s, sticky: false } if oom_above_s > 0.0 => Course::Condition,
            Mode::F3 { .. } | Mode::F5 {} | Mode::F6 { .. } | Mode::F9 {} => Course::Once,
        }
    }

    fn over(&self, now: Instant) -> bool {
        let expired =
            matches!(self.arming.clear, Clear::AfterS(after) if now >= self.since + duration(after));
        let unblocked = match (&self.arming.mode, self.tripped) {
            (Mode::F10 { seconds }, Some(tripped)) => now >= tripped + duration(*seconds),
            _ => false,
        };
        self.spent || expired || unblocked
    }

    /// The arming with `state` (`waiting`, `active`, `over`), `fired` and `restored`.
    pub fn report(&mut self, now: Instant) -> Value {
        let set_in = self.set_in(now);
        let mut json = self.arming.to_json();
        json["state"] = match (self.over(now), set_in) {
            (true, _) => "over".into(),
            (false, Some(_)) => "active".into(),
            (false, None) => "waiting".into(),
        };
        json["fired"] = json!(self.fired);
        json["restored"] = json!(self.restored);
        json
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn armed(json: &str, now: Instant) -> Armed {
        Armed::new(Arming::parse(json.as_bytes()).unwrap(), now)
    }

    /// Which of eight inferences, a second apart, are struck; the fourth has hash 7, chances rise by an eighth.
    fn struck(json: &str) -> Vec<usize> {
        let start = Instant::now();
        let mut fault = armed(json, start);
        let strikes = |n: &usize| {
            let now = start + Duration::from_secs(*n as u64);
            fault.strikes(if *n == 4 { 7 } else { 0 }, 0, now, (*n - 1) as f64 / 8.0)
        };
        (1..=8).filter(strikes).collect()
    }

    #[test]
    fn sticky_modes_stay_whatever_set_them_in() {
        let from = |first: usize| (first..=8).collect::<Vec<_>>();
        assert_eq!(struck(r#"{"mode":"F1"}"#), from(1));
        assert_eq!(struck(r#"{"mode":"F1","trigger":{"after_n":2}}"#), from(3));
        assert_eq!(struck(r#"{"mode":"F2","trigger":{"at_s":5}}"#), from(5));
        assert_eq!(struck(r#"{"mode":"F23","trigger":{"on_input_hash":"7"}}"#), from(4));
        assert_eq!(struck(r#"{"mode":"F7","trigger":{"p":0.01}}"#), from(1));
    }

    #[test]
    fn transient_modes_strike_once_or_by_chance() {
        assert_eq!(struck(r#"{"mode":"F9"}"#), [1]);
        assert_eq!(struck(r#"{"mode":"F3","trigger":{"after_n":2}}"#), [3]);
        assert_eq!(struck(r#"{"mode":"F3","trigger":{"at_s":5}}"#), [5]);
        assert_eq!(struck(r#"{"mode":"F3","trigger":{"p":0.3}}"#), [1, 2, 3]);
        assert_eq!(struck(r#"{"mode":"F6"}"#), [1]);
    }

    #[test]
    fn conditions_last_and_chance_picks_single_inferences() {
        assert_eq!(struck(r#"{"mode":"F14","trigger":{"after_n":6}}"#), [7, 8]);
        assert_eq!(struck(r#"{"mode":"F15","trigger":{"p":0.2}}"#), [1, 2]);
        assert_eq!(struck(r#"{"mode":"F16","trigger":{"on_input_hash":"7"}}"#), [4]);
        assert_eq!(struck(r#"{"mode":"F1","clear":{"after_s":3}}"#), [1, 2]);
    }

    #[test]
    fn overlap_wedges_for_good() {
        let now = Instant::now();
        let mut fault = armed(r#"{"mode":"F31"}"#, now);
        assert!(!fault.strikes(0, 0, now, 0.0));
        assert!(fault.strikes(0, 1, now, 0.0));
        assert!(fault.strikes(0, 0, now, 0.0));
        assert_eq!(fault.fired, 2);
    }
}
