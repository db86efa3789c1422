//! Engines that come and go, pools, and new settings.

use crate::upstream::tests::*;

fn targets(guards: &[&Guard]) -> Vec<Target> {
    guards.iter().map(|guard| Target::of(&guard.engine())).collect()
}

#[tokio::test]
async fn an_engine_that_comes_is_followed_and_one_that_goes_finishes_what_it_has() {
    let (old, new) = (Guard::start("old").await, Guard::start("new").await);
    let stack = stack(&[&old], |_| {}).start().await;
    let (mut chunks, body) = futures::channel::mpsc::channel::<Bytes>(0);
    old.stream(body);
    let read = stack.upstreams.run(&stack.small(), |reply| async move { Ok(reply) }).await;
    let mut reply = read.unwrap().value;

    let mut both = targets(&[&old, &new]);
    both[0].terminating = true;
    stack.upstreams.apply(both);
    eventually(|| stack.upstreams.free(Capability::Stt) == 1).await;
    for _ in 0..20 {
        assert_eq!(&*stack.send_to(&old).await.unwrap().engine, "new");
    }
    stack.upstreams.apply(targets(&[&new]));
    assert_eq!(stack.upstreams.reports().len(), 1);
    old.report(|report| report.weight = 0.5);
    assert_eq!(stack.metric("endpoint_state", "old"), 0.0);
    let families = stack.registry.gather();
    let labels = families.iter().flat_map(|family| family.get_metric()).flat_map(|metric| metric.get_label());
    assert!(labels.into_iter().all(|label| label.value() != "old"), "its series are gone");
    futures::SinkExt::send(&mut chunks, Bytes::from("rest")).await.unwrap();
    drop(chunks);
    assert_eq!(reply.next().await.unwrap().unwrap(), "rest");
    assert!(matches!(reply.next().await, Ok(None)), "the reply is whole");
    assert_eq!(old.requests(), 1);
}

#[tokio::test]
async fn a_request_that_waits_is_served_by_an_engine_that_comes() {
    let (gone, new) = (Guard::start("gone").await, Guard::start("new").await);
    let stack = stack(&[&gone], |_| {}).start().await;
    gone.report(|report| {
        (report.state, report.weight, report.recovery_seconds) = (State::Ejected, 0.0, None)
    });
    eventually(|| !stack.upstreams.ready(Capability::Stt)).await;
    let outgoing = Outgoing { may_wait: true, ..stack.small() };
    let upstreams = stack.upstreams.clone();
    let sending = tokio::spawn(async move { send(&upstreams, &outgoing).await });
    eventually(|| stack.metric("_waiting", "") == 1.0).await;
    stack.upstreams.apply(targets(&[&new]));
    assert_eq!(&*sending.await.unwrap().unwrap().engine, "new");
}

#[tokio::test]
async fn a_pool_serves_its_own_requests_alone() {
    let (left, right) = (Guard::start("left").await, Guard::start("right").await);
    let stack = stack(&[], |_| {}).start().await;
    let mut both = targets(&[&left, &right]);
    (both[0].pool, both[1].pool) = ("english".into(), "german".into());
    stack.upstreams.apply(both.clone());
    eventually(|| stack.upstreams.free(Capability::Stt) == 2).await;
    let of_pool = |pool: &str| Outgoing {
        route: Route { capability: Capability::Stt, pool: Some(pool.into()), hosted: false },
        ..stack.small()
    };
    for _ in 0..10 {
        assert_eq!(&*send(&stack.upstreams, &of_pool("german")).await.unwrap().engine, "right");
        assert_eq!(&*send(&stack.upstreams, &of_pool("english")).await.unwrap().engine, "left");
    }
    right.answer(elsewhere());
    assert!(matches!(send(&stack.upstreams, &of_pool("german")).await, Err(Error::EngineFailed { .. })));
    assert!(matches!(send(&stack.upstreams, &of_pool("french")).await, Err(Error::NoEngine { .. })));
    // The same engine at another address is another endpoint.
    both[0].guard.set_port(1);
    stack.upstreams.apply(both);
    assert!(matches!(send(&stack.upstreams, &of_pool("english")).await, Err(Error::EngineFailed { .. })));
}

#[tokio::test]
async fn new_limits_count_at_once() {
    let (left, right) = (Guard::start("left").await, Guard::start("right").await);
    let stack = stack(&[&left, &right], |_| {}).start().await;
    left.answer(elsewhere());
    assert!(stack.send_to(&left).await.is_ok());
    let mut config = (*stack.upstreams.inner.config.get()).clone();
    config.gateway.retry.attempts = 1;
    config.engines.pop();
    stack.upstreams.inner.config.replace(config);
    eventually(|| stack.upstreams.reports().len() == 1).await;
    eventually(|| stack.upstreams.free(Capability::Stt) == 1).await;
    assert!(matches!(stack.send_to(&left).await, Err(Error::EngineFailed { .. })));
    assert_eq!(left.requests(), 2);
}

#[tokio::test]
async fn a_configuration_that_comes_right_after_the_start_is_taken_over() {
    let (left, right) = (Guard::start("left").await, Guard::start("right").await);
    let stack = stack(&[&left, &right], |_| {});
    stack.upstreams.start(&stack.drain);
    let mut config = (*stack.upstreams.inner.config.get()).clone();
    config.engines.pop();
    // Before any task of the start has run.
    stack.upstreams.inner.config.replace(config);
    eventually(|| stack.upstreams.reports().len() == 1).await;
}

#[tokio::test]
async fn an_engine_that_may_sleep_is_asked_for_and_its_start_is_told() {
    let guard = Guard::start("ears-0").await;
    let pool = crate::config::Pool {
        name: "ears".into(),
        capability: Capability::Stt,
        service: "s-ears".into(),
        protocols: Vec::new(),
        language: None,
        model: None,
        voice: None,
        standby: false,
        sleeps: true,
        hosted: None,
    };
    let discovery = crate::config::Discovery { namespace: "ns".into(), pools: vec![pool] };
    let stack = stack(&[], |config| config.gateway.discovery = Some(discovery)).start().await;
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let before = stack.upstreams.unused()["ears"];
    assert!(
        before.seconds >= 0.03 && before.asked_seconds.is_none(),
        "{before:?}: since the gateway's start"
    );
    let Err(Error::EngineWaking { waking, .. }) = send(&stack.upstreams, &stack.small()).await else {
        panic!("not told that it sleeps");
    };
    assert_eq!((waking.state, waking.engines), ("scheduled", 0));
    let asked = stack.upstreams.unused()["ears"].asked_seconds.unwrap();
    assert!(asked < before.seconds, "a refused request is a wish");

    guard.report(|report| {
        (report.state, report.weight, report.says) = (State::Warming, 0.0, Some("loading 40 %".into()))
    });
    let mut targets = targets(&[&guard]);
    targets[0].pool = "ears".into();
    stack.upstreams.apply(targets);
    let told = async || match send(&stack.upstreams, &stack.small()).await {
        Err(error @ Error::EngineWaking { .. }) => error.envelope()["loading"].clone(),
        // Before its guard has said anything it is tried.
        _ => serde_json::Value::Null,
    };
    while told().await["state"] != "warming" {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let loading = told().await;
    assert_eq!((&loading["engines"], &loading["says"]), (&1.into(), &"loading 40 %".into()));

    guard.report(|report| (report.state, report.weight) = (State::Healthy, 1.0));
    eventually(|| stack.upstreams.ready(Capability::Stt)).await;
    assert_eq!(&*stack.send_to(&guard).await.unwrap().engine, "ears-0");
}
