//! The chart as its users have it: installed, tested, upgraded, rolled back, removed.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed;

use super::fixture::{Fixture, RELEASE, chart, landed_chart};
use super::healing::{START, clip, small};

/// A release of the chart that landed last becomes one of this chart and goes through its life, and the stack's engines serve
/// through all of it, and after it.
pub async fn a_release_lives_and_leaves_its_engines_serving(fixture: &Fixture) -> Result<()> {
    fixture.helm(&["uninstall", RELEASE, "--wait", "--timeout", "120s"]).await?;
    fixture.install(&landed_chart()).await?;
    let spec = json!({
        "stt": [{"name": "parakeet", "preset": "reference", "resources": small(), "cache": {"pvc": {"size": "1Gi"}}}],
        "tts": [{"name": "magpie", "preset": "reference", "resources": small()}],
        "gateway": {"replicas": 1},
    });
    let stack = fixture.stack(&spec).await?;
    stack.ready(START).await?;
    let before = uids(&stack.pods("parakeet").await?);

    let chart = chart();
    // The CRD, which another release of the test cluster would own, comes with the chart from here on.
    let crds = ["--set", "crds.install=true", "--take-ownership"];
    let upgrade = [
        "upgrade",
        RELEASE,
        &chart,
        "--reuse-values",
        "--set",
        "log.level=debug,test.speakers=true",
        "--wait",
        "--timeout",
        "180s",
    ];
    fixture.helm(&[&upgrade[..], &crds[..]].concat()).await?;
    stack.ready(START).await?;
    let tested = fixture.helm(&["test", RELEASE, "--logs", "--timeout", "120s"]).await?;
    for words in ["passed", "word error", "speakers  2"] {
        ensure!(tested.contains(words), "helm test said: {tested}");
    }
    fixture.helm(&["rollback", RELEASE, "1", "--wait", "--timeout", "180s"]).await?;
    stack.ready(START).await?;
    ensure!(uids(&stack.pods("parakeet").await?) == before, "a release replaced engine pods");

    fixture.helm(&["uninstall", RELEASE, "--wait", "--timeout", "120s"]).await?;
    await_condition("the operator is gone", Duration::from_secs(60), async || {
        ensure!(fixture.operators().await?.is_empty(), "it still runs");
        Ok(())
    })
    .await?;
    fixture.space.cluster.kubectl(&["get", "crd", "speechstacks.speechstack.dev"]).await?;
    fixture.space.kubectl(&["get", "pvc", "speechstack-cache-speech-parakeet-0"]).await?;
    ensure!(uids(&stack.pods("parakeet").await?) == before, "removing the operator replaced engine pods");
    let reply = stack.gateway().await?.transcribe("clip.wav", clip()?, "json").await?;
    ensure!(reply.status == 200, "without an operator: {} {}", reply.status, reply.text());
    Ok(())
}

fn uids(pods: &[Pod]) -> Vec<String> {
    let mut uids: Vec<_> = pods.iter().map(|pod| deployed::uid(pod).to_owned()).collect();
    uids.sort();
    uids
}
