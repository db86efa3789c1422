//! Tasks beside the loop: they read, write and act, at most so many at a time, and report back.

use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::reflector::ObjectRef;
use speechstack_crds::{Outcome, RepairStatus, SpeechStack};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{Error, defer, read, sweep, write};
use crate::guards::Guards;
use crate::repair::Context;
use crate::repair::events::{self, Events, Metrics};
use crate::repair::node::Stale;
use crate::repair::plan::{Act, Deferral, Key, News};
use crate::repair::traced::Traces;

/// Calls at the same time.
const CALLS: usize = 64;

/// What a task reports.
pub(in crate::repair) enum Done {
    /// The newest record.
    Read { stack: ObjectRef<SpeechStack>, result: Result<RepairStatus, Error> },
    /// The record was written, or not; what was to follow.
    Written {
        stack: ObjectRef<SpeechStack>,
        acts: Vec<Act>,
        known: Vec<(Key, Outcome)>,
        result: Result<(), Error>,
    },
    /// A guard could not be told that its request waits.
    Deferred { stack: ObjectRef<SpeechStack>, pod_uid: String },
    /// An act was done, or not.
    Acted { stack: ObjectRef<SpeechStack>, act: Act, result: Result<(), Error> },
}

/// What is to be recorded, and what follows from it.
pub(in crate::repair) struct Record {
    pub(in crate::repair) planned: RepairStatus,
    pub(in crate::repair) acts: Vec<Act>,
    pub(in crate::repair) news: Vec<News>,
    /// What acts said of themselves, recorded with it.
    pub(in crate::repair) known: Vec<(Key, Outcome)>,
}

/// What tasks work with.
#[derive(Clone)]
pub(in crate::repair) struct Worker {
    pub(in crate::repair) events: Events,
    client: kube::Client,
    guards: Guards,
    metrics: Metrics,
    traces: Traces,
    calls: Arc<Semaphore>,
    // Bounded by the stacks and acts that are under way.
    done: mpsc::UnboundedSender<Done>,
    cancel: CancellationToken,
}

impl Worker {
    pub(in crate::repair) fn new(
        context: &Context,
        cancel: CancellationToken,
    ) -> (Self, mpsc::UnboundedReceiver<Done>) {
        let (done, inbox) = mpsc::unbounded_channel();
        let worker = Self {
            events: Events::start(context.client.clone()),
            client: context.client.clone(),
            guards: context.guards.clone(),
            metrics: context.metrics.clone(),
            traces: Traces::new(context.tracer.clone()),
            calls: Arc::new(Semaphore::new(CALLS)),
            done,
            cancel,
        };
        (worker, inbox)
    }

    /// Reads the newest record of a stack.
    pub(in crate::repair) fn read(&self, stack: &ObjectRef<SpeechStack>, found: &Arc<SpeechStack>) {
        let (worker, stack, found) = (self.clone(), stack.clone(), Arc::clone(found));
        tokio::spawn(async move {
            let _permit = worker.calls.acquire().await;
            let result = read(&worker.client, &found).await;
            worker.report(Done::Read { stack, result });
        });
    }

    /// Writes the record, then has the acts done: never the other way round.
    pub(in crate::repair) fn write(
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
            let began = SystemTime::now();
            let result = write(&worker.client, &found, &planned).await;
            let written = result.is_ok();
            let stack_again = stack.clone();
            worker.report(Done::Written { stack: stack_again, acts: acts.clone(), known, result });
            if !written {
                return;
            }
            for news in &news {
                match news {
                    News::Ordered(record) => worker.traces.ordered(&reference, record, began),
                    News::Settled(record) => {
                        worker.metrics.settled(record);
                        worker.traces.settled(&reference, record);
                    }
                    News::Stopped(_) | News::Resumed(_) | News::Correlated(_) => {}
                }
            }
            for act in acts {
                worker.act(stack.clone(), act);
            }
            for news in &news {
                events::note(&reference, news).into_iter().for_each(|note| worker.events.tell(note));
            }
        });
    }

    /// Does one act; a former leader does none.
    pub(in crate::repair) fn act(&self, stack: ObjectRef<SpeechStack>, act: Act) {
        let worker = self.clone();
        tokio::spawn(async move {
            let _permit = worker.calls.acquire().await;
            if worker.cancel.is_cancelled() {
                return;
            }
            let mut span = act.key().map(|key| worker.traces.act(key)).unwrap_or_default();
            let result = super::act(&worker.client, &worker.guards, &worker.events, &stack, &act).await;
            match (&result, act.key()) {
                (Ok(()), Some(key)) => worker.traces.acted(key),
                (Err(_), _) => span.fail("the act was not done"),
                (Ok(()), None) => {}
            }
            drop(span);
            worker.report(Done::Acted { stack, act, result });
        });
    }

    /// Tells a guard to hold its request.
    pub(in crate::repair) fn defer(&self, stack: &ObjectRef<SpeechStack>, deferral: Deferral) {
        if deferral.address.is_none() {
            return;
        }
        let (worker, stack) = (self.clone(), stack.clone());
        tokio::spawn(async move {
            let _permit = worker.calls.acquire().await;
            if let Err(error) = defer(&worker.guards, &stack, &deferral).await {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(pod = %deferral.pod, error, "unable to defer a repair");
                worker.report(Done::Deferred { stack, pod_uid: deferral.pod_uid });
            }
        });
    }

    /// Removes what is stale of a node.
    pub(in crate::repair) fn sweep(&self, node: String, stale: Stale) {
        let client = self.client.clone();
        tokio::spawn(async move {
            if let Err(error) = sweep(&client, &node, &stale).await {
                let error: &dyn std::error::Error = &error;
                let labels = stale.labels.join(" ");
                tracing::warn!(%node, labels, taint = stale.taint, error, "unable to remove what keeps engines off a node");
            }
        });
    }

    fn report(&self, done: Done) {
        // Without a driver there is none to wake.
        let _ = self.done.send(done);
    }
}
