use crate::guard::judge::evidence::{Failed, Probed};
use crate::guard::judge::observation::{Observation, Success};
use crate::guard::judge::schedule::*;
use crate::guard::path::lane::Permit;
use crate::guard::path::lane::testing::{job, running};

fn idle() -> LaneView {
    LaneView::default()
}

fn at(start: Instant, seconds: f64) -> Instant {
    start + Duration::from_secs_f64(seconds)
}

fn proven(start: Instant) -> Evidence {
    let mut evidence = Evidence::new(Capability::Stt, false, start);
    evidence.shallow = Shallow::Green;
    for (which, from) in [(Which::SttA, 0.0), (Which::SttB, 1.0)] {
        evidence.probed(Probed {
            which,
            started: at(start, from),
            ended: at(start, from + 0.5),
            failure: None,
            excused: false,
        });
    }
    evidence
}

fn success(evidence: &mut Evidence, start: Instant, from: f64, to: f64) {
    evidence.observe(&Observation::Success(Success {
        started: at(start, from),
        ended: at(start, to),
        audio: 2.0,
        predicted: 0.3,
        service: Duration::from_secs_f64(to - from),
    }));
}

#[test]
fn a_warming_engine_is_probed_with_both_clips_in_turn() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut evidence = Evidence::new(Capability::Stt, false, start);
    evidence.shallow = Shallow::Green;
    let first = due(&evidence, Verdict::Warming, &idle(), &policy, start).unwrap();
    assert_eq!((first.which, first.deadline), (Which::SttA, policy.probe.timeout_max));
    evidence.probed(Probed {
        which: Which::SttA,
        started: start,
        ended: at(start, 0.3),
        failure: None,
        excused: false,
    });
    let second = due(&evidence, Verdict::Warming, &idle(), &policy, at(start, 0.3)).unwrap();
    assert_eq!(second.which, Which::SttB);
}

#[test]
fn an_idle_engine_is_probed_each_idle_period_and_a_busy_one_only_for_content() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut evidence = proven(start);
    let due_at =
        |evidence: &Evidence, seconds| due(evidence, Verdict::Serving, &idle(), &policy, at(start, seconds));
    assert!(due_at(&evidence, 31.0).is_none());
    assert!(due_at(&evidence, 32.0).is_some());
    success(&mut evidence, start, 30.0, 31.0);
    assert!(due_at(&evidence, 32.0).is_none());
    success(&mut evidence, start, 300.0, 301.0);
    assert!(due_at(&evidence, 301.0).is_none());
    assert!(due_at(&evidence, 302.0).is_some(), "content is checked under traffic");
}

#[test]
fn open_conversations_in_which_the_engine_says_nothing_are_no_sign_of_life() {
    let start = Instant::now();
    let policy = Policy::default();
    let evidence = proven(start);
    let mut conversation = job(0.0, start);
    conversation.permit = Permit::Stream;
    let mut lane = running([conversation]);
    let due_at =
        |lane: &LaneView, seconds| due(&evidence, Verdict::Serving, lane, &policy, at(start, seconds));
    assert!(due_at(&lane, 31.0).is_none());
    assert!(due_at(&lane, 32.0).is_some());
    lane.progress = Some(at(start, 20.0));
    assert!(due_at(&lane, 49.0).is_none(), "it has said something");
    assert!(due_at(&lane, 50.0).is_some());
}

#[test]
fn the_content_check_yields_to_a_long_queue_but_not_for_ever() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut evidence = proven(start);
    success(&mut evidence, start, 1300.0, 1400.0);
    let queue = LaneView { waiting: 9, waiting_seconds: 9.0, ..LaneView::default() };
    assert!(due(&evidence, Verdict::Saturated, &queue, &policy, at(start, 400.0)).is_none());
    assert!(due(&evidence, Verdict::Saturated, &queue, &policy, at(start, 1202.0)).is_some());
}

#[test]
fn probes_of_a_doubt_are_spaced() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut evidence = proven(start);
    evidence.suspect(Class::Ambiguous, at(start, 10.0), at(start, 10.0));
    let verdict = Verdict::Suspect(Class::Ambiguous);
    let due_at =
        |evidence: &Evidence, seconds| due(evidence, verdict, &idle(), &policy, at(start, seconds)).is_some();
    assert!(due_at(&evidence, 10.0));
    let failure = Some(Failed::Unreachable);
    evidence.probed(Probed {
        which: Which::SttA,
        started: at(start, 10.0),
        ended: at(start, 10.1),
        failure,
        excused: false,
    });
    assert!(!due_at(&evidence, 10.5));
    assert!(due_at(&evidence, 11.0));
}

#[test]
fn the_probe_of_a_hang_goes_past_the_lane_and_waits_for_known_work() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut evidence = proven(start);
    evidence.suspect(Class::Hang, at(start, 2.0), at(start, 12.0));
    let lane = running([job(14.0, at(start, 2.0))]);
    let probe = due(&evidence, Verdict::Suspect(Class::Hang), &lane, &policy, at(start, 12.0)).unwrap();
    assert!(probe.bypass);
    assert_eq!(probe.deadline, policy.probe.timeout_min + Duration::from_secs(6), "4 s left, times 1.5");
}

#[test]
fn a_ejected_engine_is_probed_rarely() {
    let start = Instant::now();
    let policy = Policy::default();
    let evidence = proven(start);
    let verdict = Verdict::Wedged(Class::Sticky);
    assert!(due(&evidence, verdict, &idle(), &policy, at(start, 30.0)).is_none());
    assert!(due(&evidence, verdict, &idle(), &policy, at(start, 31.6)).is_some());
}

#[test]
fn each_late_probe_in_a_row_gives_the_next_one_twice_the_time() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut evidence = proven(start);
    let verdict = Verdict::Suspect(Class::Periodic);
    for expected in [2, 4, 8, 16, 32, 40, 40] {
        let now = evidence.probes.back().map_or(start, |probe| probe.ended) + Duration::from_secs(60);
        let probe = due(&evidence, Verdict::Serving, &idle(), &policy, now).unwrap();
        assert_eq!(probe.deadline, Duration::from_secs(expected));
        let (which, ended) = (probe.which, now + probe.deadline);
        evidence.probed(Probed {
            which,
            started: now,
            ended,
            failure: Some(Failed::Timeout),
            excused: false,
        });
    }
    let now = evidence.probes.back().unwrap().ended;
    evidence.probed(Probed {
        which: Which::SttA,
        started: now,
        ended: now + Duration::from_secs(3),
        failure: None,
        excused: false,
    });
    let now = now + Duration::from_secs(60);
    assert_eq!(due(&evidence, verdict, &idle(), &policy, now).unwrap().deadline, Duration::from_secs(9));
}

#[test]
fn the_first_probes_of_a_start_are_given_ever_more_time() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut evidence = Evidence::new(Capability::Stt, false, start);
    evidence.shallow = Shallow::Green;
    for expected in [10, 20, 40, 80, 160, 320, 320] {
        let now = evidence.probes.back().map_or(start, |probe| probe.ended) + Duration::from_secs(1);
        let probe = due(&evidence, Verdict::Warming, &idle(), &policy, now).unwrap();
        assert_eq!(probe.deadline, Duration::from_secs(expected));
        let (which, ended) = (probe.which, now + probe.deadline);
        evidence.probed(Probed {
            which,
            started: now,
            ended,
            failure: Some(Failed::Timeout),
            excused: false,
        });
    }
}

#[test]
fn a_start_is_not_slowed_by_more_probes_while_one_is_under_way() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut evidence = Evidence::new(Capability::Stt, false, start);
    evidence.shallow = Shallow::Green;
    let (which, failure) = (Which::SttA, Some(Failed::Timeout));
    let late = Probed { which, started: start, ended: at(start, 10.0), failure, excused: false };
    evidence.probed(late);
    let mut unanswered = job(0.0, start);
    (unanswered.claim.task, unanswered.lost) = (None, true);
    let lane = running([unanswered]);
    let due_at = |evidence: &Evidence, lane: &LaneView, seconds| {
        due(evidence, Verdict::Warming, lane, &policy, at(start, seconds))
    };
    assert_eq!(due_at(&evidence, &lane, 29.0), None);
    assert!(due_at(&evidence, &lane, 30.0).is_some(), "it may be lost");
    assert!(due_at(&evidence, &idle(), 11.0).is_some(), "the engine has dropped it");
    evidence.probed(Probed { ended: at(start, 25.0), failure: None, ..late });
    let next = due_at(&evidence, &idle(), 25.0).unwrap();
    assert_eq!((next.which, next.deadline), (Which::SttB, Duration::from_secs(75)));
}

#[test]
fn a_cold_start_lengthens_no_later_deadline() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut evidence = Evidence::new(Capability::Stt, false, start);
    evidence.shallow = Shallow::Green;
    for (which, from, to) in [(Which::SttA, 0.0, 60.0), (Which::SttB, 60.0, 61.0)] {
        let (started, ended) = (at(start, from), at(start, to));
        evidence.probed(Probed { which, started, ended, failure: None, excused: false });
    }
    let probe = due(&evidence, Verdict::Serving, &idle(), &policy, at(start, 200.0)).unwrap();
    assert_eq!(probe.deadline, Duration::from_secs(3));
}

#[test]
fn a_slow_engine_is_given_three_times_what_it_took() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut evidence = proven(start);
    let (started, ended) = (at(start, 100.0), at(start, 115.0));
    evidence.probed(Probed { which: Which::SttA, started, ended, failure: None, excused: false });
    let probe = due(&evidence, Verdict::Serving, &idle(), &policy, at(start, 200.0)).unwrap();
    assert_eq!(probe.deadline, Duration::from_secs(45), "beyond the most that others are given");
}

#[test]
fn a_doubt_goes_past_a_jammed_lane_once_it_has_waited() {
    let start = Instant::now();
    let policy = Policy::default();
    let lane = running([job(300.0, start)]);
    let bypass = |class: Class, after: f64| {
        let mut evidence = proven(start);
        evidence.suspect(class, at(start, 10.0), at(start, 10.0));
        due(&evidence, Verdict::Suspect(class), &lane, &policy, at(start, 10.0 + after)).unwrap().bypass
    };
    assert_eq!((bypass(Class::Sticky, 1.9), bypass(Class::Sticky, 2.0)), (false, true));
    assert_eq!((bypass(Class::Ambiguous, 14.9), bypass(Class::Ambiguous, 15.0)), (false, true));
}

#[test]
fn a_probe_that_was_not_answered_does_not_keep_the_next_one_waiting() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut late = job(0.0, at(start, 40.0));
    (late.claim.task, late.lost) = (None, true);
    let lane = running([late]);
    assert!(due(&proven(start), Verdict::Serving, &lane, &policy, at(start, 60.0)).unwrap().bypass);
}

#[test]
fn odd_answers_ask_for_a_probe_at_once() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut evidence = proven(start);
    success(&mut evidence, start, 19.0, 20.0);
    let due_at = |evidence: &Evidence, seconds| {
        due(evidence, Verdict::Serving, &idle(), &policy, at(start, seconds)).is_some()
    };
    assert!(!due_at(&evidence, 21.0));
    evidence.observe(&Observation::Odd { what: "empty_transcripts", seen: at(start, 21.0) });
    assert!(due_at(&evidence, 21.0));
    let (started, ended) = (at(start, 21.0), at(start, 22.0));
    evidence.probed(Probed { which: Which::SttA, started, ended, failure: None, excused: false });
    assert!(!due_at(&evidence, 23.0), "it was looked at");
}
