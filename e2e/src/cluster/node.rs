//! A node: containerd, kubelet and kube-proxy in mount (and network) namespaces of their own.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use rustix::process::{Pid, Signal};
use serde_json::json;

use super::daemon::Daemon;
use super::layout::Layout;
use super::wait::await_condition;
use crate::processes;

pub(crate) mod configuration;

/// How long a node may take to start or to be missed.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);
/// The resource by which GPUs are counted.
pub const GPU: &str = "nvidia.com/gpu";
/// The label with a GPU's memory in MiB.
pub const GPU_MEMORY: &str = "nvidia.com/gpu.memory";

/// What distinguishes a node from the other.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The node's name.
    pub name: &'static str,
    /// Its address.
    pub address: Ipv4Addr,
    /// The range of its pods' addresses.
    pub pods: &'static str,
}

/// The node that shares the network namespace of the control plane and of the tests.
pub const A: Identity =
    Identity { name: "node-a", address: Ipv4Addr::new(172, 30, 0, 1), pods: "10.244.1.0/24" };
/// The other node.
pub const B: Identity =
    Identity { name: "node-b", address: Ipv4Addr::new(172, 30, 0, 12), pods: "10.244.2.0/24" };

/// A node of a cluster.
#[derive(Clone)]
pub struct Node {
    /// The node's name.
    pub name: &'static str,
    identity: Identity,
    layout: Layout,
    client: Client,
}

impl Node {
    pub(crate) fn new(layout: &Layout, identity: &Identity, client: Client) -> Self {
        Self { name: identity.name, identity: *identity, layout: layout.clone(), client }
    }

    /// Stops kubelet and containerd; the containers stay, as on a node whose agents died.
    ///
    /// # Errors
    /// When one does not go.
    pub async fn stop(&self) -> Result<()> {
        self.daemon("kubelet").stop().await?;
        self.daemon("containerd").stop().await
    }

    /// Stops every pod and the node's agents where they are, as on a machine that hangs, or has them go on.
    ///
    /// # Errors
    /// When its control group cannot be frozen.
    pub fn stall(&self, stalled: bool) -> Result<()> {
        for part in ["kubelet", "containerd", "kube-proxy"] {
            let pid = self.daemon(part).pid().with_context(|| format!("{part} does not run"))?;
            processes::signal(pid, if stalled { Signal::STOP } else { Signal::CONT });
        }
        let (file, state) = configuration::freezer(&self.control_group(), stalled);
        std::fs::write(&file, state).with_context(|| format!("unable to write {}", file.display()))
    }

    /// Starts containerd and kubelet again and waits until the node is ready, with the GPUs it had.
    ///
    /// # Errors
    /// When the node is not ready in time.
    pub async fn start(&self) -> Result<()> {
        let gpus = self.gpus().await?;
        self.start_containerd()?;
        self.containerd_ready().await?;
        self.start_kubelet()?;
        self.await_ready(true).await?;
        // A kubelet that finds no device plugin may have taken them away.
        self.set_gpus(gpus).await
    }

    /// Waits until the node is ready, or until it is missed.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn await_ready(&self, ready: bool) -> Result<()> {
        let what = format!("{} is {}", self.name, if ready { "ready" } else { "missed" });
        await_condition(&what, TEST_TIMEOUT, async || {
            if ready {
                self.daemon("containerd").ensure_running()?;
                self.daemon("kubelet").ensure_running()?;
            }
            let node = self.get().await?;
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            let condition = conditions.iter().find(|condition| condition.type_ == "Ready");
            let status = condition.map_or("absent", |condition| condition.status.as_str());
            let tainted = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
            let tainted = tainted.iter().any(|taint| taint.key.starts_with("node.kubernetes.io/"));
            let said = condition.and_then(|condition| condition.message.as_deref()).unwrap_or_default();
            let fits = if ready { status == "True" && !tainted } else { status != "True" };
            ensure!(fits, "Ready is {status}, tainted: {tainted}, {said}");
            Ok(())
        })
        .await
    }

    /// The node's object.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn get(&self) -> Result<v1::Node> {
        Ok(self.api().get(self.name).await?)
    }

    /// Sets a label, or takes it away.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn label(&self, key: &str, value: Option<&str>) -> Result<()> {
        let patch = json!({"metadata": {"labels": {key: value}}});
        self.api().patch(self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// How many GPUs the node says it has.
    ///
    /// # Errors
    /// When its object cannot be read.
    pub async fn gpus(&self) -> Result<u32> {
        let capacity = self.get().await?.status.and_then(|status| status.capacity).unwrap_or_default();
        let count = capacity.get(GPU).map_or("0", |quantity| quantity.0.as_str());
        count.parse().with_context(|| format!("{} has {count} GPUs", self.name))
    }

    /// Says how many GPUs the node has; scheduler and kubelet count them as if a device plugin had said so.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn set_gpus(&self, count: u32) -> Result<()> {
        let count = count.to_string();
        let patch = json!({"status": {"capacity": {GPU: count}, "allocatable": {GPU: count}}});
        self.api().patch_status(self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// The names of the pods of all namespaces on this node.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn pods(&self) -> Result<Vec<String>> {
        let on_this = kube::api::ListParams::default().fields(&format!("spec.nodeName={}", self.name));
        let pods = Api::<v1::Pod>::all(self.client.clone()).list(&on_this).await?;
        Ok(pods
            .items
            .iter()
            .map(|pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()))
            .collect())
    }

    /// Runs a program of this machine in the node's namespaces and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be run or fails.
    pub async fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::new("nsenter");
        command.args(self.namespaces()?).arg(program).args(arguments);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {program} {arguments:?}: {told}", self.name);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes the node's namespaces and returns the process that holds them.
    pub(crate) async fn hold(&self) -> Result<Pid> {
        let folder = self.folder();
        for part in ["lib/kubelet", "lib/containerd", "lib/cni", "log/pods", "cni", "tunables"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        let pause = self.layout.binary("pause")?;
        let mut arguments = vec!["--mount", "--propagation=private"];
        if self.identity.address != A.address {
            arguments.push("--net");
        }
        let program = pause.display().to_string();
        arguments.push(&program);
        let pid = self.daemon("holder").start(Path::new("unshare"), &arguments)?;
        let link = format!("/proc/{}/exe", pid.as_raw_nonzero());
        await_condition("the node's namespaces exist", Duration::from_secs(10), async || {
            ensure!(std::fs::read_link(&link)? == std::fs::canonicalize(&pause)?, "not unshared yet");
            Ok(())
        })
        .await?;
        self.run("sh", &["-ec", &configuration::mounts(&folder)?]).await?;
        configuration::make_control_groups(&self.control_group())?;
        Ok(pid)
    }

    /// Starts containerd.
    pub(crate) fn start_containerd(&self) -> Result<()> {
        let folder = self.folder();
        let file = folder.join("containerd.toml");
        std::fs::write(&file, configuration::containerd(&folder))?;
        super::pki::write_json(
            &folder.join("cni/10-pods.conflist"),
            &super::network::cni(self.identity.pods),
        )?;
        self.start_inside("containerd", Path::new("containerd"), &[format!("--config={}", file.display())])
    }

    /// Waits until containerd answers.
    pub(crate) async fn containerd_ready(&self) -> Result<()> {
        await_condition(&format!("containerd of {} answers", self.name), TEST_TIMEOUT, async || {
            self.daemon("containerd").ensure_running()?;
            self.run("ctr", &["--connect-timeout=1s", "version"]).await.map(|_| ())
        })
        .await
    }

    /// Starts the kubelet.
    pub(crate) fn start_kubelet(&self) -> Result<()> {
        let file = self.folder().join("kubelet.json");
        super::pki::write_json(
            &file,
            &configuration::kubelet(&self.layout, &self.identity, &self.control_group()),
        )?;
        let arguments = [
            format!("--config={}", file.display()),
            format!("--kubeconfig={}", self.layout.kubeconfig(self.name).display()),
            format!("--hostname-override={}", self.name),
            format!("--node-ip={}", self.identity.address),
            format!("--node-labels={GPU_MEMORY}=24576,nvidia.com/gpu.product=NVIDIA-L4"),
        ];
        self.start_inside("kubelet", &self.layout.binary("kubelet")?, &arguments)
    }

    /// Starts kube-proxy.
    pub(crate) fn start_proxy(&self) -> Result<()> {
        let file = self.folder().join("kube-proxy.json");
        super::pki::write_json(&file, &configuration::proxy(&self.layout, &self.identity))?;
        let arguments = [format!("--config={}", file.display())];
        self.start_inside("kube-proxy", &self.layout.binary("kube-proxy")?, &arguments)
    }

    /// Loads an image archive.
    pub(crate) async fn load(&self, archive: &Path) -> Result<()> {
        let archive = archive.display().to_string();
        self.run("ctr", &["--namespace=k8s.io", "images", "import", &archive]).await?;
        Ok(())
    }

    fn start_inside(&self, part: &str, program: &Path, arguments: &[String]) -> Result<()> {
        let mut command = self.namespaces()?;
        command.push(program.display().to_string());
        command.extend_from_slice(arguments);
        self.daemon(part).start(Path::new("nsenter"), &command).map(|_| ())
    }

    /// The words that make `nsenter` enter the node.
    fn namespaces(&self) -> Result<Vec<String>> {
        let holder = self.daemon("holder").pid().context("the node's namespaces are gone")?;
        // Not by `ip netns`: that mounts /sys anew, and the control groups are gone.
        let namespaces = ["mount=/proc/#/ns/mnt", "net=/proc/#/ns/net"];
        let holder = holder.as_raw_nonzero().to_string();
        Ok(namespaces.iter().map(|space| format!("--{}", space.replace('#', &holder))).collect())
    }

    fn daemon(&self, part: &str) -> Daemon {
        Daemon::new(&self.layout, &format!("{}-{part}", self.name))
    }

    fn folder(&self) -> PathBuf {
        self.layout.node(self.name)
    }

    fn control_group(&self) -> String {
        format!("{}-{}", self.layout.unique(), self.name)
    }

    fn api(&self) -> Api<v1::Node> {
        Api::all(self.client.clone())
    }
}

impl Identity {
    /// Name and address, for certificates.
    pub fn subject(&self) -> (&'static str, IpAddr) {
        (self.name, self.address.into())
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Node").field("name", &self.name).finish_non_exhaustive()
    }
}
