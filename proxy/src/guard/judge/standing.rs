//! Lifecycle state, weight and expected recovery from verdict and remediation: pure.

use std::time::{Duration, Instant};

use contract::State;

use crate::config::Policy;
use crate::guard::judge::evidence::Evidence;
use crate::guard::judge::observation::Standing;
use crate::guard::judge::remediation::{Remediation, Repairs, Stopped};
use crate::guard::judge::verdict::{Verdict, in_probation};

/// Weight of an engine that is doubted but not proven bad: enough to show that it serves.
const DOUBTED: f64 = 0.1;
/// Weight of an engine that serves slowly.
const DEGRADED: f64 = 0.5;
/// Guess of the time to health before the first restart was seen.
const FIRST_RECOVERY: Duration = Duration::from_secs(15);

/// What the actuator is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acting {
    /// Nothing.
    #[default]
    Idle,
    /// A restart is under way.
    Restarting,
    /// The process does not die.
    Stuck,
}

/// Sums up where the engine stands.
pub fn standing(
    evidence: &Evidence,
    verdict: Verdict,
    remediation: Remediation,
    acting: Acting,
    repairs: &Repairs,
    policy: &Policy,
    now: Instant,
) -> Standing {
    let (state, weight) = match acting {
        Acting::Stuck => (State::KillStuck, 0.0),
        Acting::Restarting => (State::Restarting, 0.0),
        Acting::Idle => state(evidence, verdict, remediation, policy, now),
    };
    // A guard that only observes goes on serving with an engine that once was proven.
    let observes = !policy.repair.eject && evidence.verified.is_some() && acting == Acting::Idle;
    let weight = if observes { 1.0 } else { weight };
    let recovery = (weight == 0.0).then(|| recovery(evidence, remediation, repairs, policy, now));
    Standing { state, class: verdict.class(), weight, recovery }
}

fn state(
    evidence: &Evidence,
    verdict: Verdict,
    remediation: Remediation,
    policy: &Policy,
    now: Instant,
) -> (State, f64) {
    match verdict {
        Verdict::Starting => (State::Starting, 0.0),
        Verdict::Warming => (State::Warming, 0.0),
        Verdict::Serving | Verdict::Cleared(_) => match evidence.verified {
            Some(verified) if in_probation(evidence, verified, policy, now) => {
                (State::Probation, ramp(now.saturating_duration_since(verified), policy.repair.probation))
            }
            _ => (State::Healthy, 1.0),
        },
        Verdict::Saturated => (State::Saturated, 1.0),
        Verdict::Degraded(_) => (State::Degraded, DEGRADED),
        Verdict::Worn(_) if matches!(remediation, Remediation::Recycle(_)) => (State::Degraded, 0.0),
        Verdict::Worn(_) => (State::Degraded, DEGRADED),
        Verdict::Suspect(class) if class.is_sticky() => (State::Suspect, 0.0),
        Verdict::Suspect(_) => (State::Suspect, DOUBTED),
        Verdict::Undecided(class) if class.is_sticky() => (State::Unknown, 0.0),
        Verdict::Undecided(_) => (State::Unknown, DOUBTED),
        Verdict::Wedged(_) | Verdict::Gone | Verdict::Unstartable => match remediation {
            Remediation::Stop(Stopped::Unfit) => (State::ConfigError, 0.0),
            Remediation::Stop(Stopped::Futile | Stopped::DayBudget | Stopped::Gpu) => (State::Exhausted, 0.0),
            Remediation::Hold { .. } => (State::Ejected, 0.0),
            Remediation::None | Remediation::Ask(_) | Remediation::Restart(_) | Remediation::Recycle(_) => {
                (State::Wedged, 0.0)
            }
        },
    }
}

/// From a tenth to all of the traffic over the probation.
fn ramp(since: Duration, probation: Duration) -> f64 {
    let share = since.as_secs_f64() / probation.as_secs_f64().max(f64::EPSILON);
    (DOUBTED + (1.0 - DOUBTED) * share).min(1.0)
}

/// Time until it is expected to serve again, in whole seconds.
fn recovery(
    evidence: &Evidence,
    remediation: Remediation,
    repairs: &Repairs,
    policy: &Policy,
    now: Instant,
) -> Duration {
    let usual = repairs.expected_recovery().unwrap_or(FIRST_RECOVERY);
    let left = match remediation {
        Remediation::Stop(_) | Remediation::Hold { until: None, .. } => policy.retry_after.max,
        Remediation::Hold { until: Some(until), .. } => until.saturating_duration_since(now) + usual,
        Remediation::Ask(_) | Remediation::Restart(_) | Remediation::Recycle(_) => usual,
        Remediation::None => {
            let last = repairs.last().map_or(evidence.started, |last| last.at.max(evidence.started));
            let passed = now.saturating_duration_since(last);
            // What is overdue tends to take as long again.
            usual.checked_sub(passed).unwrap_or(passed / 2)
        }
    };
    Duration::from_secs(left.as_secs_f64().ceil() as u64).max(policy.retry_after.min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::judge::remediation::{Held, Kill, Order};
    use contract::{Capability, Class};

    fn shown(verdict: Verdict, remediation: Remediation, acting: Acting) -> Standing {
        let now = Instant::now();
        let evidence = Evidence::new(Capability::Stt, false, now);
        standing(&evidence, verdict, remediation, acting, &Repairs::default(), &Policy::default(), now)
    }

    #[test]
    fn a_sticky_doubt_ejects_and_any_other_leaves_a_trickle() {
        let sticky = shown(Verdict::Suspect(Class::Capture), Remediation::None, Acting::Idle);
        assert_eq!((sticky.state, sticky.weight), (State::Suspect, 0.0));
        let undecided = shown(Verdict::Undecided(Class::Sticky), Remediation::None, Acting::Idle);
        assert_eq!((undecided.state, undecided.weight), (State::Unknown, 0.0));
        let other = shown(Verdict::Suspect(Class::Ambiguous), Remediation::None, Acting::Idle);
        assert_eq!((other.state, other.weight), (State::Suspect, DOUBTED));
    }

    #[test]
    fn a_wedge_is_shown_by_what_is_done_about_it() {
        let wedged = Verdict::Wedged(Class::Sticky);
        let order = Order { attempt: 0, kill: Kill::AtOnce };
        let held = Remediation::Hold { why: Held::Budget, until: None };
        assert_eq!(shown(wedged, Remediation::Restart(order), Acting::Idle).state, State::Wedged);
        assert_eq!(shown(wedged, Remediation::None, Acting::Restarting).state, State::Restarting);
        assert_eq!(shown(wedged, held, Acting::Idle).state, State::Ejected);
        assert_eq!(shown(wedged, Remediation::Stop(Stopped::Futile), Acting::Idle).state, State::Exhausted);
        assert_eq!(shown(wedged, Remediation::Stop(Stopped::Unfit), Acting::Idle).state, State::ConfigError);
        assert_eq!(shown(wedged, Remediation::None, Acting::Stuck).state, State::KillStuck);
    }

    #[test]
    fn a_guard_that_only_observes_takes_no_proven_engine_out() {
        let mut policy = Policy::default();
        policy.repair.eject = false;
        let now = Instant::now();
        let mut evidence = Evidence::new(Capability::Tts, false, now);
        let shown = |evidence: &Evidence, verdict| {
            let repairs = Repairs::default();
            let held = Remediation::Hold { why: Held::NoActuator, until: None };
            standing(evidence, verdict, held, Acting::Idle, &repairs, &policy, now)
        };
        assert_eq!(shown(&evidence, Verdict::Starting).weight, 0.0, "nothing to observe yet");
        evidence.verified = Some(now);
        let wedged = shown(&evidence, Verdict::Wedged(Class::Sticky));
        assert_eq!((wedged.state, wedged.weight), (State::Ejected, 1.0));
        assert_eq!(shown(&evidence, Verdict::Suspect(Class::Capture)).weight, 1.0);
    }

    #[test]
    fn weight_ramps_up_over_the_probation() {
        let policy = Policy::default();
        let now = Instant::now();
        let mut evidence = Evidence::new(Capability::Tts, true, now);
        evidence.verified = Some(now);
        let weight = |after: u64| {
            let now = now + Duration::from_secs(after);
            let repairs = Repairs::default();
            standing(&evidence, Verdict::Serving, Remediation::None, Acting::Idle, &repairs, &policy, now)
        };
        assert_eq!((weight(0).state, weight(0).weight), (State::Probation, DOUBTED));
        assert!((weight(30).weight - 0.55).abs() < 1e-9);
        assert_eq!((weight(60).state, weight(60).weight), (State::Healthy, 1.0));
    }

    #[test]
    fn recovery_counts_down_from_what_restarts_took_before() {
        let policy = Policy::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut repairs = Repairs::default();
        repairs.restarted(start, false, start);
        repairs.healthy(after(8));
        repairs.restarted(after(100), false, after(100));
        let evidence = Evidence::new(Capability::Tts, true, after(100));
        let standing = standing(
            &evidence,
            Verdict::Starting,
            Remediation::None,
            Acting::Idle,
            &repairs,
            &policy,
            after(103),
        );
        assert_eq!(standing.recovery, Some(Duration::from_secs(5)));
    }
}
