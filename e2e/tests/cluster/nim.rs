//! README's GPU stack, with the reference engine in the clothes of NVIDIA's containers: HTTP and gRPC, their ports, a slow start.

use std::time::Duration;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Api;
use serde_json::{Value, json};
use speechstack_crds::{Outcome, SpeechStackStatus};
use speechstack_e2e::client::{Client, say};
use speechstack_e2e::cluster::scenario::restarts;
use speechstack_e2e::deployed::{self, Deployed};
use speechstack_e2e::words::word_error;

use super::fixture::Fixture;
use super::healing::{REPAIR, START, last, small, total};

const SENTENCE: &str = "She told me that the train was late again.";
const TRANSCRIBE: &str = "/v1/audio/transcriptions";

/// README's GPU stack with its GPUs and caches; only images, arguments and requests are those of this cluster.
fn spec() -> Value {
    let engine = |name: &str, preset: &str, kind: &str, protocols: &str, replicas: usize| {
        json!({
            "name": name, "preset": preset, "replicas": replicas, "resources": small(),
            "image": {"repository": "speechstack/engine", "tag": "dev"},
            "args": [
                "--kind", kind, "--protocol", protocols, "--faults",
                "--listen", "0.0.0.0:9000", "--grpc", "0.0.0.0:50051",
            ],
        })
    };
    json!({
        "stt": [engine("parakeet", "parakeet-tdt-0.6b-v3", "stt", "nim_http,riva", 2)],
        "tts": [engine("magpie", "magpie-multilingual", "tts", "magpie,riva_tts", 1)],
        "deepProbe": {"interval": "3s", "contentInterval": "5s", "timeoutMin": "2s", "timeoutMax": "5s"},
        "repair": {"containerRestarts": {"burst": 10, "refill": "1m", "backoff": "1s"}},
        "gateway": {"replicas": 1},
    })
}

/// In a namespace that enforces the restricted Pod Security Standard, with a GPU for each pod and a claim for each replica,
/// every call of README works, and an engine that wedges over gRPC is restarted in place.
pub async fn the_gpu_stack_serves_every_call_and_heals(fixture: &Fixture) -> Result<()> {
    let namespace =
        ["label", "namespace", &fixture.space.name, "pod-security.kubernetes.io/enforce=restricted"];
    fixture.space.cluster.kubectl(&namespace).await?;
    let stack = fixture.stack(&spec()).await?;
    stack.ready(START).await?;
    let gateway = stack.gateway().await?.patient(Duration::from_secs(60))?;
    calls(&gateway).await?;
    own_claims(fixture, &stack).await?;

    let status = stack.ready(REPAIR).await?;
    let repairs = total(&status);
    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    let before = restarts(&pod, "engine");
    stack.arm(&pod, &json!({"mode": "F1"})).await?;
    // Only gRPC has word times: that is where the wedge shows, and the other engine serves.
    for _ in 0..6 {
        ensure!(words(&gateway).await? >= 6, "too few words");
    }
    let healed = |status: &SpeechStackStatus| {
        total(status) > repairs
            && last(status, "parakeet").is_some_and(|record| record.outcome == Outcome::Recovered)
            && deployed::is_true(status, "Ready")
    };
    stack.until("repaired", REPAIR, healed).await?;
    let now = stack.pod(deployed::name(&pod)).await?.context("the pod was replaced")?;
    ensure!(restarts(&now, "engine") == before + 1, "restarted {} times", restarts(&now, "engine") - before);
    Ok(())
}

/// Each replica has a claim and a GPU of its own.
async fn own_claims(fixture: &Fixture, stack: &Deployed) -> Result<()> {
    let pods = stack.pods("parakeet").await?;
    let spec = |pod: &Pod| pod.spec.clone().unwrap_or_default();
    let claims: BTreeSet<String> = pods
        .iter()
        .flat_map(|pod| spec(pod).volumes.unwrap_or_default())
        .filter_map(|volume| Some(volume.persistent_volume_claim?.claim_name))
        .collect();
    ensure!(pods.len() == 2 && claims.len() == 2, "{} pods have the claims {claims:?}", pods.len());
    let gpus = pods.iter().all(|pod| {
        let limits = spec(pod).containers[0].resources.clone().and_then(|resources| resources.limits);
        limits.is_some_and(|limits| limits.contains_key("nvidia.com/gpu"))
    });
    ensure!(gpus, "an engine has no GPU");
    let kept: Api<PersistentVolumeClaim> =
        Api::namespaced(fixture.space.cluster.client.clone(), &fixture.space.name);
    for claim in claims {
        ensure!(kept.get_opt(&claim).await?.is_some(), "there is no claim {claim}");
    }
    Ok(())
}

async fn words(gateway: &Client) -> Result<usize> {
    let fields = [("response_format", "verbose_json"), ("timestamp_granularities[]", "word")];
    let reply = gateway.upload(TRANSCRIBE, "clip.wav", say(&[("rms", SENTENCE)])?, &fields).await?;
    ensure!(reply.status == 200, "words: {} {}", reply.status, reply.text());
    Ok(reply.json()?["words"].as_array().map(Vec::len).unwrap_or_default())
}

async fn calls(gateway: &Client) -> Result<()> {
    for format in ["wav", "flac", "opus", "mp3"] {
        let speech = gateway.speak("alloy", SENTENCE, format).await?;
        ensure!(speech.status == 200, "speak {format}: {} {}", speech.status, speech.text());
        let name = format!("speech.{format}");
        let heard = gateway.transcribe(&name, speech.body, "text").await?;
        ensure!(heard.status == 200, "hear {format}: {} {}", heard.status, heard.text());
        let error = word_error(SENTENCE, &heard.text());
        ensure!(error <= 0.5, "{format}: word error {error:.2}, heard {:?}", heard.text());
    }
    let clip = say(&[("rms", SENTENCE)])?;
    for (format, start) in
        [("json", "{"), ("verbose_json", "{"), ("srt", "1\n00:00:0"), ("vtt", "WEBVTT\n\n")]
    {
        let reply = gateway.transcribe("clip.wav", clip.clone(), format).await?;
        ensure!(reply.status == 200, "{format}: {} {}", reply.status, reply.text());
        ensure!(reply.text().starts_with(start), "{format}: {}", reply.text());
    }
    ensure!(words(gateway).await? >= 6, "too few words");
    let dialogue = say(&[("slt", SENTENCE), ("rms", "I think it will cost a lot of money.")])?;
    let merged = gateway.transcribe_with_speakers("dialogue.wav", dialogue).await?;
    ensure!(merged.status == 200, "with speakers: {} {}", merged.status, merged.text());
    Ok(())
}
