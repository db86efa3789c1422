//! The whole decision about an engine: a pure function of all that is known and of the time.

use std::time::{Duration, Instant};

use contract::Class;

use crate::config::Policy;
use crate::guard::judge::evidence::{Evidence, Suspicion};
use crate::guard::judge::hang::{hung, owes};
use crate::guard::judge::observation::Standing;
use crate::guard::judge::operator::{Case, Operator};
use crate::guard::judge::remediation::{Actuation, Remediation, Repairs, remediation};
use crate::guard::judge::schedule::{Due, due};
use crate::guard::judge::standing::{Acting, standing};
use crate::guard::judge::verdict::{Verdict, verdict};
use crate::guard::path::lane::LaneView;

/// Between two looks while something is under way.
const BUSY: Duration = Duration::from_millis(100);
/// Between two looks at an engine that rests.
const CALM: Duration = Duration::from_secs(1);

/// All that a decision depends on but the time.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What was seen of the instance.
    pub evidence: &'a Evidence,
    /// What runs on it and waits for it.
    pub lane: &'a LaneView,
    /// Its repairs so far.
    pub repairs: &'a Repairs,
    /// What is being done to it.
    pub acting: Acting,
    /// What can be done to it.
    pub actuation: Actuation,
    /// Whether it is about to be stopped, which makes a restart pointless.
    pub draining: bool,
    /// Whether the driver says that no process works on the GPU before it is reset.
    pub gpu_is_lost: bool,
    /// What the operator has said, where it must agree.
    pub operator: Option<&'a Operator>,
    /// The rules.
    pub policy: &'a Policy,
}

/// What is concluded, and what follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// A doubt that the evidence is to record.
    pub doubt: Option<Suspicion>,
    /// What is concluded of the engine. [`Verdict::Cleared`] asks the evidence to close its doubt.
    pub verdict: Verdict,
    /// What the guard would do.
    pub wish: Remediation,
    /// What of it may be done now.
    pub remediation: Remediation,
    /// Where the engine stands for its clients.
    pub standing: Standing,
    /// The probe to send now.
    pub probe: Option<Due>,
    /// How many jobs may run at a time.
    pub jobs: usize,
    /// When to look again at the latest.
    pub next_wake: Instant,
}

/// Concludes.
pub fn decide(known: &Known<'_>, now: Instant) -> Decision {
    let Known { evidence, lane, repairs, acting, policy, .. } = *known;
    let verdict = verdict(evidence, lane, policy, now);
    let wish = remediation(verdict, repairs, known.actuation, policy, now);
    let wish = if known.gpu_is_lost { wish.without_gpu() } else { wish };
    let remediation = match known.operator {
        Some(operator) => operator.decide(wish, case(evidence, verdict), &policy.repair.alone, now),
        None => wish,
    };
    let idle = acting == Acting::Idle;
    Decision {
        doubt: overdue(evidence, lane, policy, now),
        verdict,
        wish,
        remediation,
        standing: standing(evidence, verdict, remediation, acting, repairs, policy, now),
        probe: if idle { due(evidence, verdict, lane, policy, now) } else { None },
        jobs: jobs(evidence, policy, now),
        next_wake: now + if is_calm(evidence, lane, verdict) { CALM } else { BUSY },
    }
}

impl Decision {
    /// Whether the restart of this decision is to be carried out now.
    pub fn acts(&self, known: &Known<'_>) -> bool {
        let free = known.acting == Acting::Idle && !known.draining;
        match self.remediation {
            Remediation::Restart(_) => free,
            Remediation::Recycle(_) => free && known.lane.running.is_empty(),
            Remediation::None | Remediation::Ask(_) | Remediation::Hold { .. } | Remediation::Stop(_) => {
                false
            }
        }
    }
}

fn case(evidence: &Evidence, verdict: Verdict) -> Case {
    let last = evidence.telling_probes(evidence.started).next_back();
    Case { class: verdict.class(), golden_failed: last.is_some_and(|probe| probe.failure.is_some()) }
}

/// A doubt because a job hangs.
fn overdue(evidence: &Evidence, lane: &LaneView, policy: &Policy, now: Instant) -> Option<Suspicion> {
    let known = evidence.suspicion.is_some_and(|open| open.class.is_sticky() || open.class == Class::Hang);
    if evidence.verified.is_none() || known {
        return None;
    }
    let job = hung(lane, evidence, &policy.hang, now).map(|job| job.started);
    let started = job.or_else(|| owes(lane, evidence, &policy.hang, now))?;
    Some(Suspicion { class: Class::Hang, started, seen: now })
}

/// The lane is halved for as long as losses of memory or of single requests are recent.
fn jobs(evidence: &Evidence, policy: &Policy, now: Instant) -> usize {
    let strained = Evidence::recent(&evidence.losses, policy.trend.window, now) > 0;
    let jobs = if strained { policy.lane.jobs / 2 } else { policy.lane.jobs };
    jobs.max(1)
}

/// Whether nothing will change soon but by what is seen.
fn is_calm(evidence: &Evidence, lane: &LaneView, verdict: Verdict) -> bool {
    let rests = matches!(verdict, Verdict::Serving | Verdict::Degraded(_));
    rests && evidence.suspicion.is_none() && !evidence.after_restart && lane.running.is_empty()
}

#[cfg(test)]
mod tests;
