//! The export: ended spans wait in a bounded queue, and a task sends them to a collector in batches.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::endpoint::{Endpoint, Error, HeadersFile};
use crate::otlp::{self, Resource, Response};
use crate::record::Ended;

/// Spans that wait; beyond it new ones are dropped. About 1 MB.
const MAX_WAITING: usize = 2048;
/// Spans of one request.
const MAX_BATCH: usize = 512;
/// How long spans gather for a batch.
const GATHER: Duration = Duration::from_secs(1);
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For one request while the process stops.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);
/// Waits between the tries of a batch that no collector took.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];
/// Bytes of a collector's answer that are read.
const MAX_ANSWER: u64 = 64 * 1024;

/// Where spans are exported to, and of what process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The collector.
    pub endpoint: Endpoint,
    /// Headers for it, such as a key.
    pub headers: Option<HeadersFile>,
    /// Share of the traces that begin here which is recorded, 0 to 1.
    pub sample_ratio: f64,
    /// `service.name`.
    pub service: String,
    /// `service.version`.
    pub version: &'static str,
    /// `service.instance.id`: the pod or the machine.
    pub instance: Option<String>,
}

/// Starts the task.
pub(crate) fn start(settings: Settings, metrics: Metrics) -> Result<Queue, Error> {
    match settings.headers.as_ref().map(HeadersFile::read) {
        // It may come later, as a Secret does that is mounted; it is read for each export.
        Some(Err(error @ Error::Read { .. })) => {
            tracing::warn!(%error, "spans of traces are not exported without their headers");
        }
        read => drop(read.transpose()?),
    }
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    // Without TLS no certificates are needed.
    let builder = if settings.endpoint.is_https() { builder } else { builder.tls_certs_only([]) };
    let client = builder.build().map_err(Error::Client)?;
    let named = [("service.name", settings.service), ("service.version", settings.version.to_owned())];
    let instance = settings.instance.map(|instance| ("service.instance.id", instance));
    let (sender, waiting) = mpsc::channel(MAX_WAITING);
    let (stopping, stop) = watch::channel(false);
    let sink = Sink {
        client,
        endpoint: settings.endpoint,
        headers: settings.headers,
        resource: Resource::new(named.into_iter().chain(instance)),
        metrics: metrics.clone(),
        stop,
        fails: false,
    };
    let task = Mutex::new(Some(tokio::spawn(sink.run(waiting))));
    Ok(Queue { sender, stopping, task, metrics })
}

/// What became of spans.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    all: IntCounterVec,
    exported: IntCounter,
    dropped: IntCounter,
    refused: IntCounter,
    unreachable: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let help = "Spans of traces that have ended, by what became of them.";
        let spans = IntCounterVec::new(Opts::new("speechstack_trace_spans_total", help), &["outcome"])?;
        Ok(Self {
            exported: spans.with_label_values(&["exported"]),
            dropped: spans.with_label_values(&["dropped"]),
            refused: spans.with_label_values(&["refused"]),
            unreachable: spans.with_label_values(&["unreachable"]),
            all: spans,
        })
    }

    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.all.clone()))
    }
}

/// Spans on their way to the task.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Ended>,
    stopping: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
    metrics: Metrics,
}

impl Queue {
    /// Takes a span, or drops and counts it when too many wait.
    pub(crate) fn push(&self, span: Ended) {
        if self.sender.try_send(span).is_err() {
            self.metrics.dropped.inc();
        }
    }

    pub(crate) async fn stop(&self, limit: Duration) {
        let Some(task) = self.task.lock().take() else { return };
        self.stopping.send_replace(true);
        let abort = task.abort_handle();
        if timeout(limit, task).await.is_err() {
            abort.abort();
            tracing::warn!("the last spans of traces could not be exported in time");
        }
    }

    /// A queue that no task empties.
    #[cfg(test)]
    pub(crate) fn kept(metrics: Metrics) -> (Self, mpsc::Receiver<Ended>) {
        let (sender, kept) = mpsc::channel(MAX_WAITING);
        let (stopping, _) = watch::channel(false);
        (Self { sender, stopping, task: Mutex::default(), metrics }, kept)
    }
}

/// The task's side.
struct Sink {
    client: reqwest::Client,
    endpoint: Endpoint,
    headers: Option<HeadersFile>,
    resource: Resource,
    metrics: Metrics,
    stop: watch::Receiver<bool>,
    /// Whether the last request failed, which is logged once.
    fails: bool,
}

/// Why a batch was not taken.
enum Failed {
    /// It never will be.
    Refused(String),
    /// It may be later.
    Unreachable(String),
}

impl Sink {
    async fn run(mut self, mut waiting: mpsc::Receiver<Ended>) {
        let mut stop = self.stop.clone();
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stops| *stops) => break,
                got = waiting.recv_many(&mut batch, MAX_BATCH) => if got == 0 { return },
            }
            let gathered = Instant::now() + GATHER;
            while batch.len() < MAX_BATCH {
                let room = MAX_BATCH - batch.len();
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stops| *stops) => break,
                    () = sleep_until(gathered) => break,
                    got = waiting.recv_many(&mut batch, room) => if got == 0 { break },
                }
            }
            self.deliver(batch).await;
        }
        waiting.close();
        let mut batch = Vec::new();
        while waiting.recv_many(&mut batch, MAX_BATCH).await > 0 {
            self.deliver(std::mem::take(&mut batch)).await;
        }
    }

    /// Sends a batch, again after a pause while no collector takes it; while the process stops only once.
    async fn deliver(&mut self, batch: Vec<Ended>) {
        let spans = batch.len() as u64;
        let body = otlp::request(&self.resource, &batch);
        drop(batch);
        let mut pauses = PAUSES.into_iter();
        loop {
            let stopping = *self.stop.borrow();
            match self.send(body.clone(), if stopping { LAST_TIMEOUT } else { TIMEOUT }).await {
                Ok(rejected) => {
                    let rejected = rejected.min(spans);
                    self.metrics.refused.inc_by(rejected);
                    self.metrics.exported.inc_by(spans - rejected);
                    if std::mem::take(&mut self.fails) {
                        tracing::info!("spans of traces are exported again");
                    }
                    return;
                }
                Err(Failed::Refused(reason)) => {
                    self.metrics.refused.inc_by(spans);
                    return self.failed(&reason);
                }
                Err(Failed::Unreachable(reason)) => self.failed(&reason),
            }
            let Some(pause) = pauses.next().filter(|_| !stopping) else {
                self.metrics.unreachable.inc_by(spans);
                return;
            };
            tokio::select! {
                () = sleep(pause) => {}
                // Then comes the last try.
                _ = self.stop.wait_for(|stops| *stops) => {}
            }
        }
    }

    fn failed(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.fails, true) {
            let endpoint = self.endpoint.url();
            tracing::warn!(endpoint, reason, "unable to export spans of traces; requests go on without");
        }
    }

    /// Sends a batch once. Returns how many of its spans the collector did not want.
    async fn send(&self, body: Vec<u8>, limit: Duration) -> Result<u64, Failed> {
        let unreachable = |error: reqwest::Error| Failed::Unreachable(chain(&error.without_url()));
        let mut request = self.client.post(self.endpoint.url()).timeout(limit);
        if let Some(file) = self.headers.clone() {
            let read = tokio::task::spawn_blocking(move || file.read()).await;
            let headers = read.map_err(|error| Failed::Unreachable(error.to_string()))?;
            request = request.headers(headers.map_err(|error| Failed::Unreachable(error.to_string()))?);
        }
        let request = request.header(CONTENT_TYPE, "application/x-protobuf").body(body);
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            let is_short = response.content_length().is_some_and(|length| length <= MAX_ANSWER);
            let answer =
                if is_short { response.bytes().await.unwrap_or_default() } else { Default::default() };
            return Ok(Response::rejected(&answer));
        }
        let reason = format!("the collector answered {status}");
        // The standard names these; every other status is final.
        let again = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        Err(if again.contains(&status) { Failed::Unreachable(reason) } else { Failed::Refused(reason) })
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
