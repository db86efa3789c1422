//! The health loop: takes what was seen, lets pure functions conclude, and does what they say.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use contract::{Class, RepairOrder, State};

use crate::config::{self, Config, Policy};
use crate::guard::heal::actuator::{self, Actuator, Instance, Life};
use crate::guard::heal::incident::Draft;
use crate::guard::heal::metrics::Metrics;
use crate::guard::heal::operator::{Case, Contact, Operator, Reply};
use crate::guard::heal::prober::{Outcome, Prober};
use crate::guard::heal::snapshot::Snapshot;
use crate::guard::judge::evidence::{Evidence, Shallow};
use crate::guard::judge::observation::Observation;
use crate::guard::judge::remediation::{Remediation, Repairs, remediation};
use crate::guard::judge::verdict::{Verdict, hang, verdict};
use crate::guard::path::forward::Forward;
use crate::guard::path::lane::{Lane, LaneView};
use crate::guard::path::signatures::Catalogue;
use crate::guard::protocols::Protocols;
use crate::job::poison::Poison;
use crate::net::drain::Drain;

mod act;
mod record;

use crate::guard::judge::schedule::due;
use crate::guard::judge::standing::{Acting, standing};

/// Rules that depend on time alone are looked at this often; everything else wakes the loop at once.
const TICK: Duration = Duration::from_millis(100);

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
    /// Whether the engine is about to be stopped, where that is announced.
    pub draining: watch::Receiver<bool>,
    /// Who must agree to restarts, if anyone must: when it was last heard.
    pub operator: Option<Contact>,
    /// Where conclusions go.
    pub snapshot: Arc<Snapshot>,
    /// Counters.
    pub metrics: Metrics,
}

/// What the loop's own tasks report back.
enum Event {
    Probed(Outcome),
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
    /// Whether the present wedge is in the incident already.
    noted: bool,
    shown: State,
}

/// Starts the loop; it ends when the drain is forced or its observers are gone.
pub fn start(parts: Parts, observations: mpsc::Receiver<Observation>, drain: &Drain) -> Orders {
    let (events, inbox) = mpsc::channel(16);
    let (told, orders) = mpsc::channel(4);
    let now = Instant::now();
    let instances = parts.actuator.as_ref().map(|actuator| actuator.instance());
    let instance = match &instances {
        Some(instances) => instances.borrow().clone(),
        None => Instance { key: format!("{}/external", parts.engine.name), life: Life::Running },
    };
    let mut evidence = Evidence::new(parts.engine.capability, false, now);
    evidence.protocols = parts.protocols.count();
    evidence.awaited = instance.life == Life::Awaited;
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

impl Health {
    async fn run(
        mut self,
        mut observations: mpsc::Receiver<Observation>,
        mut inbox: mpsc::Receiver<Event>,
        mut instances: Option<watch::Receiver<Instance>>,
        mut orders: mpsc::Receiver<Told>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                observation = observations.recv() => match observation {
                    Some(observation) => self.observe(&observation),
                    None => return,
                },
                Some(event) = inbox.recv() => self.event(event, Instant::now()),
                Some(told) = orders.recv() => self.told(told, Instant::now()),
                policy = renewed(&mut self.parts.changes) => self.configure(policy),
                instance = changed(&mut instances) => self.instance(instance, Instant::now()),
                _ = tick.tick() => {}
            }
            self.step(Instant::now());
        }
    }

    /// Takes over new rules; what was learned under the old ones stays.
    fn configure(&mut self, policy: Policy) {
        let catalogue = Arc::new(Catalogue::new(&policy.signatures));
        self.parts.prober = Arc::new(self.parts.prober.renewed(&policy.probe, catalogue.clone()));
        self.parts.forward.configure(&policy, catalogue);
        self.parts.lane.configure(&policy.lane);
        self.parts.poison.lock().configure(policy.repair.poison);
        self.parts.policy = policy;
        tracing::info!(engine = self.parts.engine.name, "policy renewed");
    }

    /// Concludes and acts.
    fn step(&mut self, now: Instant) {
        let lane = self.parts.lane.view();
        if let Some(progress) = self.parts.forward.last_progress(now) {
            self.evidence.progress = self.evidence.progress.max(progress);
        }
        self.look_for_hang(&lane, now);
        let mut verdict = verdict(&self.evidence, &lane, &self.parts.policy, now);
        if let Verdict::Cleared(class) = verdict {
            self.cleared(class, now);
            verdict = crate::guard::judge::verdict::verdict(&self.evidence, &lane, &self.parts.policy, now);
        }
        self.note(verdict, now);
        let can_restart = self.parts.actuator.is_some() && self.instance.life != Life::Awaited;
        let wish = remediation(verdict, &self.repairs, can_restart, &self.parts.policy, now);
        // An engine that is about to be stopped is not worth a restart.
        let may_act = self.acting == Acting::Idle && !*self.parts.draining.borrow();
        let remediation = self.allowed(if may_act { wish } else { Remediation::None }, verdict, now);
        let remediation = if may_act { remediation } else { wish };
        if may_act {
            match remediation {
                Remediation::Restart(order) => self.restart(order, verdict, now),
                Remediation::Recycle(order) if lane.running.is_empty() => self.restart(order, verdict, now),
                Remediation::Recycle(_)
                | Remediation::Ask(_)
                | Remediation::None
                | Remediation::Hold { .. }
                | Remediation::Stop(_) => {}
            }
        }
        if self.acting == Acting::Idle {
            self.poll_shallow(verdict, now);
            if let Some(due) = due(&self.evidence, verdict, &lane, &self.parts.policy, now) {
                self.probe(due);
            }
        }
        self.soften(now);
        let policy = &self.parts.policy;
        let standing =
            standing(&self.evidence, verdict, remediation, self.acting, &self.repairs, policy, now);
        self.parts.metrics.waiting(lane.waiting);
        self.publish(standing, verdict, now);
    }

    /// What the operator, if there is one, leaves of what the guard wants.
    fn allowed(&mut self, wish: Remediation, verdict: Verdict, now: Instant) -> Remediation {
        let Some(operator) = &mut self.operator else { return wish };
        let policy = &self.parts.policy.repair.alone;
        if let Some(heard) = self.parts.operator.as_ref().and_then(|contact| contact.last(now)) {
            operator.hear(heard, policy);
        }
        operator.note(wish, &self.instance.key, verdict.class(), now, unix_ms);
        let last = self.evidence.telling_probes(self.evidence.started).next_back();
        let golden_failed = last.is_some_and(|probe| probe.failure.is_some());
        operator.decide(wish, Case { class: verdict.class(), golden_failed }, policy, now)
    }

    /// Halves the lane for as long as losses of memory or of single requests are recent.
    fn soften(&self, now: Instant) {
        let policy = &self.parts.policy;
        let strained = Evidence::recent(&self.evidence.losses, policy.trend.window, now) > 0;
        let jobs = if strained { policy.lane.jobs / 2 } else { policy.lane.jobs };
        if jobs.max(1) != self.parts.lane.jobs() {
            self.parts.lane.set_jobs(jobs);
        }
    }

    /// Raises a doubt when jobs in flight are overdue.
    fn look_for_hang(&mut self, lane: &LaneView, now: Instant) {
        let known =
            self.evidence.suspicion.is_some_and(|open| open.class.is_sticky() || open.class == Class::Hang);
        if self.evidence.verified.is_none() || known {
            return;
        }
        let Some(oldest) = hang(&self.evidence, lane, &self.parts.policy.hang, now) else { return };
        self.evidence.suspect(Class::Hang, oldest, now);
        self.parts.forward.doubt_oldest();
        self.open_draft(Class::Hang, oldest.max(self.evidence.progress), now);
        let inputs = self.parts.forward.inputs_in_flight();
        if let (Some(draft), [input]) = (&mut self.draft, inputs.as_slice()) {
            draft.blame(input.to_string());
        }
    }
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
