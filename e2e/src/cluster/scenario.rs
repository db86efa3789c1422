//! One test's place in the cluster: a namespace that ends with it, and what the test does there.

use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::FutureExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1;
use kube::api::{Api, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{from_value, json};

use super::wait::await_condition;
use super::{Cluster, dump};
use crate::client::Client;

/// No test takes longer; one that hangs is distinguished from one that is slow.
const CEILING: Duration = Duration::from_secs(900);
/// How long pods and objects of a test may take to go.
const GONE: Duration = Duration::from_secs(180);
/// How often the controller of namespaces is made to look at one that is to go: while a pod is still there, it would look again
/// after half of the pod's grace period, which is minutes for a gateway.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Names the variable that keeps the namespaces of failed tests, for a look around.
pub const KEEP: &str = "SPEECHSTACK_KEEP_FAILED";

/// A test's namespace.
#[derive(Clone)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// The cluster it is in.
    pub cluster: Cluster,
}

impl Cluster {
    /// Runs a test in a namespace of its own and removes that afterwards. When the test fails, panics or takes longer
    /// than 15 minutes, everything in the namespace is dumped to `target/cluster/dumps/` first.
    ///
    /// # Errors
    /// The test's own, or when the namespace cannot be made, or does not go within 3 minutes.
    pub async fn with_namespace<T>(
        &self,
        name: &str,
        test: impl AsyncFnOnce(Namespace) -> Result<T>,
    ) -> Result<T> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique =
            format!("{name}-{}-{}", std::process::id() % 10_000, NEXT.fetch_add(1, Ordering::Relaxed));
        let namespaces = Api::<v1::Namespace>::all(self.client.clone());
        let object = from_value(json!({"metadata": {"name": unique, "labels": {"speechstack-e2e": name}}}))?;
        namespaces.create(&PostParams::default(), &object).await.context("unable to make a namespace")?;
        let namespace = Namespace { name: unique.clone(), cluster: self.clone() };
        namespace.await_account().await?;

        let ran =
            tokio::time::timeout(CEILING, AssertUnwindSafe(test(namespace.clone())).catch_unwind()).await;
        let result = match ran {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                Err(anyhow!("panicked: {text}"))
            }
            Err(_) => Err(anyhow!("the test did not end within {CEILING:?}")),
        };
        if let Err(error) = &result {
            eprintln!("--- {unique}: {error:#} ---\n{}", dump::namespace(&namespace).await);
            if std::env::var_os(KEEP).is_some() {
                eprintln!("--- {unique} is kept ---");
                return result;
            }
        }
        // The next test need not wait until all of this one is gone.
        self.turn.end();
        let gone = namespace.delete().await;
        if gone.is_err() && result.is_ok() {
            eprintln!("--- {unique} stays ---\n{}", dump::namespace(&namespace).await);
        }
        let value = result?;
        gone.map(|()| value)
    }
}

impl Namespace {
    /// The objects of one kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client.clone(), &self.name)
    }

    /// Runs `kubectl` in this namespace and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the message has its words.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let arguments = [&["--namespace", &self.name], arguments].concat();
        self.cluster.kubectl(&arguments).await
    }

    /// Applies YAML documents, as `kubectl apply -f -` does, and returns what was said.
    ///
    /// # Errors
    /// When one is refused; the message has the API server's words.
    pub async fn apply(&self, yaml: &str) -> Result<String> {
        let arguments = ["--namespace", &self.name, "apply", "-f", "-"];
        self.cluster.kubectl_with_input(&arguments, yaml).await
    }

    /// An object of this namespace.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn get<K>(&self, name: &str) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        self.api().get(name).await.with_context(|| format!("unable to read {name}"))
    }

    /// The pods with these labels that are not being deleted, sorted by name.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn pods(&self, labels: &str) -> Result<Vec<v1::Pod>> {
        let mut pods = self.api::<v1::Pod>().list(&ListParams::default().labels(labels)).await?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods.sort_by_key(ResourceExt::name_any);
        Ok(pods)
    }

    /// Waits until exactly `count` pods have these labels and all are ready, and returns them.
    ///
    /// # Errors
    /// When that takes longer than `timeout`.
    pub async fn await_ready(&self, labels: &str, count: usize, timeout: Duration) -> Result<Vec<v1::Pod>> {
        await_condition(&format!("{count} pods {labels} are ready"), timeout, async || {
            let pods = self.pods(labels).await?;
            let waiting: Vec<_> =
                pods.iter().filter(|pod| !is_ready(pod)).map(ResourceExt::name_any).collect();
            ensure!(pods.len() == count && waiting.is_empty(), "{} pods, not ready: {waiting:?}", pods.len());
            Ok(pods)
        })
        .await
    }

    /// What a container has printed, or with `previous` what its last life had.
    ///
    /// # Errors
    /// When there is no such container or log.
    pub async fn log(&self, pod: &str, container: &str, previous: bool) -> Result<String> {
        let parameters =
            LogParams { container: Some(container.to_owned()), previous, ..LogParams::default() };
        let log = self.api::<v1::Pod>().logs(pod, &parameters).await;
        log.with_context(|| format!("no log of {pod}/{container}"))
    }

    /// Runs a command in a container and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub async fn exec(&self, pod: &str, container: &str, command: &[&str]) -> Result<String> {
        let arguments = [&["exec", pod, "--container", container, "--"], command].concat();
        self.kubectl(&arguments).await
    }

    /// A client of a service of this namespace, by its DNS name.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn service(&self, name: &str, port: u16) -> Result<Client> {
        let host = format!("{name}.{}.svc.cluster.local", self.name);
        Client::new(format!("http://{host}:{port}"), Duration::from_secs(90))
    }

    /// A client of one pod, by its address.
    ///
    /// # Errors
    /// When the pod has no address yet.
    pub async fn pod(&self, name: &str, port: u16) -> Result<Client> {
        let pod: v1::Pod = self.get(name).await?;
        let address = pod.status.and_then(|status| status.pod_ip);
        let address = address.with_context(|| format!("{name} has no address"))?;
        Client::new(format!("http://{address}:{port}"), Duration::from_secs(90))
    }

    /// The events about one object, oldest first, as `reason: message`.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn events(&self, name: &str) -> Result<Vec<String>> {
        let of = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let mut events = self.api::<v1::Event>().list(&of).await?.items;
        events.sort_by_key(|event| event.metadata.creation_timestamp.clone());
        let told = |event: &v1::Event| {
            let (reason, message) = (event.reason.as_deref(), event.message.as_deref());
            format!("{}: {}", reason.unwrap_or_default(), message.unwrap_or_default())
        };
        Ok(events.iter().map(told).collect())
    }

    /// A new namespace refuses pods until its service account is there.
    async fn await_account(&self) -> Result<()> {
        await_condition("the namespace has its account", Duration::from_secs(60), async || {
            self.get::<v1::ServiceAccount>("default").await.map(|_| ())
        })
        .await
    }

    async fn delete(&self) -> Result<()> {
        let namespaces = Api::<v1::Namespace>::all(self.cluster.client.clone());
        namespaces.delete(&self.name, &DeleteParams::background()).await?;
        // The controller of namespaces looks at one some seconds after each change; its pods, of which no other can be made any more,
        // are ended meanwhile.
        self.api::<v1::Pod>().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        let (began, mut looked) = (Instant::now(), Instant::now());
        await_condition(&format!("namespace {} is gone", self.name), GONE, async || {
            match namespaces.get_opt(&self.name).await? {
                None => Ok(()),
                Some(left) => {
                    if looked.elapsed() >= LOOK_AGAIN {
                        looked = Instant::now();
                        let seconds = began.elapsed().as_secs().to_string();
                        let change =
                            json!({"metadata": {"annotations": {"speechstack-e2e-waited": seconds}}});
                        namespaces.patch(&self.name, &PatchParams::default(), &Patch::Merge(change)).await?;
                    }
                    let conditions = left.status.and_then(|status| status.conditions).unwrap_or_default();
                    let said: Vec<_> =
                        conditions.into_iter().filter_map(|condition| condition.message).collect();
                    bail!("it stays: {said:?}")
                }
            }
        })
        .await
    }
}

/// Whether a pod says that it is ready.
pub fn is_ready(pod: &v1::Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// How often a container of a pod was restarted in place; 0 also when there is no such container.
pub fn restarts(pod: &v1::Pod, container: &str) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.filter(|one| one.name == container).map(|one| one.restart_count).sum()
}
