//! The operator as a process beside the cluster, with the account and the rights that the chart gives it.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use rustix::process::{Pid, Signal};
use serde_json::json;
use speechstack_e2e::cluster::audit::NAMESPACE;
use speechstack_e2e::cluster::network::API_SERVER;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::cluster::{Cluster, pki};
use speechstack_e2e::{binaries, processes};
use tokio::process::{Child, Command};

/// The chart's name of the operator's account, in a release of this name.
const ACCOUNT: &str = "speechstack-operator";
const POD: &str = "thrift";
const RELEASE: &str = "speechstack";
const ADMIN: &str = "127.0.0.1:8080";
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A running operator; it ends with this value.
pub struct Operator {
    child: Child,
    pid: Pid,
    http: reqwest::Client,
}

/// What a process holds, MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// All of it.
    pub resident: f64,
    /// Without what is mapped from files, which is mostly its program.
    pub anonymous: f64,
}

/// Gives the cluster the CRD, and the operator its account and rights.
pub async fn install(cluster: &Cluster) -> Result<()> {
    make_namespace(cluster, NAMESPACE).await?;
    let root = binaries::repository();
    let crds = root.join("crds/speechstacks.yaml").display().to_string();
    cluster.kubectl(&["apply", "--server-side", "-f", &crds]).await?;
    let chart = root.join("charts/speechstack").display().to_string();
    let parts = ["--show-only", "templates/rbac.yaml", "--show-only", "templates/serviceaccount.yaml"];
    let template = [&["template", RELEASE, &chart, "--namespace", NAMESPACE], &parts[..]].concat();
    let rights = cluster.tool("helm", &template).await?;
    cluster.kubectl_with_input(&["apply", "-f", "-"], &rights).await?;
    cluster.kubectl(&["wait", "--for=condition=established", "crd/speechstacks.speechstack.dev"]).await?;
    Ok(())
}

/// Makes a namespace, if it is not there.
pub async fn make_namespace(cluster: &Cluster, name: &str) -> Result<()> {
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    namespaces.patch(name, &PatchParams::apply("e2e"), &Patch::Apply(object)).await?;
    Ok(())
}

/// The operator's pod, to which its tokens for guards are bound.
async fn make_pod(cluster: &Cluster) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD},
        "spec": {"serviceAccountName": ACCOUNT, "containers": [{"name": "operator", "image": "speechstack/operator:dev"}]},
    });
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), NAMESPACE);
    pods.patch(POD, &PatchParams::apply("e2e"), &Patch::Apply(pod)).await?;
    Ok(())
}

impl Operator {
    /// Starts it and waits until it leads and has listed everything.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let folder = cluster.layout().run();
        let token = cluster
            .kubectl(&["--namespace", NAMESPACE, "create", "token", ACCOUNT, "--duration", "2h"])
            .await
            .context("unable to get a token for the operator")?;
        let kubeconfig = folder.join("operator.kubeconfig");
        pki::write_json(
            &kubeconfig,
            &json!({
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {
                    "server": format!("https://{API_SERVER}:6443"),
                    "certificate-authority": cluster.layout().pki("ca.crt"),
                }}],
                "users": [{"name": ACCOUNT, "user": {"token": token.trim()}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": ACCOUNT}}],
                "current-context": "c",
            }),
        )?;
        make_pod(cluster).await?;
        let log =
            File::options().create(true).append(true).open(cluster.layout().logs().join("operator.log"))?;
        let mut command = Command::new(binaries::find("speechstack-operator")?);
        command.args(["run", "--admin", ADMIN, "--pod-name", POD, "--pod-namespace", NAMESPACE]);
        command.args(["--proxy-image", "speechstack/proxy:dev", "--engine-image", "speechstack/engine:dev"]);
        command.args(["--service-account", ACCOUNT]);
        command.env("KUBECONFIG", &kubeconfig).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.kill_on_drop(true).spawn().context("unable to start the operator")?;
        let pid =
            child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("the operator has ended")?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
        let mut operator = Self { child, pid, http };
        await_condition("the operator is ready", TEST_TIMEOUT, async || {
            ensure!(operator.child.try_wait()?.is_none(), "it has ended: see operator.log");
            operator.get("/readyz").await
        })
        .await?;
        Ok(operator)
    }

    /// Ends it as the kubelet does, so that it gives its lease back.
    pub async fn stop(mut self) -> Result<()> {
        processes::signal(self.pid, Signal::TERM);
        let status = tokio::time::timeout(TEST_TIMEOUT, self.child.wait())
            .await
            .context("the operator does not end")??;
        ensure!(status.success(), "the operator ended with {status}");
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<String> {
        let reply = self.http.get(format!("http://{ADMIN}{path}")).send().await?;
        Ok(reply.error_for_status()?.text().await?)
    }

    /// Its metrics: values by name and labels, as they are exported.
    pub async fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        let text = self.get("/metrics").await?;
        let lines =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        Ok(lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// Waits until at least so many guards are followed.
    pub async fn await_streams(&self, count: usize) -> Result<()> {
        await_condition(&format!("{count} guards are followed"), TEST_TIMEOUT * 3, async || {
            let metrics = self.metrics().await?;
            let open = metrics.get("speechstack_guard_streams{state=\"open\"}").copied().unwrap_or_default();
            ensure!(open as usize >= count, "it follows {open}");
            Ok(())
        })
        .await
    }

    /// What it holds now.
    pub fn memory(&self) -> Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero()))?;
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib: Option<f64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
            kib.map(|kib| kib / 1024.0).with_context(|| format!("the kernel does not tell {name}"))
        };
        Ok(Memory { resident: of("VmRSS:")?, anonymous: of("RssAnon:")? })
    }
}
