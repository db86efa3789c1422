//! The loop of repair: looks at stacks of which something changed, records what is decided, and has it done.
//!
//! One task looks and decides for all stacks, so that the cluster's budget needs no lock; reads, writes and acts run
//! beside it and report back. A stack with a write under way is not decided on.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use speechstack_crds::{Outcome, SpeechStack};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget;
use super::decide::decide;
use super::events::Note;
use super::execute::{self, Done, Record, Worker};
use super::plan::{self, Act, Cluster, Deferral, Key, Plan};
use super::tracked::{Tracked, Turn};
use super::view::view;
use super::{Context, node};
use crate::pods::EnginePod;

/// Rules that depend on time alone are looked at this often.
const TICK: Duration = Duration::from_secs(1);
/// Every so many ticks all stacks are looked at, for changes of their specs.
const ALL: u64 = 5;
/// Every so many ticks the labels of nodes are looked at.
const SWEEP: u64 = 60;
/// Wait after the record could not be read or written.
const REST: Duration = Duration::from_secs(1);

/// The loop's state.
pub(super) struct Driver {
    context: Context,
    cancel: CancellationToken,
    worker: Worker,
    histories: HashMap<ObjectRef<SpeechStack>, Tracked>,
    inbox: mpsc::UnboundedReceiver<Done>,
}

impl Driver {
    pub(super) fn new(context: Context, cancel: CancellationToken) -> Self {
        let (worker, inbox) = Worker::new(&context, cancel.clone());
        Self { worker, histories: HashMap::new(), context, cancel, inbox }
    }

    pub(super) async fn run(mut self) {
        let stacks = self.context.stacks.clone();
        // Before all stacks are known, marks of nodes would seem to be of none of them.
        match self.cancel.run_until_cancelled(stacks.wait_until_ready()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
        let mut changes = self.context.guards.changes();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0_u64;
        let mut dirty: HashSet<ObjectRef<SpeechStack>> = HashSet::new();
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                change = changes.recv() => match change {
                    Ok(stack) => {
                        dirty.insert(stack);
                    }
                    // Too many at once: look at all.
                    Err(RecvError::Lagged(_)) => dirty.extend(self.all()),
                    Err(RecvError::Closed) => return,
                },
                Some(done) = self.inbox.recv() => dirty.extend(self.note(done)),
                _ = tick.tick() => {
                    self.time(ticks, &mut dirty);
                    ticks += 1;
                }
            }
            while let Ok(stack) = changes.try_recv() {
                dirty.insert(stack);
            }
            self.look(&mut dirty);
        }
    }

    fn all(&self) -> impl Iterator<Item = ObjectRef<SpeechStack>> + use<> {
        let stacks = self.context.stacks.state();
        stacks.into_iter().map(|stack| ObjectRef::from_obj(stack.as_ref()))
    }

    /// What is due by time alone.
    fn time(&mut self, ticks: u64, dirty: &mut HashSet<ObjectRef<SpeechStack>>) {
        let astir =
            self.histories.iter().filter(|(_, history)| !history.is_calm()).map(|(stack, _)| stack.clone());
        dirty.extend(astir);
        if ticks.is_multiple_of(ALL) {
            dirty.extend(self.all());
            let (open, lost) = self.context.guards.streams();
            self.context.metrics.streams(open, lost);
        }
        if ticks % SWEEP == 1 {
            self.sweep();
        }
    }

    /// Removes marks of nodes whose time is over or whose engine is gone, whether or not new ones may be set.
    fn sweep(&self) {
        let now = Timestamp::now();
        let stacks = self.context.stacks.state();
        let known: BTreeSet<String> = stacks.iter().flat_map(|stack| avoid_labels(stack)).collect();
        for found in self.context.nodes.state() {
            let stale = node::stale(&found, &known, self.context.namespace.as_deref(), now);
            if !stale.is_empty() {
                self.worker.sweep(found.name_any(), stale);
            }
        }
    }

    /// Takes in what a task reports; the stack to look at again.
    fn note(&mut self, done: Done) -> Option<ObjectRef<SpeechStack>> {
        match done {
            Done::Read { stack, result } => {
                let history = self.histories.get_mut(&stack)?;
                history.busy = false;
                match result {
                    Ok(status) => {
                        history.status = plan::merge(&status, Some(&history.status));
                        history.loaded = true;
                    }
                    Err(error) => {
                        warn(&error, "unable to read the record of repairs");
                        history.rest_until = Some(Instant::now() + REST);
                    }
                }
                Some(stack)
            }
            Done::Written { stack, acts, known, result } => {
                let history = self.histories.get_mut(&stack)?;
                history.busy = false;
                let planned = history.planned.take();
                match result {
                    Ok(()) => history.status = planned.unwrap_or_default(),
                    Err(error) => {
                        warn(&error, "unable to record a repair");
                        history.untake(&acts);
                        history.known.extend(known);
                        history.rest_until = Some(Instant::now() + REST);
                        // Whether it was written is not known: read before the next decision.
                        history.loaded = false;
                    }
                }
                Some(stack)
            }
            Done::Deferred { stack, pod_uid } => {
                self.histories.get_mut(&stack)?.unanswer(&pod_uid);
                None
            }
            Done::Acted { stack, act, result } => {
                let history = self.histories.get_mut(&stack)?;
                let outcome = conclude(history, &act, result);
                history.known.extend(outcome);
                Some(stack)
            }
        }
    }

    /// Looks at the stacks of which something changed.
    fn look(&mut self, dirty: &mut HashSet<ObjectRef<SpeechStack>>) {
        let mut nodes = None;
        for stack in std::mem::take(dirty) {
            let Some(found) = self.context.stacks.get(&stack) else {
                self.histories.remove(&stack);
                continue;
            };
            let pods = self.context.pods.of_stack(&stack);
            self.look_at(&stack, &found, &pods, &mut nodes);
        }
    }

    fn look_at(
        &mut self,
        stack: &ObjectRef<SpeechStack>,
        found: &Arc<SpeechStack>,
        pods: &[Arc<EnginePod>],
        nodes: &mut Option<Vec<Arc<Node>>>,
    ) {
        if self.histories.get(stack).is_none_or(Tracked::is_calm) && self.is_calm(found, pods) {
            return;
        }
        let now = Instant::now();
        let history = self.histories.entry(stack.clone()).or_default();
        if history.uid != found.metadata.uid {
            *history = Tracked::new(found.metadata.uid.clone());
        }
        if history.busy || history.rest_until.is_some_and(|until| now < until) {
            return;
        }
        history.rest_until = None;
        if !history.loaded {
            history.busy = true;
            self.worker.read(stack, found);
            return;
        }
        let observed = found.status.as_ref().and_then(|status| status.repair.as_ref());
        history.status = plan::merge(&history.status, observed);
        let nodes = nodes.get_or_insert_with(|| self.context.nodes.state());
        let view = view(
            found,
            pods,
            (nodes.as_slice(), &self.context.volumes),
            &self.context.guards,
            &self.context.presets,
            self.context.node_escalation,
        );
        let time = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap_or_default();
        let turns = history.turns(&view, time);
        let known = std::mem::take(&mut history.known);
        let cluster = self.cluster(stack);
        let plan =
            self.histories.get(stack).map(|history| decide(&view, &history.status, &known, &cluster, time));
        let Some(plan) = plan else { return };
        let reference = found.object_ref(&());
        for turn in turns {
            self.worker.events.tell(tell(&reference, turn));
        }
        self.proceed(stack, found, plan, &reference, known);
    }

    /// Whether nothing about the stack calls for a look.
    fn is_calm(&self, stack: &SpeechStack, pods: &[Arc<EnginePod>]) -> bool {
        let guards = &self.context.guards;
        let calm = |pod: &Arc<EnginePod>| guards.is_calm(&pod.uid);
        let repair = stack.status.as_ref().and_then(|status| status.repair.as_ref());
        let recorded = repair.is_none_or(|repair| {
            repair.stopped.is_empty()
                && repair.correlated.is_empty()
                && repair.records.iter().all(|record| record.outcome != Outcome::Pending)
        });
        let reset = stack.metadata.annotations.as_ref().and_then(|all| all.get(super::RESET));
        let is_reset = reset.is_none() || repair.and_then(|repair| repair.reset.as_ref()) == reset;
        recorded && is_reset && pods.iter().all(calm)
    }

    /// Repairs of all stacks but that one.
    fn cluster(&self, but: &ObjectRef<SpeechStack>) -> Cluster {
        let mut cluster = Cluster { limit: self.context.per_cluster, ..Cluster::default() };
        for found in self.context.stacks.state() {
            let stack = ObjectRef::from_obj(found.as_ref());
            if stack == *but {
                continue;
            }
            let history = self.histories.get(&stack).filter(|history| history.loaded);
            let own = history.map(|history| history.planned.as_ref().unwrap_or(&history.status));
            let observed = found.status.as_ref().and_then(|status| status.repair.as_ref());
            let records = own.or(observed).into_iter().flat_map(|repair| &repair.records);
            for record in records.filter(|record| budget::counts(record)) {
                match &record.node {
                    _ if budget::on_pod(record.rung) => cluster.repairs.push(record.ordered.0),
                    Some(node) => cluster.nodes.push((node.clone(), record.ordered.0)),
                    None => {}
                }
            }
        }
        cluster
    }

    /// Records the plan if it differs from what is recorded, then has it done.
    fn proceed(
        &mut self,
        stack: &ObjectRef<SpeechStack>,
        found: &Arc<SpeechStack>,
        plan: Plan,
        reference: &ObjectReference,
        known: Vec<(Key, Outcome)>,
    ) {
        let now = Instant::now();
        let Some(history) = self.histories.get_mut(stack) else { return };
        let acts = history.take(plan.acts, &plan.news, now);
        let deferrals = history.answer(plan.deferrals, now);
        for (deferral, is_new) in &deferrals {
            if *is_new {
                self.context.metrics.deferred(deferral.held);
                self.worker.events.tell(deferred(reference, deferral));
            }
        }
        if plan.status == history.status {
            history.tidy();
            acts.into_iter().for_each(|act| self.worker.act(stack.clone(), act));
        } else {
            history.busy = true;
            history.planned = Some(plan.status.clone());
            history.tidy();
            let record = Record { planned: plan.status, acts, news: plan.news, known };
            self.worker.write(stack, found, reference.clone(), record);
        }
        deferrals.into_iter().for_each(|(deferral, _)| self.worker.defer(stack, deferral));
    }
}

/// Keys of the labels that keep a stack's engines off nodes.
fn avoid_labels(stack: &SpeechStack) -> Vec<String> {
    let (namespace, name) = (stack.namespace().unwrap_or_default(), stack.name_any());
    let engines = stack.spec.engines();
    engines.map(|(_, engine)| crate::names::avoid_label(&namespace, &name, &engine.name)).collect()
}

/// What an act's result means for its record, if it says anything by itself.
fn conclude(history: &Tracked, act: &Act, result: Result<(), execute::Error>) -> Option<(Key, Outcome)> {
    match (act, result) {
        (Act::ReportNode { key, .. } | Act::TaintNode { key, .. }, Ok(())) => {
            Some((key.clone(), Outcome::Done))
        }
        (Act::Grant { .. } | Act::Replace { .. } | Act::Reset { .. } | Act::Readmit { .. }, Ok(())) => None,
        (Act::Grant { key, .. } | Act::Replace { key, .. }, Err(error)) => {
            let withdrawn = error.is_outdated() && history.is_first(key);
            if !withdrawn {
                warn(&error, "unable to repair");
            }
            withdrawn.then(|| (key.clone(), Outcome::Withdrawn))
        }
        (
            Act::ReportNode { .. } | Act::TaintNode { .. } | Act::Readmit { .. } | Act::Reset { .. },
            Err(error),
        ) => {
            warn(&error, "unable to repair");
            None
        }
    }
}

fn tell(stack: &ObjectReference, turn: Turn) -> Note {
    let (reason, text, pod) = match turn {
        Turn::Wedged(pod, class) => {
            ("InferenceWedged", format!("the engine of pod {pod} cannot serve, class {class}"), pod)
        }
        Turn::Stuck(pod) => (
            "KillStuck",
            format!(
                "the engine's process in pod {pod} does not end; its node needs a look, nothing is forced"
            ),
            pod,
        ),
    };
    Note { regarding: stack.clone(), warning: true, reason, action: "Judge", text, pod: Some(pod) }
}

fn deferred(stack: &ObjectReference, deferral: &Deferral) -> Note {
    let text = format!("repair of pod {} waits: {}", deferral.pod, deferral.held.as_str());
    Note {
        regarding: stack.clone(),
        warning: true,
        reason: "RestartDeferred",
        action: deferral.held.as_str(),
        text,
        pod: Some(deferral.pod.clone()),
    }
}

fn warn(error: &execute::Error, message: &'static str) {
    let error: &dyn std::error::Error = error;
    tracing::warn!(error, "{message}");
}
