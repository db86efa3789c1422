//! etcd, API server, controller manager, scheduler and DNS.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::daemon::Daemon;
use super::layout::Layout;
use super::network::{API_SERVER, PODS, SERVICES};
use super::wait::await_condition;

/// How long a component may take to start beside builds.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);
const ETCD: &str = "http://127.0.0.1:2379";

/// Starts etcd and, with these flags beside the usual ones, the API server.
///
/// # Errors
/// When one cannot be started.
pub fn start_api(layout: &Layout, flags: &[String]) -> Result<()> {
    let pki = |file: &str| layout.pki(file).display().to_string();
    start(
        layout,
        "etcd",
        &[
            format!("--data-dir={}", layout.run().join("etcd").display()),
            format!("--listen-client-urls={ETCD}"),
            format!("--advertise-client-urls={ETCD}"),
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ],
    )?;
    let mut arguments = vec![
        format!("--etcd-servers={ETCD}"),
        format!("--advertise-address={API_SERVER}"),
        "--secure-port=6443".to_owned(),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("apiserver-kubelet.crt")),
        format!("--kubelet-client-key={}", pki("apiserver-kubelet.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        // The controllers' own servers look for it; what tests aggregate does not ask who calls.
        format!("--requestheader-client-ca-file={}", pki("ca.crt")),
        "--requestheader-allowed-names=front-proxy".to_owned(),
    ];
    arguments.extend_from_slice(flags);
    start(layout, "kube-apiserver", &arguments)
}

/// Flags of an API server beside which no controllers run.
pub fn without_controllers() -> [String; 1] {
    // Nothing makes the account that it would look for.
    ["--disable-admission-plugins=ServiceAccount".to_owned()]
}

/// Waits until the API server is ready.
///
/// # Errors
/// When it ends or is not ready in time.
pub async fn api_ready(layout: &Layout, client: &Client) -> Result<()> {
    await_condition("the API server is ready", TEST_TIMEOUT, async || {
        Daemon::new(layout, "etcd").ensure_running()?;
        Daemon::new(layout, "kube-apiserver").ensure_running()?;
        let request = http::Request::get("/readyz").body(Vec::new())?;
        client.request_text(request).await?;
        Ok(())
    })
    .await
}

/// Starts what needs the API server to be there.
///
/// # Errors
/// When one cannot be started.
pub fn start_controllers(layout: &Layout) -> Result<()> {
    let pki = |file: &str| layout.pki(file).display().to_string();
    let kubeconfig = |user: &str| layout.kubeconfig(user).display().to_string();
    let own = |user: &str| {
        ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
            .map(|flag| format!("--{flag}={}", kubeconfig(user)))
    };
    let mut arguments = own("kube-controller-manager").to_vec();
    arguments.extend([
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials".to_owned(),
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        format!("--cluster-cidr={PODS}"),
        "--allocate-node-cidrs=false".to_owned(),
        // The default is 15 s.
        "--horizontal-pod-autoscaler-sync-period=3s".to_owned(),
        // Defaults are 50 s and 5 s.
        "--node-monitor-grace-period=20s".to_owned(),
        "--node-monitor-period=2s".to_owned(),
    ]);
    start(layout, "kube-controller-manager", &arguments)?;

    let mut arguments = own("kube-scheduler").to_vec();
    arguments.push("--leader-elect=false".to_owned());
    start(layout, "kube-scheduler", &arguments)?;

    let corefile = layout.run().join("Corefile");
    std::fs::write(
        &corefile,
        format!(
            "cluster.local in-addr.arpa:53 {{
    bind {API_SERVER}
    errors
    cache 2
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {}
        pods insecure
        ttl 2
    }}
}}
",
            kubeconfig("admin")
        ),
    )?;
    start(layout, "coredns", &["-conf".to_owned(), corefile.display().to_string()])
}

/// Waits until DNS answers.
///
/// # Errors
/// When it ends or is not ready in time.
pub async fn dns_ready(layout: &Layout) -> Result<()> {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build()?;
    await_condition("DNS is ready", TEST_TIMEOUT, async || {
        Daemon::new(layout, "coredns").ensure_running()?;
        http.get("http://127.0.0.1:8181/ready").send().await?.error_for_status()?;
        Ok(())
    })
    .await
}

/// A client with the administrator's rights.
///
/// # Errors
/// When the administrator's configuration is missing or wrong.
pub fn admin_client(layout: &Layout) -> Result<Client> {
    // Both providers may be compiled in through dependencies; the first choice stays.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(layout.kubeconfig("admin"))?;
    let options = KubeConfigOptions::default();
    let loaded = futures::executor::block_on(Config::from_custom_kubeconfig(kubeconfig, &options));
    let mut config = loaded.context("unable to read the administrator's configuration")?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

fn start(layout: &Layout, component: &str, arguments: &[String]) -> Result<()> {
    Daemon::new(layout, component).start(&layout.binary(component)?, arguments).map(|_| ())
}
