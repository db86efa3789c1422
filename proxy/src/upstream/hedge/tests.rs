use ::http::StatusCode;
use proptest::prelude::*;

use contract::Capability;

use crate::upstream::failure::Failure;
use crate::upstream::hedge::*;

fn after(wait: f64, work: f64) -> Option<Duration> {
    overdue_after(Forecast { wait, work }, &config::Hedge::default())
}

#[test]
fn an_answer_is_overdue_after_the_wait_and_three_times_the_work_and_not_within_a_second() {
    assert_eq!(after(0.0, 0.1), Some(Duration::from_secs(1)));
    assert_eq!(after(0.0, 2.0), Some(Duration::from_secs(6)));
    assert_eq!(after(0.5, 0.1), Some(Duration::from_millis(1500)));
    assert_eq!(after(5.0, 20.0), Some(Duration::from_secs(65)));
}

#[test]
fn long_work_is_never_hedged_and_none_is_when_it_is_off() {
    assert_eq!(after(0.0, 20.1), None);
    assert_eq!(after(0.0, f64::NAN), None);
    assert_eq!(after(0.0, f64::INFINITY), None);
    let off = config::Hedge { enabled: false, ..config::Hedge::default() };
    assert_eq!(overdue_after(Forecast { wait: 0.0, work: 0.1 }, &off), None);
}

#[test]
fn only_a_proven_engine_without_any_work_is_idle() {
    let idle = Candidate { tier: Tier::Reported, standby: false, weight: 1.0, wait: 0.0, in_flight: 0 };
    assert!(has_room(&idle, false));
    assert!(!has_room(&Candidate { tier: Tier::Unreported, ..idle }, false));
    assert!(!has_room(&Candidate { weight: 0.5, ..idle }, false));
    assert!(!has_room(&Candidate { wait: 0.1, ..idle }, false));
    assert!(!has_room(&Candidate { in_flight: 1, ..idle }, false));
    assert!(has_room(&Candidate { in_flight: 1, ..idle }, true));
    assert!(!has_room(&Candidate { wait: 0.1, ..idle }, true));
}

#[test]
fn answers_and_errors_that_no_other_engine_is_asked_about_are_definite() {
    let capability = Capability::Stt;
    let refused =
        Error::EngineRefused { capability, status: StatusCode::UNSUPPORTED_MEDIA_TYPE, message: "".into() };
    let outcomes = [
        (Ok(()), true),
        (Err(Stop::Final(refused)), true),
        (Err(Stop::Final(Error::PoisonInput)), true),
        (Err(Stop::Failed(Failure::Internal)), true),
        (Err(Stop::Failed(Failure::Faulty(None))), false),
        (Err(Stop::Failed(Failure::Busy)), false),
        (Err(Stop::Failed(Failure::Silent)), false),
        (Err(Stop::Final(Error::Truncated)), false),
        (Err(Stop::Final(Error::NoRoom { retry_after: Duration::ZERO })), false),
    ];
    for (outcome, definite) in outcomes {
        assert_eq!(is_definite(&outcome), definite, "{outcome:?}");
    }
}

#[test]
fn the_alarm_is_heard_once_for_each_ring() {
    let alarm = Alarm::new(true);
    assert!(!alarm.rang());
    alarm.ring();
    assert!(alarm.rang());
    assert!(!alarm.rang());
}

#[test]
fn a_quiet_system_has_a_few_hedges_and_then_its_share_of_the_jobs() {
    let budget = Budget::default();
    let mut hedges = 0;
    for job in 1..=1000 {
        budget.deposit(0.03);
        hedges += u32::from(budget.withdraw());
        assert!(hedges <= Budget::BURST + job * 3 / 100, "{hedges} hedges of {job} jobs");
    }
    assert_eq!(hedges, Budget::BURST + 30 - 1, "the first deposit found the budget full");
}

proptest! {
    #[test]
    fn the_budget_is_kept_in_any_order_of_jobs_and_hedges(
        share in prop_oneof![0.0..1.0_f64, Just(f64::NAN), Just(-1.0), Just(f64::INFINITY)],
        steps in prop::collection::vec(any::<bool>(), 0..500),
    ) {
        let budget = Budget::default();
        let (mut jobs, mut hedges) = (0_u32, 0_u32);
        for is_job in steps {
            if is_job {
                budget.deposit(share);
                jobs += 1;
            } else {
                hedges += u32::from(budget.withdraw());
            }
            let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
            prop_assert!(f64::from(hedges) <= f64::from(Budget::BURST) + share * f64::from(jobs) + 1e-6);
        }
    }

    #[test]
    fn no_answer_is_overdue_before_it_was_predicted(
        wait in prop_oneof![0.0..1e3_f64, Just(f64::INFINITY)],
        work in 0.0..100.0_f64,
        factor in 1.0..10.0_f64,
        least in 1_u64..5_000,
    ) {
        let config = config::Hedge { factor, after: Duration::from_millis(least), ..config::Hedge::default() };
        match overdue_after(Forecast { wait, work }, &config) {
            None => prop_assert!(work > 20.0 || wait.is_infinite()),
            Some(after) => {
                prop_assert!(work <= 20.0);
                prop_assert!(after >= config.after);
                prop_assert!(after.as_secs_f64() >= wait + work - 1e-6);
            }
        }
    }
}
