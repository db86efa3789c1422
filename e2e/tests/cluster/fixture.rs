//! A namespace with an operator of its own, as `helm install` makes it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use speechstack_e2e::binaries;
use speechstack_e2e::cluster::Cluster;
use speechstack_e2e::cluster::scenario::Namespace;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed::Deployed;

use serde_json::Value;

/// Ceiling for the operator to run, image present.
const OPERATOR: &str = "180s";
/// The chart's release in each test's namespace.
pub const RELEASE: &str = "op";

/// A namespace with an operator of its own, so that tests can kill it.
#[derive(Clone)]
pub struct Fixture {
    /// The namespace.
    pub space: Namespace,
}

/// Runs a test on fresh fixture.
///
/// # Errors
/// The test's own, or when the operator cannot be installed.
pub async fn on_fixture(
    cluster: Cluster,
    name: &str,
    test: impl AsyncFnOnce(&Fixture) -> Result<()>,
) -> Result<()> {
    cluster
        .with_namespace(name, async |space| {
            let fixture = Fixture { space };
            fixture.install(&chart()).await.context("unable to install the operator")?;
            test(&fixture).await
        })
        .await
}

/// Path of this tree's chart.
#[must_use]
pub fn chart() -> String {
    binaries::repository().join("charts/speechstack").display().to_string()
}

/// Path of the chart that landed last, from which upgrades are tested.
#[must_use]
pub fn landed_chart() -> String {
    binaries::repository().join("charts/tests/speechstack-landed.tgz").display().to_string()
}

impl Fixture {
    /// Installs a chart as the release of the namespace, with the images of this tree.
    ///
    /// # Errors
    /// When helm fails.
    pub async fn install(&self, chart: &str) -> Result<()> {
        let root = binaries::repository();
        let crds = root.join("crds/speechstacks.yaml").display().to_string();
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", &crds];
        self.space.cluster.kubectl(&apply).await?;
        let values = format!(
            "watchNamespace={},crds.install=false,replicas=1,rbac.nodeEscalation=true,image.tag=dev,proxyImage.tag=dev,\
             engineImage.tag=dev,resources.requests.cpu=10m,resources.requests.memory=16Mi",
            self.space.name
        );
        self.helm(&["install", RELEASE, chart, "--set", &values, "--wait", "--timeout", OPERATOR]).await?;
        Ok(())
    }

    /// Runs helm in the namespace.
    ///
    /// # Errors
    /// When it fails; the message has its words.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.space.cluster.tool("helm", &[arguments, &["--namespace", &self.space.name]].concat()).await
    }

    /// Applies a stack named `speech`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn stack(&self, spec: &Value) -> Result<Deployed> {
        Deployed::apply(&self.space.cluster.client, &self.space.name, "speech", spec).await
    }

    /// Sets the number of operator pods, and waits until they are as many.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn scale_operator(&self, replicas: usize) -> Result<()> {
        let deployment = format!("deployment/{RELEASE}-speechstack-operator");
        self.space.kubectl(&["scale", &deployment, &format!("--replicas={replicas}")]).await?;
        let patience = Duration::from_secs(120);
        await_condition(&format!("{replicas} operators run"), patience, async || {
            let pods = self.operators().await?;
            ensure!(pods.len() == replicas, "{} operators", pods.len());
            Ok(())
        })
        .await
    }

    /// The operator's pods.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn operators(&self) -> Result<Vec<Pod>> {
        self.space.pods("app.kubernetes.io/component=operator").await
    }

    /// Kills every operator pod at once, without a chance to tidy up.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn kill_operators(&self) -> Result<()> {
        for pod in self.operators().await? {
            let name = pod.name_any();
            self.space.kubectl(&["delete", "pod", &name, "--grace-period=0", "--force"]).await?;
        }
        Ok(())
    }
}
