//! Engines that are stopped while they are not used.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use speechstack_crds::SpeechStackStatus;
use speechstack_e2e::client::{Client, say};
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed;

use super::fixture::Fixture;
use super::healing::{START, small};

const AFTER: Duration = Duration::from_secs(20);
/// Ceiling for an engine to fall asleep: its time, and the operator's look at it, which may be half a minute late.
const ASLEEP: Duration = Duration::from_secs(180);
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
