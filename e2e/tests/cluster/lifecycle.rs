//! From `kubectl apply` to speech, and back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use kube::api::{Api, ListParams};
use serde_json::json;
use speechstack_e2e::client::{Client, say};
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed;
use speechstack_e2e::words::word_error;
use tokio::time::{Instant, sleep};

use super::fixture::Fixture;
use super::healing::{START, small};

/// A few lines of YAML become speech in and out, through the Service by its DNS name.
pub async fn a_minimal_stack_speaks_and_listens(fixture: &Fixture) -> Result<()> {
    let spec = json!({
        "stt": [{"name": "parakeet", "preset": "reference", "resources": small()}],
        "tts": [{"name": "magpie", "preset": "reference", "resources": small()}],
    });
    let began = Instant::now();
    let stack = fixture.stack(&spec).await?;
    let status = stack.ready(START).await?;
    eprintln!("applied -> Ready in {:.1} s", began.elapsed().as_secs_f64());

    let url = status.endpoints.context("no endpoints in the status")?.openai_base_url;
    let expected = format!("http://speech-gateway.{}.svc/v1", fixture.space.name);
    ensure!(url == expected, "the status says {url}, not {expected}");
    // Pods find it by the short name, we by the full one.
    let base = url.trim_end_matches("/v1").to_owned() + ".cluster.local";
    let client = Client::new(base, Duration::from_secs(60))?;
    let spoken = "good morning everyone";
    let speech = client.speak("alloy", spoken, "wav").await?;
    ensure!(speech.status == 200, "speak: {} {}", speech.status, speech.text());
    let heard = client.transcribe("speech.wav", speech.body, "json").await?.json()?;
    let heard = heard["text"].as_str().context("no text")?.to_owned();
    ensure!(word_error(spoken, &heard) <= 0.34, "spoken {spoken:?}, heard {heard:?}");

    let dialogue = say(&[("slt", "good morning everyone"), ("rms", "what is the time")])?;
    let merged = client.transcribe_with_speakers("dialogue.wav", dialogue).await?;
    ensure!(merged.status == 200, "with speakers: {} {}", merged.status, merged.text());

    let summary = status.summary.context("no summary in the status")?;
    ensure!((summary.stt.as_str(), summary.tts.as_str()) == ("1/1", "1/1"), "summary {summary:?}");
    let shown = fixture.space.kubectl(&["get", "spch"]).await?;
    for column in ["PHASE", "STT", "TTS", "REPAIRS", "Ready", "1/1"] {
        ensure!(shown.contains(column), "no {column} in:\n{shown}");
    }
    Ok(())
}

/// Suspending frees the pods and keeps the rest; resuming brings them back.
pub async fn a_suspended_stack_frees_its_pods(fixture: &Fixture) -> Result<()> {
    let engine = json!({"name": "parakeet", "preset": "reference", "resources": small()});
    let spec = json!({"stt": [engine], "gateway": {"replicas": 1}});
    let stack = fixture.stack(&spec).await?;
    stack.ready(START).await?;
    stack.change(&json!({"stt": [engine], "gateway": {"replicas": 1}, "suspend": true})).await?;
    stack.until("suspended", START, |status| deployed::reason(status, "Ready") == "Suspended").await?;
    await_condition("a suspended stack has no engine pods", START, async || {
        ensure!(stack.pods("parakeet").await?.is_empty(), "not yet");
        Ok(())
    })
    .await?;
    let reply =
        stack.gateway().await?.transcribe("clip.wav", say(&[("slt", "Good morning.")])?, "json").await?;
    ensure!(reply.status == 503, "a suspended stack answers {}: {}", reply.status, reply.text());
    stack.change(&spec).await?;
    stack.ready(START).await?;
    Ok(())
}

/// Deleting a stack ends what it made, without any finalizer, and keeps the model cache.
pub async fn a_deleted_stack_leaves_only_its_cache(fixture: &Fixture) -> Result<()> {
    let spec = json!({
        "stt": [{
            "name": "parakeet", "preset": "reference", "replicas": 0,
            "cache": {"pvc": {"size": "1Gi", "accessMode": "ReadWriteMany"}},
        }],
        "gateway": {"replicas": 1},
    });
    let stack = fixture.stack(&spec).await?;
    let deployments: Api<Deployment> =
        Api::namespaced(fixture.space.cluster.client.clone(), &fixture.space.name);
    await_condition("there is a Deployment", START, async || {
        ensure!(deployments.get_opt("speech-parakeet").await?.is_some(), "not yet");
        Ok(())
    })
    .await?;
    stack.delete().await?;
    let services: Api<Service> = Api::namespaced(fixture.space.cluster.client.clone(), &fixture.space.name);
    let labelled = ListParams::default().labels("speechstack.dev/stack=speech");
    await_condition("nothing of a deleted stack is left", START, async || {
        ensure!(
            deployments.list(&labelled).await?.items.is_empty()
                && services.list(&labelled).await?.items.is_empty(),
            "not yet"
        );
        Ok(())
    })
    .await?;
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(fixture.space.cluster.client.clone(), &fixture.space.name);
    let kept = claims.get_opt("speech-parakeet-cache").await?.context("the model cache is gone")?;
    ensure!(kept.metadata.deletion_timestamp.is_none(), "the model cache is being deleted");
    Ok(())
}

/// A spec that only the operator can judge becomes a condition, and no storm of retries.
pub async fn an_invalid_stack_is_reported_and_left_alone(fixture: &Fixture) -> Result<()> {
    let spec = json!({
        "stt": [{
            "name": "parakeet", "preset": "reference", "replicas": 0,
            "podTemplatePatch": {"spec": {"initContainers": [{"name": "guard", "image": "other"}]}},
        }],
    });
    let stack = fixture.stack(&spec).await?;
    let status = stack
        .until("InvalidSpec", START, |status| deployed::reason(status, "Ready") == "InvalidSpec")
        .await?;
    let message = &status.conditions.iter().find(|one| one.type_ == "Ready").context("no Ready")?.message;
    ensure!(message.contains("podTemplatePatch"), "the message does not name the field: {message}");
    let version = async || stack.resource_version().await;
    let before = version().await?;
    sleep(Duration::from_secs(10)).await;
    ensure!(version().await? == before, "the status of an invalid stack is written again and again");
    Ok(())
}

/// A stack that this operator cannot read, as one of a later version, keeps it from no other, not even after a restart.
pub async fn an_unreadable_stack_stops_no_other(fixture: &Fixture) -> Result<()> {
    let space = &fixture.space;
    let protocols = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/stt/items/properties/protocols/items";
    let patch =
        json!([{"op": "add", "path": format!("{protocols}/enum/-"), "value": "of_tomorrow"}]).to_string();
    let future = "{apiVersion: speechstack.dev/v1alpha1, kind: SpeechStack, metadata: {name: future}, spec: {stt: \
                  [{name: parakeet, preset: reference, protocols: [of_tomorrow]}]}}";
    // Other tests install the definition of today meanwhile.
    await_condition("a stack of tomorrow is there", START, async || {
        let definition = ["patch", "crd", "speechstacks.speechstack.dev", "--type=json", "--patch", &patch];
        space.cluster.kubectl(&definition).await?;
        space.apply(future).await
    })
    .await?;
    let spec = |replicas: u32| {
        json!({
            "stt": [{"name": "parakeet", "preset": "reference", "replicas": replicas, "resources": small()}],
            "gateway": {"replicas": 1},
        })
    };
    let stack = fixture.stack(&spec(1)).await?;
    stack.ready(START).await?;
    fixture.kill_operators().await?;
    stack.change(&spec(2)).await?;
    stack
        .until("two are verified", START, |status| {
            status.engines.iter().all(|engine| engine.verified == 2) && deployed::is_true(status, "Ready")
        })
        .await?;
    let told = await_condition("the operator tells of it", START, async || {
        let operators = fixture.operators().await?;
        let name = deployed::name(operators.first().context("no operator")?);
        let log = space.log(name, "operator", false).await?;
        log.lines()
            .find(|line| line.contains("unable to read a stack"))
            .map(str::to_owned)
            .context("not a word")
    })
    .await?;
    ensure!(told.contains("future"), "the operator does not name the stack: {told}");
    Ok(())
}
