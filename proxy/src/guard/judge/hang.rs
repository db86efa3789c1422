//! Whether a job in flight hangs: judged job by job against its own prediction, from signs of work of any kind. Pure.

use std::time::{Duration, Instant};

use crate::config::Hang;
use crate::guard::judge::evidence::Evidence;
use crate::guard::path::lane::{Job, LaneView, Permit};

/// Most times that starvation may stretch a time limit.
const MAX_STRETCH: f64 = 4.0;
/// Times its prediction that a job is given at least, whatever the cap.
const LEAST_FACTOR: f64 = 1.5;

/// How long the engine may show no sign of work while it has this job:
/// `max(floor, predicted_factor * job, queue_factor * all jobs)`, at most the cap, and never less than 1.5 times the job.
pub fn limit(job: &Job, lane: &LaneView, policy: &Hang) -> Duration {
    let all: f64 = lane.jobs().map(|job| job.claim.predicted).sum();
    let seconds = (policy.predicted_factor * job.claim.predicted).max(policy.queue_factor * all);
    let duration = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let least = duration(LEAST_FACTOR * job.claim.predicted);
    duration(seconds).max(policy.floor).min(policy.cap).max(least)
}

/// Conversations that were left without an answer, before which it may have been their clients' doing.
const LEFT: u32 = 2;

/// Since when the engine owes answers to clients of conversations that have gone elsewhere, if that is a hang: such clients wait for a
/// second or two only, so that no single job ever hangs for long.
pub fn owes(lane: &LaneView, evidence: &Evidence, policy: &Hang, now: Instant) -> Option<Instant> {
    let (count, since) = evidence.owed?;
    let silence = now.saturating_duration_since(since);
    let silent = since >= progress(lane, evidence) && silence.as_secs_f64() > floor(evidence, policy);
    (count >= LEFT && silent).then_some(since)
}

/// When the engine last gave a sign of work.
fn progress(lane: &LaneView, evidence: &Evidence) -> Instant {
    lane.progress.map_or(evidence.progress, |seen| seen.max(evidence.progress))
}

/// Times as long as a limit that an engine is given which is kept from the CPU.
fn stretch(evidence: &Evidence) -> f64 {
    (1.0 / (1.0 - evidence.held_back.clamp(0.0, 1.0))).min(MAX_STRETCH)
}

/// The least silence that is a hang, seconds.
fn floor(evidence: &Evidence, policy: &Hang) -> f64 {
    policy.floor.as_secs_f64() * stretch(evidence)
}

/// The oldest job that hangs, if any; also a late probe that keeps the lane from clients. Time for which the engine was kept from
/// the CPU does not count.
///
/// A job that waits for its client does not hang, and does not excuse another one. One that is overdue while later ones end
/// is lost, which is no hang of the engine.
pub fn hung<'lane>(
    lane: &'lane LaneView,
    evidence: &Evidence,
    policy: &Hang,
    now: Instant,
) -> Option<&'lane Job> {
    let (progress, stretch) = (progress(lane, evidence), stretch(evidence));
    let blocks = |job: &&Job| job.permit == Permit::Job && job.is_probe() && job.lost && lane.waiting > 0;
    lane.jobs().chain(lane.running.iter().filter(blocks)).find(|job| {
        let silence = now.saturating_duration_since(job.started.max(progress));
        !job.awaits_client && silence.as_secs_f64() > limit(job, lane, policy).as_secs_f64() * stretch
    })
}

/// Whether the engine is busy with work of clients that is not overdue: what it does not answer meanwhile tells load.
pub fn busy(lane: &LaneView, evidence: &Evidence, policy: &Hang, now: Instant) -> bool {
    lane.jobs().next().is_some() && hung(lane, evidence, policy, now).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::judge::observation::Observation;
    use crate::guard::path::lane::testing::{job, running};

    /// An engine that last answered at that time.
    fn seen(progress: Instant) -> Evidence {
        Evidence::new(contract::Capability::Stt, false, progress)
    }

    fn at(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_limit_has_a_floor_and_grows_with_the_work() {
        let (policy, now) = (Hang::default(), Instant::now());
        let of = |predicted: f64| limit(&job(predicted, now), &running([job(predicted, now)]), &policy);
        assert_eq!(of(1.0), Duration::from_secs(10));
        assert_eq!(of(20.0), Duration::from_secs(60));
        assert_eq!(of(500.0), Duration::from_secs(900), "the cap");
        assert_eq!(of(1000.0), Duration::from_secs(1500), "no cap makes it less than 1.5 times the work");
        let many = running(std::iter::repeat_n(job(10.0, now), 4));
        assert_eq!(limit(&job(1.0, now), &many, &policy), Duration::from_secs(60));
    }

    #[test]
    fn silence_beyond_the_limit_is_a_hang_and_any_sign_of_work_ends_it() {
        let (policy, start) = (Hang::default(), Instant::now());
        let mut lane = running([job(1.0, start)]);
        assert!(hung(&lane, &seen(start), &policy, at(start, 9.9)).is_none());
        assert!(hung(&lane, &seen(start), &policy, at(start, 10.1)).is_some());
        assert!(hung(&lane, &seen(at(start, 5.0)), &policy, at(start, 10.1)).is_none(), "an error answer");
        lane.progress = Some(at(start, 5.0));
        assert!(hung(&lane, &seen(start), &policy, at(start, 10.1)).is_none(), "part of an answer");
        assert!(hung(&lane, &seen(start), &policy, at(start, 15.1)).is_some());
    }

    #[test]
    fn a_slow_reader_does_not_hang_and_hides_no_hang_of_another_job() {
        let (policy, start) = (Hang::default(), Instant::now());
        let mut reader = job(1.0, start);
        reader.awaits_client = true;
        let lane = running([reader.clone()]);
        assert!(hung(&lane, &seen(start), &policy, at(start, 60.0)).is_none());
        let lane = running([reader, job(1.0, start)]);
        assert!(hung(&lane, &seen(start), &policy, at(start, 60.0)).is_some());
    }

    #[test]
    fn a_stuck_member_of_a_batch_is_no_hang_while_others_end() {
        let (policy, start) = (Hang::default(), Instant::now());
        let mut lane = running([job(1.0, start), job(1.0, at(start, 59.0))]);
        lane.progress = Some(at(start, 59.5));
        assert!(hung(&lane, &seen(start), &policy, at(start, 60.0)).is_none());
    }

    #[test]
    fn conversations_and_probes_are_no_work_that_hangs() {
        let (policy, start) = (Hang::default(), Instant::now());
        let mut conversation = job(0.0, start);
        conversation.permit = Permit::Stream;
        let mut probe = job(0.0, start);
        probe.claim.task = None;
        let lane = running([conversation, probe]);
        assert!(hung(&lane, &seen(start), &policy, at(start, 3600.0)).is_none());
        assert!(!busy(&lane, &seen(start), &policy, start));
    }

    #[test]
    fn a_late_probe_hangs_when_clients_wait_behind_it() {
        let (policy, start) = (Hang::default(), Instant::now());
        let mut probe = job(0.0, start);
        (probe.claim.task, probe.lost) = (None, true);
        let mut lane = running([probe]);
        assert!(
            hung(&lane, &seen(start), &policy, at(start, 60.0)).is_none(),
            "an idle engine may be starved"
        );
        lane.waiting = 1;
        assert!(hung(&lane, &seen(start), &policy, at(start, 9.0)).is_none());
        assert!(hung(&lane, &seen(start), &policy, at(start, 11.0)).is_some());
    }

    #[test]
    fn an_engine_is_busy_until_its_work_is_overdue() {
        let (policy, start) = (Hang::default(), Instant::now());
        let lane = running([job(100.0, start)]);
        assert!(busy(&lane, &seen(start), &policy, at(start, 299.0)));
        assert!(!busy(&lane, &seen(start), &policy, at(start, 301.0)));
        assert!(!busy(&LaneView::default(), &seen(start), &policy, start));
    }

    #[test]
    fn a_starved_engine_is_given_more_time() {
        let (policy, start) = (Hang::default(), Instant::now());
        let lane = running([job(1.0, start)]);
        let mut starved = seen(start);
        starved.held_back = 0.5;
        assert!(hung(&lane, &starved, &policy, at(start, 19.0)).is_none());
        assert!(hung(&lane, &starved, &policy, at(start, 21.0)).is_some());
        starved.held_back = 1.0;
        assert!(
            hung(&lane, &starved, &policy, at(start, 41.0)).is_some(),
            "starvation is no excuse for ever"
        );
    }

    #[test]
    fn clients_that_leave_without_an_answer_show_a_hang_that_no_job_shows() {
        let (policy, start) = (Hang::default(), Instant::now());
        let mut evidence = seen(start);
        let left = |from: f64, to| Observation::Owed { since: at(start, from), seen: at(start, to) };
        let owes = |evidence: &Evidence, lane: &LaneView, seconds| {
            owes(lane, evidence, &policy, at(start, seconds)).is_some()
        };
        evidence.observe(&left(1.0, 3.0));
        assert!(!owes(&evidence, &LaneView::default(), 60.0), "one may have had enough");
        evidence.observe(&left(2.0, 4.0));
        assert!(!owes(&evidence, &LaneView::default(), 10.9));
        assert!(owes(&evidence, &LaneView::default(), 11.1));
        let works = LaneView { progress: Some(at(start, 5.0)), ..LaneView::default() };
        assert!(!owes(&evidence, &works, 60.0), "it has answered another one");
        evidence.stalled(at(start, 6.0));
        evidence.observe(&left(7.0, 9.0));
        assert!(!owes(&evidence, &LaneView::default(), 60.0), "those before count no more");
    }
}
