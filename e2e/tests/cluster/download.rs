//! A first start that downloads its models, as NVIDIA's containers do, and how far it is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use speechstack_crds::{CacheActivity, ModelCacheStatus, SpeechStackStatus};
use speechstack_e2e::deployed;

use super::fixture::Fixture;
use super::healing::{START, small};

/// Seconds for which the stand-in downloads.
const DOWNLOAD_SECONDS: u32 = 50;
/// What it downloads in a second, MiB.
const RATE: u32 = 1;
/// Ceiling for a stall to be shown: it counts after a minute, and figures change each 30 seconds.
const STALL: Duration = Duration::from_secs(240);
/// Most changes of the status between the first figure and the stall: one for each 30 seconds, and a few for pods and gateways.
const MOST_CHANGES: usize = 14;

/// The reference engine behind a command that fills its cache slowly, then does nothing until it finds a file.
fn spec() -> Value {
    let command = format!(
        "mkdir -p /cache/hub && \
         for part in $(seq {DOWNLOAD_SECONDS}); do \
         dd if=/dev/urandom bs=1M count={RATE} >>/cache/hub/.model.incomplete 2>/dev/null; sleep 1; done; \
         until [ -e /cache/go ]; do sleep 1; done; exec speechstack-engine \"$@\""
    );
    let container = json!({"name": "engine", "command": ["sh", "-c", command, "sh"]});
    json!({
        "stt": [{
            "name": "parakeet", "preset": "reference", "resources": small(), "cache": {"pvc": {"size": "1Gi"}},
            "startup": {"timeout": "10m"},
            "podTemplatePatch": {"spec": {"containers": [container]}},
        }],
        "gateway": {"replicas": 1},
    })
}

fn cache(status: &SpeechStackStatus) -> Option<&ModelCacheStatus> {
    status.engines.first()?.pods.first()?.model_cache.as_ref()
}

fn message(status: &SpeechStackStatus) -> &str {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    ready.map(|condition| condition.message.as_str()).unwrap_or_default()
}

/// In a namespace that enforces the restricted Pod Security Standard the status shows that a download grows, then that it does
/// not, and nothing of it once the engine serves.
pub async fn a_first_start_shows_how_far_its_download_is(fixture: &Fixture) -> Result<()> {
    let namespace =
        ["label", "namespace", &fixture.space.name, "pod-security.kubernetes.io/enforce=restricted"];
    fixture.space.cluster.kubectl(&namespace).await?;
    let stack = fixture.stack(&spec()).await?;
    let grows = |status: &SpeechStackStatus| {
        cache(status).is_some_and(|cache| {
            cache.activity == CacheActivity::Growing && cache.bytes > 1 << 20 && cache.bytes_per_second > 0
        })
    };
    let status = stack.until("a download that grows", START, grows).await?;
    let first = cache(&status).context("no figure")?.clone();
    ensure!(first.bytes <= i64::from(RATE * DOWNLOAD_SECONDS + 1) << 20, "{first:?}");
    ensure!(message(&status).contains("growing by"), "the condition says {:?}", message(&status));

    let mut versions = std::collections::BTreeSet::new();
    let stalls = |status: &SpeechStackStatus| {
        cache(status).is_some_and(|cache| cache.activity == CacheActivity::Quiet)
    };
    let deadline = tokio::time::Instant::now() + STALL;
    let status = loop {
        let status = stack.status().await?;
        versions.insert(stack.resource_version().await?);
        if stalls(&status) {
            break status;
        }
        ensure!(tokio::time::Instant::now() < deadline, "no stall is shown: {:?}", cache(&status));
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let stalled = cache(&status).context("no figure")?;
    ensure!(stalled.bytes >= i64::from(RATE * DOWNLOAD_SECONDS) << 20, "{stalled:?}");
    ensure!(message(&status).contains("no growth since"), "the condition says {:?}", message(&status));
    ensure!(versions.len() <= MOST_CHANGES, "the status was written {} times", versions.len());

    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    let guard = deployed::port(&pod, contract::port::GUARD_ADMIN)?;
    let metrics = guard.get("/metrics").await?.text();
    ensure!(metrics.contains("speechstack_guard_model_cache_bytes"), "the guard has no such metric");
    fixture.space.exec(deployed::name(&pod), "engine", &["touch", "/cache/go"]).await?;
    let status = stack.ready(START).await?;
    ensure!(cache(&status).is_none(), "an engine that serves shows {:?}", cache(&status));
    Ok(())
}
