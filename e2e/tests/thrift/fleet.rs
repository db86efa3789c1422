//! Stacks and their pods, played without controllers and kubelets: everything is made through the API.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use speechstack_crds::SpeechStack;
use speechstack_e2e::cluster::Cluster;
use speechstack_e2e::cluster::wait::await_condition;

use super::operator::make_namespace;

/// Calls at the same time.
const CONCURRENCY: usize = 32;
const TEST_TIMEOUT: Duration = Duration::from_secs(600);
/// Between two looks at all stacks, which is work for the API server.
const LOOK: Duration = Duration::from_secs(1);
/// Engines of each stack.
pub const ENGINES: usize = 2;
const ENGINE: &str = "speechstack.dev/engine";
/// Hash of every pod template.
const TEMPLATE: &str = "5d9c7b6f4";
const NOW: &str = "2026-01-01T00:00:00Z";

/// Stacks in one namespace.
pub struct Fleet {
    cluster: Cluster,
    namespace: String,
    pods: AtomicU32,
}

impl Fleet {
    /// None yet.
    pub async fn new(cluster: &Cluster, namespace: &str) -> Result<Self> {
        make_namespace(cluster, namespace).await?;
        Ok(Self { cluster: cluster.clone(), namespace: namespace.to_owned(), pods: AtomicU32::new(0) })
    }

    /// The objects of one kind.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    /// Creates one stack.
    pub async fn create(&self, name: &str, replicas: usize) -> Result<()> {
        let spec = json!({
            "stt": [{"name": "parakeet", "preset": "reference", "replicas": replicas}],
            "tts": [{"name": "magpie", "preset": "reference", "replicas": replicas}],
        });
        let stack = SpeechStack::new(name, serde_json::from_value(spec)?);
        self.api().create(&PostParams::default(), &stack).await.context("unable to create a stack")?;
        Ok(())
    }

    /// Creates many.
    pub async fn create_many(&self, count: usize, replicas: usize) -> Result<()> {
        let all = futures::stream::iter(0..count).map(Ok);
        all.try_for_each_concurrent(CONCURRENCY, async |at| {
            self.create(&format!("stack-{at}"), replicas).await
        })
        .await
    }

    /// Waits until every stack has its Deployments and was told so.
    pub async fn await_observed(&self, count: usize) -> Result<()> {
        await_condition(&format!("{count} stacks have their objects"), TEST_TIMEOUT, async || {
            tokio::time::sleep(LOOK).await;
            let stacks = self.api::<SpeechStack>().list(&ListParams::default()).await?.items;
            let observed = |stack: &&SpeechStack| {
                let status = stack.status.as_ref();
                status.is_some_and(|status| status.observed_generation == stack.metadata.generation)
            };
            let done = stacks.iter().filter(observed).count();
            ensure!(done == count, "{done} of {} are observed", stacks.len());
            let deployments =
                self.api::<Deployment>().list_metadata(&ListParams::default()).await?.items.len();
            ensure!(deployments == count * (ENGINES + 1), "there are {deployments} Deployments");
            Ok(())
        })
        .await
    }

    /// Waits until every stack is ready.
    pub async fn await_ready(&self, count: usize) -> Result<()> {
        await_condition(&format!("{count} stacks are ready"), TEST_TIMEOUT, async || {
            tokio::time::sleep(LOOK).await;
            let stacks = self.api::<SpeechStack>().list(&ListParams::default()).await?.items;
            let is_ready = |stack: &&SpeechStack| {
                let conditions = stack.status.iter().flat_map(|status| &status.conditions);
                conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
            };
            let ready = stacks.iter().filter(is_ready).count();
            ensure!(ready == count, "{ready} are");
            Ok(())
        })
        .await
    }

    /// Gives every engine so many running pods in all, and every Deployment a status that says so.
    pub async fn populate(&self, replicas: usize) -> Result<()> {
        let deployments = self.api::<Deployment>().list(&ListParams::default()).await?.items;
        let all = deployments.iter().flat_map(|deployment| {
            let engine = labels(deployment).is_some_and(|labels| labels.get(ENGINE).is_some());
            (0..if engine { replicas } else { 0 }).map(move |at| (deployment, at))
        });
        let is_engine = |one: &&Deployment| labels(one).is_some_and(|labels| labels.contains_key(ENGINE));
        let sets: std::collections::HashMap<String, String> =
            futures::stream::iter(deployments.iter().filter(is_engine))
                .map(async |deployment| anyhow::Ok((deployment.name_any(), self.set(deployment).await?)))
                .buffer_unordered(CONCURRENCY)
                .try_collect()
                .await?;
        let existing = self.api::<Pod>().list_metadata(&ListParams::default()).await?.items;
        let existing: std::collections::HashSet<_> = existing.iter().map(ResourceExt::name_any).collect();
        let missing = all.filter(|(deployment, at)| !existing.contains(&pod_name(deployment, *at))).map(Ok);
        futures::stream::iter(missing)
            .try_for_each_concurrent(CONCURRENCY, async |(deployment, at)| {
                let set = sets.get(&deployment.name_any()).context("a Deployment without ReplicaSet")?;
                self.run(deployment, set, at).await
            })
            .await?;
        let status = json!({"status": {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas,
            "readyReplicas": replicas, "availableReplicas": replicas}});
        futures::stream::iter(&deployments)
            .map(Ok)
            .try_for_each_concurrent(CONCURRENCY, async |deployment: &Deployment| {
                let (name, status) = (deployment.name_any(), Patch::Merge(&status));
                self.api::<Deployment>().patch_status(&name, &PatchParams::default(), &status).await?;
                Ok(())
            })
            .await
    }

    /// The ReplicaSet of a Deployment, made as its controller does; its UID.
    async fn set(&self, deployment: &Deployment) -> Result<String> {
        let spec = deployment.spec.as_ref().context("a Deployment without spec")?;
        let name = format!("{}-{TEMPLATE}", deployment.name_any());
        let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment.name_any(),
            "uid": deployment.uid(), "controller": true});
        let set = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": name, "labels": spec.template.metadata.as_ref().and_then(|one| one.labels.clone()),
                "ownerReferences": [owner]},
            "spec": {"replicas": 0, "selector": spec.selector, "template": spec.template},
        });
        let sets = self.api::<ReplicaSet>();
        let made = sets.patch(&name, &PatchParams::apply("e2e"), &Patch::Apply(set)).await?;
        made.uid().context("a ReplicaSet without identity")
    }

    /// One pod, made as its controller does and run as its kubelet does.
    async fn run(&self, deployment: &Deployment, set: &str, at: usize) -> Result<()> {
        let template = &deployment.spec.as_ref().context("a Deployment without spec")?.template;
        let mut pod = json!({"metadata": template.metadata, "spec": template.spec});
        let name = pod_name(deployment, at);
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["labels"]["pod-template-hash"] = json!(TEMPLATE);
        pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "name": format!("{}-{TEMPLATE}", deployment.name_any()), "uid": set, "controller": true}]);
        pod["spec"]["nodeName"] = json!(format!("node-{at}"));
        let status = running(&pod["spec"], self.address());
        let pods = self.api::<Pod>();
        let created = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await;
        created.with_context(|| format!("unable to create {name}"))?;
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&json!({"status": status}))).await?;
        Ok(())
    }

    /// A loopback address that no other pod has.
    fn address(&self) -> Ipv4Addr {
        let [_, a, b, c] = (self.pods.fetch_add(1, Ordering::Relaxed) + 256).to_be_bytes();
        Ipv4Addr::new(127, 1 + a, b, c)
    }
}

fn labels(deployment: &Deployment) -> Option<&std::collections::BTreeMap<String, String>> {
    deployment.spec.as_ref()?.template.metadata.as_ref()?.labels.as_ref()
}

fn pod_name(deployment: &Deployment, at: usize) -> String {
    format!("{}-{TEMPLATE}-{at:05}", deployment.name_any())
}

/// The status of a pod of which all containers run.
fn running(spec: &Value, address: Ipv4Addr) -> Value {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": NOW});
    let container = |container: &Value| {
        json!({
            "name": container["name"], "image": container["image"], "ready": true, "started": true, "restartCount": 0,
            "imageID": format!("docker.io/speechstack/engine@sha256:{:064x}", 7),
            "containerID": format!("containerd://{:064x}", u32::from(address)),
            "state": {"running": {"startedAt": NOW}},
        })
    };
    let conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let conditions = conditions.map(condition);
    let all = |key: &str| -> Vec<_> { spec[key].as_array().into_iter().flatten().map(container).collect() };
    json!({
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "10.0.0.1", "startTime": NOW,
        "conditions": conditions,
        "initContainerStatuses": all("initContainers"), "containerStatuses": all("containers"),
    })
}
