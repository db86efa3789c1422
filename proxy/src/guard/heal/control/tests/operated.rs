//! Restarts by the operator's leave, and without it while it is away.

use contract::{Act, Verb};

use crate::guard::heal::control::tests::*;

fn order(verb: Verb, instance: &str) -> RepairOrder {
    RepairOrder {
        order: verb,
        instance: instance.into(),
        attempt: 0,
        reason: "one at a time".into(),
        seconds: 120,
    }
}

impl Stack {
    /// Wedges the engine; resolves when the guard asks for a restart.
    async fn asks(&self) {
        *self.fake.mode.lock() = Mode::Sticky;
        self.hint(Class::Sticky).await;
        let mut reports = self.snapshot.reports();
        let asks = reports.wait_for(|report| report.repair.is_some());
        assert!(tokio::time::timeout(TEST_TIMEOUT, asks).await.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn with_an_operator_a_restart_is_asked_for_deferred_and_granted() {
    let stack = Stack::operated(policy()).await;
    let _listens = stack.contact.open();
    stack.asks().await;
    let report = stack.snapshot.full_report();
    let request = report.repair.unwrap();
    assert_eq!(
        (report.state, request.act, request.class),
        (State::Wedged, Act::Restart, Some(Class::Sticky))
    );
    assert_eq!((request.instance.as_str(), request.attempt), ("parakeet-0/1", 0));
    assert!(stack.actuator.kills.lock().is_empty() && stack.lane.is_ejected());

    let conflict = Reply::Conflict { instance: "parakeet-0/1".into(), attempt: 0 };
    assert_eq!(stack.orders.give(order(Verb::Grant, "parakeet-0/0")).await, Some(conflict));
    assert_eq!(stack.orders.give(order(Verb::Defer, "parakeet-0/1")).await, Some(Reply::Accepted(None)));
    stack.reaches(State::Ejected).await;
    let report = stack.snapshot.full_report();
    assert_eq!((report.deferred.as_deref(), report.repair.is_some()), (Some("one at a time"), true));

    assert_eq!(stack.orders.give(order(Verb::Grant, "parakeet-0/1")).await, Some(Reply::Accepted(None)));
    assert_eq!(stack.heals().await.class, Class::Sticky);
    assert_eq!(stack.orders.give(order(Verb::Grant, "parakeet-0/1")).await, Some(Reply::Accepted(None)));
    assert_eq!(
        *stack.actuator.kills.lock(),
        [Kill::AtOnce],
        "an order that is sent again is not carried out again"
    );
    assert_eq!(stack.snapshot.full_report().repair, None);
}

#[tokio::test(start_paused = true)]
async fn an_operator_may_restart_an_engine_that_is_well() {
    let stack = Stack::operated(policy()).await;
    let accepted = stack.orders.give(order(Verb::Restart, "parakeet-0/1")).await;
    assert!(matches!(accepted, Some(Reply::Accepted(Some(_)))));
    let mut reports = stack.snapshot.reports();
    let healed = reports.wait_for(|report| report.restarts == 1 && report.state == State::Healthy);
    assert!(tokio::time::timeout(TEST_TIMEOUT, healed).await.unwrap().is_ok());
    assert_eq!(*stack.actuator.kills.lock(), [Kill::Graceful]);
    let late = stack.orders.give(RepairOrder { attempt: 5, ..order(Verb::Restart, "parakeet-0/1") }).await;
    assert!(matches!(late, Some(Reply::Conflict { instance, .. }) if instance == "parakeet-0/1+"));
}

#[tokio::test(start_paused = true)]
async fn with_the_operator_away_a_sticky_engine_is_restarted_once_and_then_waits() {
    let mut policy = policy();
    policy.repair.alone.after = Duration::from_millis(300);
    let stack = Stack::operated(policy).await;
    *stack.fake.after_restart.lock() = Mode::Sticky;
    stack.asks().await;
    let mut reports = stack.snapshot.reports();
    let waits = reports
        .wait_for(|report| report.restarts == 1 && report.repair.is_some() && report.state == State::Ejected);
    assert!(tokio::time::timeout(TEST_TIMEOUT, waits).await.unwrap().is_ok(), "still asked for");
    assert_eq!(stack.actuator.kills.lock().len(), 1, "the next one is due in ten minutes");
}
