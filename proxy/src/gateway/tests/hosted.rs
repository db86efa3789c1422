//! An engine of others: used only where one's own is missing or busy, within its budget, for keys that allow it, and never silently.

use std::time::{Duration, Instant};

use contract::{Capability, State};

use crate::config::{Auth, AuthMode, Config, Discovery, Hosted, Pool};
use crate::gateway::tests::stack::{Stack, form, wav};
use crate::keys::testing::add;
use crate::upstream::{Guest, Target};

const DEADLINE: Duration = Duration::from_secs(60);
const NAME: &str = "stt-1";

async fn stack(hosted: Hosted, settings: impl FnOnce(&mut Config)) -> Stack {
    Stack::with(&[Capability::Stt, Capability::Stt], |config| {
        config.engines[1].hosted = Some(hosted);
        settings(config);
    })
    .await
}

fn by(reply: &reqwest::Response) -> Option<&str> {
    reply.headers().get("x-speechstack-hosted").and_then(|name| name.to_str().ok())
}

/// Waits until the gateway knows what the guard of the own engine reports: no own engine, or one that is busy.
async fn until_away(stack: &Stack, state: State, queue_seconds: f64) {
    stack.engines[0].shows(state, queue_seconds);
    let deadline = Instant::now() + DEADLINE;
    let is_known = || {
        let reports = stack.upstreams.reports();
        reports[0].state == state && (reports[0].queue_seconds - queue_seconds).abs() < 1.0
    };
    while !is_known() {
        assert!(Instant::now() < deadline, "{:?}", stack.upstreams.reports());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn counted(stack: &Stack, result: &str) -> f64 {
    stack.counted("speechstack_gateway_hosted_jobs_total", result)
}

#[tokio::test]
async fn it_serves_while_the_own_engine_is_gone_and_says_so_until_its_budget_is_used_up() {
    let stack = stack(Hosted { jobs_per_day: Some(2), ..Hosted::default() }, |config| {
        config.gateway.wait.max_wait = Duration::ZERO;
    })
    .await;
    for _ in 0..3 {
        let reply = stack.transcribe(&[]).await;
        assert_eq!((reply.status().as_u16(), by(&reply)), (200, None));
    }
    assert_eq!((stack.engines[1].complete(), counted(&stack, "sent")), (0, 0.0));
    until_away(&stack, State::Wedged, 0.0).await;
    for _ in 0..2 {
        let reply = stack.transcribe(&[]).await;
        assert_eq!((reply.status().as_u16(), by(&reply)), (200, Some(NAME)));
    }
    let refused = stack.transcribe(&[]).await;
    assert_eq!((refused.status().as_u16(), by(&refused)), (503, None));
    assert_eq!((stack.engines[1].complete(), counted(&stack, "sent")), (2, 2.0));
    assert!(counted(&stack, "denied") >= 1.0);
    until_away(&stack, State::Healthy, 0.0).await;
    assert_eq!(by(&stack.transcribe(&[]).await), None);
}

#[tokio::test]
async fn a_hosted_pool_stands_in_for_another_ones_model_and_has_no_name_of_its_own() {
    let stack = Stack::with(&[Capability::Stt, Capability::Stt], |config| {
        config.gateway.wait.max_wait = Duration::ZERO;
    })
    .await;
    let mut config = (*stack.config.get()).clone();
    let pool = |name: &str, hosted: Option<Hosted>| Pool {
        name: name.into(),
        capability: Capability::Stt,
        service: format!("s-{name}"),
        protocols: Vec::new(),
        language: None,
        model: None,
        voice: None,
        standby: false,
        sleeps: false,
        hosted,
    };
    let limits = Hosted { jobs_per_day: Some(2), ..Hosted::default() };
    let pools = vec![pool("ears", None), pool("cloud", Some(limits.clone()))];
    config.gateway.discovery = Some(Discovery { namespace: "ns".into(), pools });
    config.gateway.models[0].pool = Some("ears".into());
    let mut targets: Vec<Target> = config.engines.iter().map(Target::of).collect();
    targets[0].pool = "ears".into();
    targets[1].pool = "cloud".into();
    targets[1].hosted = Some(Guest { name: "cloud".into(), limits });
    stack.upstreams.apply(targets);
    stack.config.replace(config);
    let deadline = Instant::now() + DEADLINE;
    while !stack.upstreams.reports().iter().all(|report| report.state == State::Healthy) {
        assert!(Instant::now() < deadline, "{:?}", stack.upstreams.reports());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(by(&stack.transcribe(&[("model", "whisper-1")]).await), None);
    until_away(&stack, State::Wedged, 0.0).await;
    let reply = stack.transcribe(&[("model", "whisper-1")]).await;
    assert_eq!((reply.status().as_u16(), by(&reply)), (200, Some("cloud")));
    assert_eq!(counted(&stack, "cloud"), 1.0, "counted under the pool's name");
}

#[tokio::test]
async fn it_takes_what_would_wait_too_long_and_no_more_than_its_audio() {
    let hosted = Hosted {
        audio_minutes_per_day: Some(1.0 / 60.0),
        beyond_wait: Duration::from_secs(10),
        ..Hosted::default()
    };
    let stack = stack(hosted, |_| {}).await;
    until_away(&stack, State::Healthy, 5.0).await;
    assert_eq!(by(&stack.transcribe(&[]).await), None, "a short queue");
    until_away(&stack, State::Healthy, 1000.0).await;
    assert_eq!(by(&stack.transcribe(&[]).await), Some(NAME));
    let reply = stack.transcribe(&[]).await;
    assert_eq!((reply.status().as_u16(), by(&reply)), (200, None), "its second of audio is used up");
}

#[tokio::test]
async fn a_key_may_keep_its_work_on_own_engines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.yaml");
    let free = add(&path, "free", |_| {});
    let own = add(&path, "own", |record| record.scopes.own_engines = true);
    let stack = stack(Hosted { jobs_per_day: Some(100), ..Hosted::default() }, |config| {
        config.gateway.wait.max_wait = Duration::ZERO;
        config.gateway.auth = Auth { mode: AuthMode::Keys, keys_file: Some(path.clone()), ..Auth::default() };
    })
    .await;
    let transcribe = async |key: &str, model: &'static str| {
        let request = stack.post("/v1/audio/transcriptions").bearer_auth(key);
        request.multipart(form(&[("model", model)], wav(32_000))).send().await.unwrap()
    };
    assert_eq!(transcribe(&own, "whisper-1").await.status(), 200);
    until_away(&stack, State::Wedged, 0.0).await;
    assert_eq!(by(&transcribe(&free, "whisper-1").await), Some(NAME));
    assert_eq!(transcribe(&own, "whisper-1").await.status(), 503);
    assert_eq!(transcribe(&own, "parakeet").await.status(), 503);
    assert_eq!(stack.engines[1].complete(), 1);
}
