//! Engines that are stopped while they are not used.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use speechstack_crds::SpeechStackStatus;
use speechstack_e2e::client::{Client, say};
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed;
use tokio::time::{Instant, sleep};

use super::fixture::Fixture;
use super::healing::{START, small};

const AFTER: Duration = Duration::from_secs(20);
/// Ceiling for an engine to fall asleep: its time, and the operator's look at it, which may be half a minute late.
const ASLEEP: Duration = Duration::from_secs(180);
/// Ceiling for a request that is held until its engine has started.
const HELD: Duration = Duration::from_secs(120);
const SENTENCE: &str = "She told me that the train was late again.";

fn asleep(status: &SpeechStackStatus) -> bool {
    status.engines.iter().any(|engine| engine.asleep)
}

/// One transcription: its status, Retry-After and body.
async fn transcribe(gateway: &Client) -> Result<(u16, String)> {
    let reply = gateway.transcribe("clip.wav", say(&[("rms", SENTENCE)])?, "json").await?;
    Ok((reply.status, reply.text()))
}

/// An engine that is not used has no pod; the error of a request says how far its start is, and a later request is served.
pub async fn an_unused_engine_sleeps_until_it_is_asked_for(fixture: &Fixture) -> Result<()> {
    let spec = json!({
        "stt": [{
            "name": "parakeet", "preset": "reference", "resources": small(),
            "idle": {"after": format!("{}s", AFTER.as_secs())},
        }],
        "gateway": {"replicas": 1, "limits": {"queueTimeout": "1s"}},
    });
    let stack = fixture.stack(&spec).await?;
    stack.ready(START).await?;
    let gateway = stack.gateway().await?;
    for round in 0..2 {
        let status = stack.until("asleep", ASLEEP, asleep).await?;
        ensure!(deployed::is_true(&status, "Ready"), "a stack that sleeps is not ill");
        await_condition("no pod is left", ASLEEP, async || {
            ensure!(stack.pods("parakeet").await?.is_empty(), "not yet");
            Ok(())
        })
        .await?;
        let (status, text) = transcribe(&gateway).await?;
        ensure!(status == 503, "round {round}: {status}: {text}");
        let told: Value = serde_json::from_str(&text)?;
        ensure!(told["error"]["code"] == "engine_starting", "round {round}: {text}");
        ensure!(told["error"]["loading"]["state"].is_string(), "round {round}: {text}");
        await_condition("the engine serves again", START, async || {
            let (status, text) = transcribe(&gateway).await?;
            ensure!(status == 200, "{status}: {text}");
            Ok(())
        })
        .await?;
        stack
            .until("awake", START, |status| !asleep(status) && deployed::is_true(status, "SttReady"))
            .await?;
    }
    Ok(())
}

/// With two gateways the use of either one keeps the engine awake, and requests that both of them hold wake it and are served.
pub async fn requests_that_several_gateways_hold_are_served(fixture: &Fixture) -> Result<()> {
    let after = Duration::from_secs(10);
    let spec = json!({
        "stt": [{
            "name": "parakeet", "preset": "reference", "resources": small(),
            "idle": {"after": format!("{}s", after.as_secs())},
        }],
        "gateway": {"replicas": 2, "limits": {"queueTimeout": format!("{}s", HELD.as_secs())}},
    });
    let stack = fixture.stack(&spec).await?;
    stack.ready(START).await?;
    let gateways = stack.pods("gateway").await?;
    let [one, other] = gateways.as_slice() else { bail!("{} gateways", gateways.len()) };
    let [one, other] = [one, other].map(|pod| deployed::port(pod, 8080));
    let (one, other) = (one?.patient(HELD)?, other?.patient(HELD)?);
    let used = Instant::now();
    while used.elapsed() < after * 2 {
        let (status, text) = transcribe(&one).await?;
        ensure!(status == 200, "{status}: {text}");
        ensure!(!asleep(&stack.status().await?), "asleep in use");
        sleep(Duration::from_secs(1)).await;
    }
    stack.until("asleep", ASLEEP, asleep).await?;
    await_condition("no pod is left", ASLEEP, async || {
        ensure!(stack.pods("parakeet").await?.is_empty(), "not yet");
        Ok(())
    })
    .await?;
    for (status, text) in try_join_all([transcribe(&one), transcribe(&other), transcribe(&one)]).await? {
        ensure!(status == 200, "{status}: {text}");
    }
    Ok(())
}
