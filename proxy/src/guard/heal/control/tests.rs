//! The whole loop against a fake engine, in memory and without waiting: wedge it, and see it found, ejected, restarted and
//! proven.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State as Extract;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use prometheus::Registry;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use contract::{Capability, Class, Incident, ProcessRecord};

use crate::config::Current;
use crate::guard::heal::actuator::Proven;
use crate::guard::heal::control::*;
use crate::guard::heal::golden::{CLIP_A, CLIP_B, Clip};
use crate::guard::heal::gpu::GpuState;
use crate::guard::heal::prober::Failure;
use crate::guard::heal::prober::ask::{Exchange, Exchanged};
use crate::guard::heal::process_record::LastRecord;
use crate::guard::judge::observation::{Hint, Observation};
use crate::guard::judge::remediation::Kill;
use crate::guard::path::forward;
use crate::guard::path::lane::Priority;
use crate::guard::path::lane::testing::claim;
use crate::guard::path::observer::Observer;
use crate::guard::path::signatures::Catalogue;
use crate::protocol::Transport;

mod lives;
mod operated;

const TEST_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::guard) enum Mode {
    Well,
    Sticky,
    Cublas,
    Hung,
    Slow(Duration),
    Garbage,
    Loading,
}

/// An engine that answers golden clips right, until told otherwise.
#[derive(Debug)]
pub(in crate::guard) struct Fake {
    pub(in crate::guard) mode: Mutex<Mode>,
    /// What a restart makes of it.
    after_restart: Mutex<Mode>,
    asked: AtomicU32,
}

impl Fake {
    fn new() -> Arc<Self> {
        let well = || Mutex::new(Mode::Well);
        Arc::new(Self { mode: well(), after_restart: well(), asked: AtomicU32::new(0) })
    }

    /// Serves on a port of its own until what is returned is dropped.
    pub(in crate::guard) async fn serve() -> (Arc<Self>, SocketAddr, AbortOnDropHandle<()>) {
        Self::serve_on(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// The same there.
    pub(in crate::guard) fn serve_on(
        listener: tokio::net::TcpListener,
    ) -> (Arc<Self>, SocketAddr, AbortOnDropHandle<()>) {
        let fake = Self::new();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().fallback(serve).with_state(fake.clone());
        let service = hyper_util::service::TowerToHyperService::new(routes);
        let server = tokio::spawn(crate::net::serve(listener, service, Drain::new()));
        (fake, address, AbortOnDropHandle::new(server))
    }

    async fn answer(&self, path: &str, body: Body) -> (StatusCode, String) {
        let mode = *self.mode.lock();
        if path == "/v1/health/ready" {
            let loading = mode == Mode::Loading;
            return (if loading { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, String::new());
        }
        assert_eq!(path, "/v1/audio/transcriptions");
        self.asked.fetch_add(1, Ordering::Relaxed);
        let body = body.collect().await.unwrap().to_bytes();
        let contains = |clip: &Clip| memchr::memmem::find(&body, &clip.wav[44..]).is_some();
        let words = if contains(&CLIP_A) { CLIP_A.words } else { CLIP_B.words };
        let text = |text: &str| (StatusCode::OK, json!({"text": text}).to_string());
        let failure = |text: &str| (StatusCode::INTERNAL_SERVER_ERROR, json!({"detail": text}).to_string());
        match mode {
            Mode::Well | Mode::Loading => text(words),
            Mode::Sticky => failure("CUDA error: an illegal memory access was encountered"),
            Mode::Cublas => failure("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
            Mode::Hung => std::future::pending().await,
            Mode::Slow(time) => {
                tokio::time::sleep(time).await;
                text(words)
            }
            Mode::Garbage => text("the the the"),
        }
    }
}

async fn serve(Extract(fake): Extract<Arc<Fake>>, request: Request<Body>) -> (StatusCode, String) {
    let path = request.uri().path().to_owned();
    fake.answer(&path, request.into_body()).await
}

/// In memory.
impl Exchange for Fake {
    fn exchange(
        &self,
        _: Transport,
        request: Request<Body>,
        _: usize,
    ) -> BoxFuture<'_, Result<Exchanged, Failure>> {
        async move {
            let path = request.uri().path().to_owned();
            let (status, body) = self.answer(&path, request.into_body()).await;
            let (mut head, ()) = http::Response::new(()).into_parts();
            head.status = status;
            Ok((head, body.into_bytes(), HeaderMap::new()))
        }
        .boxed()
    }
}

struct FakeActuator {
    fake: Arc<Fake>,
    log: Mutex<Option<String>>,
    instance: watch::Sender<Instance>,
    kills: Mutex<Vec<Kill>>,
    /// What a guard keeps for the next one.
    kept: Mutex<Option<Proven>>,
}

impl Actuator for FakeActuator {
    fn instance(&self) -> watch::Receiver<Instance> {
        self.instance.subscribe()
    }

    fn restart(
        &self,
        key: String,
        kill: Kill,
        _why: String,
    ) -> BoxFuture<'static, Result<(), actuator::Error>> {
        self.kills.lock().push(kill);
        *self.fake.mode.lock() = *self.fake.after_restart.lock();
        self.instance.send_replace(Instance { key: format!("{key}+"), life: Life::Running });
        Box::pin(std::future::ready(Ok(())))
    }

    fn proven(&self) -> Option<Proven> {
        self.kept.lock().clone()
    }

    fn keep(&self, proven: &Proven) {
        *self.kept.lock() = Some(proven.clone());
    }

    fn record(&self, key: &str) -> Option<LastRecord> {
        let process = ProcessRecord { log: vec![key.to_owned()], ..ProcessRecord::default() };
        Some(LastRecord { process, finding: None })
    }

    fn end_of_log(&self) -> BoxFuture<'static, Option<String>> {
        Box::pin(std::future::ready(self.log.lock().clone()))
    }
}

struct Stack {
    fake: Arc<Fake>,
    actuator: Arc<FakeActuator>,
    snapshot: Arc<Snapshot>,
    lane: Lane,
    observer: Observer,
    orders: Orders,
    contact: Contact,
    draining: watch::Sender<bool>,
    config: Current,
}

/// Windows short enough for a test, rules as shipped.
pub(in crate::guard) fn policy() -> Policy {
    let mut policy = Policy::default();
    policy.probe.idle_period = Duration::from_millis(300);
    policy.probe.timeout_min = Duration::from_millis(500);
    policy.probe.timeout_max = Duration::from_secs(1);
    policy.confirm.spacing_seconds = vec![0.0, 0.1, 0.2];
    policy.startup.poll = Duration::from_millis(20);
    policy.repair.probation = Duration::from_millis(500);
    policy.repair.spacing_seconds = vec![0.0, 0.1];
    policy.repair.ejected_probe = Duration::from_millis(200);
    policy.repair.burst = 100;
    policy.repair.max_per_day = 100;
    policy
}

/// A configuration with these rules.
pub(in crate::guard) fn configured(policy: Policy) -> Current {
    Current::new(Config { guard: policy, ..Config::default() })
}

impl Stack {
    async fn start(policy: Policy) -> Self {
        let stack = Self::start_with(policy, false, None);
        stack.reaches(State::Healthy).await;
        stack
    }

    /// Beside an engine that an earlier guard has proven.
    fn adopting(policy: Policy, proven: Proven) -> Self {
        Self::start_with(policy, false, Some(proven))
    }

    /// With an operator whose leave is needed.
    async fn operated(policy: Policy) -> Self {
        let stack = Self::start_with(policy, true, None);
        stack.reaches(State::Healthy).await;
        stack
    }

    fn start_with(policy: Policy, operated: bool, proven: Option<Proven>) -> Self {
        let contact = Contact::default();
        let draining = watch::Sender::new(false);
        let config = configured(policy.clone());
        let fake = Fake::new();
        let drain = Drain::new();
        let engine = config::Engine {
            name: "parakeet-0".into(),
            capability: Capability::Stt,
            ..config::Engine::example()
        };
        let first = Instance { key: "parakeet-0/1".into(), life: Life::Running };
        let actuator = Arc::new(FakeActuator {
            fake: fake.clone(),
            log: Mutex::default(),
            instance: watch::Sender::new(first),
            kills: Mutex::default(),
            kept: Mutex::new(proven),
        });
        let catalogue = Arc::new(Catalogue::new(&[]));
        let poison = Arc::new(Mutex::new(Poison::new(policy.repair.poison)));
        let lane = Lane::new(&policy.lane);
        let snapshot = Arc::new(Snapshot::new(
            crate::guard::judge::observation::Standing::starting(),
            crate::guard::first_report(&engine, &policy),
        ));
        let (observer, observations) = Observer::channel();
        let registry = Registry::new();
        let protocols = Arc::new(Protocols::of(&engine).unwrap());
        let forward = Forward::new(forward::Parts {
            engine: engine.clone(),
            policy: policy.clone(),
            lane: lane.clone(),
            observer: observer.clone(),
            standing: snapshot.standing(),
            protocols: protocols.clone(),
            clients: crate::net::Clients::new(),
            catalogue: catalogue.clone(),
            poison: poison.clone(),
            metrics: forward::Metrics::register(&registry).unwrap(),
            drain: crate::net::drain::Drain::new(),
            tracer: trace::Tracer::default(),
        });
        let parts = Parts {
            prober: Arc::new(
                Prober::new(&engine, fake.clone(), protocols.clone(), &policy.probe, catalogue).unwrap(),
            ),
            metrics: Metrics::register(&registry, &engine.name).unwrap(),
            actuator: Some(actuator.clone()),
            vitals: Recorder::default(),
            model_cache: Meter::default(),
            gpu: watch::channel(GpuState::default()).1,
            draining: draining.subscribe(),
            operator: operated.then(|| contact.clone()),
            snapshot: snapshot.clone(),
            tracer: trace::Tracer::default(),
            lane: lane.clone(),
            forward: Arc::new(forward.unwrap()),
            poison,
            protocols,
            engine,
            changes: config.changes(),
            policy,
        };
        let orders = start(parts, observations, &drain);
        Self { fake, actuator, snapshot, lane, observer, orders, contact, draining, config }
    }

    async fn reaches(&self, state: State) {
        let mut reports = self.snapshot.reports();
        let reached = reports.wait_for(|report| report.state == state);
        let reached = tokio::time::timeout(TEST_TIMEOUT, reached).await.map(|report| report.is_ok());
        assert_eq!(reached, Ok(true), "never {state:?}: {:?}", self.snapshot.full_report());
    }

    /// Waits for the restart and for health after it; returns the incident.
    async fn heals(&self) -> Incident {
        let mut reports = self.snapshot.reports();
        let healed = reports.wait_for(|report| report.restarts > 0 && report.state == State::Healthy);
        let healed = tokio::time::timeout(TEST_TIMEOUT, healed).await.map(|report| report.is_ok());
        assert_eq!(healed, Ok(true), "never healed: {:?}", self.snapshot.full_report());
        let report = self.snapshot.full_report();
        assert_eq!(report.incidents.len(), 1, "{:?}", report.incidents);
        report.incidents[0].clone()
    }

    /// A request shows a fault, a moment after all that was seen before.
    async fn hint(&self, class: Class) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = clock();
        self.observer.observe(Observation::Hint(Hint {
            class,
            signature: Some("test".into()),
            status: Some(500),
            body: Some("CUDA error".into()),
            request_hash: None,
            started: now,
            seen: now,
        }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_sticky_fault_is_ejected_killed_at_once_and_proven_well_again() {
    let stack = Stack::start(policy()).await;
    assert!(!stack.lane.is_ejected());
    *stack.fake.mode.lock() = Mode::Sticky;
    stack.hint(Class::Sticky).await;
    let incident = stack.heals().await;
    assert_eq!(incident.class, Class::Sticky);
    assert_eq!(incident.signature.as_deref(), Some("test"));
    assert_eq!(incident.remediation.as_deref(), Some("restart"));
    assert!(incident.healthy_after_ms.is_some());
    let events: Vec<&str> = incident.timeline.iter().map(|moment| moment.event.as_str()).collect();
    let order = ["hint", "ejected", "wedged", "restart", "started", "verified"];
    let mut rest = events.iter();
    assert!(order.iter().all(|event| rest.any(|seen| seen == event)), "{events:?}");
    assert_eq!(*stack.actuator.kills.lock(), [Kill::AtOnce]);
    assert_eq!(incident.process.unwrap().log, [incident.instance], "what the killed instance showed");
    assert!(!stack.lane.is_ejected());
}

#[tokio::test(start_paused = true)]
async fn an_idle_engine_that_fails_or_lies_is_found_by_probes_alone() {
    for (mode, class) in
        [(Mode::Cublas, Class::Ambiguous), (Mode::Garbage, Class::Quality), (Mode::Hung, Class::Periodic)]
    {
        let stack = Stack::start(policy()).await;
        *stack.fake.mode.lock() = mode;
        let incident = stack.heals().await;
        assert_eq!(incident.class, class, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_probes_do_not_confirm_restarts_nothing() {
    let stack = Stack::start(policy()).await;
    stack.hint(Class::Ambiguous).await;
    stack.reaches(State::Suspect).await;
    stack.reaches(State::Healthy).await;
    let report = stack.snapshot.full_report();
    assert_eq!((report.restarts, report.incidents.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_no_restart_cures_is_given_up_and_taken_back_when_it_answers() {
    let mut policy = policy();
    policy.repair.futility_of = 3;
    let stack = Stack::start(policy).await;
    *stack.fake.after_restart.lock() = Mode::Sticky;
    *stack.fake.mode.lock() = Mode::Sticky;
    stack.hint(Class::Sticky).await;
    stack.reaches(State::Exhausted).await;
    assert_eq!(stack.actuator.kills.lock().len(), 3);
    assert!(stack.lane.is_ejected());
    *stack.fake.mode.lock() = Mode::Well;
    stack.reaches(State::Healthy).await;
    assert_eq!(stack.snapshot.full_report().restarts, 3, "it healed by itself");
}

#[tokio::test(start_paused = true)]
async fn a_reset_gives_an_exhausted_engine_new_restarts() {
    let mut policy = policy();
    policy.repair.max_per_day = 1;
    let stack = Stack::start(policy).await;
    *stack.fake.after_restart.lock() = Mode::Sticky;
    *stack.fake.mode.lock() = Mode::Sticky;
    stack.hint(Class::Sticky).await;
    stack.reaches(State::Exhausted).await;
    *stack.fake.after_restart.lock() = Mode::Well;
    stack.orders.reset();
    stack.reaches(State::Healthy).await;
    assert_eq!(stack.snapshot.full_report().restarts, 2);
}

#[tokio::test(start_paused = true)]
async fn a_slow_start_after_a_restart_is_waited_for() {
    let stack = Stack::start(policy()).await;
    *stack.fake.after_restart.lock() = Mode::Loading;
    *stack.fake.mode.lock() = Mode::Sticky;
    stack.hint(Class::Sticky).await;
    stack.reaches(State::Starting).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stack.snapshot.full_report().state, State::Starting);
    *stack.fake.mode.lock() = Mode::Well;
    assert_eq!(stack.heals().await.restarts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_by_itself_is_started_again() {
    let stack = Stack::start(policy()).await;
    stack.actuator.instance.send_modify(|instance| instance.life = Life::Exited);
    let incident = stack.heals().await;
    assert_eq!((incident.class, incident.restarts), (Class::Refused, 1));
}

#[tokio::test(start_paused = true)]
async fn out_of_memory_halves_a_lane_of_several_jobs() {
    let mut policy = policy();
    policy.lane.jobs = 4;
    policy.trend.window = Duration::from_millis(800);
    let stack = Stack::start(policy).await;
    assert_eq!(stack.lane.jobs(), 4);
    stack.hint(Class::Memory).await;
    let deadline = clock() + TEST_TIMEOUT;
    while stack.lane.jobs() != 2 && clock() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stack.lane.jobs(), 2);
    while stack.lane.jobs() != 4 && clock() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(stack.lane.jobs(), 4, "the strain is over");
    assert_eq!(stack.snapshot.full_report().restarts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_only_observes_reports_a_wedge_and_keeps_serving() {
    let mut policy = policy();
    (policy.repair.restart, policy.repair.eject) = (false, false);
    let stack = Stack::start(policy).await;
    *stack.fake.mode.lock() = Mode::Sticky;
    stack.hint(Class::Sticky).await;
    stack.reaches(State::Ejected).await;
    assert_eq!(stack.snapshot.full_report().weight, 1.0);
    assert!(!stack.lane.is_ejected() && stack.snapshot.standing().borrow().serves());
    assert!(stack.actuator.kills.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_draining_engine_takes_nothing_new_and_is_not_restarted() {
    let stack = Stack::start(policy()).await;
    let now = clock();
    let waiting = stack.lane.enqueue(claim(0.1, Priority::Short), now).unwrap();
    stack.draining.send_replace(true);
    let mut reports = stack.snapshot.reports();
    let drains = reports.wait_for(|report| report.draining && report.weight == 0.0);
    assert!(tokio::time::timeout(TEST_TIMEOUT, drains).await.unwrap().is_ok());
    assert!(!stack.snapshot.standing().borrow().serves());
    assert!(!stack.lane.is_ejected(), "a waiting job is still served");
    drop(waiting);
    *stack.fake.mode.lock() = Mode::Sticky;
    stack.hint(Class::Sticky).await;
    stack.reaches(State::Wedged).await;
    assert!(stack.actuator.kills.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn new_rules_count_at_once() {
    let mut rules = policy();
    rules.repair.restart = false;
    let stack = Stack::start(rules).await;
    *stack.fake.mode.lock() = Mode::Sticky;
    stack.hint(Class::Sticky).await;
    stack.reaches(State::Ejected).await;
    stack.config.replace(Config { guard: policy(), ..Config::default() });
    assert_eq!(stack.heals().await.class, Class::Sticky);
}
