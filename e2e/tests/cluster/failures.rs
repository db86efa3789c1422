//! Pods that cannot run: the status says why, in a word and a sentence.

use anyhow::Result;
use serde_json::{Value, json};
use speechstack_crds::SpeechStackStatus;

use super::ground::Ground;
use super::healing::{START, small};

async fn told(ground: &Ground, engine: Value, reason: &str) -> Result<()> {
    let spec = json!({"stt": [engine], "gateway": {"replicas": 1}});
    let stack = ground.stack(&spec).await?;
    let says = |status: &SpeechStackStatus| {
        status
            .engines
            .iter()
            .any(|engine| engine.last_failure.as_ref().is_some_and(|failure| failure.reason == reason))
    };
    stack.until(reason, START, says).await?;
    Ok(())
}

/// An image that is not there.
pub async fn a_missing_image_is_named(ground: &Ground) -> Result<()> {
    let image = json!({"repository": "localhost:1/nothing", "tag": "none"});
    told(
        ground,
        json!({"name": "parakeet", "preset": "reference", "image": image, "resources": small()}),
        "ImagePullError",
    )
    .await
}

/// A container that is killed for its memory.
pub async fn a_container_out_of_memory_is_named(ground: &Ground) -> Result<()> {
    let resources = json!({"requests": {"cpu": "20m"}, "limits": {"memory": "24Mi"}});
    told(ground, json!({"name": "parakeet", "preset": "reference", "resources": resources}), "OOMKilled")
        .await
}

/// A GPU that no node has.
pub async fn a_pod_that_fits_nowhere_is_named(ground: &Ground) -> Result<()> {
    let engine =
        json!({"name": "parakeet", "preset": "reference", "gpu": {"count": 16}, "resources": small()});
    told(ground, engine, "Unschedulable").await
}
