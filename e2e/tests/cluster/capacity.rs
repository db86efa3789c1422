//! Nodes that are full or gone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed;
use tokio::time::sleep;

use super::fixture::Fixture;
use super::healing::{START, clients, small};

/// A rollout on nodes without a free GPU goes through: old pods make room first.
pub async fn a_rollout_on_full_nodes_goes_through(fixture: &Fixture) -> Result<()> {
    let nodes = fixture.space.cluster.nodes();
    let mut usual = Vec::new();
    for node in nodes {
        usual.push(node.gpus().await?);
        node.set_gpus(1).await?;
    }
    let rolled = roll(fixture).await;
    for (node, gpus) in nodes.into_iter().zip(usual) {
        node.set_gpus(gpus).await?;
    }
    rolled
}

async fn roll(fixture: &Fixture) -> Result<()> {
    let spec = |label: &str| {
        json!({
            "stt": [{
                "name": "parakeet", "preset": "reference", "replicas": 2, "gpu": {"count": 1},
                "resources": small(), "podLabels": {"generation": label},
            }],
            "gateway": {"replicas": 1},
        })
    };
    let stack = fixture.stack(&spec("one")).await?;
    stack.ready(START).await?;
    let load = clients(&stack).await?;
    let mark = load.mark();
    stack.change(&spec("two")).await?;
    await_condition("both pods are new and verified", START * 2, async || {
        let status = stack.status().await?;
        let pods = stack.pods("parakeet").await?;
        let new = pods.iter().filter(|pod| {
            pod.metadata
                .labels
                .iter()
                .any(|labels| labels.get("generation").is_some_and(|value| value == "two"))
        });
        ensure!(
            new.count() == 2 && pods.len() == 2 && deployed::is_true(&status, "Ready"),
            "{} pods",
            pods.len()
        );
        Ok(())
    })
    .await?;
    let counts = load.since(&mark).await?;
    ensure!(counts.errors == 0, "clients saw {} errors: {:?}", counts.errors, counts.failures);
    Ok(())
}

/// A node whose kubelet and containerd are gone costs clients nothing.
pub async fn a_lost_node_is_served_around(fixture: &Fixture) -> Result<()> {
    let spread = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"speechstack.dev/engine": "parakeet"}},
    }]);
    let spec = json!({
        "stt": [{
            "name": "parakeet", "preset": "reference", "replicas": 2, "resources": small(),
            "topologySpreadConstraints": spread,
        }],
    });
    let stack = fixture.stack(&spec).await?;
    stack.ready(START).await?;
    let load = clients(&stack).await?;
    let mark = load.mark();
    let lost = &fixture.space.cluster.b;
    lost.stop().await?;
    let seen = async {
        lost.await_ready(false).await?;
        stack
            .until("less than Ready", START, |status| !deployed::is_true(status, "Ready"))
            .await
            .context("the status does not tell of the lost node")?;
        sleep(Duration::from_secs(10)).await;
        load.since(&mark).await
    }
    .await;
    lost.start().await?;
    lost.await_ready(true).await?;
    let counts = seen?;
    ensure!(counts.errors == 0, "clients saw {} errors: {:?}", counts.errors, counts.failures);
    stack.ready(START).await?;
    Ok(())
}
