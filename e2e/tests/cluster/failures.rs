//! Pods that cannot run: the status says why, in a word and a sentence.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use speechstack_crds::SpeechStackStatus;
use speechstack_e2e::deployed::Deployed;

use super::fixture::Fixture;
use super::healing::{START, small};

/// What keeps an engine from running: the stack's name, the engine, and the reason that the status must give.
fn cases() -> [(&'static str, Value, &'static str); 5] {
    let engine = |fields: Value| {
        let mut engine = json!({"name": "parakeet", "preset": "reference", "resources": small()});
        for (key, value) in fields.as_object().into_iter().flatten() {
            engine[key] = value.clone();
        }
        engine
    };
    // As a NIM's last words are when its key is refused.
    let words = "echo 'Downloading model from NGC'; echo 'ERROR: ngc registry: 403 Forbidden' >&2; exit 1";
    let refused = json!({"spec": {"containers": [{"name": "engine", "command": ["/bin/sh", "-c", words]}]}});
    let key = json!({"name": "MODEL_TOKEN", "valueFrom": {"secretKeyRef": {"name": "none", "key": "key"}}});
    let memory = json!({"requests": {"cpu": "20m"}, "limits": {"memory": "24Mi"}});
    [
        (
            "image",
            engine(json!({"image": {"repository": "localhost:1/nothing", "tag": "none"}})),
            "ImagePullError",
        ),
        ("ngc", engine(json!({"podTemplatePatch": refused})), "NgcForbidden"),
        ("secret", engine(json!({"env": [key]})), "AuthSecretMissing"),
        ("memory", engine(json!({"resources": memory})), "OOMKilled"),
        ("gpus", engine(json!({"gpu": {"count": 16}})), "Unschedulable"),
    ]
}

/// Each failure has its reason in the status of its stack.
pub async fn what_keeps_a_pod_from_running_is_named(fixture: &Fixture) -> Result<()> {
    let mut stacks = Vec::new();
    for (name, engine, reason) in cases() {
        let spec = json!({"stt": [engine], "gateway": {"replicas": 1}});
        let space = &fixture.space;
        let stack = Deployed::apply(&space.cluster.client, &space.name, name, &spec).await;
        stacks.push((stack.with_context(|| name)?, reason));
    }
    for (stack, reason) in stacks {
        let says = |status: &SpeechStackStatus| {
            let mut failures = status.engines.iter().filter_map(|engine| engine.last_failure.as_ref());
            failures.any(|failure| failure.reason == reason)
        };
        stack.until(reason, START, says).await?;
    }
    Ok(())
}
