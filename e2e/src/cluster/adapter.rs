//! A metrics adapter: serves `custom.metrics.k8s.io` to the API server by the rules for prometheus-adapter that the chart ships.
//!
//! It stands for Prometheus too: what a series has is scraped from the pods at the moment of a request.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::network::API_SERVER;
use super::scenario::{Namespace, is_ready};
use super::wait::await_condition;
use crate::{binaries, deployed};

const GROUP: &str = "custom.metrics.k8s.io";
const VERSION: &str = "v1beta2";
/// The port that a stack's PodMonitor selects.
const ADMIN: &str = "admin";
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
/// What the rules ask Prometheus: the sum of a series for each pod.
const SUM: &str = "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)";

/// The adapter, until it is stopped.
#[derive(Debug)]
pub struct Adapter {
    serving: JoinHandle<()>,
}

impl Adapter {
    /// Serves, and has the API server know of it.
    ///
    /// # Errors
    /// When the rules are of another form than expected, or the API server does not reach it in time.
    pub async fn start(space: &Namespace) -> Result<Self> {
        let series = Arc::new(rules()?);
        let listener = TcpListener::bind((API_SERVER, 0)).await?;
        let port = listener.local_addr()?.port();
        let acceptor = acceptor()?;
        let client = space.cluster.client.clone();
        let serving = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (acceptor, client, series) = (acceptor.clone(), client.clone(), Arc::clone(&series));
                tokio::spawn(async move {
                    let Ok(connection) = acceptor.accept(connection).await else { return };
                    let service = service_fn(|request| answer(client.clone(), Arc::clone(&series), request));
                    let server = hyper::server::conn::http1::Builder::new();
                    // The API server ends connections as it likes.
                    let _ = server.serve_connection(TokioIo::new(connection), service).await;
                });
            }
        });
        let adapter = Self { serving };
        if let Err(error) = announce(space, port).await {
            adapter.stop(space).await?;
            return Err(error);
        }
        Ok(adapter)
    }

    /// Takes the group back: one that is not served any more would hold up the deletion of every namespace.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn stop(self, space: &Namespace) -> Result<()> {
        let name = format!("{VERSION}.{GROUP}");
        space.kubectl(&["delete", "apiservice", &name, "--ignore-not-found"]).await?;
        self.serving.abort();
        Ok(())
    }
}

/// Has the API server pass requests of the group on, and waits until it does.
async fn announce(space: &Namespace, port: u16) -> Result<()> {
    space.apply(&objects(&space.name, port)).await?;
    await_condition("the API server serves the metrics", TEST_TIMEOUT, async || {
        space.kubectl(&["get", "--raw", &format!("/apis/{GROUP}/{VERSION}")]).await.map(drop)
    })
    .await
}

/// A Service without pods leads to this process, which shares node a's network.
fn objects(namespace: &str, port: u16) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: adapter}}
spec: {{ports: [{{name: https, port: 443}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: adapter, labels: {{kubernetes.io/service-name: adapter}}}}
addressType: IPv4
ports: [{{name: https, port: {port}}}]
endpoints: [{{addresses: ['{API_SERVER}'], conditions: {{ready: true}}}}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: {VERSION}.{GROUP}}}
spec:
  group: {GROUP}
  version: {VERSION}
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {{name: adapter, namespace: {namespace}, port: 443}}
"
    )
}

fn acceptor() -> Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed(vec!["adapter".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let chain = vec![made.cert.der().clone()];
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The names of the chart's metrics, each that of its series.
fn rules() -> Result<Vec<String>> {
    let file = binaries::repository().join("charts/speechstack/extras/prometheus-adapter.yaml");
    let text =
        std::fs::read_to_string(&file).with_context(|| format!("unable to read {}", file.display()))?;
    let rules: Value = serde_saphyr::from_str(&text)?;
    let rules = rules["rules"]["custom"].as_array().context("no rules.custom")?;
    let mut series = Vec::new();
    for rule in rules {
        let overrides = json!({"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}});
        let known = rule["resources"]["overrides"] == overrides
            && rule["name"] == json!({"matches": "^(.*)$", "as": "$1"})
            && rule["metricsQuery"] == SUM;
        ensure!(known, "a rule of another form: {rule}");
        let query = rule["seriesQuery"].as_str().context("no seriesQuery")?;
        let (name, labels) = query.split_once('{').context("a seriesQuery without labels")?;
        ensure!(labels == r#"namespace!="",pod!=""}"#, "{query}");
        series.push(name.to_owned());
    }
    Ok(series)
}

async fn answer(
    client: kube::Client,
    series: Arc<Vec<String>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let failure = |code: StatusCode, message: &str| {
        let status = "Failure";
        let body = json!({"kind": "Status", "apiVersion": "v1", "status": status, "code": code.as_u16(), "message": message});
        (code, body)
    };
    let (status, body) = match reply(&client, &series, request.uri()).await {
        Ok(Some(body)) => (StatusCode::OK, body),
        Ok(None) => failure(StatusCode::NOT_FOUND, "not found"),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}")),
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// What is at a path, if anything is.
async fn reply(client: &kube::Client, series: &[String], uri: &Uri) -> Result<Option<Value>> {
    let path: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let version = format!("{GROUP}/{VERSION}");
    match path.as_slice() {
        ["apis", GROUP, VERSION] => {
            let resource = |name: &String| json!({"name": format!("pods/{name}"), "singularName": "", "namespaced": true, "kind": "MetricValueList", "verbs": ["get"]});
            let resources: Vec<_> = series.iter().map(resource).collect();
            Ok(Some(
                json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}),
            ))
        }
        ["apis", GROUP, VERSION, "namespaces", namespace, "pods", "*" | "%2A", metric]
            if series.iter().any(|name| name.as_str() == *metric) =>
        {
            let selector = reqwest::Url::parse(&format!("http://adapter{uri}"))?
                .query_pairs()
                .find_map(|(key, value)| (key == "labelSelector").then(|| value.into_owned()));
            let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
            let selected = ListParams::default().labels(&selector.unwrap_or_default());
            let mut items = Vec::new();
            for pod in pods.list(&selected).await?.items.iter().filter(|pod| is_ready(pod)) {
                let value = scrape(pod, metric).await?;
                items.push(json!({
                    "describedObject": {"kind": "Pod", "apiVersion": "/v1", "namespace": namespace, "name": pod.name_any()},
                    "metric": {"name": metric},
                    "timestamp": jiff::Timestamp::now().to_string(),
                    "value": format!("{}m", (value * 1000.0).round()),
                }));
            }
            Ok(Some(
                json!({"kind": "MetricValueList", "apiVersion": version, "metadata": {}, "items": items}),
            ))
        }
        _ => Ok(None),
    }
}

/// The sum of a series of a pod.
async fn scrape(pod: &Pod, series: &str) -> Result<f64> {
    let port = admin(pod).with_context(|| format!("{} has no port {ADMIN}", pod.name_any()))?;
    let metrics = deployed::port(pod, port)?.get("/metrics").await?.text();
    let of_series = |line: &&str| {
        line.strip_prefix(series).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    };
    let lines: Vec<&str> = metrics.lines().filter(of_series).collect();
    if lines.is_empty() {
        bail!("{} exports no {series}", pod.name_any());
    }
    Ok(lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

fn admin(pod: &Pod) -> Option<u16> {
    let spec = pod.spec.as_ref()?;
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .find(|port| port.name.as_deref() == Some(ADMIN))
        .and_then(|port| port.container_port.try_into().ok())
}
