//! A server of others as the last resort of a stack, within its budget.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use speechstack_e2e::client::{Client, Reply, say};
use speechstack_e2e::cluster::images;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed;

use super::fixture::Fixture;
use super::healing::{START, small};

const SENTENCE: &str = "She told me that the train was late again.";
const KEY: &str = "sk-planted";
/// Its budget of a day.
const JOBS: u32 = 3;
/// Ceiling for the gateway to learn of engines that come or go.
const KNOWN: Duration = Duration::from_secs(60);

/// The server of others: an engine of the namespace that is no engine of the stack, and asks for a key.
fn server() -> String {
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: cloud}}
stringData: {{apiKey: {KEY}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: cloud, labels: {{app: cloud}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: engine
      image: {image}
      args: [--kind, stt, --protocol, openai, --api-key, {KEY}, --listen, '0.0.0.0:9000']
      ports: [{{name: http, containerPort: 9000}}]
---
apiVersion: v1
kind: Service
metadata: {{name: cloud}}
spec:
  selector: {{app: cloud}}
  ports: [{{port: 80, targetPort: http}}]
",
        image = images::ENGINE
    )
}

fn spec(namespace: &str, replicas: u32) -> Value {
    let server = json!({
        "baseUrl": format!("http://cloud.{namespace}.svc.cluster.local/v1"),
        "model": "whisper-large", "apiKeySecretRef": {"name": "cloud"},
    });
    json!({
        "stt": [
            {"name": "parakeet", "preset": "reference", "resources": small(), "replicas": replicas},
            {"name": "cloud", "preset": "external", "external": server, "replicas": 2, "hosted": {"jobsPerDay": JOBS}},
        ],
        "gateway": {"replicas": 1, "limits": {"queueTimeout": "1s"}},
    })
}

async fn transcribe(gateway: &Client) -> Result<Reply> {
    gateway.transcribe("clip.wav", say(&[("rms", SENTENCE)])?, "json").await
}

/// The own engine serves alone while it is there. Without it the server of others does, by its name in a header, for any model of
/// the stack, until its budget is used up, which its two pods share.
pub async fn a_server_of_others_stands_in_within_its_budget(fixture: &Fixture) -> Result<()> {
    let namespace = fixture.space.name.clone();
    fixture.space.apply(&server()).await?;
    let stack = fixture.stack(&spec(&namespace, 1)).await?;
    let status = stack
        .until("proven, both", START, |status| {
            deployed::is_true(status, "Ready") && status.engines.iter().all(|engine| engine.verified > 0)
        })
        .await?;
    ensure!(status.summary.as_ref().is_some_and(|summary| summary.stt == "1/1"), "{:?}", status.summary);
    let gateway = stack.gateway().await?;
    let models = gateway.get("/v1/models").await?.text();
    ensure!(!models.contains("whisper-large"), "the last resort has no name of its own: {models}");
    for _ in 0..5 {
        let reply = transcribe(&gateway).await?;
        ensure!((reply.status, &*reply.hosted) == (200, ""), "{} {:?}", reply.status, reply.hosted);
    }

    stack.change(&spec(&namespace, 0)).await?;
    await_condition("the own engine is gone", START, async || {
        ensure!(stack.pods("parakeet").await?.is_empty(), "not yet");
        Ok(())
    })
    .await?;
    for job in 0..JOBS {
        let reply = transcribe(&gateway).await?;
        ensure!(
            (reply.status, &*reply.hosted) == (200, "cloud"),
            "job {job}: {} {:?}: {}",
            reply.status,
            reply.hosted,
            reply.text()
        );
        ensure!(reply.text().contains("train"), "job {job}: {}", reply.text());
    }
    let refused = transcribe(&gateway).await?;
    ensure!((refused.status, &*refused.hosted) == (503, ""), "{} {:?}", refused.status, refused.hosted);

    stack.change(&spec(&namespace, 1)).await?;
    stack.ready(START).await?;
    await_condition("the own engine serves again", KNOWN, async || {
        let reply = transcribe(&gateway).await?;
        ensure!((reply.status, &*reply.hosted) == (200, ""), "{} {:?}", reply.status, reply.hosted);
        Ok(())
    })
    .await?;
    for pod in stack.pods("cloud").await? {
        let log = fixture.space.log(deployed::name(&pod), "guard", false).await?;
        ensure!(!log.contains(KEY), "the key is in the log");
    }
    Ok(())
}
