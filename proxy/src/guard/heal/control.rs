//! The health loop: takes what was seen, lets pure functions conclude, and does what they say.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use trace::Tracer;

use contract::{RepairOrder, State};

use crate::config::{self, Config, Policy};
use crate::guard::heal::actuator::{self, Actuator, Instance, Life};
use crate::guard::heal::contact::Contact;
use crate::guard::heal::gpu::GpuState;
use crate::guard::heal::incident::Draft;
use crate::guard::heal::metrics::Metrics;
use crate::guard::heal::model_cache::Meter;
use crate::guard::heal::prober::{Outcome, Prober};
use crate::guard::heal::snapshot::Snapshot;
use crate::guard::heal::vitals::recorder::Recorder;
use crate::guard::judge::decide::{Decision, Known, decide};
use crate::guard::judge::evidence::{Evidence, Shallow};
use crate::guard::judge::operator::{Operator, Reply};
use crate::guard::judge::remediation::{Actuation, Remediation, Repairs};
use crate::guard::judge::standing::Acting;
use crate::guard::judge::verdict::Verdict;
use crate::guard::path::forward::Forward;
use crate::guard::path::lane::{Lane, LaneView};
use crate::guard::path::observer::Seen;
use crate::guard::path::signatures::Catalogue;
use crate::guard::protocols::Protocols;
use crate::job::poison::Poison;
use crate::net::drain::Drain;

mod act;
mod record;

/// A loop that runs this late did not get the processor: what seemed late meanwhile may not have been.
const STALL: Duration = Duration::from_millis(500);
/// How far back it counts how much the engine was kept from the CPU.
const VITALS_WINDOWS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(10)];
/// Times in a row that a decision may change what it depends on; a cleared doubt and a new one are two.
const MAX_ROUNDS: usize = 4;

/// What the loop works with.
pub struct Parts {
    /// The engine.
    pub engine: config::Engine,
    /// The rules.
    pub policy: Policy,
    /// New configurations, of which the rules are taken over.
    pub changes: watch::Receiver<Arc<Config>>,
    /// Its lane.
    pub lane: Lane,
    /// Its data path.
    pub forward: Arc<Forward>,
    /// Inputs that its data path refuses.
    pub poison: Arc<Mutex<Poison>>,
    /// What the engine is spoken to in.
    pub protocols: Arc<Protocols>,
    /// What sends golden probes.
    pub prober: Arc<Prober>,
    /// What can restart it, if anything here can.
    pub actuator: Option<Arc<dyn Actuator>>,
    /// How busy its processes are.
    pub vitals: Recorder,
    /// How far its download is.
    pub model_cache: Meter,
    /// What the driver says about its GPU, where it is asked.
    pub gpu: watch::Receiver<GpuState>,
    /// Whether the engine is about to be stopped, where that is announced.
    pub draining: watch::Receiver<bool>,
    /// Who must agree to restarts, if anyone must: when it was last heard.
    pub operator: Option<Contact>,
    /// Where conclusions go.
    pub snapshot: Arc<Snapshot>,
    /// Where the spans of repairs go.
    pub tracer: Tracer,
    /// Counters.
    pub metrics: Metrics,
}

/// What the loop's own tasks report back.
enum Event {
    Probed(Outcome),
    /// A probe whose deadline had passed was answered.
    Late(Outcome),
    Shallow(Shallow),
    Restarted(Result<(), actuator::Error>),
    /// The known text that the engine logged before its end.
    Logged(String),
}

/// Messages to the loop.
enum Told {
    /// A person asks to forget used-up budgets.
    Reset,
    /// The operator's order.
    Order(RepairOrder, oneshot::Sender<Reply>),
}

/// Lets a person or the operator tell the loop what to do.
#[derive(Clone, Debug)]
pub struct Orders {
    told: mpsc::Sender<Told>,
}

impl Orders {
    /// Forgets used-up budgets; the loop tries again.
    pub fn reset(&self) {
        // Orders waiting already are as good as one more.
        let _ = self.told.try_send(Told::Reset);
    }

    /// Gives an order of the operator; `None` when the guard is stopping.
    pub async fn give(&self, order: RepairOrder) -> Option<Reply> {
        let (reply, replied) = oneshot::channel();
        self.told.send(Told::Order(order, reply)).await.ok()?;
        replied.await.ok()
    }
}

struct Probing {
    task: JoinHandle<()>,
    sent: Arc<AtomicBool>,
}

/// The loop's state.
pub struct Health {
    parts: Parts,
    evidence: Evidence,
    repairs: Repairs,
    operator: Option<Operator>,
    draft: Option<Draft>,
    acting: Acting,
    instance: Instance,
    events: mpsc::Sender<Event>,
    probing: Option<Probing>,
    polling: bool,
    polled: Option<Instant>,
    /// When the loop wakes at the latest.
    next_wake: Instant,
    /// When it last woke much later than that.
    stalled: Option<Instant>,
    /// From start to proof of an instance, the longest seen.
    usual_start: Option<Duration>,
    /// Whether the present wedge is in the incident already.
    noted: bool,
    shown: State,
}

/// Starts the loop; it ends when the drain is forced or its observers are gone.
pub fn start(parts: Parts, observations: mpsc::Receiver<Seen>, drain: &Drain) -> Orders {
    let (events, inbox) = mpsc::channel(16);
    let (told, orders) = mpsc::channel(4);
    let now = clock();
    let instances = parts.actuator.as_ref().map(|actuator| actuator.instance());
    let instance = match &instances {
        Some(instances) => instances.borrow().clone(),
        None => Instance { key: format!("{}/external", parts.engine.name), life: Life::Running },
    };
    let mut evidence = Evidence::new(parts.engine.capability, false, now);
    evidence.protocols = parts.protocols.count();
    evidence.awaited = instance.life == Life::Awaited;
    let proven = parts.actuator.as_ref().and_then(|actuator| actuator.proven());
    if proven.as_ref().is_some_and(|proven| proven.key.as_ref() == Some(&instance.key)) {
        tracing::info!(engine = parts.engine.name, "engine was proven by an earlier guard");
        evidence.adopt(now);
    }
    let health = Health {
        evidence,
        repairs: Repairs::default(),
        operator: parts.operator.is_some().then(|| Operator::new(now)),
        draft: None,
        acting: Acting::Idle,
        instance,
        events,
        probing: None,
        polling: false,
        polled: None,
        next_wake: now,
        usual_start: proven.map(|proven| proven.start),
        stalled: None,
        noted: false,
        shown: State::Starting,
        parts,
    };
    let drain = drain.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = health.run(observations, inbox, instances, orders) => {}
            () = drain.forced() => {}
        }
    });
    Orders { told }
}

/// What wakes the loop.
enum Woken {
    Seen(Seen),
    Event(Event),
    Told(Told),
    Policy(Box<Policy>),
    Instance(Instance),
    Time,
}

impl Health {
    async fn run(
        mut self,
        mut observations: mpsc::Receiver<Seen>,
        mut inbox: mpsc::Receiver<Event>,
        mut instances: Option<watch::Receiver<Instance>>,
        mut orders: mpsc::Receiver<Told>,
    ) {
        loop {
            let woken = tokio::select! {
                seen = observations.recv() => match seen {
                    Some(seen) => Woken::Seen(seen),
                    None => return,
                },
                Some(event) = inbox.recv() => Woken::Event(event),
                Some(told) = orders.recv() => Woken::Told(told),
                policy = renewed(&mut self.parts.changes) => Woken::Policy(Box::new(policy)),
                instance = changed(&mut instances) => Woken::Instance(instance),
                () = tokio::time::sleep_until(self.next_wake.into()) => Woken::Time,
            };
            let now = clock();
            self.look_for_stall(now);
            // What is held is let go once it has been concluded from.
            let mut hold = None;
            match woken {
                Woken::Seen(seen) => {
                    self.observe(&seen.observation);
                    hold = seen.hold;
                }
                Woken::Event(event) => self.event(event, now),
                Woken::Told(told) => self.told(told, now),
                Woken::Policy(policy) => self.configure(*policy),
                Woken::Instance(instance) => self.instance(instance, now),
                Woken::Time => {}
            }
            self.step(now);
            drop(hold);
        }
    }

    /// Notes that the guard itself did not run.
    fn look_for_stall(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.next_wake);
        if late >= STALL {
            tracing::warn!(
                engine = self.parts.engine.name,
                late_seconds = late.as_secs_f64(),
                "health loop was starved"
            );
            self.stalled = Some(now);
            self.evidence.stalled(now);
        }
    }

    /// Takes over new rules; what was learned under the old ones stays.
    fn configure(&mut self, policy: Policy) {
        let policy = self.parts.engine.ruled(&policy);
        let catalogue = Arc::new(Catalogue::new(&policy.signatures));
        self.parts.prober = Arc::new(self.parts.prober.renewed(&policy.probe, catalogue.clone()));
        if let Some(actuator) = &self.parts.actuator {
            actuator.recognise(catalogue.clone());
        }
        self.parts.forward.configure(&policy, catalogue);
        self.parts.lane.configure(&policy.lane);
        self.parts.poison.lock().configure(policy.repair.poison);
        self.parts.policy = policy;
        tracing::info!(engine = self.parts.engine.name, "policy renewed");
    }

    /// Concludes, acts and publishes.
    fn step(&mut self, now: Instant) {
        let lane = self.parts.lane.view();
        let activities =
            VITALS_WINDOWS.into_iter().filter_map(|window| self.parts.vitals.activity(window, now));
        self.evidence.held_back = activities.map(|activity| activity.held_back()).fold(0.0, f64::max);
        if let (Some(operator), Some(contact)) = (&mut self.operator, &self.parts.operator)
            && let Some(heard) = contact.last(now)
        {
            operator.hear(heard, &self.parts.policy.repair.alone);
        }
        let mut decision = decide(&self.known(&lane), now);
        for _ in 0..MAX_ROUNDS {
            if !self.record(&decision, &lane, now) {
                break;
            }
            decision = decide(&self.known(&lane), now);
        }
        self.note(decision.verdict, now);
        self.act(&decision, &lane, now);
        self.next_wake = decision.next_wake;
        self.publish(decision, &lane, now);
    }

    fn known<'a>(&'a self, lane: &'a LaneView) -> Known<'a> {
        let can_restart = self.parts.actuator.is_some() && self.instance.life != Life::Awaited;
        let actuation = match (can_restart, &self.operator) {
            (false, _) => Actuation::None,
            (true, None) => Actuation::Own,
            (true, Some(_)) => Actuation::Asks,
        };
        Known {
            evidence: &self.evidence,
            lane,
            repairs: &self.repairs,
            acting: self.acting,
            actuation,
            draining: *self.parts.draining.borrow(),
            gpu_is_lost: self.parts.gpu.borrow().restart_is_futile(),
            operator: self.operator.as_ref(),
            policy: &self.parts.policy,
        }
    }

    /// Records what a decision says of the evidence; whether that changed what it depends on.
    fn record(&mut self, decision: &Decision, lane: &LaneView, now: Instant) -> bool {
        if let Some(doubt) = decision.doubt {
            self.overdue(doubt, lane, now);
            return true;
        }
        if let Verdict::Cleared(class) = decision.verdict {
            self.cleared(class, now);
            return true;
        }
        let may_act = self.acting == Acting::Idle && !*self.parts.draining.borrow();
        let wish = if may_act { decision.wish } else { Remediation::None };
        let class = decision.verdict.class();
        let operator = self.operator.as_mut();
        operator.is_some_and(|operator| operator.note(wish, &self.instance.key, class, now, unix_ms))
    }
}

/// The clock that paused tests control.
fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn unix_ms() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

async fn renewed(changes: &mut watch::Receiver<Arc<Config>>) -> Policy {
    match changes.changed().await {
        Ok(()) => changes.borrow_and_update().guard.clone(),
        Err(_) => std::future::pending().await,
    }
}

async fn changed(instances: &mut Option<watch::Receiver<Instance>>) -> Instance {
    if let Some(instances) = instances
        && instances.changed().await.is_ok()
    {
        return instances.borrow_and_update().clone();
    }
    std::future::pending().await
}

#[cfg(test)]
pub(in crate::guard) mod tests;
