//! New operators and their new defaults, which surprise no running engine.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use speechstack_crds::SpeechStackStatus;
use speechstack_e2e::binaries;
use speechstack_e2e::cluster::images;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed::{self, Deployed};
use tokio::time::sleep;

use super::fixture::{Fixture, RELEASE};
use super::healing::{REPAIR, START, clients, small};

/// The guards' image by another name, as a newer operator would bring.
const NEWER: &str = "newer";

fn spec(updates: Option<&str>) -> Value {
    of_replicas(2, updates)
}

fn of_replicas(replicas: u32, updates: Option<&str>) -> Value {
    let mut spec = json!({
        "stt": [{"name": "parakeet", "preset": "reference", "replicas": replicas, "resources": small()}],
        "gateway": {"replicas": 2},
    });
    if let Some(updates) = updates {
        spec["updates"] = json!(updates);
    }
    spec
}

/// The guard's image of a pod.
fn guard(pod: &Pod) -> &str {
    let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let image = containers.filter(|container| container.name == "guard").find_map(|one| one.image.as_deref());
    image.unwrap_or_default()
}

/// A replica more is made though an update waits, and no running one is replaced for it.
async fn scaled_up_meanwhile(stack: &Deployed, before: &[Pod]) -> Result<()> {
    stack.change(&of_replicas(3, None)).await?;
    let three = |status: &SpeechStackStatus| {
        deployed::is_true(status, "UpdatePending") && status.engines.iter().all(|engine| engine.verified == 3)
    };
    stack.until("scaled up while an update waits", START, three).await?;
    let now = stack.pods("parakeet").await?;
    let stayed = before.iter().all(|pod| now.iter().any(|same| deployed::uid(same) == deployed::uid(pod)));
    ensure!(stayed && now.len() == 3, "a scale-up replaced running engines");
    stack.change(&of_replicas(2, None)).await?;
    await_condition("scaled down again", START, async || {
        ensure!(stack.pods("parakeet").await?.len() == 2, "not yet");
        Ok(())
    })
    .await
}

fn is_newer(pod: &Pod) -> bool {
    guard(pod).ends_with(&format!(":{NEWER}"))
}

/// A new guard image waits for the user's word, and then takes one verified engine after the other.
pub async fn a_new_guard_waits_for_the_users_word(fixture: &Fixture) -> Result<()> {
    let stack = fixture.stack(&spec(None)).await?;
    stack.ready(START).await?;
    let before = stack.pods("parakeet").await?;
    let (repository, _) = images::PROXY.rsplit_once(':').unwrap_or((images::PROXY, ""));
    let newer = format!("{repository}:{NEWER}");
    for node in fixture.space.cluster.nodes() {
        node.run("ctr", &["--namespace=k8s.io", "images", "tag", "--force", images::PROXY, &newer]).await?;
    }
    let chart = binaries::repository().join("charts/speechstack").display().to_string();
    let tag = format!("proxyImage.tag={NEWER}");
    let upgrade =
        ["upgrade", RELEASE, &chart, "--reuse-values", "--set", &tag, "--wait", "--timeout", "180s"];
    fixture.helm(&upgrade).await?;
    let pending = |status: &SpeechStackStatus| {
        deployed::is_true(status, "UpdatePending")
            && status.engines.iter().all(|engine| engine.update_pending)
    };
    stack.until("told that an update waits", START, pending).await?;
    stack.ready(START).await?;
    let now = stack.pods("parakeet").await?;
    ensure!(
        before.iter().all(|pod| now.iter().any(|same| deployed::uid(same) == deployed::uid(pod))),
        "a new operator replaced running engines"
    );
    ensure!(!now.iter().any(is_newer), "the pods have the new guard");
    scaled_up_meanwhile(&stack, &before).await?;

    let load = clients(&stack).await?;
    let mark = load.mark();
    stack.change(&spec(Some("Automatic"))).await?;
    let mut replaced = 0;
    loop {
        let (status, pods) = (stack.status().await?, stack.pods("parakeet").await?);
        let verified: i32 = status.engines.iter().map(|engine| engine.verified).sum();
        let newer = pods.iter().filter(|pod| is_newer(pod)).count();
        ensure!(replaced == newer || verified > 0, "{newer} of 2 are new and none is verified");
        replaced = newer;
        if newer == 2 && pods.len() == 2 {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let settled = |status: &SpeechStackStatus| {
        deployed::is_true(status, "Ready") && !deployed::is_true(status, "UpdatePending")
    };
    stack.until("updated", REPAIR, settled).await?;
    let counts = load.since(&mark).await?;
    ensure!(counts.errors == 0, "clients saw {} errors: {:?}", counts.errors, counts.failures);
    Ok(())
}
