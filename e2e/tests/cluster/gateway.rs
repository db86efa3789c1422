//! The gateway itself: HTTPS with certificates that are renewed, and jobs that outlive its pod.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use speechstack_e2e::client::say;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed::{self, Deployed};

use super::fixture::Fixture;
use super::healing::{START, small};

/// Ceiling for the kubelet to show a changed Secret to a pod.
const RENEWAL: Duration = Duration::from_secs(240);
/// Ceiling for a job of some seconds, and for a new gateway pod.
const JOB: Duration = Duration::from_secs(180);
const SENTENCE: &str = "She told me that the train was late again.";

fn spec() -> Value {
    json!({
        "stt": [{"name": "parakeet", "preset": "reference", "resources": small()}],
        "gateway": {
            "tls": {"secretName": "speech-tls"},
            "storage": {"pvc": {"size": "1Gi"}},
            "limits": {"longestJob": "20s"},
        },
    })
}

/// A new pair for the gateway's name in the Secret, and a client that trusts nothing else.
async fn renew(fixture: &Fixture) -> Result<reqwest::Client> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([host(fixture)])?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "speech-tls"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": cert.pem(), "tls.key": signing_key.serialize_pem()},
    });
    fixture.space.apply(&secret.to_string()).await?;
    let trusted = reqwest::Certificate::from_der(cert.der())?;
    Ok(reqwest::Client::builder().no_proxy().timeout(JOB).tls_certs_only([trusted]).build()?)
}

fn host(fixture: &Fixture) -> String {
    format!("speech-gateway.{}.svc.cluster.local", fixture.space.name)
}

/// Clients speak HTTPS beside HTTP, a renewed certificate is served without a restart, and a job goes on in the next pod.
pub async fn https_is_renewed_and_jobs_outlive_the_pod(fixture: &Fixture) -> Result<()> {
    let first = renew(fixture).await?;
    let stack = fixture.stack(&spec()).await?;
    stack.ready(START).await?;
    let base = format!("https://{}", host(fixture));
    let models = |client: &reqwest::Client| client.get(format!("{base}/v1/models")).send();
    ensure!(models(&first).await?.status() == 200, "HTTPS does not serve");
    ensure!(stack.gateway().await?.get("/v1/models").await?.status == 200, "plain HTTP does not serve");

    let job = begin(&first, &base).await?;
    let pod = gateway(&stack).await?;
    fixture.space.kubectl(&["delete", "pod", &pod, "--wait=false"]).await?;
    await_condition("another pod keeps the job", JOB, async || {
        let now = gateway(&stack).await?;
        ensure!(now != pod, "not yet");
        let reply = first.get(format!("{base}/v1/audio/jobs/{job}")).send().await?;
        ensure!(reply.status() == 200, "{}", reply.status());
        let told: Value = serde_json::from_str(&reply.text().await?)?;
        ensure!(told["status"] == "succeeded", "{told}");
        Ok(())
    })
    .await?;

    let pod = gateway(&stack).await?;
    let second = renew(fixture).await?;
    await_condition("the new certificate is served", RENEWAL, async || {
        ensure!(models(&second).await?.status() == 200, "no");
        Ok(())
    })
    .await?;
    ensure!(models(&first).await.is_err(), "the old certificate is still served");
    ensure!(gateway(&stack).await? == pod, "the pod was replaced");

    stack.delete().await?;
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(fixture.space.cluster.client.clone(), &fixture.space.name);
    await_condition("the gateway is gone", JOB, async || {
        ensure!(stack.pods("gateway").await?.is_empty(), "not yet");
        Ok(())
    })
    .await?;
    ensure!(claims.get_opt("speech-gateway-storage").await?.is_some(), "the jobs went with the stack");
    Ok(())
}

/// Begins a job, and gives its id.
async fn begin(client: &reqwest::Client, base: &str) -> Result<String> {
    let file = reqwest::multipart::Part::bytes(say(&[("rms", SENTENCE)])?.to_vec()).file_name("clip.wav");
    let form =
        reqwest::multipart::Form::new().text("model", "whisper-1").text("async", "true").part("file", file);
    let reply = client.post(format!("{base}/v1/audio/transcriptions")).multipart(form).send().await?;
    let (status, text) = (reply.status(), reply.text().await?);
    ensure!(status == 202, "{status}: {text}");
    let told: Value = serde_json::from_str(&text)?;
    told["id"].as_str().map(str::to_owned).with_context(|| format!("no id in {text}"))
}

/// The name of the one gateway pod that is not ending.
async fn gateway(stack: &Deployed) -> Result<String> {
    let pods = stack.pods("gateway").await?;
    let mut alive = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    match (alive.next(), alive.next()) {
        (Some(pod), None) => Ok(deployed::name(pod).to_owned()),
        (None, _) => bail!("there is no gateway pod"),
        (Some(_), Some(_)) => bail!("there are two gateway pods"),
    }
}
