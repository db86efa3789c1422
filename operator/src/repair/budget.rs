//! Budgets of repair, counted from what was recorded: pure.
//!
//! Whatever the record says was withdrawn was not done and costs nothing. A time in the future, of a clock that was
//! set back, counts as now.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use speechstack_crds::{ContainerRestarts, Outcome, RepairRecord, Rung};

/// Repairs of all stacks within [`RATE_WINDOW`], unless told otherwise.
pub const PER_CLUSTER: usize = 20;
/// Window of both rates, and least time between two nodes that an engine avoids.
pub const RATE_WINDOW: Duration = Duration::from_secs(600);
/// Least time between two nodes reported or tainted, in all stacks.
pub const NODE_WINDOW: Duration = Duration::from_secs(1800);
/// Restarts of one pod's engine within [`DAY`].
pub const PER_DAY: usize = 5;
/// A day.
pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// An hour.
pub const HOUR: Duration = Duration::from_secs(3600);
/// Restarts within this time make a row, unless health lasted between them.
pub const ROW: Duration = Duration::from_secs(1800);
/// Health that lasted so long ends a row.
pub const LASTING: Duration = Duration::from_secs(600);
/// A restart whose health did not last so long did not help.
pub const PROBATION: Duration = Duration::from_secs(60);
/// Repairs that the rule against futility looks at.
pub const FUTILE_OF: usize = 6;

/// How long ago that was.
#[must_use]
pub fn age(then: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(then).try_into().unwrap_or_default()
}

/// How long ago that repair was ordered.
#[must_use]
pub fn ordered(record: &RepairRecord, now: Timestamp) -> Duration {
    age(record.ordered.0, now)
}

/// Whether it was done, or may have been.
#[must_use]
pub fn counts(record: &RepairRecord) -> bool {
    record.outcome != Outcome::Withdrawn
}

/// Whether the rung acts on a pod.
#[must_use]
pub fn on_pod(rung: Rung) -> bool {
    !matches!(rung, Rung::ReportNode | Rung::TaintNode)
}

/// Whether the rung replaces the pod.
#[must_use]
pub fn replaces(rung: Rung) -> bool {
    matches!(rung, Rung::Recreate | Rung::AvoidNode)
}

/// Repairs of an engine's pods that count, oldest first.
pub fn of_engine<'a>(
    records: &'a [RepairRecord],
    engine: &'a str,
) -> impl DoubleEndedIterator<Item = &'a RepairRecord> + Clone {
    records.iter().filter(move |record| record.engine == engine && counts(record) && on_pod(record.rung))
}

/// Restarts of one pod's engine that count, oldest first.
pub fn restarts<'a>(
    records: &'a [RepairRecord],
    pod_uid: &'a str,
    since: Option<&'a MicroTime>,
) -> impl DoubleEndedIterator<Item = &'a RepairRecord> + Clone {
    records.iter().filter(move |record| {
        record.pod_uid == pod_uid
            && counts(record)
            && matches!(record.rung, Rung::Restart | Rung::Recycle)
            && since.is_none_or(|since| record.ordered > *since)
    })
}

/// Wait until fewer than `most` of those times lie within the window; zero when that is so now.
pub fn wait(
    times: impl Iterator<Item = Timestamp>,
    most: usize,
    window: Duration,
    now: Timestamp,
) -> Duration {
    let mut ages: Vec<Duration> = times.map(|time| age(time, now)).filter(|age| *age < window).collect();
    ages.sort_unstable();
    match most.checked_sub(1) {
        None => window,
        Some(last) => ages.get(last).map_or(Duration::ZERO, |age| window - *age),
    }
}

/// How many replicas of an engine may be under repair at the same time.
#[must_use]
pub fn parallel(limit: &IntOrString, desired: usize) -> usize {
    let parallel = match limit {
        IntOrString::Int(number) => usize::try_from(*number).unwrap_or_default(),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<usize>().ok());
            desired * percent.unwrap_or_default().min(100) / 100
        }
    };
    parallel.max(1)
}

/// Wait for a token of a pod's restart bucket; zero when there is one.
#[must_use]
pub fn bucket<'a>(
    restarts: impl Iterator<Item = &'a RepairRecord>,
    policy: &ContainerRestarts,
    now: Timestamp,
) -> Duration {
    let refill = policy.refill.0.max(Duration::from_secs(1));
    let ages = restarts.map(|restart| age(restart.ordered.0, now));
    let tokens = contract::budget::tokens(ages, policy.burst.max(1), refill);
    // A thousandth of a token is forgiven: the sum of parts must not wait for a rounding error.
    if tokens > 0.999 { Duration::ZERO } else { refill.mul_f64(1.0 - tokens) }
}

/// Wait before restart number `row` of a row, counted from the last one.
#[must_use]
pub fn spacing(last: Option<Timestamp>, row: usize, policy: &ContainerRestarts, now: Timestamp) -> Duration {
    let (Some(last), Some(doublings)) = (last, row.checked_sub(1)) else { return Duration::ZERO };
    let factor = 3_u32.saturating_pow(u32::try_from(doublings).unwrap_or(u32::MAX));
    let spacing = policy.backoff.0.saturating_mul(factor).min(policy.max_backoff.0);
    spacing.saturating_sub(age(last, now))
}

/// Restarts of the present row: within [`ROW`], without lasting health between them or before `ailing`.
#[must_use]
pub fn row<'a>(
    restarts: impl DoubleEndedIterator<Item = &'a RepairRecord>,
    ailing: Timestamp,
    now: Timestamp,
) -> usize {
    let mut row = 0;
    let mut next = ailing;
    for restart in restarts.rev() {
        if ordered(restart, now) >= ROW || health(restart, next) >= Some(LASTING) {
            break;
        }
        row += 1;
        next = restart.ordered.0;
    }
    row
}

/// How long health lasted after a repair, until `next`; `None` when there was none.
fn health(record: &RepairRecord, next: Timestamp) -> Option<Duration> {
    let recovered = record.outcome == Outcome::Recovered;
    record.ended.as_ref().filter(|_| recovered).map(|ended| age(ended.0, next))
}

/// Whether a repair did not help: it failed, or health lasted less than `least` until `ailing`.
#[must_use]
pub fn failed(record: &RepairRecord, ailing: Timestamp, least: Duration) -> bool {
    match record.outcome {
        Outcome::Failed => true,
        Outcome::Recovered => health(record, ailing).is_some_and(|lasted| lasted < least),
        Outcome::Pending | Outcome::Withdrawn | Outcome::Done => false,
    }
}

/// Whether more than half of an engine's last repairs did not help, and the highest rung among them.
#[must_use]
pub fn futile<'a>(
    records: impl DoubleEndedIterator<Item = &'a RepairRecord> + Clone,
    now: Timestamp,
) -> (bool, Option<Rung>) {
    let last: Vec<&RepairRecord> = records.rev().take(FUTILE_OF).collect();
    let highest = last.iter().map(|record| record.rung).max();
    let useless = last.iter().enumerate().filter(|(at, record)| {
        // Another repair of the same pod ends the health of this one.
        let later = last.iter().take(*at).rev().find(|later| later.pod_uid == record.pod_uid);
        failed(record, later.map_or(now, |later| later.ordered.0), PROBATION) && {
            // Health that began a moment ago has not failed yet.
            record.outcome == Outcome::Failed || later.is_some()
        }
    });
    (last.len() == FUTILE_OF && useless.count() * 2 > FUTILE_OF, highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn restart(second: i64, ended: Option<i64>) -> RepairRecord {
        RepairRecord {
            engine: "e".into(),
            pod: "p".into(),
            pod_uid: "u".into(),
            node: None,
            template: None,
            instance: format!("i{second}"),
            rung: Rung::Restart,
            class: None,
            attempt: 0,
            ordered: MicroTime(at(second)),
            outcome: if ended.is_some() { Outcome::Recovered } else { Outcome::Failed },
            ended: ended.map(|ended| MicroTime(at(ended))),
        }
    }

    #[test]
    fn a_bucket_empties_by_its_burst_and_refills_with_time() {
        let policy = ContainerRestarts::default();
        let three = [restart(0, None), restart(10, None), restart(40, None)];
        assert_eq!(bucket([].into_iter(), &policy, at(0)), Duration::ZERO);
        assert_eq!(bucket(three[..2].iter(), &policy, at(40)), Duration::ZERO);
        let wait = bucket(three.iter(), &policy, at(40)).as_secs();
        assert!((555..=560).contains(&wait), "one token per ten minutes since the first: {wait}");
        assert_eq!(bucket(three.iter(), &policy, at(40 + 561)), Duration::ZERO);
    }

    #[test]
    fn spacing_triples_up_to_its_limit() {
        let policy = ContainerRestarts::default();
        let seconds: Vec<u64> =
            (0..6).map(|row| spacing(Some(at(0)), row, &policy, at(0)).as_secs()).collect();
        assert_eq!(seconds, [0, 10, 30, 90, 270, 600]);
        assert_eq!(spacing(Some(at(0)), 2, &policy, at(25)).as_secs(), 5);
        assert_eq!(spacing(None, 3, &policy, at(0)), Duration::ZERO);
        assert_eq!(spacing(Some(at(0)), usize::MAX, &policy, at(0)).as_secs(), 600);
    }

    #[test]
    fn a_window_opens_when_its_oldest_leaves() {
        let window = Duration::from_secs(600);
        let times = [at(0), at(100), at(200)];
        assert_eq!(wait(times.into_iter(), 4, window, at(200)), Duration::ZERO);
        assert_eq!(wait(times.into_iter(), 3, window, at(200)).as_secs(), 400);
        assert_eq!(wait(times.into_iter(), 1, window, at(200)).as_secs(), 600);
        assert_eq!(wait(times.into_iter(), 3, window, at(600)), Duration::ZERO);
        assert_eq!(wait([].into_iter(), 0, window, at(0)), window, "none allowed");
        assert_eq!(wait([at(900)].into_iter(), 1, window, at(0)), window, "a clock that was set back");
    }

    #[test]
    fn parallel_is_a_number_or_a_share_and_at_least_one() {
        let percent = |text: &str| IntOrString::String(text.into());
        for (limit, desired, most) in [
            (percent("25%"), 1, 1),
            (percent("25%"), 8, 2),
            (percent("100%"), 7, 7),
            (percent("nonsense"), 7, 1),
            (IntOrString::Int(3), 8, 3),
            (IntOrString::Int(-1), 8, 1),
        ] {
            assert_eq!(parallel(&limit, desired), most, "{limit:?} of {desired}");
        }
    }

    #[test]
    fn lasting_health_ends_a_row_and_short_health_does_not() {
        let short = [restart(0, Some(20)), restart(100, Some(120))];
        assert_eq!(row(short.iter(), at(200), at(200)), 2);
        let lasting = [restart(0, Some(20)), restart(700, Some(720))];
        assert_eq!(row(lasting.iter(), at(800), at(800)), 1);
        assert_eq!(row(lasting.iter(), at(1400), at(1400)), 0);
        assert_eq!(row(short.iter(), at(110), at(5000)), 0, "too long ago");
    }

    #[test]
    fn futility_needs_more_than_half_of_six() {
        let mut six: Vec<RepairRecord> = (0..6).map(|n| restart(n * 1000, Some(n * 1000 + 20))).collect();
        for record in six.iter_mut().take(3) {
            record.outcome = Outcome::Failed;
        }
        assert_eq!(futile(six.iter(), at(5100)), (false, Some(Rung::Restart)));
        // The last recovered, wedged a moment later and was restarted again.
        six.push(restart(5040, None));
        assert!(futile(six.iter(), at(5100)).0);
        assert!(!futile(six[..5].iter(), at(5100)).0, "too few");
    }
}
