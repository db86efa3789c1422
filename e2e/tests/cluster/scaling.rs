//! Who owns the number of replicas: the stack, an autoscaler, or a scaler of the user; no replica is lost on the way.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use serde_json::{Value, json};
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed::{self, Deployed};
use tokio::time::sleep;

use super::fixture::Fixture;
use super::healing::{START, small};

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

    // Its metric is not served here: the autoscaler keeps what it finds.
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
