//! Starts a cluster's parts inside its namespaces, in order, and says when all is ready.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::try_join;

use super::layout::Layout;
use super::node::{A, B, Node};
use super::{BARE, Cluster, INSIDE, audit, control_plane, images, network, pki, storage};

/// GPUs of each node, enough for a few stacks at a time.
const GPUS: u32 = 8;

/// Starts the cluster, runs a command in it and returns how that ended; without a command it runs until it is killed.
///
/// # Errors
/// When the cluster does not start, or the command cannot be started.
pub async fn boot(layout: &Layout, bare: bool, command: &[OsString]) -> Result<ExitCode> {
    let began = Instant::now();
    let cluster = if bare { start_bare(layout).await? } else { start(layout, command.is_empty()).await? };
    eprintln!("cluster {} is ready after {:.1} s", layout.name(), began.elapsed().as_secs_f64());
    let volumes = layout.run().join("volumes");
    let volumes = (!bare).then(|| tokio::spawn(storage::provision(cluster.client.clone(), volumes)));
    std::fs::write(layout.run().join("ready"), "")?;
    let Some((program, arguments)) = command.split_first() else {
        return std::future::pending().await;
    };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).env(INSIDE, layout.name());
    command.env("KUBECONFIG", layout.kubeconfig("admin")).env("PATH", layout.search_path());
    if bare {
        command.env(BARE, "true");
    }
    let status = command.status().await.with_context(|| format!("unable to run {}", program.display()))?;
    if let Some(volumes) = volumes {
        volumes.abort();
    }
    eprintln!("cluster {} ran for {:.0} s", layout.name(), began.elapsed().as_secs_f64());
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Only etcd and the API server.
async fn start_bare(layout: &Layout) -> Result<Cluster> {
    pki::create(layout, &[A.subject()]).context("unable to make keys and certificates")?;
    network::wire_alone()?;
    audit::write_policy(layout)?;
    control_plane::start_api(
        layout,
        &[&audit::flags(layout)[..], &control_plane::without_controllers()].concat(),
    )?;
    let cluster = Cluster::of(layout.clone())?;
    control_plane::api_ready(layout, &cluster.client).await?;
    Ok(cluster)
}

/// The whole of it. Tests do without the image of neural models, which is large.
async fn start(layout: &Layout, with_models: bool) -> Result<Cluster> {
    pki::create(layout, &[A.subject(), B.subject()]).context("unable to make keys and certificates")?;
    let cluster = Cluster::of(layout.clone())?;
    cluster.a.hold().await.context("unable to make node a")?;
    let holder = cluster.b.hold().await.context("unable to make node b")?;
    network::wire(holder)?;
    network::use_cluster_dns(layout)?;
    control_plane::start_api(layout, &[])?;
    let mut archives = images::built(layout)?;
    archives.extend(images::built_models(layout).filter(|_| with_models));
    for node in cluster.nodes() {
        node.start_containerd()?;
    }
    // Importing keeps a core busy for seconds, which the control plane spends waiting for itself.
    try_join!(agents(layout, &cluster), load(&cluster.a, &archives), load(&cluster.b, &archives),)?;
    Ok(cluster)
}

/// Brings the API server up, then everything that talks to it.
async fn agents(layout: &Layout, cluster: &Cluster) -> Result<()> {
    control_plane::api_ready(layout, &cluster.client).await?;
    control_plane::start_controllers(layout)?;
    for node in cluster.nodes() {
        node.containerd_ready().await?;
        node.start_kubelet()?;
        node.start_proxy()?;
    }
    storage::create_class(&cluster.client).await?;
    for node in cluster.nodes() {
        node.await_ready(true).await?;
        node.set_gpus(GPUS).await.with_context(|| format!("unable to give {} its GPUs", node.name))?;
    }
    control_plane::dns_ready(layout).await
}

async fn load(node: &Node, archives: &[PathBuf]) -> Result<()> {
    node.containerd_ready().await?;
    for archive in archives {
        node.load(archive).await.with_context(|| format!("unable to load {}", archive.display()))?;
    }
    Ok(())
}
