//! Faults that a restart does not cure: the ladder goes on, under budgets, and stops.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use speechstack_crds::{Outcome, Rung, SpeechStackStatus};
use speechstack_e2e::cluster::images;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed::{self, Deployed};
use speechstack_e2e::load::{Counts, Load};
use tokio::time::sleep;

use super::fixture::Fixture;
use super::healing::{REPAIR, START, clients, small, total};

/// Where a fault that is kept in a file outlives the process. With the first two another replica serves meanwhile.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    /// Until the pod ends.
    Pod,
    /// On the node.
    Node,
    /// On every node.
    Everywhere,
}

fn spec(fixture: &Fixture, kept: Kept, repair: Value) -> Value {
    let mut faults = match kept {
        Kept::Pod => json!({"emptyDir": {}}),
        // Each node of the test cluster has a /var/lib of its own.
        Kept::Node => json!({"hostPath": {
            "path": format!("/var/lib/speechstack-e2e/{}", fixture.space.name), "type": "DirectoryOrCreate",
        }}),
        Kept::Everywhere => json!({"persistentVolumeClaim": {"claimName": "faults"}}),
    };
    faults["name"] = json!("faults");
    let mut engine = json!({
        "name": "parakeet", "preset": "reference", "args": ["--faults"], "resources": small(),
        "replicas": if kept == Kept::Everywhere { 1 } else { 2 },
        "env": [{"name": "SPEECHSTACK_ENGINE_STATE_DIR", "value": "/faults"}],
        // A folder that the kubelet makes on a node belongs to root.
        "securityContext": {"runAsUser": 0, "runAsNonRoot": false},
        "podTemplatePatch": {"spec": {
            "volumes": [faults],
            "containers": [{"name": "engine", "volumeMounts": [{"name": "faults", "mountPath": "/faults"}]}],
        }},
    });
    if kept == Kept::Node {
        engine["gpu"] = json!({"count": 1});
        // One pod on each node, as long as there are two to choose from.
        engine["topologySpreadConstraints"] = json!([{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"speechstack.dev/engine": "parakeet"}},
        }]);
    }
    json!({
        "stt": [engine],
        "deepProbe": {"interval": "3s", "timeoutMin": "2s", "timeoutMax": "5s"},
        "repair": repair,
        "gateway": {"replicas": 1},
    })
}

/// A stack of which one pod is wedged until the file with the fault is gone, and clients.
struct Wedged {
    stack: Deployed,
    pod: Pod,
    load: Load,
}

async fn wedge(fixture: &Fixture, spec: &Value) -> Result<Wedged> {
    let stack = fixture.stack(spec).await?;
    stack.ready(START).await?;
    let load = clients(&stack).await?;
    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    stack.arm(&pod, &json!({"mode": "F1", "clear": "never"})).await?;
    Ok(Wedged { stack, pod, load })
}

/// Clients were served by the other replica.
async fn unnoticed(load: &Load) -> Result<()> {
    let counts = load.since(&Counts::default()).await?;
    eprintln!("clients: {} ok, {} errors", counts.ok, counts.errors);
    ensure!(counts.errors == 0, "clients saw {} errors: {:?}", counts.errors, counts.failures);
    Ok(())
}

fn recovered_by(status: &SpeechStackStatus, rung: Rung) -> bool {
    let records = status.repair.iter().flat_map(|repair| &repair.records);
    deployed::is_true(status, "Ready")
        && records.into_iter().any(|record| record.rung == rung && record.outcome == Outcome::Recovered)
}

fn told(what: &str, status: &SpeechStackStatus) {
    let records = status.repair.iter().flat_map(|repair| &repair.records);
    let rungs: Vec<String> =
        records.map(|record| format!("{} {:?}", record.rung.as_str(), record.outcome)).collect();
    eprintln!("{what}: {}", rungs.join(", "));
}

/// No registry is reached: an image that is always pulled keeps its pod from starting, though its node has it.
async fn registry_is_away(fixture: &Fixture) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pulled"},
        "spec": {"containers": [{"name": "engine", "image": images::ENGINE, "imagePullPolicy": "Always"}]},
    });
    fixture.space.apply(&pod.to_string()).await?;
    await_condition("the image cannot be pulled", START, async || {
        let pod: Pod = fixture.space.get("pulled").await?;
        let states = pod.status.unwrap_or_default().container_statuses.unwrap_or_default();
        let waits =
            states.iter().filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
        ensure!(
            waits.into_iter().any(|reason| ["ErrImagePull", "ImagePullBackOff"].contains(&reason)),
            "{states:?}"
        );
        Ok(())
    })
    .await
}

/// A fault that outlives the container costs the container restarts of its budget, then the pod is replaced; none of it needs a
/// registry.
pub async fn a_fault_that_outlives_the_container_costs_the_pod(fixture: &Fixture) -> Result<()> {
    registry_is_away(fixture).await?;
    let repair = json!({"containerRestarts": {"burst": 2, "refill": "1h", "backoff": "1s"}});
    let Wedged { stack, pod, load } = wedge(fixture, &spec(fixture, Kept::Pod, repair)).await?;
    let status = stack.until("replaced", REPAIR * 2, |status| recovered_by(status, Rung::Recreate)).await?;
    unnoticed(&load).await?;
    told("outlives the container", &status);
    let restarts = status
        .repair
        .iter()
        .flat_map(|repair| &repair.records)
        .filter(|record| record.rung == Rung::Restart)
        .count();
    ensure!(restarts == 2, "{restarts} container restarts, the budget is 2");
    let now = stack.pods("parakeet").await?;
    ensure!(now.iter().all(|other| deployed::uid(other) != deployed::uid(&pod)), "the pod is the same");
    Ok(())
}

/// A fault that outlives the pod on one node moves the engine to another node, without a rollout.
pub async fn a_fault_of_a_node_moves_the_engine(fixture: &Fixture) -> Result<()> {
    let repair = json!({
        "containerRestarts": {"burst": 1, "refill": "1h", "backoff": "1s"},
        "podRecreates": {"perHour": 4},
        "escalation": "AvoidNode",
    });
    let moved = moves(fixture, &spec(fixture, Kept::Node, repair)).await;
    for node in fixture.space.cluster.nodes() {
        node.label(&avoid(fixture), None).await?;
    }
    moved
}

/// The label that keeps the engine off a node.
fn avoid(fixture: &Fixture) -> String {
    format!("avoid.speechstack.dev/{}.speech.parakeet", fixture.space.name)
}

async fn moves(fixture: &Fixture, spec: &Value) -> Result<()> {
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let Wedged { stack, pod, load } = wedge(fixture, spec).await?;
    let bad = node(&pod);
    let status = stack.until("moved", REPAIR * 4, |status| recovered_by(status, Rung::AvoidNode)).await?;
    unnoticed(&load).await?;
    told("outlives the pod on a node", &status);
    let rungs = status.repair.iter().flat_map(|repair| &repair.records).map(|record| record.rung);
    ensure!(rungs.into_iter().any(|rung| rung == Rung::Recreate), "the pod was not replaced before");
    let now = stack.pods("parakeet").await?;
    ensure!(now.len() == 2 && now.iter().all(|pod| node(pod) != bad), "an engine is still on {bad}");
    let avoid = avoid(fixture);
    for node in fixture.space.cluster.nodes() {
        let avoided = node.get().await?.labels().contains_key(&avoid);
        ensure!(avoided == (node.name == bad), "{}: label {avoid}: {avoided}", node.name);
    }
    let engine = ["get", "replicasets", "-l", "speechstack.dev/engine=parakeet", "-o", "name"];
    let rollouts = fixture.space.kubectl(&engine).await?;
    ensure!(rollouts.lines().count() == 1, "a rollout happened: {rollouts}");
    Ok(())
}

/// A fault that nothing cures stops repair within its budgets, and says so; the reset annotation starts it again.
pub async fn a_fault_that_nothing_cures_stops_repair(fixture: &Fixture) -> Result<()> {
    let repair = json!({
        "containerRestarts": {"burst": 1, "refill": "1h", "backoff": "1s"},
        "podRecreates": {"perHour": 1},
    });
    let claim = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: faults}, spec: {accessModes: \
                 [ReadWriteMany], resources: {requests: {storage: 1Mi}}}}";
    fixture.space.apply(claim).await?;
    let Wedged { stack, load, .. } = wedge(fixture, &spec(fixture, Kept::Everywhere, repair)).await?;
    let stopped =
        stack.until("stopped", REPAIR * 3, |status| deployed::is_true(status, "RepairSuspended")).await?;
    told("nothing cures", &stopped);
    let acts = total(&stopped);
    sleep(Duration::from_secs(15)).await;
    ensure!(total(&stack.status().await?) == acts, "repair went on after it stopped");
    ensure!(
        stack.status().await?.repair.is_some_and(|repair| !repair.stopped.is_empty()),
        "no word of why it stopped"
    );

    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    deployed::port(&pod, 9000)?.delete("/_engine/fault").await?;
    stack.annotate("speechstack.dev/reset-repair", "1").await?;
    drop(load);
    stack
        .until("well again", REPAIR * 2, |status| {
            deployed::is_true(status, "Ready") && !deployed::is_true(status, "RepairSuspended")
        })
        .await?;
    Ok(())
}
