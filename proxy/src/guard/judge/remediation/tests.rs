use proptest::prelude::*;

use crate::guard::judge::remediation::*;

const WEDGED: Verdict = Verdict::Wedged(Class::Sticky);

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

fn decide(repairs: &Repairs, policy: &Policy, now: Instant) -> Remediation {
    remediation(WEDGED, repairs, Actuation::Own, policy, now)
}

#[test]
fn the_first_restart_is_at_once_and_the_next_ones_are_spaced() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut repairs = Repairs::default();
    assert_eq!(
        decide(&repairs, &policy, start),
        Remediation::Restart(Order { attempt: 0, kill: Kill::AtOnce })
    );
    repairs.restarted(start, false, start);
    let until = Some(after(start, 10));
    assert_eq!(decide(&repairs, &policy, after(start, 3)), Remediation::Hold { why: Held::Spacing, until });
    assert!(matches!(
        decide(&repairs, &policy, after(start, 10)),
        Remediation::Restart(Order { attempt: 1, .. })
    ));
}

#[test]
fn lasting_health_ends_the_row() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut repairs = Repairs::default();
    repairs.restarted(start, false, start);
    repairs.healthy(after(start, 5));
    assert!(matches!(
        decide(&repairs, &policy, after(start, 2000)),
        Remediation::Restart(Order { attempt: 0, .. })
    ));
    assert!(matches!(
        decide(&repairs, &policy, after(start, 600)),
        Remediation::Restart(Order { attempt: 1, .. })
    ));
}

#[test]
fn the_bucket_holds_the_fourth_restart_until_it_refills() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut repairs = Repairs::default();
    for at in [0, 20, 60] {
        repairs.restarted(after(start, at), false, after(start, at));
    }
    assert!(matches!(
        decide(&repairs, &policy, after(start, 300)),
        Remediation::Hold { why: Held::Budget, .. }
    ));
    assert!(matches!(decide(&repairs, &policy, after(start, 700)), Remediation::Restart(_)));
}

#[test]
fn restarts_that_do_not_help_stop() {
    let start = Instant::now();
    let mut policy = Policy::default();
    policy.repair.burst = 100;
    policy.repair.max_per_day = 100;
    let mut repairs = Repairs::default();
    for at in 0..6 {
        assert!(!matches!(decide(&repairs, &policy, after(start, at * 1000)), Remediation::Stop(_)));
        repairs.restarted(after(start, at * 1000), false, after(start, at * 1000));
    }
    assert_eq!(decide(&repairs, &policy, after(start, 6000)), Remediation::Stop(Stopped::Futile));
    repairs.reset(after(start, 6001));
    assert!(matches!(decide(&repairs, &policy, after(start, 6002)), Remediation::Restart(_)));
}

#[test]
fn a_days_restarts_are_bounded() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut repairs = Repairs::default();
    for at in 0..5 {
        repairs.restarted(after(start, at * 3600), false, after(start, at * 3600));
        repairs.healthy(after(start, at * 3600 + 10));
    }
    assert_eq!(decide(&repairs, &policy, after(start, 6 * 3600)), Remediation::Stop(Stopped::DayBudget));
    assert!(matches!(decide(&repairs, &policy, after(start, 25 * 3600)), Remediation::Restart(_)));
}

#[test]
fn an_unstartable_engine_gets_one_retry() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut repairs = Repairs::default();
    let decide = |repairs: &Repairs| {
        remediation(Verdict::Unstartable, repairs, Actuation::Own, &policy, after(start, 20))
    };
    assert!(matches!(decide(&repairs), Remediation::Restart(Order { kill: Kill::Graceful, .. })));
    repairs.restarted(start, false, start);
    assert_eq!(decide(&repairs), Remediation::Stop(Stopped::Unfit));
}

#[test]
fn without_an_actuator_it_is_ejected_only() {
    let policy = Policy::default();
    let held = remediation(WEDGED, &Repairs::default(), Actuation::None, &policy, Instant::now());
    assert_eq!(held, Remediation::Hold { why: Held::NoActuator, until: None });
}

#[test]
fn wear_recycles_and_never_ejects() {
    let start = Instant::now();
    let policy = Policy::default();
    let mut repairs = Repairs::default();
    let worn = Verdict::Worn(Class::Trend);
    assert!(matches!(remediation(worn, &repairs, Actuation::Own, &policy, start), Remediation::Recycle(_)));
    repairs.restarted(start, false, start);
    assert_eq!(remediation(worn, &repairs, Actuation::Own, &policy, after(start, 1)), Remediation::None);
}

proptest! {
    /// However wedges come, restarts stay within the bucket: burst, plus one for each refill time.
    #[test]
    fn restarts_stay_within_the_budget(waits in prop::collection::vec(0..120u64, 1..400)) {
        let start = Instant::now();
        let mut policy = Policy::default();
        policy.repair.max_per_day = 1000;
        policy.repair.futility_of = 0;
        let mut repairs = Repairs::default();
        let mut now = start;
        for wait in waits {
            now += Duration::from_secs(wait);
            if let Remediation::Restart(_) = decide(&repairs, &policy, now) {
                repairs.restarted(now, false, now);
                repairs.healthy(now);
            }
        }
        let elapsed = now.duration_since(start).as_secs_f64();
        let allowed = f64::from(policy.repair.burst) + elapsed / policy.repair.refill.as_secs_f64();
        prop_assert!(repairs.total() as f64 <= allowed.floor() + 1e-6, "{} > {allowed}", repairs.total());
    }
}
