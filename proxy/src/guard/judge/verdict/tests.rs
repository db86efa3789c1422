use std::time::{Duration, Instant};

use proptest::prelude::*;

use contract::Capability;

use crate::guard::heal::prober::Which;
use crate::guard::judge::observation::{Hint, Observation, Success};
use crate::guard::judge::verdict::*;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn idle() -> LaneView {
    LaneView::default()
}

/// An instance proven at `start`, and helpers that write its record in seconds since then.
struct Case {
    start: Instant,
    evidence: Evidence,
    policy: Policy,
}

impl Case {
    fn unproven() -> Self {
        let start = Instant::now();
        Self { start, evidence: Evidence::new(Capability::Stt, false, start), policy: Policy::default() }
    }

    fn proven() -> Self {
        let mut case = Self::unproven();
        case.evidence.shallow = Shallow::Green;
        case.evidence.verified = Some(case.start);
        case
    }

    fn at(&self, after: f64) -> Instant {
        self.start + seconds(after)
    }

    fn hint(&mut self, class: Class, after: f64) {
        let hint = Hint {
            class,
            signature: None,
            status: Some(500),
            body: None,
            request_hash: None,
            started: self.at(after),
            seen: self.at(after),
        };
        self.evidence.observe(&Observation::Hint(hint));
    }

    fn probe(&mut self, failure: Option<Failed>, from: f64, to: f64) {
        let which = if self.evidence.probes.len().is_multiple_of(2) { Which::SttA } else { Which::SttB };
        let probed = Probed { which, started: self.at(from), ended: self.at(to), failure, excused: false };
        self.evidence.probed(probed);
    }

    fn success(&mut self, from: f64, to: f64) {
        self.evidence.observe(&Observation::Success(Success {
            started: self.at(from),
            ended: self.at(to),
            audio: 2.0,
            predicted: 0.3,
            service: seconds(to - from),
        }));
    }

    fn verdict(&self, after: f64) -> Verdict {
        verdict(&self.evidence, &idle(), &self.policy, self.at(after))
    }
}

#[test]
fn an_engine_serves_only_after_both_clips_passed() {
    let mut case = Case::unproven();
    assert_eq!(case.verdict(1.0), Verdict::Starting);
    case.evidence.shallow = Shallow::Green;
    assert_eq!(case.verdict(1.0), Verdict::Warming);
    case.probe(None, 1.0, 1.5);
    assert_eq!(case.verdict(1.6), Verdict::Warming);
    case.probe(None, 1.6, 2.0);
    assert_eq!(case.verdict(2.1), Verdict::Serving);
}

#[test]
fn late_answers_prove_a_start_as_well() {
    let mut case = Case::unproven();
    case.evidence.shallow = Shallow::Green;
    for (which, from) in [(Which::SttA, 0.0), (Which::SttB, 40.0)] {
        let (started, failure) = (case.at(from), Some(Failed::Timeout));
        let late = Probed { which, started, ended: case.at(from + 10.0), failure, excused: false };
        case.evidence.probed(late);
        assert_eq!(case.verdict(from + 10.0), Verdict::Warming);
        case.evidence.probed(Probed { ended: case.at(from + 30.0), failure: None, ..late });
    }
    assert_eq!(case.verdict(71.0), Verdict::Serving);
}

#[test]
fn an_engine_that_cannot_fit_here_is_unstartable() {
    let mut case = Case::unproven();
    case.evidence.shallow = Shallow::Unfit;
    assert_eq!(case.verdict(1.0), Verdict::Unstartable);
}

#[test]
fn a_process_that_ends_is_gone_unless_it_said_that_it_cannot_run_here() {
    let mut case = Case::unproven();
    case.evidence.exited = Some(case.at(1.0));
    assert_eq!(case.verdict(1.0), Verdict::Gone);
    case.evidence.unfit = true;
    assert_eq!(case.verdict(1.0), Verdict::Unstartable);
}

#[test]
fn a_slow_start_is_waited_for_up_to_the_budget() {
    let mut case = Case::unproven();
    case.evidence.shallow = Shallow::Loading;
    assert_eq!(case.verdict(1199.0), Verdict::Starting);
    assert_eq!(case.verdict(1201.0), Verdict::Unstartable);
}

#[test]
fn an_engine_that_an_earlier_guard_proved_serves_on_and_is_judged_as_proven() {
    let mut case = Case::unproven();
    case.evidence.adopt(case.start);
    assert_eq!(case.verdict(0.0), Verdict::Serving);
    for probe in 0..3 {
        let from = f64::from(probe) * 10.0;
        case.probe(Some(Failed::Timeout), from, from + 5.0);
    }
    assert_eq!(case.verdict(26.0), Verdict::Wedged(Class::Periodic), "and not given a start's time");
}

#[test]
fn a_sticky_fault_needs_one_failing_probe() {
    let mut case = Case::proven();
    case.hint(Class::Sticky, 1.0);
    assert_eq!(case.verdict(1.0), Verdict::Suspect(Class::Sticky));
    case.probe(Some(Failed::Fault(Class::Sticky)), 1.01, 1.02);
    assert_eq!(case.verdict(1.03), Verdict::Wedged(Class::Sticky));
}

#[test]
fn an_ambiguous_fault_needs_two_of_three() {
    let mut case = Case::proven();
    case.hint(Class::Ambiguous, 1.0);
    case.probe(Some(Failed::Fault(Class::Ambiguous)), 1.0, 1.1);
    assert_eq!(case.verdict(1.2), Verdict::Suspect(Class::Ambiguous));
    case.probe(None, 2.0, 2.1);
    assert_eq!(case.verdict(2.2), Verdict::Suspect(Class::Ambiguous));
    case.probe(Some(Failed::Fault(Class::Ambiguous)), 4.0, 4.1);
    assert_eq!(case.verdict(4.2), Verdict::Wedged(Class::Ambiguous));
}

#[test]
fn a_single_bad_answer_is_cleared_by_passing_probes() {
    let mut case = Case::proven();
    case.hint(Class::Ambiguous, 1.0);
    for nth in 0..4 {
        assert_eq!(
            case.verdict(1.0 + f64::from(nth)),
            Verdict::Suspect(Class::Ambiguous),
            "after {nth} passes"
        );
        case.probe(None, 1.0 + f64::from(nth), 1.5 + f64::from(nth));
    }
    assert_eq!(case.verdict(5.0), Verdict::Cleared(Class::Ambiguous));
    case.evidence.clear(case.at(5.0));
    assert_eq!(case.verdict(5.0), Verdict::Serving);
}

#[test]
fn a_request_served_after_the_hint_vetoes_failing_probes() {
    let mut case = Case::proven();
    case.hint(Class::Ambiguous, 1.0);
    case.probe(Some(Failed::Unreachable), 1.0, 1.1);
    case.success(1.5, 1.9);
    case.probe(Some(Failed::Unreachable), 2.0, 2.1);
    assert_eq!(case.verdict(2.2), Verdict::Suspect(Class::Ambiguous), "the count starts again");
}

#[test]
fn a_busy_engine_is_cleared_while_it_serves_one_request_after_the_other() {
    for class in [Class::Ambiguous, Class::Refused, Class::Xid] {
        let mut case = Case::proven();
        case.hint(class, 1.0);
        let mut cleared = None;
        for step in 0..100 {
            let now = 1.05 + f64::from(step) * 0.1;
            case.success(now, now + 0.05);
            if step % 20 == 1 {
                case.probe(None, now + 0.01, now + 0.04);
            }
            if case.verdict(now + 0.06) == Verdict::Cleared(class) {
                cleared.get_or_insert(now);
            }
        }
        assert!(cleared.is_some_and(|at| (4.0..8.0).contains(&at)), "{class:?}: {cleared:?}");
    }
}

#[test]
fn garbage_that_succeeds_is_no_veto() {
    let mut case = Case::proven();
    case.hint(Class::Quality, 1.0);
    case.success(1.5, 1.9);
    case.probe(Some(Failed::Content), 1.0, 1.1);
    case.probe(Some(Failed::Content), 2.0, 2.1);
    assert_eq!(case.verdict(2.2), Verdict::Wedged(Class::Quality));
}

#[test]
fn an_engine_that_refuses_what_it_once_took_is_sick() {
    let mut case = Case::proven();
    case.probe(Some(Failed::Rejected), 1.0, 1.1);
    assert_eq!(case.verdict(1.2), Verdict::Suspect(Class::Ambiguous));
    case.probe(Some(Failed::Rejected), 2.0, 2.1);
    assert_eq!(case.verdict(2.2), Verdict::Wedged(Class::Ambiguous), "its model is gone");
}

#[test]
fn an_engine_that_never_took_a_probe_is_not_restarted_for_it() {
    let mut case = Case::unproven();
    case.evidence.shallow = Shallow::Green;
    for nth in 0..5 {
        case.probe(Some(Failed::Rejected), f64::from(nth), 0.1 + f64::from(nth));
    }
    assert_eq!(case.verdict(6.0), Verdict::Warming);
}

#[test]
fn answers_of_load_and_of_missing_leave_prove_nothing() {
    for failure in [Failed::Busy, Failed::Unsuited] {
        let mut case = Case::proven();
        for nth in 0..10 {
            case.probe(Some(failure), f64::from(nth), 0.1 + f64::from(nth));
        }
        let expected = if failure == Failed::Busy { Verdict::Saturated } else { Verdict::Serving };
        assert_eq!(case.verdict(11.0), expected);
        case.hint(Class::Sticky, 12.0);
        case.probe(Some(failure), 12.0, 12.1);
        assert_eq!(case.verdict(12.2), Verdict::Suspect(Class::Sticky));
    }
}

#[test]
fn a_late_answer_that_has_another_cause_proves_nothing() {
    let mut case = Case::proven();
    for nth in 0..5 {
        let (started, ended) = (case.at(f64::from(nth) * 20.0), case.at(f64::from(nth) * 20.0 + 10.0));
        let failure = Some(Failed::Timeout);
        case.evidence.probed(Probed { which: Which::SttA, started, ended, failure, excused: true });
    }
    assert_eq!(case.verdict(101.0), Verdict::Serving);
    assert!(!case.evidence.failed_within(seconds(60.0), case.at(101.0)), "nor does it justify a restart");
    case.probe(Some(Failed::Unreachable), 101.0, 102.0);
    assert!(case.evidence.failed_within(seconds(60.0), case.at(103.0)));
    assert!(!case.evidence.failed_within(seconds(60.0), case.at(163.0)));
}

#[test]
fn an_idle_engine_needs_three_silent_probes() {
    let mut case = Case::proven();
    for nth in 0..3 {
        assert_ne!(case.verdict(f64::from(nth) * 3.0), Verdict::Wedged(Class::Periodic));
        case.probe(Some(Failed::Timeout), 1.0 + f64::from(nth) * 3.0, 3.0 + f64::from(nth) * 3.0);
    }
    assert_eq!(case.verdict(10.0), Verdict::Wedged(Class::Periodic));
}

#[test]
fn a_probe_that_times_out_while_requests_complete_tells_nothing() {
    let mut case = Case::proven();
    case.hint(Class::Sticky, 1.0);
    case.success(0.5, 2.0); // started before the hint: no veto, yet a sign of life
    case.probe(Some(Failed::Timeout), 1.1, 3.1);
    assert_eq!(case.verdict(3.2), Verdict::Suspect(Class::Sticky));
}

#[test]
fn a_busy_engine_is_cleared_of_a_hang_by_any_answer() {
    let mut case = Case::proven();
    case.evidence.suspect(Class::Hang, case.at(1.0), case.at(12.0));
    assert_eq!(case.verdict(12.1), Verdict::Suspect(Class::Hang));
    case.success(1.0, 13.0);
    assert_eq!(case.verdict(13.1), Verdict::Cleared(Class::Hang));
}

#[test]
fn a_hung_engine_is_wedged_when_the_probe_gets_no_answer() {
    let mut case = Case::proven();
    case.evidence.suspect(Class::Hang, case.at(1.0), case.at(12.0));
    case.probe(Some(Failed::Timeout), 12.0, 15.0);
    assert_eq!(case.verdict(15.1), Verdict::Wedged(Class::Hang));
}

#[test]
fn a_job_that_hangs_behind_another_doubt_makes_it_a_hang() {
    let mut case = Case::proven();
    case.probe(Some(Failed::Timeout), 1.0, 3.0);
    assert_eq!(case.verdict(3.1), Verdict::Suspect(Class::Periodic));
    case.evidence.suspect(Class::Hang, case.at(3.2), case.at(13.3));
    assert_eq!(case.verdict(13.3), Verdict::Suspect(Class::Hang), "the early timeout does not count");
    case.probe(Some(Failed::Timeout), 13.3, 15.3);
    assert_eq!(case.verdict(15.4), Verdict::Wedged(Class::Hang));
}

#[test]
fn one_failing_probe_ends_the_probation() {
    let mut case = Case::proven();
    case.evidence.after_restart = true;
    case.probe(Some(Failed::Unreachable), 10.0, 12.0);
    assert_eq!(case.verdict(12.1), Verdict::Wedged(Class::Refused));
}

#[test]
fn one_late_probe_ends_no_probation() {
    let mut case = Case::proven();
    case.evidence.after_restart = true;
    case.probe(Some(Failed::Timeout), 10.0, 12.0);
    case.probe(Some(Failed::Timeout), 12.0, 16.0);
    assert_eq!(case.verdict(16.1), Verdict::Suspect(Class::Periodic));
    case.probe(Some(Failed::Timeout), 16.0, 24.0);
    assert_eq!(case.verdict(24.1), Verdict::Wedged(Class::Periodic));
}

#[test]
fn an_engine_that_was_never_proven_has_its_budget_for_all_that_a_cold_start_shows() {
    for failure in [Failed::Timeout, Failed::Unreachable, Failed::Fault(Class::Ambiguous)] {
        let mut case = Case::unproven();
        case.evidence.shallow = Shallow::Green;
        for nth in 0..10 {
            case.probe(Some(failure), f64::from(nth) * 12.0, f64::from(nth) * 12.0 + 10.0);
        }
        assert_eq!(case.verdict(1199.0), Verdict::Warming, "{failure:?}");
        assert_eq!(case.verdict(1201.0), Verdict::Unstartable, "{failure:?}");
        // Where an earlier instance was proven within ten seconds, two minutes are enough.
        case.evidence.usual_start = Some(seconds(10.0));
        assert_eq!(case.verdict(119.0), Verdict::Warming, "{failure:?}");
        assert_eq!(case.verdict(121.0), Verdict::Wedged(failure.class()), "{failure:?}");
        case.evidence.usual_start = Some(seconds(300.0));
        assert_eq!(case.verdict(899.0), Verdict::Warming, "{failure:?}");
        assert_eq!(case.verdict(901.0), Verdict::Wedged(failure.class()), "{failure:?}");
    }
    for failure in [Failed::Content, Failed::Fault(Class::Sticky)] {
        let mut case = Case::unproven();
        case.evidence.shallow = Shallow::Green;
        case.probe(Some(failure), 1.0, 2.0);
        case.probe(Some(failure), 3.0, 4.0);
        assert_eq!(
            case.verdict(5.0),
            Verdict::Wedged(failure.class()),
            "{failure:?}: no cold start shows that"
        );
    }
}

#[test]
fn an_old_doubt_without_a_quorum_is_undecided() {
    let mut case = Case::proven();
    case.hint(Class::Ambiguous, 1.0);
    case.probe(Some(Failed::Unreachable), 1.0, 1.1);
    case.probe(None, 2.0, 2.1);
    case.probe(None, 4.0, 4.1);
    assert_eq!(case.verdict(32.0), Verdict::Undecided(Class::Ambiguous));
}

#[test]
fn repeated_losses_and_lasting_slowness_wear_an_engine_out() {
    let mut case = Case::proven();
    for after in [1.0, 2.0, 3.0] {
        assert_eq!(case.verdict(after), Verdict::Serving);
        let loss = Observation::Loss { started: case.at(after), seen: case.at(after) };
        case.evidence.observe(&loss);
    }
    assert_eq!(case.verdict(4.0), Verdict::Worn(Class::Memory));

    let mut case = Case::proven();
    let period = case.policy.trend.recycle_for;
    let slow = |case: &mut Case, ratio: f64, from: u32, to: u32| {
        for after in (from..=to).step_by(20) {
            case.evidence.trend.record(ratio, period, case.at(f64::from(after)));
        }
    };
    slow(&mut case, 2.8, 0, 280);
    assert_eq!(case.verdict(281.0), Verdict::Serving);
    slow(&mut case, 3.5, 300, 320);
    assert_eq!(case.verdict(321.0), Verdict::Degraded(Class::Trend));
    slow(&mut case, 3.5, 340, 940);
    assert_eq!(case.verdict(941.0), Verdict::Worn(Class::Trend));
    slow(&mut case, 1.0, 980, 980);
    assert_eq!(case.verdict(981.0), Verdict::Serving);
}

#[test]
fn cleared_doubts_about_content_and_hangs_leave_no_mark() {
    for (class, expected) in [
        (Class::Quality, Verdict::Serving),
        (Class::Hang, Verdict::Serving),
        (Class::Ambiguous, Verdict::Degraded(Class::Ambiguous)),
    ] {
        let mut case = Case::proven();
        for nth in 0..3 {
            case.evidence.suspect(class, case.at(f64::from(nth)), case.at(f64::from(nth)));
            case.evidence.clear(case.at(f64::from(nth)));
        }
        assert_eq!(case.verdict(4.0), expected, "{class:?}");
    }
}

#[test]
fn any_sign_of_work_clears_a_hang() {
    let mut case = Case::proven();
    case.evidence.suspect(Class::Hang, case.at(1.0), case.at(12.0));
    let mut lane = idle();
    lane.progress = Some(case.at(11.0));
    let judged = |lane: &LaneView| verdict(&case.evidence, lane, &case.policy, case.at(14.0));
    assert_eq!(judged(&lane), Verdict::Suspect(Class::Hang));
    lane.progress = Some(case.at(13.0));
    assert_eq!(judged(&lane), Verdict::Cleared(Class::Hang));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Hint(usize),
    Probe(Option<usize>, u16),
    Success(u16),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..Class::ALL.len()).prop_map(Step::Hint),
        (prop::option::of(0..7usize), 0..5000u16).prop_map(|(failure, took)| Step::Probe(failure, took)),
        (0..5000u16).prop_map(Step::Success),
        Just(Step::Clear),
    ]
}

proptest! {
    /// Total: no history panics. Safe: without a failing probe nothing is ever wedged.
    #[test]
    fn no_history_panics_and_none_without_a_failing_probe_is_wedged(
        steps in prop::collection::vec((step(), 0..3000u32), 0..60)
    ) {
        let mut case = Case::proven();
        let mut now = 0.0;
        let mut failed = false;
        for (step, wait) in steps {
            now += f64::from(wait) / 1000.0;
            match step {
                Step::Hint(class) => case.hint(Class::ALL[class], now),
                Step::Probe(failure, took) => {
                    let failures = [
                        Failed::Timeout,
                        Failed::Unreachable,
                        Failed::Content,
                        Failed::Fault(Class::Sticky),
                        Failed::Rejected,
                        Failed::Busy,
                        Failed::Unsuited,
                    ];
                    let failure = failure.map(|at| failures[at]);
                    failed |= !matches!(failure, None | Some(Failed::Busy | Failed::Unsuited));
                    case.probe(failure, now, now + f64::from(took) / 1000.0);
                }
                Step::Success(took) => case.success(now, now + f64::from(took) / 1000.0),
                Step::Clear => case.evidence.clear(case.at(now)),
            }
            let verdict = case.verdict(now);
            prop_assert!(failed || !matches!(verdict, Verdict::Wedged(_)), "{verdict:?}");
        }
    }
}
