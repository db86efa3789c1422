//! A SpeechStack on a cluster, as its users and its operators' keepers see it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use speechstack_crds::{SpeechStack, SpeechStackStatus};
use tokio::time::{Instant, sleep};

use crate::client::Client;

const LOOK: Duration = Duration::from_millis(100);
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
const MANAGER: &str = "e2e";

/// One stack in one namespace.
#[derive(Clone)]
pub struct Deployed {
    /// The stack's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    client: kube::Client,
}

impl Deployed {
    /// Applies a stack of that spec.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply(client: &kube::Client, namespace: &str, name: &str, spec: &Value) -> Result<Self> {
        let stack = Self { name: name.into(), namespace: namespace.into(), client: client.clone() };
        stack.change(spec).await?;
        Ok(stack)
    }

    /// Applies another spec.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn change(&self, spec: &Value) -> Result<()> {
        let object = json!({
            "apiVersion": "speechstack.dev/v1alpha1", "kind": "SpeechStack",
            "metadata": {"name": self.name}, "spec": spec,
        });
        self.stacks().patch(&self.name, &PatchParams::apply(MANAGER), &Patch::Apply(object)).await?;
        Ok(())
    }

    /// Sets one annotation.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn annotate(&self, key: &str, value: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.stacks().patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Deletes the stack.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn delete(&self) -> Result<()> {
        self.stacks().delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Its status now.
    ///
    /// # Errors
    /// When the stack is gone.
    pub async fn status(&self) -> Result<SpeechStackStatus> {
        Ok(self.stacks().get_status(&self.name).await?.status.unwrap_or_default())
    }

    /// Its resource version, which every write changes.
    ///
    /// # Errors
    /// When the stack is gone.
    pub async fn resource_version(&self) -> Result<String> {
        Ok(self.stacks().get(&self.name).await?.metadata.resource_version.unwrap_or_default())
    }

    /// Waits until its status fits, and returns it.
    ///
    /// # Errors
    /// When it does not in time; the message has the last status.
    pub async fn until(
        &self,
        what: &str,
        within: Duration,
        fits: impl Fn(&SpeechStackStatus) -> bool,
    ) -> Result<SpeechStackStatus> {
        let deadline = Instant::now() + within;
        loop {
            let status = self.status().await?;
            if fits(&status) {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!(
                    "{}: not {what} within {within:?}: {}",
                    self.name,
                    serde_json::to_string_pretty(&status)?
                );
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until the condition Ready is true.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn ready(&self, within: Duration) -> Result<SpeechStackStatus> {
        self.until("Ready", within, |status| is_true(status, "Ready")).await
    }

    /// The pods of one engine, or of the gateway.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn pods(&self, part: &str) -> Result<Vec<Pod>> {
        let stack = format!("speechstack.dev/stack={}", self.name);
        let labels = match part {
            "gateway" => format!("{stack},app.kubernetes.io/component=gateway"),
            engine => format!("{stack},speechstack.dev/engine={engine}"),
        };
        Ok(self.all_pods().list(&ListParams::default().labels(&labels)).await?.items)
    }

    /// A pod as it is now; `None` once it is gone.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn pod(&self, name: &str) -> Result<Option<Pod>> {
        Ok(self.all_pods().get_opt(name).await?)
    }

    /// A client of the public API, through the gateway's Service.
    ///
    /// # Errors
    /// When the Service has no address.
    pub async fn gateway(&self) -> Result<Client> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), &self.namespace);
        let service = services.get(&format!("{}-gateway", self.name)).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no address")?;
        Client::new(format!("http://{address}"), TEST_TIMEOUT)
    }

    /// Arms a fault in the reference engine of a pod.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn arm(&self, pod: &Pod, fault: &Value) -> Result<()> {
        let reply = port(pod, 9000)?.post("/_engine/fault", fault).await?;
        ensure!(reply.status < 300, "the engine refused {fault}: {} {}", reply.status, reply.text());
        Ok(())
    }

    /// Reasons of all Events about the stack, oldest first.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn events(&self) -> Result<Vec<String>> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let of_stack = format!("involvedObject.kind=SpeechStack,involvedObject.name={}", self.name);
        let found = events.list(&ListParams::default().fields(&of_stack)).await?;
        Ok(found.items.into_iter().filter_map(|event| event.reason).collect())
    }

    fn stacks(&self) -> Api<SpeechStack> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn all_pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// Whether a condition is true.
#[must_use]
pub fn is_true(status: &SpeechStackStatus, kind: &str) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// The reason of a condition.
#[must_use]
pub fn reason<'a>(status: &'a SpeechStackStatus, kind: &str) -> &'a str {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind);
    found.map_or("", |condition| condition.reason.as_str())
}

/// A client of one port of a pod.
///
/// # Errors
/// When the pod has no address.
pub fn port(pod: &Pod, port: u16) -> Result<Client> {
    let address =
        pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).context("the pod has no address")?;
    Client::new(format!("http://{address}:{port}"), TEST_TIMEOUT)
}

/// A pod's name.
#[must_use]
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// A pod's UID.
#[must_use]
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}
