use contract::{Capability, State};
use proptest::prelude::*;

use super::*;
use crate::guard::heal::prober::Which;
use crate::guard::judge::evidence::{Failed, Probed, Shallow};
use crate::guard::judge::observation::{Hint, Observation, Success};
use crate::guard::judge::remediation::Stopped;
use crate::guard::path::lane::testing::{job, running};

/// All that a decision depends on, owned.
struct World {
    start: Instant,
    evidence: Evidence,
    lane: LaneView,
    repairs: Repairs,
    acting: Acting,
    actuation: Actuation,
    draining: bool,
    gpu_is_lost: bool,
    operator: Option<Operator>,
    policy: Policy,
}

impl World {
    fn proven() -> Self {
        let start = Instant::now();
        let mut evidence = Evidence::new(Capability::Stt, false, start);
        (evidence.shallow, evidence.verified) = (Shallow::Green, Some(start));
        Self {
            start,
            evidence,
            lane: LaneView::default(),
            repairs: Repairs::default(),
            acting: Acting::Idle,
            actuation: Actuation::Own,
            draining: false,
            gpu_is_lost: false,
            operator: None,
            policy: Policy::default(),
        }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn known(&self) -> Known<'_> {
        Known {
            evidence: &self.evidence,
            lane: &self.lane,
            repairs: &self.repairs,
            acting: self.acting,
            actuation: self.actuation,
            draining: self.draining,
            gpu_is_lost: self.gpu_is_lost,
            operator: self.operator.as_ref(),
            policy: &self.policy,
        }
    }

    fn decide(&self, seconds: f64) -> Decision {
        decide(&self.known(), self.at(seconds))
    }

    fn probe(&mut self, failure: Option<Failed>, from: f64, to: f64) {
        let (started, ended) = (self.at(from), self.at(to));
        self.evidence.probed(Probed { which: Which::SttA, started, ended, failure, excused: false });
    }

    fn wedge(&mut self) {
        self.evidence.suspect(Class::Sticky, self.at(1.0), self.at(1.0));
        self.probe(Some(Failed::Fault(Class::Sticky)), 1.1, 1.2);
    }
}

#[test]
fn a_proven_wedge_is_restarted_at_once_unless_something_is_being_done() {
    let mut world = World::proven();
    world.wedge();
    let decision = world.decide(1.3);
    assert!(matches!(decision.remediation, Remediation::Restart(_)) && decision.acts(&world.known()));
    assert_eq!((decision.standing.state, decision.standing.weight), (State::Wedged, 0.0));
    world.draining = true;
    assert!(!world.decide(1.3).acts(&world.known()), "it is about to be stopped");
    (world.draining, world.acting) = (false, Acting::Restarting);
    let decision = world.decide(1.3);
    assert!(!decision.acts(&world.known()) && decision.probe.is_none());
}

#[test]
fn nothing_is_restarted_on_a_gpu_that_must_be_reset_first() {
    let mut world = World::proven();
    world.gpu_is_lost = true;
    assert_eq!(world.decide(0.5).standing.state, State::Healthy, "what serves, serves");
    world.wedge();
    let decision = world.decide(1.3);
    assert_eq!(decision.remediation, Remediation::Stop(Stopped::Gpu));
    assert_eq!((decision.standing.state, decision.standing.weight), (State::Exhausted, 0.0));
    world.gpu_is_lost = false;
    assert!(matches!(world.decide(1.4).remediation, Remediation::Restart(_)));
}

#[test]
fn a_guard_with_an_operator_asks_and_counts_nothing() {
    let mut world = World::proven();
    for at in 0..20 {
        world.repairs.restarted(world.at(f64::from(at)), false, world.at(f64::from(at)));
    }
    world.evidence.started = world.at(30.0);
    world.evidence.suspect(Class::Sticky, world.at(31.0), world.at(31.0));
    world.probe(Some(Failed::Fault(Class::Sticky)), 31.1, 31.2);
    assert!(matches!(world.decide(31.3).remediation, Remediation::Stop(_)), "its own budget is used up");
    world.actuation = Actuation::Asks;
    world.operator = Some(Operator::new(world.start));
    let decision = world.decide(31.3);
    assert!(matches!(decision.wish, Remediation::Restart(_)));
    assert!(matches!(decision.remediation, Remediation::Ask(_)));
}

#[test]
fn recycles_use_up_no_budget_of_repairs() {
    let mut world = World::proven();
    for at in 0..20 {
        world.repairs.restarted(world.at(f64::from(at)), true, world.at(f64::from(at)));
    }
    world.evidence.started = world.at(30.0);
    world.evidence.suspect(Class::Sticky, world.at(31.0), world.at(31.0));
    world.probe(Some(Failed::Fault(Class::Sticky)), 31.1, 31.2);
    assert!(world.decide(31.3).acts(&world.known()));
}

#[test]
fn a_worn_engine_is_recycled_when_nothing_runs_and_once_an_hour() {
    let mut world = World::proven();
    for after in [1.0, 2.0, 3.0] {
        let loss = Observation::Loss { started: world.at(after), seen: world.at(after) };
        world.evidence.observe(&loss);
    }
    world.lane = running([job(1.0, world.at(3.5))]);
    assert!(!world.decide(4.0).acts(&world.known()));
    world.lane = LaneView::default();
    assert!(world.decide(4.0).acts(&world.known()));
    world.repairs.restarted(world.at(3.0), true, world.at(3.0));
    assert_eq!(world.decide(4.0).remediation, Remediation::None);
}

#[test]
fn a_job_without_a_sign_of_work_raises_one_doubt() {
    let mut world = World::proven();
    world.lane = running([job(1.0, world.at(5.0))]);
    assert_eq!(world.decide(14.9).doubt, None);
    let doubt = world.decide(15.1).doubt.unwrap();
    assert_eq!((doubt.class, doubt.started), (Class::Hang, world.at(5.0)));
    world.evidence.suspect(doubt.class, doubt.started, doubt.seen);
    let decision = world.decide(15.2);
    assert!(decision.doubt.is_none() && decision.probe.unwrap().bypass);
}

#[test]
fn the_loop_looks_often_only_while_something_is_under_way() {
    let mut world = World::proven();
    assert_eq!(world.decide(1.0).next_wake, world.at(1.0) + CALM);
    world.lane = running([job(1.0, world.at(1.0))]);
    assert_eq!(world.decide(1.0).next_wake, world.at(1.0) + BUSY);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Hint(usize),
    Probe(Option<usize>, u16, bool),
    Success(u16),
    Run(u16),
    Rest,
    Restarted,
    Drain(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..Class::ALL.len()).prop_map(Step::Hint),
        (prop::option::of(0..6usize), 0..5000u16, any::<bool>()).prop_map(|(a, b, c)| Step::Probe(a, b, c)),
        (0..5000u16).prop_map(Step::Success),
        (0..30_000u16).prop_map(Step::Run),
        Just(Step::Rest),
        Just(Step::Restarted),
        any::<bool>().prop_map(Step::Drain),
    ]
}

const FAILURES: [Failed; 6] = [
    Failed::Timeout,
    Failed::Unreachable,
    Failed::Content,
    Failed::Fault(Class::Sticky),
    Failed::Rejected,
    Failed::Busy,
];

proptest! {
    /// Total: no history panics. Safe: nothing is restarted that no probe has failed, nor while it is drained or acted on,
    /// nor beyond the day's budget. Honest: what serves has weight and what is restarted has none. Live: it always wakes.
    #[test]
    fn every_history_is_decided_safely(steps in prop::collection::vec((step(), 0..20_000u32), 0..80)) {
        let mut world = World::proven();
        let (mut now, mut failed, mut restarts) = (0.0, false, 0);
        for (step, wait) in steps {
            now += f64::from(wait) / 1000.0;
            match step {
                Step::Hint(class) => world.evidence.observe(&Observation::Hint(Hint {
                    class: Class::ALL[class],
                    signature: None,
                    status: Some(500),
                    body: None,
                    request_hash: None,
                    started: world.at(now),
                    seen: world.at(now),
                })),
                Step::Probe(failure, took, excused) => {
                    let failure = failure.map(|at| FAILURES[at]);
                    failed |= failure.is_some_and(|failure| failure != Failed::Busy);
                    let (started, ended) = (world.at(now), world.at(now + f64::from(took) / 1000.0));
                    world.evidence.probed(Probed { which: Which::SttA, started, ended, failure, excused });
                }
                Step::Success(took) => world.evidence.observe(&Observation::Success(Success {
                    started: world.at(now),
                    ended: world.at(now + f64::from(took) / 1000.0),
                    audio: 2.0,
                    predicted: 0.3,
                    service: Duration::from_millis(u64::from(took)),
                })),
                Step::Run(predicted) => {
                    world.lane = running([job(f64::from(predicted) / 1000.0, world.at(now))]);
                }
                Step::Rest => world.lane = LaneView::default(),
                Step::Restarted => {
                    world.evidence = Evidence::new(Capability::Stt, true, world.at(now));
                    (world.evidence.shallow, world.evidence.verified) = (Shallow::Green, Some(world.at(now)));
                    (world.acting, failed) = (Acting::Idle, false);
                }
                Step::Drain(draining) => world.draining = draining,
            }
            let mut decision = world.decide(now);
            for _ in 0..3 {
                match (decision.doubt, decision.verdict) {
                    (Some(doubt), _) => world.evidence.suspect(doubt.class, doubt.started, doubt.seen),
                    (None, Verdict::Cleared(_)) => world.evidence.clear(world.at(now)),
                    (None, _) => break,
                }
                decision = world.decide(now);
            }
            prop_assert!(decision.next_wake > world.at(now));
            prop_assert!(!matches!(decision.verdict, Verdict::Cleared(_)), "a cleared doubt stays closed");
            if decision.acts(&world.known()) {
                prop_assert!(!world.draining && world.acting == Acting::Idle);
                let recycle = matches!(decision.remediation, Remediation::Recycle(_));
                prop_assert!(recycle || failed, "{:?}", decision.verdict);
                prop_assert!(decision.standing.weight == 0.0);
                world.repairs.restarted(world.at(now), recycle, world.at(now));
                world.acting = Acting::Restarting;
                restarts += u32::from(!recycle);
            }
            if decision.verdict == Verdict::Serving && world.acting == Acting::Idle {
                prop_assert!(decision.standing.weight > 0.0);
            }
        }
        prop_assert!(restarts <= world.policy.repair.max_per_day);
    }
}
