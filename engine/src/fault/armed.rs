//! When an armed fault strikes.

use std::time::Instant;

use serde_json::{Value, json};

use super::arming::{Arming, Clear, Trigger};
use super::duration;
use super::mode::Mode;
use super::origin::{Origin, Reply};
use super::state_file::Kept;

/// An inference that was just accepted, as faults look at it.
#[derive(Debug, Clone, Copy)]
pub struct Inference<'a> {
    /// xxh3-64 of its input.
    pub hash: u64,
    /// Others in flight.
    pub ahead: usize,
    /// The request behind it.
    pub origin: &'a Origin,
}

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
        // F31 waits for its overlap, F45 for a client that leaves.
        let timed = !matches!(self.arming.mode, Mode::F31 {} | Mode::F45 { .. });
        if timed && self.tripped.is_none() && self.course() != Course::Once {
            self.tripped = match self.arming.trigger {
                Trigger::Now => Some(self.since),
                Trigger::AtS(at) => Some(self.since + duration(at)).filter(|due| *due <= now),
                Trigger::AfterN(_) | Trigger::OnInputHash(_) | Trigger::P(_) => None,
            };
        }
        self.tripped
    }

    /// Whether it strikes an inference; `chance` is 0 to 1.
    pub fn strikes(&mut self, inference: &Inference, now: Instant, chance: f64) -> bool {
        self.seen += 1;
        if self.over(now) || !self.concerns(inference.origin) {
            return false;
        }
        let struck = self.set_in(now).is_some() || self.triggered(inference, now, chance);
        self.fired += u64::from(struck);
        struck
    }

    /// Sets it in, unless it has set in or is over; true when it does.
    pub fn trip(&mut self, now: Instant) -> bool {
        let trips = self.tripped.is_none() && !self.over(now);
        if trips {
            self.tripped = Some(now);
        }
        trips
    }

    /// Ends it for this process.
    pub fn end(&mut self) {
        self.spent = true;
    }

    /// Since when it is armed, in this process.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Whether the mode can show in the answer to such a request. F32 strikes where a job begins.
    fn concerns(&self, origin: &Origin) -> bool {
        match self.arming.mode {
            Mode::F32 { .. } => false,
            Mode::F39 { .. } => origin.reply == Reply::Unary,
            Mode::F40 { .. } => origin.reply == Reply::Streamed,
            Mode::F42 { .. } => origin.echo.is_some(),
            _ => true,
        }
    }

    fn triggered(&mut self, inference: &Inference, now: Instant, chance: f64) -> bool {
        let due = match self.arming.trigger {
            _ if matches!(self.arming.mode, Mode::F31 {}) => inference.ahead > 0,
            _ if matches!(self.arming.mode, Mode::F45 { .. }) => false,
            Trigger::Now => true,
            Trigger::AfterN(count) => self.seen > count,
            Trigger::AtS(at) => now >= self.since + duration(at),
            Trigger::OnInputHash(poison) => poison.0 == inference.hash,
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
            | Mode::F31 {}
            | Mode::F33 { .. }
            | Mode::F35 { .. }
            | Mode::F41 { .. }
            | Mode::F45 { .. } => Course::Sticky,
            Mode::F11 { .. }
            | Mode::F13 { .. }
            | Mode::F14 { .. }
            | Mode::F15 { .. }
            | Mode::F16 { .. }
            | Mode::F17 { .. }
            | Mode::F32 { .. }
            | Mode::F34 { .. }
            | Mode::F39 { .. }
            | Mode::F40 { .. }
            | Mode::F42 { .. }
            | Mode::F43 { .. } => Course::Condition,
            Mode::F6 { oom_above_s, sticky: false } if oom_above_s > 0.0 => Course::Condition,
            Mode::F3 { .. } | Mode::F5 {} | Mode::F6 { .. } | Mode::F9 {} | Mode::F38 {} => Course::Once,
        }
    }

    fn over(&self, now: Instant) -> bool {
        let passed = match (&self.arming.mode, self.tripped) {
            (Mode::F10 { seconds } | Mode::F33 { seconds, .. }, Some(tripped)) => {
                now >= tripped + duration(*seconds)
            }
            _ => false,
        };
        self.spent || self.expired(now) || passed
    }

    /// Whether its lifetime has passed.
    #[must_use]
    pub fn expired(&self, now: Instant) -> bool {
        matches!(self.arming.clear, Clear::AfterS(after) if now >= self.since + duration(after))
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
    use crate::fault::origin::Echo;

    fn armed(json: &str, now: Instant) -> Armed {
        Armed::new(Arming::parse(json.as_bytes()).unwrap(), now)
    }

    /// Which of eight inferences, a second apart, are struck; the fourth has hash 7, chances rise by an eighth.
    fn struck(json: &str) -> Vec<usize> {
        let start = Instant::now();
        let mut fault = armed(json, start);
        let strikes = |n: &usize| {
            let now = start + Duration::from_secs(*n as u64);
            let origin = Origin { reply: Reply::Unary, echo: None };
            let inference = Inference { hash: if *n == 4 { 7 } else { 0 }, ahead: 0, origin: &origin };
            fault.strikes(&inference, now, (*n - 1) as f64 / 8.0)
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
        let origin = Origin::default();
        let mut strikes = |ahead| fault.strikes(&Inference { hash: 0, ahead, origin: &origin }, now, 0.0);
        assert_eq!([strikes(0), strikes(1), strikes(0)], [false, true, true]);
        assert_eq!(fault.fired, 2);
    }

    #[test]
    fn modes_of_single_replies_strike_no_other() {
        let text = || Some(Echo { field: "prompt", text: "hello".into() });
        let [http, unary, streamed] =
            [Reply::Whole, Reply::Unary, Reply::Streamed].map(|reply| Origin { reply, echo: None });
        let echoed = Origin { reply: Reply::Whole, echo: text() };
        for (json, struck) in [
            (r#"{"mode":"F39"}"#, [false, true, false, false]),
            (r#"{"mode":"F40"}"#, [false, false, true, false]),
            (r#"{"mode":"F42"}"#, [false, false, false, true]),
            (r#"{"mode":"F32"}"#, [false; 4]),
            (r#"{"mode":"F45"}"#, [false; 4]),
            (r#"{"mode":"F35"}"#, [true; 4]),
        ] {
            let now = Instant::now();
            let mut fault = armed(json, now);
            let origins = [&http, &unary, &streamed, &echoed];
            let strikes =
                origins.map(|origin| fault.strikes(&Inference { hash: 0, ahead: 0, origin }, now, 0.0));
            assert_eq!(strikes, struck, "{json}");
        }
    }

    #[test]
    fn refusals_after_the_start_end_by_time_and_a_client_that_leaves_sets_its_wedge_in() {
        assert_eq!(struck(r#"{"mode":"F33","seconds":4}"#), [1, 2, 3]);
        let now = Instant::now();
        let mut fault = armed(r#"{"mode":"F45"}"#, now);
        assert_eq!(fault.set_in(now), None);
        assert!(fault.trip(now) && !fault.trip(now));
        assert_eq!(fault.set_in(now), Some(now));
    }
}
