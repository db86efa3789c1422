use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use kube::client::Body as Asked;
use parking_lot::Mutex;
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use contract::Capability;

use crate::config::Hosted;
use crate::rng::Rng;
use crate::upstream::Metrics;
use crate::upstream::slices::*;

fn endpoint(pod: &str, address: &str, ready: bool, terminating: bool) -> Value {
    json!({
        "addresses": [address],
        "conditions": {"ready": ready, "serving": ready, "terminating": terminating},
        "targetRef": {"kind": "Pod", "name": pod, "namespace": "ns"},
    })
}

fn slice(name: &str, service: &str, version: u32, endpoints: &[Value]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": name, "namespace": "ns", "resourceVersion": version.to_string(),
            "labels": {SERVICE: service},
        },
        "ports": [{"name": "speech", "port": 9400}, {"name": "admin", "port": 9401}],
        "endpoints": endpoints,
    })
}

#[test]
fn addresses_of_ipv6_stand_in_brackets_and_names_are_left_out() {
    let mut six = slice("s-ears-v6", "s-ears", 1, &[endpoint("ears-0", "fd00::7", true, false)]);
    six["addressType"] = "IPv6".into();
    let mut named = slice("s-ears-fqdn", "s-ears", 1, &[endpoint("ears-1", "ears.example", true, false)]);
    named["addressType"] = "FQDN".into();
    let pools = pools(&["ears"]).pools;
    let targets = |slice| targets(&serde_json::from_value(slice).unwrap(), &pools);
    let [target] = &targets(six)[..] else { panic!() };
    assert_eq!((target.name.as_str(), target.url.as_str()), ("ears-0", "http://[fd00::7]:9400"));
    assert_eq!(target.guard.to_string(), "[fd00::7]:9400");
    assert_eq!(target.admin.to_string(), "[fd00::7]:9401");
    assert!(targets(named).is_empty());
}

/// An API server that lists what a test gives it, and then streams changes.
#[derive(Clone, Default)]
struct Server {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// `None` is an API server that is away.
    list: Option<Vec<Value>>,
    asked: VecDeque<String>,
    watch: Option<mpsc::UnboundedSender<Bytes>>,
}

impl Server {
    fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Asked>| {
            let response = server.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        kube::Client::new(service, "ns")
    }

    fn answer(&self, request: &Request<Asked>) -> Response<Body> {
        let mut state = self.state.lock();
        let uri = request.uri().to_string();
        let watches = uri.contains("watch=true") || uri.contains("watch=1");
        state.asked.push_back(uri);
        let Some(list) = state.list.clone() else {
            let mut response = Response::new(Body::from("{}"));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return response;
        };
        if !watches {
            let list = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList",
                "metadata": {"resourceVersion": "10"}, "items": list,
            });
            return Response::new(Body::from(list.to_string()));
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        state.watch = Some(sender);
        let lines = futures::stream::unfold(receiver, |mut receiver| async {
            let line: Bytes = receiver.recv().await?;
            Some((Ok::<_, Infallible>(line), receiver))
        });
        Response::new(Body::from_stream(lines))
    }

    fn event(&self, kind: &str, object: &Value) {
        let line = json!({"type": kind, "object": object}).to_string() + "\n";
        let sent = self.state.lock().watch.as_ref().map(|watch| watch.send(line.into()));
        assert!(sent.is_some_and(|sent| sent.is_ok()), "nobody watches");
    }
}

struct Stack {
    upstreams: Upstreams,
    config: Current,
    registry: Registry,
    server: Server,
    _follow: AbortOnDropHandle<()>,
}

fn pools(names: &[&str]) -> Discovery {
    let pool = |name: &&str| Pool {
        name: (*name).into(),
        capability: if name.starts_with("mouth") { Capability::Tts } else { Capability::Stt },
        service: format!("s-{name}"),
        protocols: Vec::new(),
        language: None,
        model: None,
        voice: None,
        standby: name.ends_with("spare"),
        sleeps: false,
        hosted: name.ends_with("cloud").then(Hosted::default),
    };
    Discovery { namespace: "ns".into(), pools: names.iter().map(pool).collect() }
}

impl Stack {
    fn start(list: Option<Vec<Value>>) -> Self {
        let mut config = Config::default();
        config.gateway.discovery = Some(pools(&["ears", "mouth"]));
        let config = Current::new(config);
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let upstreams = Upstreams::new(config.clone(), crate::net::Clients::new(), metrics, Rng::new(7));
        let server = Server::default();
        server.state.lock().list = list;
        let follow = tokio::spawn(follow(server.client(), config.clone(), upstreams.clone()));
        Self { upstreams, config, registry, server, _follow: AbortOnDropHandle::new(follow) }
    }

    /// Name, pool and whether it is about to go.
    fn known(&self) -> Vec<(String, String, bool)> {
        let endpoints = self.upstreams.endpoints();
        let mut known: Vec<_> = endpoints
            .iter()
            .map(|endpoint| {
                let (candidate, _) = endpoint.candidate(tokio::time::Instant::now());
                (endpoint.name.to_string(), endpoint.pool.to_string(), candidate.weight == 0.0)
            })
            .collect();
        known.sort();
        known
    }

    async fn becomes(&self, wanted: &[(&str, &str, bool)]) {
        let wanted: Vec<_> =
            wanted.iter().map(|(name, pool, gone)| (name.to_string(), pool.to_string(), *gone)).collect();
        for _ in 0..4_000 {
            if self.known() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{:?} never became {wanted:?}", self.known());
    }

    async fn watched(&self) {
        while self.server.state.lock().watch.is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Engines that the metrics name.
    fn series(&self) -> Vec<String> {
        let families = self.registry.gather();
        let states = families.iter().filter(|family| family.name().ends_with("endpoint_state"));
        let labels = states.flat_map(|family| family.get_metric()).flat_map(|metric| metric.get_label());
        let mut names: Vec<_> =
            labels.filter(|label| label.name() == "engine").map(|label| label.value().to_owned()).collect();
        names.sort();
        names.dedup();
        names
    }
}

#[tokio::test]
async fn engines_come_drain_and_go_with_their_slices() {
    let ready = endpoint("ears-0", "10.0.0.1", true, false);
    let not_ready = endpoint("ears-1", "10.0.0.2", false, false);
    let stack = Stack::start(Some(vec![
        slice("ears-x", "s-ears", 1, &[ready.clone(), not_ready.clone()]),
        slice("mouth-x", "s-mouth", 1, &[endpoint("mouth-0", "10.0.1.1", true, false)]),
    ]));
    stack.becomes(&[("ears-0", "ears", false), ("ears-1", "ears", false), ("mouth-0", "mouth", false)]).await;
    assert!(stack.upstreams.is_synced());
    let asked = stack.server.state.lock().asked.front().cloned().unwrap();
    assert!(asked.starts_with("/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices?"), "{asked}");
    assert!(asked.contains("service-name+in+%28s-ears%2Cs-mouth%29"), "{asked}");
    let first =
        stack.upstreams.endpoints().iter().find(|endpoint| *endpoint.name == *"ears-0").cloned().unwrap();
    assert_eq!(first.guard.to_string(), "10.0.0.1:9400");
    assert_eq!(first.stream, "http://10.0.0.1:9401/state/stream");

    stack.watched().await;
    let leaves = endpoint("ears-0", "10.0.0.1", false, true);
    let comes = endpoint("ears-2", "10.0.0.3", false, false);
    stack
        .server
        .event("MODIFIED", &slice("ears-x", "s-ears", 11, &[leaves, not_ready.clone(), comes.clone()]));
    stack
        .becomes(&[
            ("ears-0", "ears", true),
            ("ears-1", "ears", false),
            ("ears-2", "ears", false),
            ("mouth-0", "mouth", false),
        ])
        .await;
    assert!(!first.gone.is_cancelled(), "what runs on it goes on, and it is still followed");
    stack.server.event("MODIFIED", &slice("ears-x", "s-ears", 12, &[not_ready, comes]));
    stack.server.event("DELETED", &slice("mouth-x", "s-mouth", 13, &[]));
    stack.becomes(&[("ears-1", "ears", false), ("ears-2", "ears", false)]).await;
    assert!(first.gone.is_cancelled());
    assert_eq!(stack.series(), ["ears-1", "ears-2"], "no series of what is gone");
}

#[tokio::test]
async fn what_is_known_is_kept_while_the_api_server_is_away() {
    let stack = Stack::start(None);
    while stack.server.state.lock().asked.is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(!stack.upstreams.is_synced(), "nothing is known yet");
    stack.server.state.lock().list =
        Some(vec![slice("ears-x", "s-ears", 1, &[endpoint("ears-0", "10.0.0.1", true, false)])]);
    stack.becomes(&[("ears-0", "ears", false)]).await;
    stack.watched().await;
    {
        let mut state = stack.server.state.lock();
        (state.list, state.watch) = (None, None);
        state.asked.clear();
    }
    while stack.server.state.lock().asked.len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stack.known().len(), 1);
    assert!(stack.upstreams.is_synced());
}

#[tokio::test]
async fn other_pools_in_the_configuration_are_looked_for_at_once() {
    let stack = Stack::start(Some(vec![
        slice("ears-x", "s-ears", 1, &[endpoint("ears-0", "10.0.0.1", true, false)]),
        slice("spare-x", "s-spare", 1, &[endpoint("spare-0", "10.0.0.9", true, false)]),
    ]));
    stack.becomes(&[("ears-0", "ears", false)]).await;
    let mut config = Config::default();
    config.gateway.discovery = Some(pools(&["spare"]));
    stack.config.replace(config);
    stack.becomes(&[("spare-0", "spare", false)]).await;
    let (candidate, _) = stack.upstreams.endpoints()[0].candidate(tokio::time::Instant::now());
    assert!(candidate.standby);
}

#[tokio::test]
async fn pods_of_a_hosted_pool_share_one_budget_under_its_name() {
    let pods = [endpoint("cloud-0", "10.0.0.1", true, false), endpoint("cloud-1", "10.0.0.2", true, false)];
    let stack = Stack::start(Some(vec![slice("cloud-x", "s-cloud", 1, &pods)]));
    let mut config = Config::default();
    config.gateway.discovery = Some(pools(&["ears", "cloud"]));
    stack.config.replace(config);
    stack.becomes(&[("cloud-0", "cloud", false), ("cloud-1", "cloud", false)]).await;
    let endpoints = stack.upstreams.endpoints();
    let [one, other] = [0, 1].map(|at| endpoints[at].budget.clone().unwrap());
    assert!(Arc::ptr_eq(&one, &other));
    assert_eq!(&*one.name, "cloud");
}

fn parsed(value: Value) -> EndpointSlice {
    serde_json::from_value(value).unwrap()
}

#[test]
fn an_engine_that_moves_between_slices_is_one_and_stays() {
    let pools = pools(&["ears"]).pools;
    let mut known = Known::default();
    let leaves = slice("b", "s-ears", 1, &[endpoint("ears-0", "10.0.0.1", false, true)]);
    let stays = slice("a", "s-ears", 1, &[endpoint("ears-0", "10.0.0.1", true, false)]);
    known.take(Event::Apply(parsed(leaves.clone())), &pools);
    let targets = known.take(Event::Apply(parsed(stays.clone())), &pools).unwrap();
    assert_eq!(targets.iter().map(|target| target.terminating).collect::<Vec<_>>(), [false]);
    let targets = known.take(Event::Delete(parsed(stays)), &pools).unwrap();
    assert!(targets[0].terminating);
}

#[test]
fn a_new_list_replaces_the_old_one_only_when_it_is_complete() {
    let pools = pools(&["ears"]).pools;
    let mut known = Known::default();
    let old = parsed(slice("a", "s-ears", 1, &[endpoint("ears-0", "10.0.0.1", true, false)]));
    let new = parsed(slice("b", "s-ears", 1, &[endpoint("ears-1", "10.0.0.2", true, false)]));
    known.take(Event::Apply(old), &pools);
    assert_eq!(known.take(Event::Init, &pools), None);
    assert_eq!(known.take(Event::InitApply(new), &pools), None);
    assert_eq!(known.targets()[0].name, "ears-0");
    let targets = known.take(Event::InitDone, &pools).unwrap();
    assert_eq!(targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>(), ["ears-1"]);
}

#[test]
fn slices_that_make_no_sense_have_no_engines() {
    let pools = pools(&["ears"]).pools;
    let whole = || slice("a", "s-ears", 1, &[endpoint("ears-0", "10.0.0.1", true, false)]);
    assert_eq!(targets(&parsed(whole()), &pools).len(), 1);
    let mut nameless = whole();
    nameless["ports"] = json!([{"name": "http", "port": 80}]);
    assert!(targets(&parsed(nameless), &pools).is_empty());
    let mut foreign = whole();
    foreign["metadata"]["labels"] = json!({SERVICE: "s-other"});
    assert!(targets(&parsed(foreign), &pools).is_empty());
    let mut by_name = whole();
    by_name["endpoints"][0]["addresses"] = json!(["host.example"]);
    assert!(targets(&parsed(by_name), &pools).is_empty());
}
