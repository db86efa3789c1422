//! The health loop: takes what was seen, lets pure functions conclude, and does what they say.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::board::Board;
use super::evidence::{Evidence, Shallow};
use super::forward::Forward;
use super::incident::Draft;
use super::lane::{Lane, LaneView};
use super::metrics::Metrics;
use super::observation::Observation;
use super::poison::Poison;
use super::probe::{Outcome, Prober};
use super::remediation::{Remediation, Repairs, remediation};
use super::supervisor::{self, Actuator, Instance, Life};
use super::verdict::{Verdict, hang, verdict};
use crate::config::{self, Policy};
use crate::drain::Drain;
use crate::report::{Class, State};

mod act;
mod record;
mod schedule;
mod standing;

use schedule::due;
use standing::Acting;
pub use standing::standing;

/// Rules that depend on time alone are looked at this often; everything else wakes the loop at once.
const TICK: Duration = Duration::from_millis(100);

/// What the loop works with.
pub struct Parts {
    /// The engine.
    pub engine: config::Engine,
    /// The rules.
    pub policy: Policy,
    /// Its lane.
    pub lane: Lane,
    /// Its data path.
    pub forward: Arc<Forward>,
    /// Inputs that its data path refuses.
    pub poison: Arc<Mutex<Poison>>,
    /// What sends golden probes.
    pub prober: Arc<Prober>,
    /// What can restart it, if anything here can.
    pub actuator: Option<Arc<dyn Actuator>>,
    /// Where conclusions go.
    pub board: Arc<Board>,
    /// Counters.
    pub metrics: Metrics,
}

/// What the loop's own tasks report back.
enum Event {
    Probed(Outcome),
    Shallow(Shallow),
    Restarted(Result<(), supervisor::Error>),
    Reset,
}

/// Lets a person tell the loop to forget used-up budgets.
#[derive(Clone, Debug)]
pub struct Reset {
    events: mpsc::Sender<()>,
}

impl Reset {
    /// Forgets used-up budgets; the loop tries again.
    pub fn reset(&self) {
        // One waiting reset is as good as two.
        let _ = self.events.try_send(());
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
pub fn start(parts: Parts, observations: mpsc::Receiver<Observation>, drain: &Drain) -> Reset {
    let (events, inbox) = mpsc::channel(16);
    let (resets, wishes) = mpsc::channel(1);
    let now = Instant::now();
    let instances = parts.actuator.as_ref().map(|actuator| actuator.instance());
    let instance = match &instances {
        Some(instances) => instances.borrow().clone(),
        None => Instance { key: format!("{}/external", parts.engine.name), life: Life::Running },
    };
    let health = Health {
        evidence: Evidence::new(parts.engine.kind, false, now),
        repairs: Repairs::default(),
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
            () = health.run(observations, inbox, instances, wishes) => {}
            () = drain.forced() => {}
        }
    });
    Reset { events: resets }
}

impl Health {
    async fn run(
        mut self,
        mut observations: mpsc::Receiver<Observation>,
        mut inbox: mpsc::Receiver<Event>,
        mut instances: Option<watch::Receiver<Instance>>,
        mut wishes: mpsc::Receiver<()>,
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
                Some(()) = wishes.recv() => self.event(Event::Reset, Instant::now()),
                instance = changed(&mut instances) => self.instance(instance, Instant::now()),
                _ = tick.tick() => {}
            }
            self.step(Instant::now());
        }
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
            verdict = super::verdict::verdict(&self.evidence, &lane, &self.parts.policy, now);
        }
        self.note(verdict, now);
        let can_restart = self.parts.actuator.is_some();
        let remediation = remediation(verdict, &self.repairs, can_restart, &self.parts.policy, now);
        if self.acting == Acting::Idle {
            match remediation {
                Remediation::Restart(order) => self.restart(order, verdict, now),
                Remediation::Recycle(order) if lane.running.is_empty() => self.restart(order, verdict, now),
                Remediation::Recycle(_)
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
        self.publish(standing, verdict, now);
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
        self.open_draft(Class::Hang, oldest.max(self.evidence.progress), now);
        let inputs = self.parts.forward.inputs_in_flight();
        if let (Some(draft), [input]) = (&mut self.draft, inputs.as_slice()) {
            draft.blame(input.to_string());
        }
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
mod tests;
