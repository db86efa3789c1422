//! `gateway.mode: Sidecar`: the API beside each engine, without a gateway in front of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::{Value, json};
use speechstack_crds::{Outcome, SpeechStackStatus};
use speechstack_e2e::client::{Client, say};
use speechstack_e2e::cluster::scenario::restarts;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed;

use super::fixture::Fixture;
use super::healing::{REPAIR, START, last, small};

const PATIENCE: Duration = Duration::from_secs(90);

fn spec(mode: &str) -> Value {
    let engine =
        |name: &str| json!({"name": name, "preset": "reference", "args": ["--faults"], "resources": small()});
    json!({
        "stt": [engine("parakeet")], "tts": [engine("magpie")],
        "deepProbe": {"interval": "3s", "contentInterval": "5s", "timeoutMin": "2s", "timeoutMax": "5s"},
        "repair": {"containerRestarts": {"burst": 10, "refill": "1m", "backoff": "1s"}},
        "gateway": {"mode": mode, "resources": small()},
    })
}

/// Each engine answers by its own Service; a wedge is cured in place; and the way back to a gateway in front is a change of the
/// spec.
pub async fn each_engine_is_served_by_the_gateway_beside_it(fixture: &Fixture) -> Result<()> {
    let stack = fixture.stack(&spec("Sidecar")).await?;
    let status = stack.ready(START).await?;
    let endpoints = status.endpoints.context("no endpoints in the status")?;
    let client = |engine: &str| {
        let one = endpoints.engines.iter().find(|endpoint| endpoint.name == engine);
        let url = &one.with_context(|| format!("no endpoint of {engine}"))?.openai_base_url;
        Client::new(url.trim_end_matches("/v1").to_owned() + ".cluster.local", PATIENCE)
    };
    let (ears, mouth) = (client("parakeet")?, client("magpie")?);
    let speech = mouth.speak("alloy", "good morning everyone", "wav").await?;
    ensure!(speech.status == 200, "speak: {} {}", speech.status, speech.text());
    let heard = ears.transcribe("speech.wav", speech.body, "json").await?;
    ensure!(heard.status == 200 && heard.text().contains("morning"), "{} {}", heard.status, heard.text());
    let foreign = ears.speak("alloy", "good morning", "wav").await?;
    ensure!(foreign.status >= 400, "the recogniser's gateway speaks: {}", foreign.status);
    let gateways: Api<Deployment> = fixture.space.api();
    ensure!(gateways.get_opt("speech-gateway").await?.is_none(), "there is a gateway in front");

    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    stack.arm(&pod, &json!({"mode": "F1"})).await?;
    let healed = |status: &SpeechStackStatus| {
        last(status, "parakeet").is_some_and(|record| record.outcome == Outcome::Recovered)
            && deployed::is_true(status, "Ready")
    };
    stack.until("repaired", REPAIR, healed).await?;
    let now = stack.pod(deployed::name(&pod)).await?.context("the pod was replaced")?;
    ensure!(
        (restarts(&now, "engine"), restarts(&now, "gateway")) == (1, 0),
        "engine and gateway were restarted {} and {} times",
        restarts(&now, "engine"),
        restarts(&now, "gateway")
    );
    let reply = ears.transcribe("clip.wav", say(&[("slt", "Good morning.")])?, "json").await?;
    ensure!(reply.status == 200, "after the repair: {} {}", reply.status, reply.text());

    stack.change(&spec("Service")).await?;
    await_condition("a gateway in front serves", START, async || {
        let reply = stack.gateway().await?.get("/v1/models").await?;
        ensure!(reply.status == 200, "{}", reply.status);
        Ok(())
    })
    .await?;
    stack.ready(START).await?;
    let services = fixture.space.kubectl(&["get", "service", "--output", "name"]).await?;
    ensure!(!services.contains("-api"), "a Service of the other mode is left: {services}");
    Ok(())
}
