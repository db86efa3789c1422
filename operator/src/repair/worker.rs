//! Tasks beside the loop: they read, write and act, at most so many at a time, and report back.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::reflector::ObjectRef;
use speechstack_crds::{Outcome, RepairStatus, SpeechStack};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::act::{Act, Deferral};
use super::decide::News;
use super::events::Events;
use super::record::Key;
use super::{Context, Metrics, events, execute};
use crate::guards::Guards;

/// Calls at the same time.
const CALLS: usize = 64;

/// What a task reports.
pub(super) enum Done {
    /// The newest record.
    Read { stack: ObjectRef<SpeechStack>, result: Result<RepairStatus, execute::Error> },
    /// The record was written, or not; what was to follow.
    Written {
        stack: ObjectRef<SpeechStack>,
        acts: Vec<Act>,
        known: Vec<(Key, Outcome)>,
        result: Result<(), execute::Error>,
    },
    /// A guard could not be told that its request waits.
    Deferred { stack: ObjectRef<SpeechStack>, pod_uid: String },
    /// An act was done, or not.
    Acted { stack: ObjectRef<SpeechStack>, act: Act, result: Result<(), execute::Error> },
}

/// What is to be recorded, and what follows from it.
pub(super) struct Record {
    pub(super) planned: RepairStatus,
    pub(super) acts: Vec<Act>,
    pub(super) news: Vec<News>,
    /// What acts said of themselves, recorded with it.
    pub(super) known: Vec<(Key, Outcome)>,
}

/// What tasks work with.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) events: Events,
    client: kube::Client,
    guards: Guards,
    metrics: Metrics,
    calls: Arc<Semaphore>,
    // Bounded by the stacks and acts that are under way.
    done: mpsc::UnboundedSender<Done>,
    cancel: CancellationToken,
}

impl Worker {
    pub(super) fn new(context: &Context, cancel: CancellationToken) -> (Self, mpsc::UnboundedReceiver<Done>) {
        let (done, inbox) = mpsc::unbounded_channel();
        let worker = Self {
            events: Events::start(context.client.clone()),
            client: context.client.clone(),
            guards: context.guards.clone(),
            metrics: context.metrics.clone(),
            calls: Arc::new(Semaphore::new(CALLS)),
            done,
            cancel,
        };
        (worker, inbox)
    }

    /// Reads the newest record of a stack.
    pub(super) fn read(&self, stack: &ObjectRef<SpeechStack>, found: &Arc<SpeechStack>) {
        let (worker, stack, found) = (self.clone(), stack.clone(), Arc::clone(found));
        tokio::spawn(async move {
            let _permit = worker.calls.acquire().await;
            let result = execute::read(&worker.client, &found).await;
            worker.report(Done::Read { stack, result });
        });
    }

    /// Writes the record, then has the acts done: never the other way round.
    pub(super) fn write(
        &self,
        stack: &ObjectRef<SpeechStack>,
        found: &Arc<SpeechStack>,
        reference: ObjectReference,
        record: Record,
    ) {
        let (worker, stack, found) = (self.clone(), stack.clone(), Arc::clone(found));
        tokio::spawn(async move {
            // A former leader writes nothing more.
            if worker.cancel.is_cancelled() {
                return;
            }
            let Record { planned, acts, news, known } = record;
            let result = execute::write(&worker.client, &found, &planned).await;
            let written = result.is_ok();
            let stack_again = stack.clone();
            worker.report(Done::Written { stack: stack_again, acts: acts.clone(), known, result });
            if !written {
                return;
            }
            for act in acts {
                worker.act(stack.clone(), act);
            }
            for news in &news {
                if let News::Settled(record) = news {
                    worker.metrics.settled(record);
                }
                events::note(&reference, news).into_iter().for_each(|note| worker.events.tell(note));
            }
        });
    }

    /// Does one act; a former leader does none.
    pub(super) fn act(&self, stack: ObjectRef<SpeechStack>, act: Act) {
        let worker = self.clone();
        tokio::spawn(async move {
            let _permit = worker.calls.acquire().await;
            if worker.cancel.is_cancelled() {
                return;
            }
            let namespace = stack.namespace.clone().unwrap_or_default();
            let result = execute::act(&worker.client, &worker.guards, &worker.events, &namespace, &act).await;
            worker.report(Done::Acted { stack, act, result });
        });
    }

    /// Tells a guard to hold its request.
    pub(super) fn defer(&self, stack: &ObjectRef<SpeechStack>, deferral: Deferral) {
        if deferral.address.is_none() {
            return;
        }
        let (worker, stack) = (self.clone(), stack.clone());
        tokio::spawn(async move {
            let _permit = worker.calls.acquire().await;
            if let Err(error) = execute::defer(&worker.guards, &deferral).await {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(pod = %deferral.pod, error, "unable to defer a repair");
                worker.report(Done::Deferred { stack, pod_uid: deferral.pod_uid });
            }
        });
    }

    /// Removes labels of a node.
    pub(super) fn readmit_node(&self, node: String, labels: Vec<String>) {
        let client = self.client.clone();
        tokio::spawn(async move {
            if let Err(error) = execute::readmit_node(&client, &node, &labels).await {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(%node, error, "unable to remove an expired label");
            }
        });
    }

    fn report(&self, done: Done) {
        // Without a driver there is none to wake.
        let _ = self.done.send(done);
    }
}
