//! What to do about a verdict: a pure, total function of the verdict, the repairs so far and the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use contract::Class;

use crate::config::{Policy, Repair};
use crate::guard::judge::verdict::Verdict;

/// Repairs kept; a day's budget and the futility rule look at fewer.
const MAX_RESTARTS: usize = 64;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Least time between two recycles.
const RECYCLE_PERIOD: Duration = Duration::from_secs(3600);

/// One restart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Restart {
    /// When it was ordered.
    pub at: Instant,
    /// First bad byte that led to it.
    pub cause: Instant,
    /// When the new instance was verified.
    pub healthy: Option<Instant>,
    /// Whether the engine was served out first: no repair of a wedge, and no part of its budget.
    pub recycle: bool,
}

/// The repairs of one engine, over all its instances.
#[derive(Clone, Debug, Default)]
pub struct Repairs {
    restarts: VecDeque<Restart>,
    total: u64,
    /// A person asked to forget what was used up.
    reset: Option<Instant>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Remediation {
    /// Nothing.
    None,
    /// Replace the process as soon as the operator agrees.
    Ask(Order),
    /// Keep it out of rotation and look again.
    Hold {
        /// Why.
        why: Held,
        /// When the reason ends by itself.
        until: Option<Instant>,
    },
    /// Replace the process.
    Restart(Order),
    /// Replace the process once nothing runs on it.
    Recycle(Order),
    /// No further act until a probe passes or a person resets.
    Stop(Stopped),
}

/// Why a restart waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Spacing between restarts of a row.
    Spacing,
    /// The budget is used up and refills with time.
    Budget,
    /// Repair is switched off, or nothing here can restart the engine.
    NoActuator,
    /// The operator wants it to wait.
    Deferred,
    /// The operator is away, and the case is not one to decide alone.
    Away,
}

/// Why repair stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Restarts did not lead to health.
    Futile,
    /// The day's restarts are used up.
    DayBudget,
    /// The engine says that it cannot run here.
    Unfit,
    /// The driver says that the GPU must be reset, or the node rebooted, before any process works on it.
    Gpu,
}

impl Remediation {
    /// The same where the driver says that a restart cannot help: a wedged engine waits until the GPU is good again.
    pub fn without_gpu(self) -> Self {
        match self {
            Self::Restart(_) => Self::Stop(Stopped::Gpu),
            Self::Recycle(_) => Self::None,
            Self::None | Self::Ask(_) | Self::Hold { .. } | Self::Stop(_) => self,
        }
    }
}

/// An order to replace the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Number of the restart in its row, from 0.
    pub attempt: u32,
    /// How the process is ended.
    pub kill: Kill,
}

/// How a process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// SIGKILL: tearing down a dead CUDA context may hang.
    AtOnce,
    /// SIGTERM, then SIGKILL after the grace.
    Graceful,
}

impl Repairs {
    /// Records a restart ordered now for a fault first seen at `cause`, or a recycle.
    pub fn restarted(&mut self, cause: Instant, recycle: bool, now: Instant) {
        if self.restarts.len() == MAX_RESTARTS {
            self.restarts.pop_front();
        }
        self.restarts.push_back(Restart { at: now, cause, healthy: None, recycle });
        self.total += 1;
    }

    /// Records that the instance was verified.
    pub fn healthy(&mut self, now: Instant) {
        if let Some(last) = self.restarts.back_mut() {
            last.healthy.get_or_insert(now);
        }
    }

    /// Forgets what was used up.
    pub fn reset(&mut self, now: Instant) {
        self.reset = Some(now);
    }

    /// Restarts since the guard started.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The last restart.
    pub fn last(&self) -> Option<&Restart> {
        self.restarts.back()
    }

    /// Expected seconds from the first bad byte to health: the 90th percentile of those seen.
    pub fn expected_recovery(&self) -> Option<Duration> {
        let mut seen: Vec<Duration> = self
            .restarts
            .iter()
            .filter_map(|restart| Some(restart.healthy?.saturating_duration_since(restart.at)))
            .collect();
        seen.sort_unstable();
        let at = (seen.len() * 9).div_ceil(10).checked_sub(1)?;
        seen.get(at).copied()
    }

    /// Whether the engine was recycled within `window`.
    fn recycled_within(&self, window: Duration, now: Instant) -> bool {
        let recent = |restart: &&Restart| now.saturating_duration_since(restart.at) < window;
        self.restarts.iter().rev().take_while(recent).any(|restart| restart.recycle)
    }

    fn counted(&self) -> impl DoubleEndedIterator<Item = &Restart> {
        let reset = self.reset;
        let repairs = self.restarts.iter().filter(|restart| !restart.recycle);
        repairs.filter(move |restart| reset.is_none_or(|at| restart.at > at))
    }

    /// Restarts of the present row: a row ends when health has lasted for `forget`.
    pub fn attempt(&self, policy: &Repair, now: Instant) -> u32 {
        let mut row = 0;
        let mut next = now;
        for restart in self.counted().rev() {
            let lasted = restart.healthy.map(|healthy| next.saturating_duration_since(healthy));
            if lasted.is_some_and(|lasted| lasted >= policy.forget) {
                break;
            }
            row += 1;
            next = restart.at;
        }
        row
    }

    /// Tokens of the restart bucket.
    pub fn tokens(&self, policy: &Repair, now: Instant) -> f64 {
        let ages = self.counted().map(|restart| now.saturating_duration_since(restart.at));
        contract::budget::tokens(ages, policy.burst, policy.refill)
    }

    fn is_futile(&self, policy: &Repair, now: Instant) -> bool {
        let of = policy.futility_of as usize;
        let recent: Vec<&Restart> = self.counted().rev().take(of).collect();
        if of == 0 || recent.len() < of {
            return false;
        }
        let failed = recent.iter().enumerate().filter(|(at, restart)| {
            // A later restart ends the chance of this one.
            let end = at.checked_sub(1).and_then(|later| recent.get(later)).map_or(now, |later| later.at);
            match restart.healthy {
                Some(healthy) => end.saturating_duration_since(healthy) < policy.probation,
                None => end < now || now.saturating_duration_since(restart.at) > policy.futility_window,
            }
        });
        failed.count() as f64 > policy.futility_share * of as f64
    }
}

/// What may restart the engine, and under whose budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actuation {
    /// Nothing here can.
    None,
    /// The guard may, under its own budgets.
    Own,
    /// The guard can and must ask the operator, which alone counts.
    Asks,
}

/// Decides on the act.
pub fn remediation(
    verdict: Verdict,
    repairs: &Repairs,
    actuation: Actuation,
    policy: &Policy,
    now: Instant,
) -> Remediation {
    let restart = |class| restart(class, repairs, actuation, &policy.repair, now);
    match verdict {
        Verdict::Starting
        | Verdict::Warming
        | Verdict::Serving
        | Verdict::Saturated
        | Verdict::Degraded(_)
        | Verdict::Suspect(_)
        | Verdict::Cleared(_)
        | Verdict::Undecided(_) => Remediation::None,
        // One retry in case the first reading was made too early; then a person must look.
        Verdict::Unstartable if repairs.attempt(&policy.repair, now) > 0 => Remediation::Stop(Stopped::Unfit),
        Verdict::Unstartable => restart(None),
        Verdict::Gone => restart(Some(Class::Refused)),
        Verdict::Wedged(class) => restart(Some(class)),
        Verdict::Worn(_) if repairs.recycled_within(RECYCLE_PERIOD, now) => Remediation::None,
        Verdict::Worn(_) => match restart(None) {
            Remediation::Restart(order) => Remediation::Recycle(order),
            // It still serves: wear alone never ejects or stops anything.
            _ => Remediation::None,
        },
    }
}

fn restart(
    class: Option<Class>,
    repairs: &Repairs,
    actuation: Actuation,
    policy: &Repair,
    now: Instant,
) -> Remediation {
    if !policy.restart || actuation == Actuation::None {
        return Remediation::Hold { why: Held::NoActuator, until: None };
    }
    let attempt = repairs.attempt(policy, now);
    let kill = match class {
        Some(class) if class.is_sticky() || class == Class::Hang => Kill::AtOnce,
        _ => Kill::Graceful,
    };
    if actuation == Actuation::Asks {
        return Remediation::Restart(Order { attempt, kill });
    }
    let today = repairs.counted().filter(|restart| now.saturating_duration_since(restart.at) < DAY).count();
    if repairs.is_futile(policy, now) {
        return Remediation::Stop(Stopped::Futile);
    }
    if today >= policy.max_per_day as usize {
        return Remediation::Stop(Stopped::DayBudget);
    }
    let missing = 1.0 - repairs.tokens(policy, now);
    if missing > 0.0 {
        return Remediation::Hold { why: Held::Budget, until: Some(now + policy.refill.mul_f64(missing)) };
    }
    let due = repairs.last().map(|last| last.at + policy.spacing(attempt));
    if let Some(due) = due.filter(|due| attempt > 0 && now < *due) {
        return Remediation::Hold { why: Held::Spacing, until: Some(due) };
    }
    Remediation::Restart(Order { attempt, kill })
}

#[cfg(test)]
mod tests;
