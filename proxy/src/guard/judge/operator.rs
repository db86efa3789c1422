//! What the operator has said about restarts, and what may be done while it says nothing. Pure: the clock is passed in.
//!
//! ```text
//! remediation: what the guard wants -> decide: what it may do now
//!                                       ^
//! POST /repair -> order ----------------+------- heard: when a verified stream last was open
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use contract::{Act, Class, RepairOrder, RepairRequest, Verb};

use crate::config::Alone;
use crate::guard::judge::remediation::{Held, Remediation};

#[cfg(test)]
mod tests;

/// Longest time that one [`Verb::Defer`] holds a restart.
const LONGEST_DEFER: Duration = Duration::from_secs(120);
/// Accepted orders remembered, so that one that is sent again is accepted again and not carried out again.
const REMEMBERED: usize = 8;
const REASON_CHARS: usize = 256;

/// What the operator has said.
#[derive(Clone, Debug)]
pub struct Operator {
    /// When it was last in contact, and since when it has been.
    heard: Instant,
    heard_since: Instant,
    pending: Option<Pending>,
    accepted: VecDeque<(Verb, String, u32)>,
    /// The last restart without its word.
    alone: Option<Instant>,
}

/// A restart that waits for the operator.
#[derive(Clone, Debug)]
struct Pending {
    request: RepairRequest,
    since: Instant,
    answer: Option<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Granted,
    Deferred { until: Instant, reason: String },
}

/// The case that a restart is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Class of the fault.
    pub class: Option<Class>,
    /// Whether the last golden probe that tells anything failed.
    pub golden_failed: bool,
}

/// The present instance, as an order is checked against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present<'a> {
    /// Its key.
    pub instance: &'a str,
    /// The number that its next restart has.
    pub attempt: u32,
    /// Whether it may be restarted at all, and nothing is being done to it now.
    pub can_restart: bool,
}

/// What becomes of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is accepted; and this is to be done now.
    Accepted(Option<Deed>),
    /// It names another instance or attempt than the present ones, or one that cannot be restarted.
    Conflict {
        /// The present instance.
        instance: String,
        /// The present attempt.
        attempt: u32,
    },
}

/// What an accepted order does at once; a grant is found by [`Operator::decide`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Restart the instance.
    Restart,
    /// Forget used-up budgets.
    Reset,
}

impl Operator {
    /// Nothing said yet; it is given time from `now` on to get in touch.
    pub fn new(now: Instant) -> Self {
        Self { heard: now, heard_since: now, pending: None, accepted: VecDeque::new(), alone: None }
    }

    /// It was in contact at `at`.
    pub fn hear(&mut self, at: Instant, policy: &Alone) {
        if at.saturating_duration_since(self.heard) > policy.after {
            self.heard_since = at;
        }
        self.heard = self.heard.max(at);
    }

    /// Notes what the guard wants now: a restart that it wants opens a request, or keeps the open one. Returns whether that
    /// opened or closed one.
    pub fn note(
        &mut self,
        wish: Remediation,
        instance: &str,
        class: Option<Class>,
        now: Instant,
        now_unix_ms: impl FnOnce() -> u64,
    ) -> bool {
        let (order, act) = match wish {
            Remediation::Restart(order) => (order, Act::Restart),
            Remediation::Recycle(order) => (order, Act::Recycle),
            Remediation::None | Remediation::Ask(_) | Remediation::Hold { .. } | Remediation::Stop(_) => {
                return self.pending.take().is_some();
            }
        };
        let attempt = order.attempt;
        match &mut self.pending {
            Some(open) if open.request.instance == instance && open.request.attempt == attempt => {
                (open.request.class, open.request.act) = (class, act);
                false
            }
            _ => {
                let (instance, since_unix_ms) = (instance.to_owned(), now_unix_ms());
                let request = RepairRequest { instance, attempt, class, act, since_unix_ms };
                self.pending = Some(Pending { request, since: now, answer: None });
                true
            }
        }
    }

    /// What may be done now of what the guard wants.
    pub fn decide(&self, wish: Remediation, case: Case, policy: &Alone, now: Instant) -> Remediation {
        let (order, is_restart) = match wish {
            Remediation::Restart(order) => (order, true),
            Remediation::Recycle(order) => (order, false),
            other => return other,
        };
        let Some(pending) = &self.pending else { return Remediation::Ask(order) };
        match &pending.answer {
            Some(Answer::Granted) => return wish,
            Some(Answer::Deferred { until, .. }) if now < *until => {
                return Remediation::Hold { why: Held::Deferred, until: Some(*until) };
            }
            Some(Answer::Deferred { .. }) | None => {}
        }
        if !self.is_away(pending, policy, now) {
            return Remediation::Ask(order);
        }
        // What golden probes have proven, of any class that a restart may cure; a recycle can wait.
        let curable = case.class.is_some_and(|class| class != Class::Environment);
        let is_ours = is_restart && case.golden_failed && curable;
        if !is_ours {
            return Remediation::Hold { why: Held::Away, until: None };
        }
        match self.alone.map(|last| last + policy.every) {
            Some(due) if now < due => Remediation::Hold { why: Held::Away, until: Some(due) },
            _ => wish,
        }
    }

    /// Not in contact, or in contact and silent, for longer than it is given.
    fn is_away(&self, pending: &Pending, policy: &Alone, now: Instant) -> bool {
        let asked = match &pending.answer {
            Some(Answer::Deferred { until, .. }) => *until,
            Some(Answer::Granted) | None => pending.since,
        };
        let silent_since = asked.max(self.heard_since);
        now.saturating_duration_since(self.heard) > policy.after
            || now.saturating_duration_since(silent_since) > policy.after
    }

    /// The restart that was decided on is carried out now.
    pub fn restarted(&mut self, now: Instant) {
        let granted = self.pending.take().is_some_and(|pending| pending.answer == Some(Answer::Granted));
        if !granted {
            self.alone = Some(now);
        }
    }

    /// Takes an order, if it is meant for what is there now.
    pub fn order(&mut self, order: &RepairOrder, present: Present<'_>, now: Instant) -> Reply {
        let conflict = || Reply::Conflict { instance: present.instance.to_owned(), attempt: present.attempt };
        // An order to forget does no harm when it comes late, and one that is repeated later means it anew.
        if order.order == Verb::Reset {
            let named = !order.instance.is_empty() && order.instance != present.instance;
            return if named { conflict() } else { Reply::Accepted(Some(Deed::Reset)) };
        }
        let known = (order.order, order.instance.clone(), order.attempt);
        if order.order != Verb::Defer && self.accepted.contains(&known) {
            self.grant_again(order);
            return Reply::Accepted(None);
        }
        if order.instance != present.instance {
            return conflict();
        }
        let asks = self.pending.is_some();
        let asked = self.pending.as_mut().filter(|pending| pending.request.attempt == order.attempt);
        let reply = match (order.order, asked) {
            (Verb::Grant, Some(pending)) => {
                pending.answer = Some(Answer::Granted);
                Reply::Accepted(None)
            }
            (Verb::Defer, Some(pending)) => {
                let until = now + Duration::from_secs(order.seconds).min(LONGEST_DEFER);
                let reason = order.reason.chars().filter(|char| !char.is_control()).take(REASON_CHARS);
                pending.answer = Some(Answer::Deferred { until, reason: reason.collect() });
                Reply::Accepted(None)
            }
            (Verb::Restart, asked) if present.can_restart && (asked.is_some() || !asks) => {
                // With leave: it is no restart of the guard's own.
                if let Some(pending) = asked {
                    pending.answer = Some(Answer::Granted);
                }
                Reply::Accepted(Some(Deed::Restart))
            }
            _ => return conflict(),
        };
        if order.order != Verb::Defer {
            if self.accepted.len() == REMEMBERED {
                self.accepted.pop_front();
            }
            self.accepted.push_back(known);
        }
        reply
    }

    /// A request that was granted, went away before it was carried out, and is open again, keeps its grant.
    fn grant_again(&mut self, order: &RepairOrder) {
        let same = |request: &RepairRequest| {
            order.order == Verb::Grant
                && (&request.instance, request.attempt) == (&order.instance, order.attempt)
        };
        if let Some(pending) = self.pending.as_mut().filter(|pending| same(&pending.request)) {
            pending.answer = Some(Answer::Granted);
        }
    }

    /// The request that waits for an answer, or for its grant to be carried out.
    pub fn request(&self) -> Option<RepairRequest> {
        self.pending.as_ref().map(|pending| pending.request.clone())
    }

    /// Why the operator has the restart wait.
    pub fn deferred(&self, now: Instant) -> Option<String> {
        match &self.pending.as_ref()?.answer {
            Some(Answer::Deferred { until, reason }) if now < *until => Some(reason.clone()),
            Some(Answer::Deferred { .. } | Answer::Granted) | None => None,
        }
    }
}
