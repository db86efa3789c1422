//! Who owns the number of replicas: the stack, an autoscaler, or a scaler of the user; no replica is lost on the way.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use serde_json::{Value, json};
use speechstack_e2e::cluster::adapter::Adapter;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed::{self, Deployed};
use speechstack_e2e::load::{Ask, Load};
use tokio::time::sleep;

use super::fixture::Fixture;
use super::healing::{START, clip, small};

fn spec(number: Value) -> Value {
    let mut engine = json!({"name": "parakeet", "preset": "reference", "resources": small()});
    if let (Value::Object(engine), Value::Object(number)) = (&mut engine, number) {
        engine.extend(number);
    }
    json!({"stt": [engine], "gateway": {"replicas": 1}})
}

/// The number of replicas goes from the stack to an autoscaler, to a foreign scaler and back, and no pod is replaced.
pub async fn replicas_are_handed_over_and_none_is_lost(fixture: &Fixture) -> Result<()> {
    let client = fixture.space.cluster.client.clone();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &fixture.space.name);
    let scalers: Api<HorizontalPodAutoscaler> = Api::namespaced(client, &fixture.space.name);
    let replicas = async || -> Result<i32> {
        let found = deployments.get("speech-parakeet").await?;
        found.spec.and_then(|spec| spec.replicas).context("a Deployment without replicas")
    };
    let stack = fixture.stack(&spec(json!({"replicas": 2}))).await?;
    stack.ready(START).await?;
    let before = uids(&stack).await?;

    // Without load, or without a metric, the autoscaler keeps what it finds for minutes.
    stack.change(&spec(json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 4}}))).await?;
    await_condition("there is an autoscaler", START, async || {
        ensure!(scalers.get_opt("speech-parakeet").await?.is_some(), "not yet");
        Ok(())
    })
    .await?;
    stays(2, &replicas).await?;

    stack.change(&spec(json!({"autoscaling": {"external": true}}))).await?;
    await_condition("the autoscaler is gone", START, async || {
        ensure!(scalers.get_opt("speech-parakeet").await?.is_none(), "not yet");
        Ok(())
    })
    .await?;
    fixture.space.kubectl(&["scale", "deployment/speech-parakeet", "--replicas=3"]).await?;
    // A change that the operator applies to the same object must not take the number back.
    let mut changed = spec(json!({"autoscaling": {"external": true}, "startup": {"timeout": "9m"}}));
    changed["deepProbe"] = json!({"interval": "20s"});
    stack.change(&changed).await?;
    stays(3, &replicas).await?;
    let now = uids(&stack).await?;
    ensure!(before.iter().all(|uid| now.contains(uid)), "a pod was replaced: {before:?} became {now:?}");

    stack.change(&spec(json!({"replicas": 2}))).await?;
    await_condition("the stack owns the number again", START, async || {
        ensure!(replicas().await? == 2, "not yet");
        Ok(())
    })
    .await
}

/// Queued seconds of work start a second engine and their end stops it, by the metrics that the chart's rules for
/// prometheus-adapter name; the default metric and the gateway's are served under the names that the autoscalers ask for.
pub async fn engines_follow_the_queue_by_the_charts_metrics(fixture: &Fixture) -> Result<()> {
    let adapter = Adapter::start(&fixture.space).await?;
    let scaled = follow(fixture).await;
    adapter.stop(&fixture.space).await?;
    scaled
}

async fn follow(fixture: &Fixture) -> Result<()> {
    let queued = |autoscaling: Value| {
        // One job takes so long that a few of them are a queue.
        let mut spec = spec(json!({"autoscaling": autoscaling, "args": ["--pace", "2,0"]}));
        spec["gateway"] = json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 2, "inFlight": 100}});
        spec
    };
    let stack = fixture.stack(&queued(json!({"minReplicas": 1, "maxReplicas": 2}))).await?;
    stack.ready(START).await?;
    scales_by(fixture, "speech-parakeet", "speechstack_guard_lane_waiting").await?;
    scales_by(fixture, "speech-gateway", "speechstack_gateway_in_flight").await?;

    let seconds = json!({"type": "Pods", "pods": {
        "metric": {"name": "speechstack_guard_lane_waiting_seconds"},
        "target": {"type": "AverageValue", "averageValue": "3"},
    }});
    let at_once = json!({"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 3}]});
    let by_seconds = json!({
        "minReplicas": 1, "maxReplicas": 2, "metrics": [seconds],
        "behavior": {"scaleUp": at_once, "scaleDown": at_once},
    });
    stack.change(&queued(by_seconds)).await?;
    scales_by(fixture, "speech-parakeet", "speechstack_guard_lane_waiting_seconds").await?;
    let pods = async |count: usize| {
        await_condition(&format!("{count} engines"), START, async || {
            let pods = stack.pods("parakeet").await?;
            ensure!(pods.len() == count, "{} pods", pods.len());
            Ok(())
        })
        .await
    };
    pods(1).await?;
    let load = Load::bounded(stack.gateway().await?, Ask::Transcribe(clip()?), Duration::from_millis(200), 8);
    pods(2).await?;
    drop(load);
    pods(1).await
}

/// Waits until an autoscaler has got that metric of its pods.
async fn scales_by(fixture: &Fixture, name: &str, metric: &str) -> Result<()> {
    await_condition(&format!("{name} scales by {metric}"), START, async || {
        let scaler: HorizontalPodAutoscaler = fixture.space.get(name).await?;
        let status = scaler.status.context("no status")?;
        let known = status.current_metrics.iter().flatten().filter_map(|metric| metric.pods.as_ref());
        ensure!(known.into_iter().any(|pods| pods.metric.name == metric), "{status:?}");
        Ok(())
    })
    .await
}

/// The number is that, and stays it for a while.
async fn stays(expected: i32, replicas: &impl AsyncFn() -> Result<i32>) -> Result<()> {
    for _ in 0..24 {
        let now = replicas().await?;
        ensure!(now == expected, "{now} replicas in place of {expected}");
        sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}

async fn uids(stack: &Deployed) -> Result<Vec<String>> {
    Ok(stack.pods("parakeet").await?.iter().map(|pod| deployed::uid(pod).to_owned()).collect())
}
