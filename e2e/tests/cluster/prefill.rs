//! Caches that a Job fills before an engine's first start.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use speechstack_crds::{EngineStatus, PrefillPhase, SpeechStackStatus};
use speechstack_e2e::deployed::{self, reason};

use super::fixture::Fixture;
use super::healing::{START, small};

/// Ceiling for a Job to give up and for the operator to say so.
const FAILURE: Duration = Duration::from_secs(180);

/// One engine whose cache a command fills, and one that fills its own.
fn spec(command: &str, timeout: &str) -> Value {
    let engine = |name: &str, prefill: Value| {
        json!({
            "name": name, "preset": "reference", "resources": small(),
            "cache": {"pvc": {"size": "1Gi", "accessMode": "ReadWriteMany"}, "prefill": prefill},
        })
    };
    json!({
        "stt": [engine("parakeet", json!({"command": ["sh", "-c", command], "timeout": timeout}))],
        "tts": [engine("magpie", json!({}))],
        "gateway": {"replicas": 1},
    })
}

fn engine<'a>(status: &'a SpeechStackStatus, name: &str) -> Option<&'a EngineStatus> {
    status.engines.iter().find(|engine| engine.name == name)
}

fn phase(status: &SpeechStackStatus, name: &str) -> Option<PrefillPhase> {
    engine(status, name)?.prefill.as_ref().map(|prefill| prefill.phase)
}

/// An engine has no pod until its cache is filled; a Job that gives up says why, and another command is another Job.
pub async fn engines_wait_for_their_caches(fixture: &Fixture) -> Result<()> {
    let stack = fixture.stack(&spec("echo 'no such model' >&2; exit 3", "15s")).await?;
    let failed = |status: &SpeechStackStatus| phase(status, "parakeet") == Some(PrefillPhase::Failed);
    let status = stack.until("a failed prefill", FAILURE, failed).await?;
    ensure!(reason(&status, "SttReady") == "PrefillFailed", "{}", reason(&status, "SttReady"));
    let why = engine(&status, "parakeet").and_then(|engine| engine.prefill.as_ref()?.message.clone());
    let why = why.context("the status does not say why")?;
    ensure!(why.contains("DeadlineExceeded") || why.contains("BackoffLimitExceeded"), "{why}");
    ensure!(stack.pods("parakeet").await?.is_empty(), "an engine pod runs without its models");

    // The other engine has filled its cache by running, and started.
    let served = |status: &SpeechStackStatus| deployed::is_true(status, "TtsReady");
    stack.until("a served engine", START, served).await?;

    stack.change(&spec("echo filled > /cache/models", "2m")).await?;
    let status = stack.ready(START).await?;
    ensure!(phase(&status, "parakeet").is_none(), "a filled cache is still shown");
    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    let models = fixture.space.exec(deployed::name(&pod), "engine", &["cat", "/cache/models"]).await?;
    ensure!(models.trim() == "filled", "the engine's cache has {models:?}");
    Ok(())
}
