//! Tests of the driver: a real loop between an API server in memory and guards that obey the contract.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures::StreamExt;
use http::{Method, Request};
use kube::client::Body;
use kube::runtime::reflector::store::Writer;
use kube::runtime::{reflector, watcher};
use parking_lot::Mutex;
use serde_json::{Value, json};
use speechstack_crds::{Outcome, RepairStatus, Rung};
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use super::*;
use crate::guards;
use crate::guards::tests::{loopback, serve};

const CEILING: Duration = Duration::from_secs(30);

/// What happened, in order.
type Log = Arc<Mutex<Vec<String>>>;

/// The API server: one stack with its record, and pods by name.
#[derive(Clone)]
struct Api {
    record: Arc<Mutex<Value>>,
    log: Log,
    /// Answers the next writes of the record with this status, and whether they are kept all the same.
    fail_writes: Arc<Mutex<Option<(u16, bool)>>>,
}

impl Api {
    async fn answer(self, request: Request<Body>) -> http::Response<Body> {
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path = head.uri.path().to_owned();
        let (status, answer) = match (&head.method, path.as_str()) {
            (&Method::GET, path) if path.ends_with("/speechstacks/s") => (200, self.stack()),
            (&Method::PATCH, path) if path.ends_with("/speechstacks/s/status") => {
                self.write(&head.uri, &body)
            }
            (&Method::DELETE, path) => {
                let uid = &body["preconditions"]["uid"];
                self.log.lock().push(format!("delete {} {}", path.rsplit('/').next().unwrap(), uid));
                (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            (&Method::POST, path) if path.ends_with("/eviction") => {
                self.log.lock().push("evict".into());
                (201, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            (&Method::POST, _) => {
                self.log.lock().push(format!("event {}", body["reason"].as_str().unwrap_or_default()));
                (201, body)
            }
            (&Method::PATCH, path) => {
                self.log.lock().push(format!("patch {path} {}", body["metadata"]["labels"]));
                (200, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}))
            }
            _ => (404, json!({"kind": "Status", "code": 404, "status": "Failure", "reason": "NotFound"})),
        };
        let body = Body::from(serde_json::to_vec(&answer).unwrap());
        http::Response::builder().status(status).body(body).unwrap()
    }

    fn write(&self, uri: &http::Uri, body: &Value) -> (u16, Value) {
        let query = uri.query().unwrap_or_default();
        assert!(query.contains("fieldManager=speechstack-repair"), "{query}");
        assert_eq!(body["status"].as_object().unwrap().keys().collect::<Vec<_>>(), ["repair"]);
        let fail = self.fail_writes.lock().take();
        if fail.is_none_or(|(_, kept)| kept) {
            *self.record.lock() = body["status"]["repair"].clone();
            self.log.lock().push("record".into());
        }
        match fail {
            Some((code, _)) => {
                (code, json!({"kind": "Status", "code": code, "status": "Failure", "message": "no"}))
            }
            None => (200, self.stack()),
        }
    }

    fn stack(&self) -> Value {
        json!({
            "apiVersion": "speechstack.dev/v1alpha1", "kind": "SpeechStack",
            "metadata": {"name": "s", "namespace": "ns", "uid": "stack-uid"},
            "spec": {"stt": [{"name": "e", "preset": "reference"}]},
            "status": {"repair": *self.record.lock()},
        })
    }

    fn status(&self) -> RepairStatus {
        serde_json::from_value(self.record.lock().clone()).unwrap_or_default()
    }

    fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, std::convert::Infallible>(api.answer(request).await) }
        });
        Client::new(service, "ns")
    }
}

/// A guard that does what the contract says.
struct Guard {
    state: Mutex<Engine>,
    reports: watch::Sender<String>,
    log: Log,
    /// Takes orders and does not answer.
    mute: Mutex<bool>,
}

struct Engine {
    instance: u32,
    attempt: u32,
    state: &'static str,
    verdict: &'static str,
    asks: bool,
    accepted: Option<(String, u32)>,
}

impl Guard {
    fn publish(&self) {
        let engine = self.state.lock();
        let instance = format!("i{}", engine.instance);
        let repair = engine.asks.then(|| {
            json!({"instance": instance, "attempt": engine.attempt, "class": "A", "act": "restart", "since_unix_ms": 1})
        });
        let report = json!({"instance": instance, "state": engine.state, "verdict": engine.verdict, "class": null,
                            "restarts": engine.instance, "queue_seconds": 0.0, "repair": repair});
        self.reports.send_replace(report.to_string());
    }

    fn set(&self, state: &'static str, verdict: &'static str, asks: bool) {
        {
            let mut engine = self.state.lock();
            (engine.state, engine.verdict, engine.asks) = (state, verdict, asks);
        }
        self.publish();
    }

    fn wedge(&self) {
        self.set("wedged", "wedged", true);
    }

    fn order(&self, order: &Value) -> (u16, Value) {
        let named = (
            order["instance"].as_str().unwrap().to_owned(),
            u32::try_from(order["attempt"].as_u64().unwrap()).unwrap(),
        );
        let mut engine = self.state.lock();
        let current = (format!("i{}", engine.instance), engine.attempt);
        match order["order"].as_str().unwrap() {
            "grant" if engine.accepted.as_ref() == Some(&named) => (202, Value::Null),
            "grant" if engine.asks && current == named => {
                self.log.lock().push(format!("restart {} {}", named.0, named.1));
                engine.accepted = Some(named);
                engine.instance += 1;
                (engine.state, engine.verdict, engine.asks) = ("restarting", "pending", false);
                (202, Value::Null)
            }
            "defer" if current == named => {
                self.log.lock().push(format!("defer {}", order["reason"].as_str().unwrap()));
                (202, Value::Null)
            }
            "reset" => (202, Value::Null),
            _ => {
                self.log.lock().push("409".into());
                (409, json!({"instance": current.0, "attempt": current.1}))
            }
        }
    }
}

async fn repair(State(guard): State<Arc<Guard>>, Json(order): Json<Value>) -> Response {
    let (status, body) = guard.order(&order);
    if status == 202 {
        guard.publish();
    }
    if *guard.mute.lock() {
        std::future::pending::<()>().await;
    }
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

async fn stream(State(guard): State<Arc<Guard>>) -> Response {
    let reports =
        futures::stream::unfold((guard.reports.subscribe(), true), |(mut reports, first)| async move {
            if !first {
                reports.changed().await.ok()?;
            }
            let report = reports.borrow_and_update().clone();
            Some((
                Ok::<_, std::convert::Infallible>(Event::default().event("report").data(report)),
                (reports, false),
            ))
        });
    Sse::new(reports.boxed()).into_response()
}

struct World {
    api: Api,
    log: Log,
    guard: Arc<Guard>,
    address: std::net::Ipv4Addr,
    tracer: Tracer,
}

async fn world() -> World {
    let log = Log::default();
    let guard = Arc::new(Guard {
        state: Mutex::new(Engine {
            instance: 0,
            attempt: 0,
            state: "healthy",
            verdict: "serving",
            asks: false,
            accepted: None,
        }),
        reports: watch::Sender::new(String::new()),
        log: Arc::clone(&log),
        mute: Mutex::new(false),
    });
    guard.publish();
    let address = loopback();
    let router = Router::new()
        .route("/state/stream", get(stream))
        .route("/repair", post(repair))
        .with_state(Arc::clone(&guard));
    let listener = tokio::net::TcpListener::bind((address, contract::port::GUARD_ADMIN)).await.unwrap();
    tokio::spawn(serve(listener, router));
    let api =
        Api { record: Arc::new(Mutex::new(json!({}))), log: Arc::clone(&log), fail_writes: Arc::default() };
    World { api, log, guard, address, tracer: Tracer::default() }
}

/// One operator that leads; it ends when dropped.
struct Operator {
    _stacks: Writer<SpeechStack>,
    _nodes: Writer<Node>,
    _volumes: Writer<PersistentVolume>,
    guards: Guards,
    _running: DropGuard,
}

impl World {
    /// An operator whose caches show what the API server has now, and never learn more.
    fn operator(&self) -> Operator {
        let (stacks, mut stack_writer) = reflector::store();
        let pods = Pods::default();
        let (nodes, node_writer) = reflector::store();
        let (volumes, volume_writer) = reflector::store();
        let stack: SpeechStack = serde_json::from_value(self.api.stack()).unwrap();
        for event in [watcher::Event::Init, watcher::Event::InitApply(stack), watcher::Event::InitDone] {
            stack_writer.apply_watcher_event(&event);
        }
        let pod = serde_json::from_value(json!({
            "metadata": {"name": "s-e-1", "namespace": "ns", "uid": "pod-uid",
                         "labels": {"speechstack.dev/stack": "s", "speechstack.dev/engine": "e", "pod-template-hash": "t"}},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"podIP": self.address.to_string(), "phase": "Running"},
        }))
        .unwrap();
        pods.apply(watcher::Event::Apply(pod));
        let guards = Guards::new(guards::Tokens::fixed("token"));
        let cancel = CancellationToken::new();
        let owners = crate::owners::Owners::any();
        tokio::spawn(guards::follow(guards.clone(), pods.clone(), owners, cancel.clone()));
        let context = Context {
            client: self.api.client(),
            stacks,
            pods,
            namespace: None,
            presets: Presets::shipped().unwrap(),
            per_cluster: 20,
            nodes,
            volumes,
            guards: guards.clone(),
            node_escalation: false,
            metrics: Metrics::register(&prometheus::Registry::new()).unwrap(),
            tracer: self.tracer.clone(),
        };
        tokio::spawn(run(context, cancel.clone()));
        Operator {
            _stacks: stack_writer,
            _nodes: node_writer,
            _volumes: volume_writer,
            guards,
            _running: cancel.drop_guard(),
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let poll = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(CEILING, poll).await;
        assert!(waited.is_ok(), "{what}: {:?}, {:?}", self.log.lock(), self.api.status());
    }

    fn logged(&self, text: &str) -> usize {
        self.log.lock().iter().filter(|line| line.starts_with(text)).count()
    }

    fn outcome(&self) -> Option<Outcome> {
        self.api.status().records.last().map(|record| record.outcome)
    }
}

#[tokio::test]
async fn a_wedge_is_recorded_granted_and_settled() {
    let world = world().await;
    let operator = world.operator();
    world.guard.wedge();
    world.until("restart", |world| world.logged("restart") == 1).await;
    let log = world.log.lock().clone();
    let place = |text: &str| log.iter().position(|line| line.starts_with(text));
    assert!(place("record") < place("restart"), "the record comes first: {log:?}");
    world.guard.set("probation", "serving", false);
    world.until("settled", |world| world.outcome() == Some(Outcome::Recovered)).await;
    world.until("told", |world| world.logged("event EngineRecovered") == 1).await;
    for reason in ["InferenceWedged", "WedgeRestart"] {
        assert_eq!(world.logged(&format!("event {reason}")), 1, "{reason}");
    }
    assert_eq!(world.logged("restart"), 1);
    assert_eq!(operator.guards.streams(), (1, 0));
}

#[tokio::test]
async fn a_successor_finishes_what_was_recorded_and_does_it_once() {
    let world = world().await;
    world.guard.wedge();
    // The record is written, its answer is lost, and the operator ends before the act.
    *world.api.fail_writes.lock() = Some((500, true));
    let first = world.operator();
    world.until("recorded", |world| world.logged("record") == 1).await;
    drop(first);
    let second = world.operator();
    world.until("restart", |world| world.logged("restart") == 1).await;
    world.guard.set("healthy", "serving", false);
    world.until("settled", |world| world.outcome() == Some(Outcome::Recovered)).await;
    drop(second);
    assert_eq!(world.api.status().total, 1);
    assert_eq!(world.logged("restart"), 1);
}

#[tokio::test]
async fn leaders_in_turn_share_one_record() {
    let world = world().await;
    let first = world.operator();
    world.guard.wedge();
    world.until("restart", |world| world.logged("restart") == 1).await;
    drop(first);
    // The second settles what the first ordered.
    let second = world.operator();
    world.guard.set("healthy", "serving", false);
    world.until("settled", |world| world.outcome() == Some(Outcome::Recovered)).await;
    drop(second);
    // The third counts it: the second restart of a row has its spacing.
    let third = world.operator();
    world.guard.wedge();
    world.until("deferred", |world| world.logged("defer spacing") == 1).await;
    drop(third);
    assert_eq!(world.logged("restart"), 1);
    assert_eq!(world.api.status().total, 1);
}

#[tokio::test]
async fn an_answer_lost_on_the_way_is_repeated_and_acts_once() {
    let world = world().await;
    *world.guard.mute.lock() = true;
    let _operator = world.operator();
    world.guard.wedge();
    world.until("restart", |world| world.logged("restart") == 1).await;
    *world.guard.mute.lock() = false;
    world.guard.set("healthy", "serving", false);
    world.until("settled", |world| world.outcome() == Some(Outcome::Recovered)).await;
    assert_eq!(world.logged("restart"), 1);
}

#[tokio::test]
async fn an_order_for_another_instance_is_withdrawn() {
    let world = world().await;
    let _operator = world.operator();
    // The guard names an attempt that it does not accept.
    {
        let mut engine = world.guard.state.lock();
        (engine.state, engine.verdict, engine.asks) = ("wedged", "wedged", true);
    }
    world.guard.publish();
    world.guard.state.lock().attempt = 7;
    world
        .until("withdrawn", |world| {
            world.api.status().records.iter().any(|record| record.outcome == Outcome::Withdrawn)
        })
        .await;
    assert_eq!(world.logged("restart"), 0);
    // The guard's last report is outdated: it is ordered to wait, not ordered again at once.
    world.until("refused again", |world| world.logged("409") == 2).await;
    assert_eq!(world.api.status().total, 1);
}

#[tokio::test]
async fn without_a_record_nothing_is_done() {
    let world = world().await;
    let _operator = world.operator();
    *world.api.fail_writes.lock() = Some((403, false));
    world.guard.wedge();
    world.until("tried", |world| world.api.fail_writes.lock().is_none()).await;
    assert_eq!(world.logged("restart"), 0);
    // The next write succeeds.
    world.until("restart", |world| world.logged("restart") == 1).await;
    assert_eq!(world.api.status().total, 1);
}

#[tokio::test]
async fn a_pod_beyond_restarts_is_deleted_by_uid() {
    let world = world().await;
    let record = |attempt: u32| {
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(5);
        json!({"engine": "e", "pod": "s-e-1", "podUid": "pod-uid", "node": "n1", "instance": format!("old{attempt}"),
               "rung": "Restart", "attempt": attempt, "ordered": at.to_string(), "outcome": "Failed",
               "ended": at.to_string()})
    };
    *world.api.record.lock() = json!({"total": 3, "records": [record(0), record(1), record(2)]});
    let _operator = world.operator();
    world.guard.set("exhausted", "wedged", false);
    world.until("deleted", |world| world.logged("delete s-e-1 \"pod-uid\"") == 1).await;
    let records = world.api.status().records;
    assert_eq!(records.last().map(|record| record.rung), Some(Rung::Recreate));
}

#[tokio::test]
async fn a_reported_node_is_annotated_until_it_is_readmitted() {
    use crate::names::annotation::SUSPECT;
    use crate::reconcile::testing::Server;

    let server = Server::default();
    let path = "/api/v1/nodes/n1";
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "annotations": {"mine": "1"}}, "spec": {}});
    server.put(path, node);
    let client = server.client();
    let guards = crate::guards::Guards::new(crate::guards::Tokens::fixed("token"));
    let events = super::events::Events::start(client.clone());
    let stack = kube::runtime::reflector::ObjectRef::new("s").within("ns");
    let act =
        async |act: plan::Act| super::execute::act(&client, &guards, &events, &stack, &act).await.unwrap();
    let key = plan::Key { pod_uid: "u".into(), instance: "i".into(), rung: Rung::ReportNode, attempt: 0 };
    let label = "avoid.speechstack.dev/ns.s.e".to_owned();
    act(plan::Act::ReportNode {
        key,
        node: "n1".into(),
        label: label.clone(),
        expiry: 100,
        message: "look".into(),
    })
    .await;
    let annotations = || server.object(path)["metadata"]["annotations"].clone();
    assert_eq!(annotations()[SUSPECT], node::mark(&label, 100));
    assert_eq!(annotations()["mine"], "1");
    act(plan::Act::Readmit { node: "n1".into(), label: "avoid.speechstack.dev/ns.s.other".into() }).await;
    assert!(annotations()[SUSPECT].is_string(), "it was reported for another engine");
    act(plan::Act::Readmit { node: "n1".into(), label }).await;
    assert!(annotations()[SUSPECT].is_null());
}
