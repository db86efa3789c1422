//! The cluster's network: one namespace for control plane, node a and tests, one for node b, a veth pair between them.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;

use super::layout::Layout;
use super::node::{A, B};

/// Where the API server and the cluster's DNS listen: node a's address.
pub const API_SERVER: &str = "172.30.0.1";
/// The range of service addresses.
pub const SERVICES: &str = "10.96.0.0/16";
/// The range of pod addresses, of both nodes.
pub const PODS: &str = "10.244.0.0/16";
/// The API server's service address.
pub const SERVICE_API: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1));

/// Wires this process's network namespace, node a's, to that of node b, which `holder` holds.
///
/// # Errors
/// When `ip` refuses something.
pub fn wire(holder: Pid) -> Result<()> {
    let holder = holder.as_raw_nonzero();
    // The components look for a default route to find their address, so there is one, to nowhere.
    ip(
        &["ip"],
        &format!(
            "link set lo up
            link add {b} type veth peer name eth0 netns {holder}
            address add {a_ip}/24 dev {b}
            link set {b} up
            route add {b_pods} via {b_ip}
            route add default dev lo",
            b = B.name,
            a_ip = A.address,
            b_ip = B.address,
            b_pods = B.pods,
        ),
    )?;
    let network = format!("--net=/proc/{holder}/ns/net");
    ip(
        &["nsenter", &network, "ip"],
        &format!(
            "link set lo up
            address add {b_ip}/24 dev eth0
            link set eth0 up
            route add default via {a_ip}",
            a_ip = A.address,
            b_ip = B.address,
        ),
    )?;
    let forward = "/proc/sys/net/ipv4/ip_forward";
    std::fs::write(forward, "1").context("unable to switch forwarding on")?;
    let status =
        Command::new("nsenter").args([&network, "sh", "-c", &format!("echo 1 > {forward}")]).status()?;
    ensure!(status.success(), "unable to switch forwarding on at node b");
    Ok(())
}

/// Gives this process's network namespace the API server's address, where there are no nodes.
///
/// # Errors
/// When `ip` refuses something.
pub fn wire_alone() -> Result<()> {
    ip(&["ip"], &format!("link set lo up\naddress add {API_SERVER}/32 dev lo\nroute add default dev lo"))
}

fn ip(command: &[&str], lines: &str) -> Result<()> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("unable to start ip")?;
    child.stdin.take().context("ip has no input")?.write_all(lines.as_bytes())?;
    ensure!(child.wait()?.success(), "ip refuses one of:\n{lines}");
    Ok(())
}

/// Lets programs of the control plane's namespaces resolve the cluster's names as a pod of the default namespace does.
///
/// # Errors
/// When the resolver's configuration cannot be mounted.
pub fn use_cluster_dns(layout: &Layout) -> Result<()> {
    let configuration = layout.run().join("resolv.conf");
    let search = "search default.svc.cluster.local svc.cluster.local cluster.local";
    std::fs::write(&configuration, format!("nameserver {API_SERVER}\n{search}\noptions ndots:5\n"))?;
    let usual = std::fs::canonicalize("/etc/resolv.conf").context("this machine has no /etc/resolv.conf")?;
    let status = Command::new("mount").arg("--bind").arg(&configuration).arg(&usual).status()?;
    ensure!(status.success(), "unable to mount {}", usual.display());
    Ok(())
}

/// The configuration of the CNI plugins for a node with these pod addresses.
///
/// Point to point instead of a bridge: every packet passes the node's routing, so services need no bridge netfilter.
pub fn cni(pods: &str) -> serde_json::Value {
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {"type": "ptp", "ipMasq": false, "ipam": {
                "type": "host-local", "ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": "/var/lib/cni/networks",
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}
