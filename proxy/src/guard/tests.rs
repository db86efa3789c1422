//! A whole guard as in a pod: the test is the engine, the kubelet with its helper, the operator and the API server.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use contract::restart_request::RESTART;
use contract::{Capability, State};

use crate::guard::heal::control::tests::{Fake, Mode, configured, policy};
use crate::guard::heal::identity::tests::{OPERATOR, Server, Signer, claims};
use crate::guard::*;

mod ipv6;

/// Bytes of the model file that is there from the start.
const PART: usize = 1 << 16;
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

struct Pod {
    fake: Arc<Fake>,
    dir: tempfile::TempDir,
    guard: Guard,
    drain: Drain,
    signer: Signer,
    client: reqwest::Client,
    _engine: tokio_util::task::AbortOnDropHandle<()>,
}

fn probe(dir: &Path, key: &str) {
    fs::write(dir.join(".tmp"), format!("{key}\n")).unwrap();
    fs::rename(dir.join(".tmp"), dir.join("instance")).unwrap();
}

impl Pod {
    /// The guard runs; the engine's container does not yet.
    async fn start() -> Self {
        let (fake, address, _engine) = Fake::serve().await;
        *fake.mode.lock() = Mode::Loading;
        let dir = tempfile::tempdir().unwrap();
        let helper = dir.path().join("helper");
        fs::write(&helper, "").unwrap();
        let models = dir.path().join("models");
        fs::create_dir(&models).unwrap();
        fs::write(models.join(".part"), [1; PART]).unwrap();
        let engine = config::Engine {
            name: "pod-0".into(),
            capability: Capability::Stt,
            url: format!("http://{address}"),
            kubelet: Some(config::Kubelet { dir: dir.path().into(), helper, direct_kill: false }),
            model_cache: Some(models),
            operator: Some(config::Operator {
                audience: "speechstack-guard".into(),
                subject: OPERATOR.into(),
            }),
            ..config::Engine::example()
        };
        let (signer, server) = (Signer::new("k1"), Server::default());
        server.keys.lock().push(signer.jwk());
        let drain = Drain::new();
        let guard =
            Guard::build_with(&engine, &configured(policy()), &drain, &Tracer::default(), Box::new(server))
                .await
                .unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { fake, dir, guard, drain, signer, client, _engine }
    }

    fn token(&self) -> String {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let mut claims = claims();
        (claims["nbf"], claims["exp"]) = (json!(now), json!(now + 600));
        self.signer.sign(&claims)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.guard.admin)
    }

    async fn order(&self, token: Option<&str>, body: Value) -> (u16, Value) {
        let request = self.client.post(self.url("/repair")).json(&body);
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    async fn reaches(&self, what: impl FnMut(&EngineReport) -> bool) -> EngineReport {
        let mut reports = self.guard.snapshot.reports();
        let reached = timeout(TEST_TIMEOUT, reports.wait_for(what)).await;
        let reached = reached.unwrap_or_else(|_| panic!("never: {:?}", self.guard.snapshot.full_report()));
        reached.unwrap().clone()
    }

    async fn appears(&self, name: &str) {
        let path = self.dir.path().join(name);
        let appears = async {
            while !path.exists() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(TEST_TIMEOUT, appears).await.unwrap();
    }

    async fn ready(&self) -> u16 {
        self.client.get(self.url("/readyz")).send().await.unwrap().status().as_u16()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_before_the_first_container_to_the_next_one_by_the_operators_leave() {
    let pod = Pod::start().await;
    let started = pod.client.get(pod.url("/startz")).send().await.unwrap();
    assert_eq!(started.status(), 200, "the engine's container may start");
    assert!(pod.dir.path().join("livez").exists());
    assert_eq!(pod.guard.snapshot.full_report().instance, "");
    probe(pod.dir.path(), "7-ab");
    pod.reaches(|report| report.instance == "7-ab").await;
    *pod.fake.mode.lock() = Mode::Well;
    pod.reaches(|report| report.state == State::Healthy).await;
    assert_eq!(pod.ready().await, 200);

    let token = pod.token();
    let mut stream = pod.client.get(pod.url("/state/stream")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    *pod.fake.mode.lock() = Mode::Sticky;
    let mut seen = String::new();
    while !seen.contains(r#""repair":{"instance":"7-ab","attempt":0"#) {
        let chunk = timeout(TEST_TIMEOUT, stream.chunk()).await.unwrap().unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert_eq!(pod.ready().await, 503);
    assert!(!pod.dir.path().join(RESTART).exists(), "it waits for the operator");

    let grant = |instance: &str| json!({"order": "grant", "instance": instance, "attempt": 0});
    assert_eq!(
        pod.order(Some(&token), grant("6-99")).await,
        (409, json!({"instance": "7-ab", "attempt": 0}))
    );
    assert_eq!(pod.order(Some(&token), grant("7-ab")).await.0, 202);
    pod.appears(RESTART).await;
    assert_eq!(pod.order(Some(&token), grant("7-ab")).await.0, 202, "idempotent");
    *pod.fake.mode.lock() = Mode::Well;
    probe(pod.dir.path(), "8-cd");
    let healed = pod.reaches(|report| report.instance == "8-cd" && report.state == State::Healthy).await;
    assert_eq!((healed.restarts, healed.repair), (1, None));
    assert!(!pod.dir.path().join(RESTART).exists());
    pod.drain.finish(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operator_gives_orders() {
    let pod = Pod::start().await;
    let order = json!({"order": "reset"});
    assert_eq!(pod.order(None, order.clone()).await.0, 401);
    assert_eq!(pod.order(Some("x.y.z"), order.clone()).await.0, 401);
    let other = Signer::new("k1").sign(&claims());
    assert_eq!(pod.order(Some(&other), order.clone()).await.0, 401);
    let mut claims = claims();
    claims["exp"] = json!(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 600);
    claims["sub"] = json!("system:serviceaccount:speech:default");
    assert_eq!(pod.order(Some(&pod.signer.sign(&claims)), order.clone()).await.0, 403);
    assert_eq!(pod.order(Some(&pod.token()), json!({"order": "explode"})).await.0, 422);
    assert_eq!(pod.order(Some(&pod.token()), order).await.0, 202);
    let anybody = pod.client.post(pod.url("/reset")).send().await.unwrap();
    assert_eq!(anybody.status(), 404);
    let stream = pod.client.get(pod.url("/state/stream"));
    assert_eq!(stream.bearer_auth("x.y.z").send().await.unwrap().status(), 401);
    assert_eq!(pod.client.get(pod.url("/state/stream")).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_the_pod_drains_first_and_the_guard_ends_after_it() {
    let pod = Pod::start().await;
    probe(pod.dir.path(), "7-ab");
    *pod.fake.mode.lock() = Mode::Well;
    pod.reaches(|report| report.state == State::Healthy).await;
    fs::write(pod.dir.path().join("drain"), "7-ab").unwrap();
    pod.reaches(|report| report.draining && report.weight == 0.0).await;
    assert_eq!(pod.ready().await, 503);
    pod.appears("drained").await;
    assert_eq!(timeout(TEST_TIMEOUT, pod.drain.finish(TEST_TIMEOUT)).await, Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_a_download_is_goes_to_the_operator_until_the_engine_is_proven() {
    let pod = Pod::start().await;
    probe(pod.dir.path(), "7-ab");
    let token = pod.token();
    let mut stream = pod.client.get(pod.url("/state/stream")).bearer_auth(&token).send().await.unwrap();
    let mut seen = String::new();
    while !seen.contains(r#""activity":"growing""#) {
        let chunk = timeout(TEST_TIMEOUT, stream.chunk()).await.unwrap().unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    let report = pod.reaches(|report| report.model_cache.is_some()).await;
    assert!(report.model_cache.unwrap().bytes >= PART as u64, "{seen}");
    *pod.fake.mode.lock() = Mode::Well;
    let report = pod.reaches(|report| report.state == State::Healthy).await;
    assert_eq!(report.model_cache, None);
    let metrics = pod.client.get(pod.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("speechstack_guard_model_cache_bytes{engine=\"pod-0\"} "), "{metrics}");
}
