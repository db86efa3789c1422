//! A standby engine: it serves as soon as the other is out, and no client waits for a restart.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions};
use tokio::time::Instant;

use super::{short_clip, turn_alone};

const ROUNDS: usize = 10;
/// Ceiling on what a fault may cost a client beyond the answer itself.
const CEILING: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_standby_serves_what_the_wedged_engine_does_not() -> Result<()> {
    let _turn = turn_alone().await?;
    let engines = vec![
        EngineOptions::new("parakeet-0", "stt"),
        EngineOptions { standby: true, ..EngineOptions::new("parakeet-b", "stt") },
    ];
    let stack = Stack::start(StackOptions { engines, ..StackOptions::new("faults-standby") }).await?;
    let clip = short_clip()?;
    let mut costs = Vec::new();
    for round in 1..=ROUNDS as u64 {
        let mut usual = Vec::new();
        for _ in 0..5 {
            usual.push(served(&stack, &clip).await?);
        }
        usual.sort();
        let before = counted(&stack, "parakeet-b").await?;
        stack.arm("parakeet-0", &json!({"mode": "F1"})).await?;
        let hit = served(&stack, &clip).await?;
        // A client has its answer before the guard counts it.
        let deadline = Instant::now() + CEILING;
        while counted(&stack, "parakeet-b").await? <= before {
            ensure!(Instant::now() < deadline, "the standby served {before} before and after");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        costs.push(hit.saturating_sub(usual[usual.len() / 2]));
        // Until the engine is back the standby has all of them.
        for _ in 0..3 {
            served(&stack, &clip).await?;
        }
        stack.healed("parakeet-0", round).await?;
    }
    costs.sort();
    eprintln!(
        "\nstandby: a wedge cost the client that met it p50 {} ms, most {} ms, over {ROUNDS} wedges; no client got an error\n",
        costs[costs.len() / 2].as_millis(),
        costs[costs.len() - 1].as_millis(),
    );
    ensure!(costs[costs.len() - 1] < CEILING, "{costs:?}");
    let state = stack.state().await?;
    let standby = state.engine("parakeet-b").context("no standby")?;
    ensure!(standby.restarts == 0, "the standby was restarted");
    stack.stop().await
}

/// How long one transcription took, which must succeed.
async fn served(stack: &Stack, clip: &bytes::Bytes) -> Result<Duration> {
    let began = Instant::now();
    let reply = stack.client.transcribe("clip.wav", clip.clone(), "json").await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    Ok(began.elapsed())
}

/// Requests that an engine has served, by its guard's count.
async fn counted(stack: &Stack, engine: &str) -> Result<f64> {
    stack.measured(engine, "speechstack_guard_requests_total", &["\"served\""]).await
}
