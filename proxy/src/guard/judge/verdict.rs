//! What the evidence proves: a pure, total function of the record, the lane and the time.

use std::time::{Duration, Instant};

use contract::{Class, VerdictName};

use crate::config::{Policy, Quorum};
use crate::guard::judge::evidence::{Evidence, Failed, Probed, Shallow, Suspicion};
use crate::guard::path::lane::LaneView;

/// Times the longest start seen before that a restarted engine is given...
const START_FACTOR: u32 = 3;
/// ...and the least that it is given: what once took seconds may take a minute on a starved node.
const LEAST_START: Duration = Duration::from_secs(120);
/// Answers of 429 and 503 in a row to probes that show load.
const BUSY_PROBES: usize = 3;

/// What is concluded about the running instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Shallow health is not green yet.
    Starting,
    /// Shallow health is green; golden probes have not passed yet.
    Warming,
    /// It serves.
    Serving,
    /// It serves, and its queue is long.
    Saturated,
    /// It serves, but slowly, or was doubted too often.
    Degraded(Class),
    /// It serves so badly that it should be replaced once idle.
    Worn(Class),
    /// Doubted; probes decide.
    Suspect(Class),
    /// The doubt is over: the record should close it.
    Cleared(Class),
    /// Doubted for long, and the evidence contradicts itself.
    Undecided(Class),
    /// It cannot serve.
    Wedged(Class),
    /// It cannot start, and a restart would not change that.
    Unstartable,
    /// The process ended.
    Gone,
}

impl Verdict {
    /// The class of the fault behind it.
    pub fn class(self) -> Option<Class> {
        match self {
            Verdict::Degraded(class)
            | Verdict::Worn(class)
            | Verdict::Suspect(class)
            | Verdict::Cleared(class)
            | Verdict::Undecided(class)
            | Verdict::Wedged(class) => Some(class),
            Verdict::Unstartable => Some(Class::Environment),
            Verdict::Gone => Some(Class::Refused),
            Verdict::Starting | Verdict::Warming | Verdict::Serving | Verdict::Saturated => None,
        }
    }

    /// Its name in reports.
    pub fn name(self) -> VerdictName {
        match self {
            Verdict::Starting | Verdict::Warming => VerdictName::Pending,
            Verdict::Serving | Verdict::Saturated | Verdict::Cleared(_) => VerdictName::Serving,
            Verdict::Degraded(_) | Verdict::Worn(_) => VerdictName::Degraded,
            Verdict::Suspect(_) => VerdictName::Suspect,
            Verdict::Undecided(_) => VerdictName::Undecided,
            Verdict::Wedged(_) | Verdict::Gone => VerdictName::Wedged,
            Verdict::Unstartable => VerdictName::Unstartable,
        }
    }
}

/// Judges the instance.
pub fn verdict(evidence: &Evidence, lane: &LaneView, policy: &Policy, now: Instant) -> Verdict {
    if evidence.exited.is_some() {
        return if evidence.unfit { Verdict::Unstartable } else { Verdict::Gone };
    }
    let Some(verified) = evidence.verified else { return unproven(evidence, policy, now) };
    match evidence.suspicion {
        Some(open)
            if open.class == Class::Hang && lane.progress.max(Some(evidence.progress)) > Some(open.seen) =>
        {
            Verdict::Cleared(open.class) // busy, not hung
        }
        Some(open) => doubted(evidence, open, verified, policy, now),
        None => undoubted(evidence, lane, policy, now),
    }
}

/// Nothing is repaired that was never proven, but for sticky faults and wrong content. Timeouts, refusals and error answers
/// may be a cold start, and have the start-up budget.
fn unproven(evidence: &Evidence, policy: &Policy, now: Instant) -> Verdict {
    if evidence.shallow == Shallow::Unfit {
        return Verdict::Unstartable;
    }
    if let Some(class) = unfit_while_starting(evidence, policy) {
        return Verdict::Wedged(class);
    }
    let overdue =
        !evidence.awaited && now.saturating_duration_since(evidence.started) > start_budget(evidence, policy);
    match (overdue, evidence.shallow) {
        // Where an earlier instance was proven, a restart is known to help.
        (true, _) if evidence.usual_start.is_some() => Verdict::Wedged(last_class(evidence)),
        (true, _) => Verdict::Unstartable,
        (false, Shallow::Green) => Verdict::Warming,
        (false, _) => Verdict::Starting,
    }
}

/// The class of the failures in a row that prove a fault of an engine that was never proven.
fn unfit_while_starting(evidence: &Evidence, policy: &Policy) -> Option<Class> {
    let telling = evidence.telling_probes(evidence.started).rev();
    let failures = telling.map_while(|probe| probe.failure).map(Failed::class);
    let failures: Vec<Class> = failures.collect();
    let proven = |class: Class| {
        let count = failures.iter().filter(|failure| **failure == class).count();
        count >= policy.confirm.of(class).failures as usize
    };
    let sticky = failures.iter().copied().find(|class| class.is_sticky() && proven(*class));
    sticky.or_else(|| proven(Class::Quality).then_some(Class::Quality))
}

/// How long the instance may take to be proven.
fn start_budget(evidence: &Evidence, policy: &Policy) -> Duration {
    let usual = evidence.usual_start.map(|usual| (usual * START_FACTOR).max(LEAST_START));
    usual.map_or(policy.startup.budget, |usual| usual.min(policy.startup.budget))
}

fn last_class(evidence: &Evidence) -> Class {
    let failed = evidence.probes.back().and_then(|probe| probe.failure);
    failed.map_or(Class::Refused, Failed::class)
}

fn doubted(
    evidence: &Evidence,
    open: Suspicion,
    verified: Instant,
    policy: &Policy,
    now: Instant,
) -> Verdict {
    let class = open.class;
    let served_since = evidence.success.filter(|success| success.started > open.seen);
    let answered_since = evidence.success.filter(|success| success.ended > open.seen);
    if class == Class::Hang && answered_since.is_some() {
        return Verdict::Cleared(class); // busy, not hung
    }
    // Garbage also "succeeds", so a served request speaks for everything but content.
    let veto = served_since.filter(|_| class != Class::Quality);
    let doubted_from = open.counts_from();
    let vetoed_until = veto.map_or(doubted_from, |success| success.ended.max(doubted_from));
    let telling: Vec<&Probed> = evidence.telling_probes(doubted_from).collect();

    // A late answer alone is no more telling on probation: the node may be busy with what comes back.
    let quorum = if class != Class::Periodic && in_probation(evidence, verified, policy, now) {
        Quorum { failures: 1, of: 1 }
    } else {
        policy.confirm.of(class)
    };
    let since_veto = telling.iter().rev().take_while(|probe| probe.started >= vetoed_until);
    let failures = since_veto.take(quorum.of as usize).filter(|probe| probe.failure.is_some()).count();
    if failures >= quorum.failures as usize {
        return Verdict::Wedged(class);
    }
    // A request that was served takes back failures before it, and no pass: a busy engine serves one after the other.
    let passed = telling.iter().rev().take_while(|probe| probe.failure.is_none()).count();
    if passed + usize::from(veto.is_some()) >= passes_to_clear(evidence, class) {
        return Verdict::Cleared(class);
    }
    if now.saturating_duration_since(open.seen) > policy.confirm.undecided_after {
        return Verdict::Undecided(class);
    }
    Verdict::Suspect(class)
}

fn undoubted(evidence: &Evidence, lane: &LaneView, policy: &Policy, now: Instant) -> Verdict {
    let trend = &policy.trend;
    if evidence.trend.slower(trend.recycle_factor, trend.recycle_for, now) {
        return Verdict::Worn(Class::Trend);
    }
    if Evidence::recent(&evidence.losses, trend.window, now) >= trend.recycle_after_losses {
        return Verdict::Worn(Class::Memory);
    }
    if evidence.trend.slower(trend.degraded_factor, trend.degraded_for, now) {
        return Verdict::Degraded(Class::Trend);
    }
    if Evidence::recent(&evidence.cleared, trend.window, now) >= trend.cleared_suspicions {
        return Verdict::Degraded(Class::Ambiguous);
    }
    if lane.waiting_seconds > policy.lane.saturated_seconds || says_busy(evidence) {
        return Verdict::Saturated;
    }
    Verdict::Serving
}

/// Whether the engine answers probes with 429 and 503 alone.
fn says_busy(evidence: &Evidence) -> bool {
    let busy = evidence.probes.iter().rev().take_while(|probe| probe.failure == Some(Failed::Busy));
    busy.count() >= BUSY_PROBES
}

/// Passes in a row that close a doubt: every clip and protocol once, and twice where the doubt's text is ambiguous.
fn passes_to_clear(evidence: &Evidence, class: Class) -> usize {
    let once = evidence.round();
    match class {
        Class::Ambiguous | Class::Refused | Class::Quality | Class::Xid => 2 * once,
        Class::Sticky
        | Class::Capture
        | Class::DeviceLost
        | Class::Memory
        | Class::Environment
        | Class::Hang
        | Class::Periodic
        | Class::Trend => once,
    }
}

/// Whether a restarted instance is still on trial.
pub fn in_probation(evidence: &Evidence, verified: Instant, policy: &Policy, now: Instant) -> bool {
    evidence.after_restart && now.saturating_duration_since(verified) < policy.repair.probation
}

#[cfg(test)]
mod tests;
