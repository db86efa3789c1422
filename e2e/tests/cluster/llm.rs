//! Language models in a stack: an engine that runs here, and a server that does not, behind one gateway.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use speechstack_crds::{Outcome, SpeechStackStatus};
use speechstack_e2e::client::LLM;
use speechstack_e2e::cluster::scenario::restarts;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed;

use super::fixture::Fixture;
use super::healing::{REPAIR, START, last, small};

/// Ceiling for both to be chosen by the gateway.
const TURNS: Duration = Duration::from_secs(60);

/// The server that runs elsewhere is here the guard of the first engine, by its Service.
fn spec(namespace: &str) -> Value {
    let server = json!({
        "baseUrl": format!("http://speech-words.{namespace}.svc.cluster.local:9400/v1"),
        "model": LLM, "apiKeySecretRef": {"name": "llm"},
    });
    json!({
        "llm": [
            {"name": "words", "preset": "reference", "args": ["--faults"], "resources": small()},
            {"name": "hosted", "preset": "external", "external": server},
        ],
        "deepProbe": {"interval": "3s", "contentInterval": "5s", "timeoutMin": "2s", "timeoutMax": "5s"},
        "repair": {"containerRestarts": {"burst": 10, "refill": "1m", "backoff": "1s"}},
        "gateway": {"replicas": 1, "modelAliases": {"assistant": LLM}},
    })
}

/// Requests that the guard of a pod has passed on.
async fn served(pod: &Pod) -> Result<f64> {
    let metrics = deployed::port(pod, 9401)?.get("/metrics").await?.text();
    let lines = metrics.lines().filter(|line| line.starts_with("speechstack_guard_requests_total{"));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Both answer through the gateway; a wedge of the engine is cured in place, and the pod of the server is left as it is.
pub async fn a_language_model_answers_and_heals(fixture: &Fixture) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "llm"}, "stringData": {"apiKey": "sk-planted"},
    });
    fixture.space.apply(&secret.to_string()).await?;
    let stack = fixture.stack(&spec(&fixture.space.name)).await?;
    let status = stack.ready(START).await?;
    ensure!(deployed::is_true(&status, "LlmReady"), "not LlmReady: {status:?}");
    let summary = status.summary.clone().context("no summary")?;
    ensure!((summary.llm.as_str(), summary.stt.as_str()) == ("2/2", "-"), "summary {summary:?}");

    stack
        .until("told of its model", START, |status| {
            status.engines.iter().all(|engine| engine.model.as_deref() == Some(LLM))
        })
        .await?;

    let gateway = stack.gateway().await?;
    let models = gateway.get("/v1/models").await?.text();
    ensure!(models.contains(LLM) && models.contains("assistant"), "models: {models}");
    let pod = stack.pods("words").await?.into_iter().next().context("the engine has no pod")?;
    let hosted = stack.pods("hosted").await?.into_iter().next().context("the server has no pod")?;
    await_condition("the server answers, and the engine", TURNS, async || {
        let reply = gateway.chat("What is the time?").await?;
        ensure!(reply.status == 200, "{}: {}", reply.status, reply.text());
        let said = reply.json()?["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
        ensure!(!said.trim().is_empty(), "an empty answer: {}", reply.text());
        let (own, passed_on) = (served(&pod).await?, served(&hosted).await?);
        // What the server's pod passed on is among what the engine had.
        ensure!(passed_on > 0.0 && own > passed_on, "{own} and {passed_on}");
        Ok(())
    })
    .await?;

    stack.arm(&pod, &json!({"mode": "F1"})).await?;
    let healed = |status: &SpeechStackStatus| {
        last(status, "words").is_some_and(|record| record.outcome == Outcome::Recovered)
            && deployed::is_true(status, "Ready")
    };
    let status = stack.until("repaired", REPAIR, healed).await?;
    let now = stack.pod(deployed::name(&pod)).await?.context("the pod was replaced")?;
    ensure!(restarts(&now, "engine") == 1, "restarted {} times", restarts(&now, "engine"));
    let now = stack.pod(deployed::name(&hosted)).await?.context("the server's pod was replaced")?;
    ensure!(
        restarts(&now, "guard") == 0 && last(&status, "hosted").is_none(),
        "what runs elsewhere was repaired"
    );
    ensure!(gateway.chat("What is the time?").await?.status == 200, "no answer after the repair");
    let log = fixture.space.log(deployed::name(&hosted), "guard", false).await?;
    ensure!(!log.contains("sk-planted"), "the key is in the log");
    Ok(())
}
