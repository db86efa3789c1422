//! What people see of repairs: Events on transitions only, and counters.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry};
use speechstack_crds::{Outcome, RepairRecord, Rung};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::budget::age;
use super::plan::{Held, News};
use crate::names::REPAIR_FIELD_MANAGER;

/// Events that wait to be written; more are dropped.
const WAITING: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(5);

/// An Event and what it is about.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) regarding: ObjectReference,
    pub(super) warning: bool,
    pub(super) reason: &'static str,
    pub(super) action: &'static str,
    pub(super) text: String,
    /// The pod it happened to.
    pub(super) pod: Option<String>,
}

/// Where Events are handed over, without waiting.
#[derive(Clone)]
pub(super) struct Events {
    notes: mpsc::Sender<Note>,
}

impl Events {
    /// Starts the writer; it ends with the last handle.
    pub(super) fn start(client: kube::Client) -> Self {
        let reporter = Reporter {
            controller: REPAIR_FIELD_MANAGER.into(),
            // Empty hostnames do not happen in a pod; elsewhere the controller's name does.
            instance: std::env::var("POD_NAME").ok(),
        };
        let recorder = Recorder::new(client, reporter);
        let (notes, mut inbox) = mpsc::channel::<Note>(WAITING);
        tokio::spawn(async move {
            while let Some(note) = inbox.recv().await {
                publish(&recorder, note).await;
            }
        });
        Self { notes }
    }

    pub(super) fn tell(&self, note: Note) {
        // Events are for people; a flood of them is worth nothing.
        let _ = self.notes.try_send(note);
    }
}

async fn publish(recorder: &Recorder, note: Note) {
    let secondary = note.pod.map(|name| ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: note.regarding.namespace.clone(),
        name: Some(name),
        ..ObjectReference::default()
    });
    let event = Event {
        type_: if note.warning { EventType::Warning } else { EventType::Normal },
        reason: note.reason.into(),
        note: Some(note.text),
        action: note.action.into(),
        secondary,
    };
    match timeout(TIMEOUT, recorder.publish(&event, &note.regarding)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "unable to publish an event"),
        Err(_) => tracing::debug!("unable to publish an event in time"),
    }
}

/// The Event of a transition, if it is worth one.
pub(super) fn note(stack: &ObjectReference, news: &News) -> Option<Note> {
    let note = |warning, reason, action, text, pod: Option<&str>| Note {
        regarding: stack.clone(),
        warning,
        reason,
        action,
        text,
        pod: pod.map(str::to_owned),
    };
    let class = |record: &RepairRecord| record.class.clone().unwrap_or_else(|| "unknown".into());
    match news {
        News::Ordered(record) => {
            let node = record.node.as_deref().unwrap_or("unknown");
            let pod = &record.pod;
            let (reason, text) = match record.rung {
                Rung::Restart | Rung::Recycle => (
                    "WedgeRestart",
                    format!(
                        "restarting the engine of pod {pod} in place, attempt {}, class {}",
                        record.attempt,
                        class(record)
                    ),
                ),
                Rung::Recreate => (
                    "WedgeRestart",
                    format!(
                        "replacing pod {pod}: restarts of its engine did not help, class {}",
                        class(record)
                    ),
                ),
                Rung::AvoidNode => (
                    "GpuSuspect",
                    format!(
                        "moving engine {} off node {node}: its pods wedge there, class {}",
                        record.engine,
                        class(record)
                    ),
                ),
                Rung::ReportNode => ("GpuSuspect", format!("reporting node {node}")),
                Rung::TaintNode => ("GpuSuspect", format!("tainting node {node}")),
            };
            Some(note(true, reason, record.rung.as_str(), text, Some(pod)))
        }
        News::Settled(record) if record.outcome == Outcome::Recovered => Some(note(
            false,
            "EngineRecovered",
            record.rung.as_str(),
            format!("engine {} is verified again after the repair of pod {}", record.engine, record.pod),
            Some(&record.pod),
        )),
        News::Settled(_) => None,
        News::Stopped(stopped) => {
            let text = format!("repair of {} stopped: {}", stopped.engine, stopped.message);
            Some(note(true, "RestartBudgetExhausted", "Stop", text, None))
        }
        News::Resumed(engine) => {
            Some(note(false, "EngineRecovered", "Resume", format!("repair of {engine} goes on"), None))
        }
        News::Correlated(engine) => Some(note(
            true,
            "CorrelatedSuspicion",
            "Hold",
            format!("replicas of {engine} wedged within a minute of each other: repairing one by one"),
            None,
        )),
    }
}

const RUNGS: [Rung; 6] =
    [Rung::Restart, Rung::Recycle, Rung::Recreate, Rung::AvoidNode, Rung::ReportNode, Rung::TaintNode];
const ENDS: [Outcome; 4] = [Outcome::Recovered, Outcome::Failed, Outcome::Withdrawn, Outcome::Done];

/// Metrics of repair; labels are bounded sets.
#[derive(Clone, Debug)]
pub struct Metrics {
    repairs: IntCounterVec,
    deferred: IntCounterVec,
    seconds: Histogram,
    streams: IntGaugeVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When a metric of that name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let repairs = counter(
            "speechstack_repairs_total",
            "Repairs of which the outcome is known, by rung and outcome.",
            &["rung", "outcome"],
        )?;
        for (rung, outcome) in RUNGS.iter().flat_map(|rung| ENDS.map(|outcome| (rung, outcome))) {
            repairs.with_label_values(&[rung.as_str(), outcome.as_str()]);
        }
        let deferred = counter(
            "speechstack_repair_deferred_total",
            "Repairs that had to wait, by what held them back.",
            &["guard"],
        )?;
        for held in Held::ALL {
            deferred.with_label_values(&[held.as_str()]);
        }
        let buckets = vec![1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];
        let seconds = Histogram::with_opts(
            HistogramOpts::new("speechstack_repair_seconds", "From a repair's order to a verified engine.")
                .buckets(buckets),
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let opts = Opts::new("speechstack_guard_streams", "Guards whose state stream is open or lost.");
        let streams = IntGaugeVec::new(opts, &["state"])?;
        registry.register(Box::new(streams.clone()))?;
        let metrics = Self { repairs, deferred, seconds, streams };
        metrics.streams(0, 0);
        Ok(metrics)
    }

    pub(super) fn settled(&self, record: &RepairRecord) {
        self.repairs.with_label_values(&[record.rung.as_str(), record.outcome.as_str()]).inc();
        if let (Outcome::Recovered, Some(ended)) = (record.outcome, &record.ended) {
            self.seconds.observe(age(record.ordered.0, ended.0).as_secs_f64());
        }
    }

    pub(super) fn deferred(&self, held: Held) {
        self.deferred.with_label_values(&[held.as_str()]).inc();
    }

    pub(super) fn streams(&self, open: usize, lost: usize) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.streams.with_label_values(&["open"]).set(gauge(open));
        self.streams.with_label_values(&["lost"]).set(gauge(lost));
    }
}
