//! The cluster itself: what the other tests take for granted.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use speechstack_e2e::client::say;
use speechstack_e2e::cluster::node::GPU_MEMORY;
use speechstack_e2e::cluster::scenario::Namespace;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::cluster::{Cluster, images};
use speechstack_e2e::words::word_error;

const SENTENCE: &str = "She told me that the train was late again.";
const TEST_TIMEOUT: Duration = Duration::from_secs(180);

/// A deployment of pods that ask for a GPU each and do nothing.
fn sleepers(replicas: u32) -> String {
    let image = images::PAUSE;
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: sleepers}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: sleepers}}}}
  template:
    metadata: {{labels: {{app: sleepers}}}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
        - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {{matchLabels: {{app: sleepers}}}}}}
      containers:
        - name: pause
          image: {image}
          resources: {{limits: {{nvidia.com/gpu: 1}}}}
"
    )
}

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

pub async fn both_are_ready_and_have_gpus(cluster: Cluster) -> Result<()> {
    for node in cluster.nodes() {
        node.await_ready(true).await?;
        ensure!(node.gpus().await? > 0, "{} has no GPU", node.name);
        let labels = node.get().await?.labels().clone();
        ensure!(labels.contains_key(GPU_MEMORY), "{} does not tell its GPUs' memory: {labels:?}", node.name);
    }
    let version = cluster.kubectl(&["version", "--output=json"]).await?;
    ensure!(version.matches("v1.34").count() >= 2, "unexpected versions: {version}");
    Ok(())
}

pub async fn an_engine_transcribes_by_its_dns_name(cluster: Cluster) -> Result<()> {
    cluster.with_namespace("engine", async |space| transcribe_by_name(&space).await).await
}

async fn transcribe_by_name(space: &Namespace) -> Result<()> {
    let image = images::ENGINE;
    // Two replicas of which each node has one, so that an answer has crossed the network.
    space
        .apply(&format!(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: parakeet}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: parakeet}}}}
  template:
    metadata: {{labels: {{app: parakeet}}}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - {{topologyKey: kubernetes.io/hostname, labelSelector: {{matchLabels: {{app: parakeet}}}}}}
      securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
        - name: engine
          image: {image}
          args: [--kind, stt, --listen, '0.0.0.0:9000']
          ports: [{{name: http, containerPort: 9000}}]
          readinessProbe: {{httpGet: {{path: /v1/health/ready, port: http}}, periodSeconds: 1, timeoutSeconds: 5}}
---
apiVersion: v1
kind: Service
metadata: {{name: parakeet}}
spec:
  selector: {{app: parakeet}}
  ports: [{{name: http, port: 80, targetPort: http}}]
"
        ))
        .await?;
    let pods = space.await_ready("app=parakeet", 2, TEST_TIMEOUT).await?;
    ensure!(node_of(&pods[0]) != node_of(&pods[1]), "both pods are on {}", node_of(&pods[0]));

    let speech = say(&[("rms", SENTENCE)])?;
    let service = space.service("parakeet", 80)?;
    await_condition("the service answers", TEST_TIMEOUT, async || {
        service.get("/v1/health/ready").await?;
        Ok(())
    })
    .await?;
    let mut clients = vec![service];
    for pod in &pods {
        clients.push(space.pod(&pod.name_any(), 9000).await?);
    }
    for client in clients {
        let fields = [("language", "en-US")];
        let reply =
            client.upload("/v1/audio/transcriptions", "speech.wav", speech.clone(), &fields).await?.json()?;
        let heard = reply["text"].as_str().unwrap_or_default();
        ensure!(word_error(SENTENCE, heard) <= 0.2, "heard {reply}");
    }
    let log = space.log(&pods[0].name_any(), "engine", false).await?;
    ensure!(!log.is_empty(), "the engine says nothing");
    let whoami = space.exec(&pods[0].name_any(), "engine", &["id", "-u"]).await?;
    ensure!(whoami.trim() == "1000", "the engine runs as {whoami}");
    Ok(())
}

pub async fn gpus_spread_pods_over_both_until_full(cluster: Cluster) -> Result<()> {
    cluster.with_namespace("gpus", async |space| spread(&space).await).await
}

async fn spread(space: &Namespace) -> Result<()> {
    space.apply(&sleepers(4)).await?;
    let pods = space.await_ready("app=sleepers", 4, TEST_TIMEOUT).await?;
    for node in space.cluster.nodes() {
        let here = pods.iter().filter(|pod| node_of(pod) == node.name).count();
        ensure!(here > 0, "{} has none of the 4 pods", node.name);
    }
    space.kubectl(&["scale", "deployment/sleepers", "--replicas=40"]).await?;
    await_condition("the scheduler tells that no GPU is left", TEST_TIMEOUT, async || {
        for pod in space.pods("app=sleepers").await? {
            let events = space.events(&pod.name_any()).await?;
            if events.iter().any(|event| event.contains("Insufficient nvidia.com/gpu")) {
                return Ok(());
            }
        }
        bail!("no pod reports so")
    })
    .await?;
    space.kubectl(&["scale", "deployment/sleepers", "--replicas=1"]).await?;
    Ok(())
}

pub async fn a_claim_is_one_folder_for_both_nodes(cluster: Cluster) -> Result<()> {
    cluster.with_namespace("claim", async |space| share_a_claim(&space).await).await
}

async fn share_a_claim(space: &Namespace) -> Result<()> {
    let image = images::ENGINE;
    let mut yaml = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: cache}
spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}
"
    .to_owned();
    for (node, command) in [
        ("node-a", "echo hello > /cache/file && sleep 1000"),
        ("node-b", "until test -s /cache/file; do sleep 0.1; done; cat /cache/file; sleep 1000"),
    ] {
        yaml += &format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: on-{node}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
    - {{name: main, image: '{image}', command: [sh, -c, '{command}'], volumeMounts: [{{name: cache, mountPath: /cache}}]}}
  volumes: [{{name: cache, persistentVolumeClaim: {{claimName: cache}}}}]
"
        );
    }
    space.apply(&yaml).await?;
    await_condition("node b reads what node a wrote", TEST_TIMEOUT, async || {
        let log = space.log("on-node-b", "main", false).await?;
        ensure!(log == "hello\n", "it reads {log:?}");
        Ok(())
    })
    .await
}

pub async fn a_failed_test_is_dumped(cluster: Cluster) -> Result<()> {
    let mut name = String::new();
    let failed = cluster
        .with_namespace("failing", async |space| {
            name.clone_from(&space.name);
            space.apply(&sleepers(1)).await?;
            space.await_ready("app=sleepers", 1, TEST_TIMEOUT).await?;
            bail!("meant to fail") as Result<()>
        })
        .await;
    let error = format!("{:#}", failed.err().context("the failure is lost")?);
    ensure!(error == "meant to fail", "another error: {error}");
    let folder = cluster.layout().dumps().join(&name);
    let pods = std::fs::read_to_string(folder.join("pods.txt"))?;
    ensure!(pods.contains("sleepers"), "the dump has no pods: {pods}");
    std::fs::remove_dir_all(folder)?;
    let left = cluster.kubectl(&["get", "namespace", &name]).await;
    ensure!(left.is_err(), "the namespace stays: {left:?}");
    Ok(())
}

pub async fn a_node_comes_back(cluster: Cluster) -> Result<()> {
    let gpus = cluster.b.gpus().await?;
    cluster.b.stop().await?;
    cluster.b.await_ready(false).await?;
    cluster.b.start().await?;
    ensure!(cluster.b.gpus().await? == gpus, "the node has lost its GPUs");
    let check = async |space: Namespace| {
        space.apply(&sleepers(2)).await?;
        let pods = space.await_ready("app=sleepers", 2, TEST_TIMEOUT).await?;
        ensure!(
            pods.iter().any(|pod| node_of(pod) == cluster.b.name),
            "no pod is on the node that came back"
        );
        Ok(())
    };
    cluster.with_namespace("back", check).await
}
