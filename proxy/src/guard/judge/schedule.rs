//! Which golden probe is due now: pure.

use std::time::{Duration, Instant};

use contract::{Capability, Class};

use crate::config::{self, Policy};
use crate::guard::heal::prober::Which;
use crate::guard::judge::evidence::{Evidence, Failed, Probed, Shallow};
use crate::guard::judge::hang::hung;
use crate::guard::judge::verdict::Verdict;
use crate::guard::path::lane::LaneView;

/// Passes that tell how long the next probe may take.
const RECENT_PASSES: usize = 10;
/// Longest time that is added to a probe's deadline for the work ahead of it.
const AHEAD_CAP: Duration = Duration::from_secs(60);
/// Most times that a probe's deadline is doubled.
const MAX_DOUBLINGS: usize = 5;
/// Times the usual longest deadline that a probe after late ones is given.
const MOST_PATIENCE: u32 = 4;
/// How long a doubt waits for the lane before its probes go past it: a sticky one...
const STICKY_WAIT: Duration = Duration::from_secs(2);
/// ...and any other.
const DOUBT_WAIT: Duration = Duration::from_secs(15);
/// Least time between two probes that odd answers ask for.
const ODD_PERIOD: Duration = Duration::from_secs(10);
/// The content check yields to queues longer than this, seconds...
const BUSY_SECONDS: f64 = 5.0;
/// ...but not for more than this many periods.
const MAX_SKIPS: u32 = 3;

/// A probe to send now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Due {
    /// Which.
    pub which: Which,
    /// How long it is given once sent.
    pub deadline: Duration,
    /// Whether it goes past the lane: a hung job never gives the lane back.
    pub bypass: bool,
}

/// The probe that is due at `now`, if any.
pub fn due(
    evidence: &Evidence,
    verdict: Verdict,
    lane: &LaneView,
    policy: &Policy,
    now: Instant,
) -> Option<Due> {
    let since_last = evidence.probes.back().map(|probe| now.saturating_duration_since(probe.ended));
    let older_than = |period: Duration| since_last.is_none_or(|since| since >= period);
    let wanted = match verdict {
        Verdict::Starting | Verdict::Gone | Verdict::Unstartable | Verdict::Cleared(_) => false,
        // A first failure may be a cold start: leave it a moment.
        Verdict::Warming => match evidence.probes.back() {
            // A first inference may load for minutes: more of them would only slow it down.
            Some(last) if last.failure == Some(Failed::Timeout) && awaits_probe(lane) => {
                older_than(deadline(evidence, verdict, &policy.probe))
            }
            Some(last) if last.failure.is_some() => older_than(policy.confirm.spacing(1)),
            _ => true,
        },
        Verdict::Suspect(_) => suspect_due(evidence, policy, now),
        Verdict::Wedged(_) | Verdict::Undecided(_) => {
            evidence.shallow == Shallow::Green && older_than(policy.repair.ejected_probe)
        }
        Verdict::Serving | Verdict::Saturated | Verdict::Degraded(_) | Verdict::Worn(_) => {
            routine_due(evidence, lane, policy, now)
        }
    };
    wanted.then(|| {
        let bypass = bypasses(evidence, verdict, lane, policy, now);
        let deadline = deadline(evidence, verdict, &policy.probe)
            + if bypass { ahead(lane, now) } else { Duration::ZERO };
        Due { which: next_clip(evidence), deadline, bypass }
    })
}

/// A probe goes past the lane when what has the lane will not give it back: a job that hangs, or a probe that was not
/// answered; and when a doubt has waited long enough.
fn bypasses(evidence: &Evidence, verdict: Verdict, lane: &LaneView, policy: &Policy, now: Instant) -> bool {
    let blocked = awaits_probe(lane);
    let (Verdict::Suspect(class) | Verdict::Undecided(class)) = verdict else { return blocked };
    let patience = if class.is_sticky() { STICKY_WAIT } else { DOUBT_WAIT };
    let waited = evidence.suspicion.map(|open| now.saturating_duration_since(open.seen));
    blocked
        || class == Class::Hang
        || hung(lane, evidence, &policy.hang, now).is_some()
        || waited.is_some_and(|waited| waited >= patience)
}

/// Whether a probe whose deadline has passed is not answered yet.
fn awaits_probe(lane: &LaneView) -> bool {
    lane.running.iter().any(|job| job.is_probe() && job.lost)
}

/// Probes of a doubt are spaced from its start.
fn suspect_due(evidence: &Evidence, policy: &Policy, now: Instant) -> bool {
    let Some(open) = evidence.suspicion else { return false };
    let sent = evidence.probes.iter().filter(|probe| probe.started >= open.counts_from()).count();
    now >= open.seen + policy.confirm.spacing(sent)
}

/// While requests succeed only content is checked, rarely; when idle the probe is the only sign of life.
fn routine_due(evidence: &Evidence, lane: &LaneView, policy: &Policy, now: Instant) -> bool {
    let Some(verified) = evidence.verified else { return false };
    if evidence.probes.is_empty() {
        return true;
    }
    let on_trial =
        evidence.after_restart && now.saturating_duration_since(verified) < policy.repair.probation;
    let last_probe = evidence.probes.back().map_or(verified, |probe| probe.ended);
    let since_probe = now.saturating_duration_since(last_probe);
    if on_trial && since_probe >= policy.repair.probation / 4 {
        return true;
    }
    if evidence.odd.is_some_and(|odd| odd > last_probe) && since_probe >= ODD_PERIOD {
        return true;
    }
    let period = policy.probe.content_period;
    if since_probe >= period {
        return lane.waiting_seconds <= BUSY_SECONDS || since_probe >= period * (1 + MAX_SKIPS);
    }
    let served = evidence.success.map_or(last_probe, |success| success.ended.max(last_probe));
    // What the engine says in a conversation, it says because it works.
    let said = lane.progress.filter(|_| lane.is_conversing());
    let last_sign = said.map_or(served, |said| said.max(served));
    lane.is_idle() && now.saturating_duration_since(last_sign) >= policy.probe.idle_period
}

/// The two clips alternate, so that a constant answer cannot pass twice.
fn next_clip(evidence: &Evidence) -> Which {
    match (evidence.capability, evidence.probes.back().map(|probe| probe.which)) {
        (Capability::Tts, _) => Which::Tts,
        (Capability::Llm, _) => Which::Llm,
        (Capability::Stt, Some(Which::SttA)) => Which::SttB,
        (Capability::Stt, _) => Which::SttA,
    }
}

/// Three times the slowest recent pass since the instance was proven, and twice as long after each timeout in a row: a starved
/// engine is late, a hung one never comes. What was never proven may take as long as its start.
fn deadline(evidence: &Evidence, verdict: Verdict, policy: &config::Probe) -> Duration {
    let passed =
        |probe: &&Probed| probe.failure.is_none() && evidence.verified.is_none_or(|at| probe.ended >= at);
    let passes = evidence.probes.iter().rev().filter(passed).take(RECENT_PASSES);
    let slowest = passes.map(|probe| probe.ended.saturating_duration_since(probe.started)).max();
    let timeouts =
        evidence.probes.iter().rev().take_while(|probe| probe.failure == Some(Failed::Timeout)).count();
    let doubled = 1 << timeouts.min(MAX_DOUBLINGS);
    if verdict == Verdict::Warming {
        let usual = slowest.map_or(policy.timeout_max, |slowest| (slowest * 3).max(policy.timeout_max));
        return usual.saturating_mul(doubled);
    }
    slowest.map_or(policy.timeout_max, |slowest| {
        let usual = (slowest * 3).max(policy.timeout_min);
        usual.saturating_mul(doubled).min((policy.timeout_max * MOST_PATIENCE).max(usual))
    })
}

/// The time that the work ahead of a probe which passes the lane may take.
fn ahead(lane: &LaneView, now: Instant) -> Duration {
    let remaining: f64 = lane.jobs().map(|job| job.remaining(now)).sum();
    Duration::try_from_secs_f64(1.5 * remaining).unwrap_or(AHEAD_CAP).min(AHEAD_CAP)
}

#[cfg(test)]
mod tests;
