//! Elections on an API server in memory, with time that the test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// What a candidate's way to the API server does.
const OPEN: u8 = 0;
/// Requests do not arrive.
const CUT: u8 = 1;
/// Requests arrive, answers do not.
const DEAF: u8 = 2;
/// Requests and answers hang.
const HUNG: u8 = 3;

#[derive(Clone, Default)]
struct Server(Arc<Mutex<(u64, Option<Value>)>>);

impl Server {
    fn client(&self, link: Arc<AtomicU8>) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, link) = (server.clone(), link.clone());
            async move {
                let refused = || std::io::Error::other("no route");
                match link.load(Ordering::Relaxed) {
                    CUT => return Err(refused()),
                    HUNG => std::future::pending().await,
                    _ => {}
                }
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (status, answer) =
                    server.answer(&parts.method, serde_json::from_slice(&body).unwrap_or_default());
                // The way back takes its time, and may be cut meanwhile.
                tokio::time::sleep(Duration::from_millis(5)).await;
                if link.load(Ordering::Relaxed) != OPEN {
                    return Err(refused());
                }
                Ok(Response::builder()
                    .status(status)
                    .body(Full::new(Bytes::from(answer.to_string())))
                    .unwrap())
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, mut lease: Value) -> (u16, Value) {
        let mut state = self.0.lock();
        let failure = |code: u16, reason: &str| {
            (
                code,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "metadata": {}, "message": ""}),
            )
        };
        let version = state.1.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
        match (method, version) {
            (&Method::GET, Some(_)) => (200, state.1.clone().unwrap()),
            (&Method::GET | &Method::PUT, None) => failure(404, "NotFound"),
            (&Method::POST, Some(_)) => failure(409, "AlreadyExists"),
            (&Method::PUT, Some(version)) if lease["metadata"]["resourceVersion"] != version => {
                failure(409, "Conflict")
            }
            _ => {
                state.0 += 1;
                lease["metadata"]["resourceVersion"] = json!(state.0.to_string());
                state.1 = Some(lease.clone());
                (200, lease)
            }
        }
    }
}

struct Candidate {
    link: Arc<AtomicU8>,
    leads: Arc<AtomicBool>,
    terms: Arc<Mutex<usize>>,
    task: tokio::task::JoinHandle<()>,
}

/// A process that stands again whenever it lost.
fn candidate(server: &Server, identity: &'static str) -> Candidate {
    let (link, leads) = (Arc::new(AtomicU8::new(OPEN)), Arc::new(AtomicBool::new(false)));
    let terms = Arc::new(Mutex::new(0));
    let client = server.client(link.clone());
    let task = tokio::spawn({
        let (leads, terms) = (leads.clone(), terms.clone());
        async move {
            loop {
                let mut elector = Elector::new(client.clone(), "ns", "lease", identity, Times::default());
                elector.acquire().await;
                *terms.lock() += 1;
                leads.store(true, Ordering::Relaxed);
                elector.keep().await;
                leads.store(false, Ordering::Relaxed);
            }
        }
    });
    Candidate { link, leads, terms, task }
}

impl Candidate {
    fn leads(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_leads_and_the_second_waits() {
    let server = Server::default();
    let a = candidate(&server, "a");
    seconds(1).await;
    let b = candidate(&server, "b");
    seconds(120).await;
    assert!(a.leads() && !b.leads());
    assert_eq!((*a.terms.lock(), *b.terms.lock()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_the_next_starts() {
    for how in [CUT, DEAF, HUNG] {
        let server = Server::default();
        let a = candidate(&server, "a");
        seconds(1).await;
        let b = candidate(&server, "b");
        seconds(10).await;
        a.link.store(how, Ordering::Relaxed);
        let mut neither = 0;
        while !b.leads() {
            assert!(neither < 400, "nobody took over");
            neither += u32::from(!a.leads());
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(!(a.leads() && b.leads()));
        }
        assert!(neither > 10, "the old leader stopped well before");
    }
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_once() {
    let server = Server::default();
    let link = Arc::new(AtomicU8::new(OPEN));
    let mut a = Elector::new(server.client(link), "ns", "lease", "a", Times::default());
    a.acquire().await;
    let b = candidate(&server, "b");
    seconds(5).await;
    assert!(!b.leads());
    a.release().await;
    seconds(3).await;
    assert!(b.leads());
}

#[tokio::test(start_paused = true)]
async fn a_leader_learns_that_its_lease_was_taken() {
    let server = Server::default();
    let link = Arc::new(AtomicU8::new(OPEN));
    let mut a = Elector::new(server.client(link), "ns", "lease", "a", Times::default());
    a.acquire().await;
    {
        let mut state = server.0.lock();
        state.0 += 1;
        let version = state.0.to_string();
        let lease = state.1.as_mut().unwrap();
        lease["spec"]["holderIdentity"] = json!("somebody");
        lease["metadata"]["resourceVersion"] = json!(version);
    }
    assert_eq!(a.keep().await, Lost::Taken("somebody".into()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn there_are_never_two_leaders(
        schedule in proptest::collection::vec((0..2_usize, 0..4_u8, 1..25_u64, 0..1000_u64), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let server = Server::default();
            let candidates = [candidate(&server, "a"), candidate(&server, "b")];
            for (who, link, for_seconds, more) in schedule {
                candidates[who].link.store(link, Ordering::Relaxed);
                for _ in 0..for_seconds * 20 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    assert!(!(candidates[0].leads() && candidates[1].leads()), "two leaders");
                }
                tokio::time::sleep(Duration::from_millis(more)).await;
            }
            // Whatever happened: with both ways open one of them leads soon.
            candidates.iter().for_each(|candidate| candidate.link.store(OPEN, Ordering::Relaxed));
            seconds(60).await;
            assert!(candidates[0].leads() != candidates[1].leads(), "nobody leads");
            candidates.iter().for_each(|candidate| candidate.task.abort());
        });
    }
}
