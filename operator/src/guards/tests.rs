//! Tests of streams and orders against a guard's admin port in this process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::StreamExt;
use kube::runtime::watcher;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::order::Accepted;
use super::*;
use crate::owners::Owners;
use crate::pods::{Pods, WatchedPod};
use contract::{RepairOrder, State, Verb, VerdictName};

const CEILING: Duration = Duration::from_secs(20);
static NEXT: AtomicU8 = AtomicU8::new(1);

struct Fake {
    reports: watch::Sender<String>,
    tokens: Mutex<Vec<String>>,
    answer: Mutex<(u16, String)>,
    cut: watch::Sender<u32>,
}

/// A loopback address that no other test of this machine uses now.
pub(crate) fn loopback() -> Ipv4Addr {
    let [_, _, a, b] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | (a & 127), b, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A guard on a loopback address of its own, because the port is fixed.
async fn fake() -> (Arc<Fake>, IpAddr) {
    let address = loopback();
    let listener = tokio::net::TcpListener::bind((address, contract::port::GUARD_ADMIN)).await.unwrap();
    (serve_fake(listener), address.into())
}

fn serve_fake(listener: tokio::net::TcpListener) -> Arc<Fake> {
    let fake = Arc::new(Fake {
        reports: watch::Sender::new(report("healthy", 0.0)),
        tokens: Mutex::default(),
        answer: Mutex::new((202, String::new())),
        cut: watch::Sender::new(0),
    });
    let router = Router::new()
        .route("/state/stream", get(stream))
        .route("/repair", post(repair))
        .with_state(Arc::clone(&fake));
    tokio::spawn(serve(listener, router));
    fake
}

/// Serves that router for ever.
pub(crate) async fn serve(listener: tokio::net::TcpListener, router: Router) {
    let service = hyper_util::service::TowerToHyperService::new(router);
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(hyper_util::rt::TokioIo::new(stream), service.clone());
        tokio::spawn(connection);
    }
}

/// Keeps the token of a request whose host must be an address with its port, of IPv6 in brackets.
fn note(fake: &Fake, headers: &HeaderMap) {
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert!(text("host").parse::<SocketAddr>().is_ok(), "{}", text("host"));
    fake.tokens.lock().push(text("authorization"));
}

async fn stream(Shared(fake): Shared<Arc<Fake>>, headers: HeaderMap) -> Response {
    note(&fake, &headers);
    let reports = tokio_stream(fake.reports.subscribe());
    let mut cut = fake.cut.subscribe();
    let events = reports
        .map(|report| Ok::<_, std::convert::Infallible>(Event::default().event("report").data(report)))
        .take_until(async move { cut.changed().await.ok() });
    Sse::new(events).into_response()
}

fn tokio_stream(reports: watch::Receiver<String>) -> impl futures::Stream<Item = String> {
    futures::stream::unfold((reports, true), |(mut reports, first)| async move {
        if !first {
            reports.changed().await.ok()?;
        }
        let report = reports.borrow_and_update().clone();
        Some((report, (reports, false)))
    })
}

async fn repair(Shared(fake): Shared<Arc<Fake>>, headers: HeaderMap, body: String) -> Response {
    note(&fake, &headers);
    let (status, answer) = fake.answer.lock().clone();
    (StatusCode::from_u16(status).unwrap(), if answer.is_empty() { body } else { answer }).into_response()
}

fn report(state: &str, queue: f64) -> String {
    let verdict = if state == "wedged" { "wedged" } else { "serving" };
    json!({"name": "p", "instance": "i1", "state": state, "verdict": verdict, "class": null, "restarts": 0,
           "queue_seconds": queue, "predictor": {"fixed": 0.1}})
    .to_string()
}

fn pod(uid: &str, address: IpAddr) -> WatchedPod {
    serde_json::from_value(json!({
        "metadata": {"name": uid, "namespace": "ns", "uid": uid,
                     "labels": {"speechstack.dev/stack": "s", "speechstack.dev/engine": "e"}},
        "status": {"podIP": address.to_string(), "phase": "Running"},
    }))
    .unwrap()
}

struct Running {
    guards: Guards,
    pods: Pods,
    tokens: Tokens,
    cancel: CancellationToken,
    _guard: tokio_util::sync::DropGuard,
}

fn running() -> Running {
    let pods = Pods::default();
    let tokens = Tokens::fixed("one");
    let guards = Guards::new(tokens.clone());
    let cancel = CancellationToken::new();
    tokio::spawn(follow(guards.clone(), pods.clone(), Owners::any(), cancel.clone()));
    Running { guards, pods, tokens, cancel: cancel.clone(), _guard: cancel.drop_guard() }
}

async fn until(guards: &Guards, uid: &str, holds: impl Fn(Option<Seen>) -> bool) {
    let poll = async {
        while !holds(guards.seen(uid)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(CEILING, poll).await.unwrap();
}

#[tokio::test]
async fn a_pods_guard_is_followed_until_the_pod_is_gone() {
    let (fake, address) = fake().await;
    let run = running();
    let mut changes = run.guards.changes();
    run.pods.apply(watcher::Event::Apply(pod("u1", address)));
    let stack = timeout(CEILING, changes.recv()).await.unwrap().unwrap();
    assert_eq!((stack.name.as_str(), stack.namespace.as_deref()), ("s", Some("ns")));
    assert_eq!(run.guards.seen("u1").unwrap().report.state, State::Healthy);
    assert_eq!(run.guards.streams(), (1, 0));

    fake.reports.send_replace(report("wedged", 0.0));
    timeout(CEILING, changes.recv()).await.unwrap().unwrap();
    let seen = run.guards.seen("u1").unwrap();
    assert!(seen.report.is_wedged() && seen.ailing.is_some());

    run.pods.apply(watcher::Event::Delete(pod("u1", address)));
    until(&run.guards, "u1", |seen| seen.is_none()).await;
}

#[tokio::test]
async fn the_token_is_asked_for_again_at_each_connection() {
    let (fake, address) = fake().await;
    let run = running();
    run.pods.apply(watcher::Event::Apply(pod("u1", address)));
    until(&run.guards, "u1", |seen| seen.is_some()).await;
    run.tokens.set("two");
    fake.cut.send_modify(|cut| *cut += 1);
    let poll = async {
        while fake.tokens.lock().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(CEILING, poll).await.unwrap();
    assert_eq!(fake.tokens.lock()[..2], ["Bearer one for s", "Bearer two for s"]);
}

#[tokio::test]
async fn a_lost_guard_is_shown_as_not_connected_and_forgotten_when_cancelled() {
    let (fake, address) = fake().await;
    let run = running();
    run.pods.apply(watcher::Event::Apply(pod("u1", address)));
    until(&run.guards, "u1", |seen| seen.is_some_and(|seen| seen.connected)).await;
    let mut changes = run.guards.changes();
    fake.cut.send_modify(|cut| *cut += 1);
    timeout(CEILING, changes.recv()).await.unwrap().unwrap();
    until(&run.guards, "u1", |seen| seen.is_some_and(|seen| seen.connected)).await;
    run.cancel.cancel();
    until(&run.guards, "u1", |seen| seen.is_none()).await;
}

#[tokio::test]
async fn orders_are_answered_by_status() {
    let (fake, address) = fake().await;
    let run = running();
    let (order, stack) = (granted(), ObjectRef::new("s").within("ns"));
    assert_eq!(run.guards.order(&stack, address, &order).await.unwrap(), Accepted);
    assert_eq!(fake.tokens.lock().as_slice(), ["Bearer one for s"]);
    *fake.answer.lock() = (409, json!({"instance": "i2", "attempt": 0}).to_string());
    let refusal = run.guards.order(&stack, address, &order).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Outdated { instance, attempt: 0 } if instance == "i2"));
    *fake.answer.lock() = (403, "no".into());
    assert!(matches!(run.guards.order(&stack, address, &order).await, Err(Refusal::Forbidden(_))));
    *fake.answer.lock() = (500, "no".into());
    assert!(matches!(run.guards.order(&stack, address, &order).await, Err(Refusal::Unexpected(_))));
    assert_eq!(
        serde_json::to_value(&order).unwrap(),
        json!({"order": "grant", "instance": "i1", "attempt": 2, "reason": "budget", "seconds": 0})
    );
}

fn granted() -> RepairOrder {
    RepairOrder { order: Verb::Grant, instance: "i1".into(), attempt: 2, reason: "budget".into(), seconds: 0 }
}

#[tokio::test]
async fn guards_of_pods_with_ipv6_alone_are_followed_and_ordered() {
    let Ok(listener) = tokio::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else {
        return; // this kernel has no IPv6
    };
    let address = listener.local_addr().unwrap();
    let fake = serve_fake(listener);
    timeout(CEILING, super::stream::open(address, "one")).await.unwrap().unwrap();
    let accepted = timeout(CEILING, super::order::exchange("two", address, &granted())).await.unwrap();
    assert_eq!(accepted.unwrap(), Accepted);
    assert_eq!(fake.tokens.lock().as_slice(), ["Bearer one", "Bearer two"]);
}

#[test]
fn a_guard_that_is_never_reached_is_told_once_and_forgotten_with_its_word() {
    let guards = Guards::new(Tokens::fixed("one"));
    let mut changes = guards.changes();
    let (stack, uid) = (ObjectRef::new("s").within("ns"), Arc::from("u"));
    let at = |second| Timestamp::from_second(second).unwrap();
    for second in [0, 30, 59] {
        guards.missed(&stack, &uid, "no connection".into(), at(second));
    }
    assert!(guards.unreached("u", at(59)).is_none() && changes.try_recv().is_err());
    guards.missed(&stack, &uid, "refused".into(), at(60));
    guards.missed(&stack, &uid, "refused".into(), at(65));
    changes.try_recv().unwrap();
    assert!(changes.try_recv().is_err(), "told once");
    assert_eq!(guards.unreached("u", at(65)).unwrap().why, "refused");
    assert_eq!(guards.streams(), (0, 1));
    guards.heard(&stack, &uid, serde_json::from_str(&report("healthy", 0.0)).unwrap(), at(66));
    assert!(guards.unreached("u", at(600)).is_none());
    assert_eq!(guards.streams(), (1, 0));
}

#[test]
fn only_what_matters_is_published() {
    let guards = Guards::new(Tokens::fixed("one"));
    let mut changes = guards.changes();
    let (stack, uid) = (ObjectRef::new("s").within("ns"), Arc::from("u"));
    let at = |second| Timestamp::from_second(second).unwrap();
    let parse = |text: String| serde_json::from_str::<Report>(&text).unwrap();
    guards.heard(&stack, &uid, parse(report("healthy", 0.0)), at(1));
    changes.try_recv().unwrap();
    guards.heard(&stack, &uid, parse(report("healthy", 7.5)), at(2));
    assert!(changes.try_recv().is_err());
    let mut restarted = parse(report("healthy", 0.0));
    restarted.restarts = 1;
    guards.heard(&stack, &uid, restarted, at(3));
    changes.try_recv().unwrap();
    assert_eq!(guards.seen("u").unwrap().since, at(1), "kept while the state is the same");
    guards.heard(&stack, &uid, parse(report("wedged", 0.0)), at(4));
    let mut starting = parse(report("starting", 0.0));
    starting.verdict = VerdictName::Pending;
    guards.heard(&stack, &uid, starting, at(5));
    let seen = guards.seen("u").unwrap();
    assert_eq!((seen.since, seen.ailing), (at(5), Some(at(4))));
    guards.heard(&stack, &uid, parse(report("healthy", 0.0)), at(6));
    assert_eq!(guards.seen("u").unwrap().ailing, None);
}
