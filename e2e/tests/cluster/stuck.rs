//! A process that no kill ends: it is reported, and nothing is forced.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use speechstack_crds::{Outcome, SpeechStackStatus};
use speechstack_e2e::cluster::scenario::restarts;
use speechstack_e2e::cluster::stuck::StuckKill;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed;
use tokio::time::sleep;

use super::fixture::Fixture;
use super::healing::{REPAIR, START, clients, last, spec, total};

/// Ceiling for what is reported only after a minute of patience with a kubelet.
const TOLD: Duration = Duration::from_secs(240);

/// An engine that its kubelet cannot kill is reported by an Event, its pod that does not end by the status; the pod is
/// never removed by force, the other replica serves on, and once the process ends all heals by itself.
pub async fn a_kill_that_does_not_end_is_reported_and_not_forced(fixture: &Fixture) -> Result<()> {
    let mut spec = spec();
    spec["tts"] = json!([]);
    let stack = fixture.stack(&spec).await?;
    stack.ready(START).await?;
    let load = clients(&stack).await?;
    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    let name = deployed::name(&pod);
    let stuck = StuckKill::hold(&fixture.space, name, "engine").await?;
    let mark = load.mark();
    stack.arm(&pod, &json!({"mode": "F1"})).await?;
    await_condition("an Event tells of the kill", TOLD, async || {
        let events = stack.events().await?;
        ensure!(events.iter().any(|reason| reason == "KillStuck"), "only {events:?}");
        Ok(())
    })
    .await?;
    let failed = |status: &SpeechStackStatus| {
        last(status, "parakeet").is_some_and(|record| record.outcome == Outcome::Failed)
    };
    let status = stack.until("recorded as failed", REPAIR, failed).await?;
    sleep(Duration::from_secs(10)).await;
    let acts = total(&stack.status().await?);
    ensure!(acts == total(&status), "repair went on: {acts} acts");
    let now = stack.pod(name).await?.context("the pod is gone")?;
    ensure!(
        now.metadata.deletion_timestamp.is_none() && restarts(&now, "engine") == 0,
        "the pod was touched: {:?}",
        now.metadata
    );

    // A person has the pod go; it does not.
    fixture.space.kubectl(&["delete", "pod", name, "--wait=false", "--grace-period=1"]).await?;
    let told = |status: &SpeechStackStatus| {
        let failures = status.engines.iter().filter_map(|engine| engine.last_failure.as_ref());
        failures.into_iter().any(|failure| failure.reason == "TerminatingStuck" && failure.pod == name)
    };
    stack.until("told as stuck", TOLD, told).await?;
    ensure!(stack.pod(name).await?.is_some(), "the pod was removed by force");
    let counts = load.since(&mark).await?;
    ensure!(counts.errors == 0, "clients saw {} errors: {:?}", counts.errors, counts.failures);

    drop(stuck);
    await_condition("the pod ends with its process", REPAIR, async || {
        ensure!(stack.pod(name).await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    stack.ready(START).await?;
    Ok(())
}
