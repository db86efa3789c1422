//! Nodes that are full or gone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use speechstack_e2e::cluster::scenario::restarts;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed;
use tokio::time::sleep;

use super::fixture::Fixture;
use super::healing::{START, clients, small, total};

/// Shorter than a node is missed, and longer than any probe may take.
const STALL: Duration = Duration::from_secs(15);

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

/// An engine of two pods, one on each node.
fn spread() -> Value {
    json!({
        "name": "parakeet", "preset": "reference", "replicas": 2, "resources": small(),
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"speechstack.dev/engine": "parakeet"}},
        }],
    })
}

/// A node whose kubelet and containerd are gone costs clients nothing.
pub async fn a_lost_node_is_served_around(fixture: &Fixture) -> Result<()> {
    let spec = json!({"stt": [spread()]});
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

/// A node that hangs for seconds with all that is on it costs no engine a restart, and clients nothing.
pub async fn a_node_that_stalls_costs_no_repair(fixture: &Fixture) -> Result<()> {
    let spec = json!({
        "stt": [spread()],
        "deepProbe": {"interval": "3s", "contentInterval": "5s", "timeoutMin": "2s", "timeoutMax": "5s"},
        // Clients come in by the node that goes on.
        "gateway": {"replicas": 1, "nodeSelector": {"kubernetes.io/hostname": fixture.space.cluster.a.name}},
    });
    let stack = fixture.stack(&spec).await?;
    stack.ready(START).await?;
    let load = clients(&stack).await?;
    let pods = stack.pods("parakeet").await?;
    let mark = load.mark();
    let stalls = &fixture.space.cluster.b;
    let there = |pod: &&Pod| pod.spec.iter().any(|spec| spec.node_name.as_deref() == Some(stalls.name));
    let guard = deployed::port(pods.iter().find(there).context("no engine on the node")?, 9401)?;
    stalls.stall(true)?;
    let answered = guard.patient(Duration::from_secs(2))?.get("/livez").await;
    sleep(STALL).await;
    stalls.stall(false)?;
    ensure!(answered.is_err(), "the node did not stall");
    stalls.await_ready(true).await?;
    // As long again, for what was concluded meanwhile to show.
    sleep(STALL).await;
    let counts = load.since(&mark).await?;
    let status = stack.ready(START).await?;
    ensure!(total(&status) == 0, "repaired: {:?}", status.repair);
    for pod in &pods {
        let now = stack.pod(deployed::name(pod)).await?.context("a pod was replaced")?;
        let restarted = (restarts(&now, "engine"), restarts(&now, "guard"));
        ensure!(restarted == (0, 0), "{}: engine and guard restarted {restarted:?}", deployed::name(pod));
    }
    ensure!(counts.errors == 0, "clients saw {} errors: {:?}", counts.errors, counts.failures);
    Ok(())
}
