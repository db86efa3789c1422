//! Configuration of a node's parts, and what they see of the machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Identity;
use crate::cluster::images;
use crate::cluster::layout::Layout;
use crate::cluster::network::{API_SERVER, PODS};

/// Values under `/proc/sys` that a kubelet insists on: the nodes see them, the machine keeps its own.
const TUNABLES: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// A shell script that gives a node folders of its own where its parts expect them.
pub fn mounts(folder: &Path) -> Result<String> {
    let shown = folder.display();
    let mut script = format!(
        "mount --make-rshared /
        mount -t tmpfs -o mode=755 tmpfs /run
        mkdir /run/lock
        mount --bind '{shown}/lib' /var/lib
        mount --bind '{shown}/log' /var/log\n"
    );
    for (tunable, value) in TUNABLES {
        let file = folder.join("tunables").join(tunable.replace('/', "."));
        std::fs::write(&file, format!("{value}\n"))?;
        script += &format!("mount --bind '{}' /proc/sys/{tunable}\n", file.display());
    }
    Ok(script)
}

/// Makes the node's control group in every hierarchy.
pub fn make_control_groups(name: &str) -> Result<()> {
    let unified = Path::new(CONTROL_GROUPS);
    if unified.join("cgroup.controllers").exists() {
        // Best effort: where a supervisor owns the root group it has switched them on already.
        let _ = std::fs::write(unified.join("cgroup.subtree_control"), "+cpu +cpuset +memory +pids");
        return std::fs::create_dir_all(unified.join(name)).context("unable to make a control group");
    }
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        std::fs::create_dir_all(&group).with_context(|| format!("unable to make {}", group.display()))?;
        // A cpuset takes no process before it is set what it may use.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = std::fs::read(hierarchy.join(file)) {
                std::fs::write(group.join(file), value)?;
            }
        }
    }
    Ok(())
}

/// The file by which a control group is frozen with all in it, and what to write there.
pub fn freezer(name: &str, frozen: bool) -> (PathBuf, &'static str) {
    let unified = Path::new(CONTROL_GROUPS);
    if unified.join("cgroup.controllers").exists() {
        return (unified.join(name).join("cgroup.freeze"), if frozen { "1" } else { "0" });
    }
    let file = unified.join("freezer").join(name).join("freezer.state");
    (file, if frozen { "FROZEN" } else { "THAWED" })
}

/// The roots of the control groups.
pub fn hierarchies() -> Vec<PathBuf> {
    if Path::new(CONTROL_GROUPS).join("cgroup.controllers").exists() {
        return vec![PathBuf::from(CONTROL_GROUPS)];
    }
    let entries = std::fs::read_dir(CONTROL_GROUPS).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// containerd's configuration.
pub fn containerd(folder: &Path) -> String {
    // Without CAP_SYS_RESOURCE runc may not lower a score, and dies with a message about something else.
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#,
        pause = images::PAUSE,
        cni = folder.join("cni").display(),
    )
}

/// The kubelet's configuration.
pub fn kubelet(layout: &Layout, identity: &Identity, control_group: &str) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": identity.address,
        "authentication": {"x509": {"clientCAFile": layout.pki("ca.crt")}},
        "tlsCertFile": layout.pki(&format!("{}.crt", identity.name)),
        "tlsPrivateKeyFile": layout.pki(&format!("{}.key", identity.name)),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{control_group}"),
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "clusterDNS": [API_SERVER],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "healthzPort": 0,
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 20,
        "oomScoreAdj": 0,
        "volumePluginDir": "/var/lib/kubelet/plugins",
    })
}

/// kube-proxy's configuration.
pub fn proxy(layout: &Layout, identity: &Identity) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": layout.kubeconfig("kube-proxy")},
        "clusterCIDR": PODS,
        "hostnameOverride": identity.name,
        "mode": "iptables",
        "iptables": {"minSyncPeriod": "100ms"},
        // The machine's connection table is not ours to size.
        "conntrack": {"maxPerCore": 0},
        "oomScoreAdj": 0,
    })
}
