//! Jobs whose answer is overdue: who gets them too, whose answer counts, and what bounds it.

use super::*;

/// The setting of most tests: overdue soon.
const AFTER: Duration = Duration::from_millis(50);
/// Long beyond it.
const LATE: Duration = Duration::from_millis(600);

fn soon(config: &mut Config) {
    config.gateway.hedge.after = AFTER;
}

async fn pair(adjust: impl FnOnce(&mut Config)) -> (Guard, Guard, Stack) {
    let (left, right) = (Guard::start("left").await, Guard::start("right").await);
    let stack = stack(&[&left, &right], adjust).start().await;
    (left, right, stack)
}

fn hedges(stack: &Stack) -> [f64; 3] {
    ["won", "lost", "denied"].map(|result| stack.metric("speechstack_hedges_total", result))
}

#[tokio::test]
async fn a_silent_engines_job_is_answered_by_an_idle_one_and_its_call_is_dropped() {
    let (left, _right, stack) = pair(|_| {}).await;
    left.answer(Answer::never());
    let begun = Instant::now();
    let reply = stack.send_to(&left).await.unwrap();
    let took = begun.elapsed();
    println!("answered after {took:?} with the default of 1 s");
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(&*reply.engine, "right");
    assert_eq!(file(reply), b"audio", "every byte");
    assert_eq!(hedges(&stack), [1.0, 0.0, 0.0]);
    eventually(|| left.dropped() == 1).await;
    assert_eq!(stack.metric("retries_total", ""), 0.0);
}

#[tokio::test]
async fn an_engine_that_owed_an_answer_is_avoided_but_not_ejected() {
    let (left, right, stack) = pair(soon).await;
    left.answer(Answer::never());
    stack.send_to(&left).await.unwrap();
    for _ in 0..20 {
        assert_eq!(&*stack.send().await.unwrap().engine, "right");
    }
    assert_eq!(stack.upstreams.reports()[0].state, State::Healthy);
    assert_eq!(stack.upstreams.reports()[0].queue_seconds, 0.0, "the charge is no queue");
    right.report(|report| report.queue_seconds = 100.0);
    eventually(|| stack.upstreams.reports()[1].queue_seconds > 0.0).await;
    left.answer(Answer::new(200));
    assert_eq!(&*stack.send().await.unwrap().engine, "left", "one with much to do is worse");
    right.report(|report| report.queue_seconds = 0.0);
    eventually(|| stack.upstreams.reports()[1].queue_seconds == 0.0).await;
    eventually(|| stack.upstreams.free(Capability::Stt) == 2).await;
}

#[tokio::test]
async fn no_hedge_goes_to_an_engine_that_is_busy_light_or_under_no_report() {
    let (left, right, stack) = pair(soon).await;
    left.answer(Answer::new(200).late(LATE));
    right.report(|report| report.queue_seconds = 100.0);
    eventually(|| stack.upstreams.reports()[1].queue_seconds > 0.0).await;
    assert_eq!(&*stack.send_to(&left).await.unwrap().engine, "left");
    right.report(|report| (report.queue_seconds, report.weight) = (0.0, 0.5));
    eventually(|| stack.upstreams.reports()[1].weight == 0.5).await;
    assert_eq!(&*stack.send_to(&left).await.unwrap().engine, "left");
    assert_eq!(right.requests(), 0);
    assert_eq!(hedges(&stack), [0.0, 0.0, 2.0]);
}

#[tokio::test]
async fn an_engine_that_becomes_idle_later_gets_the_hedge_then() {
    let (left, right, stack) = pair(soon).await;
    left.answer(Answer::never());
    right.report(|report| report.queue_seconds = 100.0);
    eventually(|| stack.upstreams.reports()[1].queue_seconds > 0.0).await;
    let outgoing = Outgoing { prefer: Some("left".into()), ..stack.small() };
    let upstreams = stack.upstreams.clone();
    let sending = tokio::spawn(async move { send(&upstreams, &outgoing).await });
    tokio::time::sleep(AFTER * 3).await;
    assert_eq!(right.requests(), 0);
    right.report(|report| report.queue_seconds = 0.0);
    assert_eq!(&*sending.await.unwrap().unwrap().engine, "right");
    assert_eq!(hedges(&stack), [1.0, 0.0, 0.0]);
}

#[tokio::test]
async fn a_hedge_that_loses_is_dropped() {
    let (left, right, stack) = pair(soon).await;
    left.answer(Answer::new(200).late(LATE));
    right.answer(Answer::never());
    assert_eq!(&*stack.send_to(&left).await.unwrap().engine, "left");
    assert_eq!(right.requests(), 1);
    eventually(|| right.dropped() == 1).await;
    assert_eq!(left.dropped(), 0);
    assert_eq!(hedges(&stack), [0.0, 1.0, 0.0]);
}

#[tokio::test]
async fn a_thousand_slow_jobs_are_hedged_within_the_budget() {
    const JOBS: usize = 1000;
    let (left, right, stack) = pair(|config| config.gateway.hedge.after = Duration::from_millis(10)).await;
    left.answer(Answer::new(200).late(Duration::from_millis(60)));
    let jobs = futures::stream::iter(0..JOBS).map(|_| stack.send_to(&left)).buffer_unordered(40);
    assert!(jobs.all(|reply| std::future::ready(reply.is_ok())).await);
    let extra = right.requests();
    println!("{extra} hedges of {JOBS} jobs");
    assert!(extra <= JOBS * 3 / 100 + hedge::Budget::BURST as usize, "{extra}");
    assert!(extra > hedge::Budget::BURST as usize, "jobs fill the budget: {extra}");
    assert_eq!(left.requests(), JOBS);
    // On a busy machine the first engine's answer may come before a hedge has left.
    let counted = hedges(&stack)[..2].iter().sum::<f64>() as usize;
    assert!(
        (extra..=JOBS * 3 / 100 + hedge::Budget::BURST as usize).contains(&counted),
        "{counted} of {extra}"
    );
}

#[tokio::test]
async fn while_one_side_fails_the_other_is_awaited() {
    let (left, right, stack) = pair(soon).await;
    left.answer(Answer::new(200).late(LATE));
    let faulty = || Answer::new(503).with(header::RETRY, "elsewhere");
    right.answer(faulty());
    assert_eq!(&*stack.send_to(&left).await.unwrap().engine, "left");
    assert_eq!(hedges(&stack), [0.0, 1.0, 0.0]);
    left.answer(faulty().late(AFTER * 4));
    right.answer(Answer::new(200).late(LATE));
    assert_eq!(&*stack.send_to(&left).await.unwrap().engine, "right");
    assert_eq!(hedges(&stack), [1.0, 1.0, 0.0]);
    assert_eq!((left.requests(), right.requests()), (2, 2), "nothing was sent again");
}

#[tokio::test]
async fn when_both_fail_the_client_gets_the_first_engines_error() {
    let (left, right, stack) = pair(soon).await;
    left.answer(elsewhere().late(LATE));
    right.answer(Answer::new(429));
    let error = stack.send_to(&left).await.err();
    assert!(
        matches!(error, Some(Error::EngineFailed { reason: "its GPU context is lost", .. })),
        "{error:?}"
    );
    assert_eq!((left.requests(), right.requests()), (1, 1));
    assert_eq!(hedges(&stack), [0.0, 1.0, 0.0]);
}

#[tokio::test]
async fn a_clients_error_of_either_side_is_the_answer() {
    for (first, second) in [
        (Answer::never(), Answer::new(415)),
        (Answer::new(415).late(LATE), Answer::never()),
        (Answer::new(415).late(LATE), elsewhere()),
    ] {
        let (left, right, stack) = pair(soon).await;
        left.answer(first);
        right.answer(second);
        let Err(Error::EngineRefused { status, .. }) = stack.send_to(&left).await else { panic!() };
        assert_eq!(status, 415);
        assert_eq!((left.requests(), right.requests()), (1, 1));
    }
}

#[tokio::test]
async fn a_job_is_hedged_only_once() {
    let guards = [Guard::start("a").await, Guard::start("b").await, Guard::start("c").await];
    let stack = stack(&[&guards[0], &guards[1], &guards[2]], soon).start().await;
    guards[0].answer(Answer::new(200).late(LATE * 2));
    guards[1].answer(elsewhere());
    guards[2].answer(elsewhere());
    assert_eq!(&*stack.send_to(&guards[0]).await.unwrap().engine, "a");
    assert_eq!(guards[1].requests() + guards[2].requests(), 1);
}

#[tokio::test]
async fn long_jobs_and_answers_that_have_begun_are_not_hedged() {
    let (left, right, stack) = pair(soon).await;
    left.answer(Answer::new(200).late(LATE));
    let to_left = || Outgoing { prefer: Some("left".into()), ..stack.small() };
    left.report(|report| report.predictor.per_audio_second = 1.0);
    eventually(|| stack.upstreams.reports()[0].predictor.per_audio_second == 1.0).await;
    let long = Outgoing { audio_seconds: 21.0, ..to_left() };
    assert_eq!(&*send(&stack.upstreams, &long).await.unwrap().engine, "left");
    left.report(|report| report.predictor.per_audio_second = 0.0);
    eventually(|| stack.upstreams.reports()[0].predictor.per_audio_second == 0.0).await;
    let script = fake::Script { chunks: vec!["{}".into()], pause: LATE, end: fake::End::Whole };
    left.answer(Answer::new(200).body(script));
    assert_eq!(&*send(&stack.upstreams, &to_left()).await.unwrap().engine, "left");
    assert_eq!(right.requests(), 0);
    assert_eq!(hedges(&stack), [0.0, 0.0, 0.0]);
}

#[tokio::test]
async fn a_job_that_continues_another_is_hedged_too() {
    let (left, right, stack) = pair(soon).await;
    left.answer(Answer::never());
    let continues = Outgoing { continues: true, prefer: Some("left".into()), ..stack.small() };
    assert_eq!(&*send(&stack.upstreams, &continues).await.unwrap().engine, "right");
    assert_eq!((left.requests(), right.requests()), (1, 1));
}

#[tokio::test]
async fn a_slow_upload_makes_no_answer_overdue() {
    let (left, right, stack) = pair(|config| config.gateway.hedge.after = LATE).await;
    let source =
        futures::stream::iter([Bytes::from_static(b"au"), Bytes::from_static(b"dio")]).then(|chunk| async {
            tokio::time::sleep(LATE).await;
            Ok(chunk)
        });
    let body = Replay::new(source, Some(5), stack.upstreams.budget());
    let outgoing = Outgoing { prefer: Some("left".into()), ..stack.outgoing(body) };
    assert_eq!(&*send(&stack.upstreams, &outgoing).await.unwrap().engine, "left");
    assert_eq!((left.requests(), right.requests()), (1, 0));
}

#[tokio::test]
async fn a_body_that_is_not_kept_and_a_gateway_without_hedges_send_once() {
    let (left, right, stack) = pair(|config| {
        soon(config);
        config.gateway.spool.memory_per_request = bytesize::ByteSize(0);
        config.gateway.spool.disk = bytesize::ByteSize(0);
    })
    .await;
    left.answer(Answer::new(200).late(LATE));
    let source = futures::stream::iter([Ok(Bytes::from(vec![0; 200_000]))]);
    let body = Replay::new(source, Some(200_000), stack.upstreams.budget());
    let outgoing = Outgoing { prefer: Some("left".into()), ..stack.outgoing(body.clone()) };
    assert_eq!(&*send(&stack.upstreams, &outgoing).await.unwrap().engine, "left");
    assert!(!body.is_replayable());
    assert_eq!(right.requests(), 0);
    assert_eq!(hedges(&stack), [0.0, 0.0, 1.0]);

    let (left, right, stack) = pair(|config| {
        soon(config);
        config.gateway.hedge.enabled = false;
    })
    .await;
    left.answer(Answer::new(200).late(LATE));
    assert_eq!(&*stack.send_to(&left).await.unwrap().engine, "left");
    assert_eq!(right.requests(), 0);
}
