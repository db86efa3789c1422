//! What the data path counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use parking_lot::Mutex;
use prometheus::{Error, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

use contract::Class;
use trace::{Span, Trace};

/// How a request ended. Every request of the data path ends in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The engine served it.
    Served,
    /// The engine refused the input.
    ClientError,
    /// The engine answered with a fault.
    Fault,
    /// The engine said that it is busy.
    EngineBusy,
    /// The engine's connection was refused or broke.
    Broken,
    /// The engine did not answer in time.
    Deadline,
    /// The engine was replaced meanwhile.
    Replaced,
    /// The lane was full.
    Shed,
    /// The engine was out of rotation.
    OutOfRotation,
    /// The input had wedged engines before.
    Poison,
    /// The client sent a broken body.
    BadUpload,
    /// The client went away.
    ClientGone,
    /// Not a job: passed through.
    Passed,
}

impl Outcome {
    const ALL: [Outcome; 13] = [
        Outcome::Served,
        Outcome::ClientError,
        Outcome::Fault,
        Outcome::EngineBusy,
        Outcome::Broken,
        Outcome::Deadline,
        Outcome::Replaced,
        Outcome::Shed,
        Outcome::OutOfRotation,
        Outcome::Poison,
        Outcome::BadUpload,
        Outcome::ClientGone,
        Outcome::Passed,
    ];

    /// Whether the engine is to blame.
    fn is_fault(self) -> bool {
        matches!(self, Outcome::Fault | Outcome::Broken | Outcome::Deadline | Outcome::Replaced)
    }

    fn as_str(self) -> &'static str {
        match self {
            Outcome::Served => "served",
            Outcome::ClientError => "client_error",
            Outcome::Fault => "fault",
            Outcome::EngineBusy => "engine_busy",
            Outcome::Broken => "broken",
            Outcome::Deadline => "deadline",
            Outcome::Replaced => "replaced",
            Outcome::Shed => "shed",
            Outcome::OutOfRotation => "out_of_rotation",
            Outcome::Poison => "poison",
            Outcome::BadUpload => "bad_upload",
            Outcome::ClientGone => "client_gone",
            Outcome::Passed => "passed",
        }
    }
}

/// Metrics of one data path. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Arc<[IntCounter]>,
    hints: Arc<[IntCounter]>,
    /// Seconds from the grant of the lane to the last byte.
    pub service_seconds: Histogram,
    /// Seconds from arrival to the grant of the lane.
    pub lane_wait_seconds: Histogram,
}

/// From a short utterance to an hour of audio.
const SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0];

impl Metrics {
    /// Registers the metrics; all labels exist from the start.
    ///
    /// # Errors
    /// When a metric of the name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let requests = IntCounterVec::new(
            Opts::new("speechstack_guard_requests_total", "Requests by outcome."),
            &["outcome"],
        )?;
        let hints = IntCounterVec::new(
            Opts::new("speechstack_guard_hints_total", "Faults that requests showed, by class."),
            &["class"],
        )?;
        let service_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "speechstack_guard_service_seconds",
                "From grant of the lane to the last byte.",
            )
            .buckets(SECONDS.to_vec()),
        )?;
        let lane_wait_seconds = Histogram::with_opts(
            HistogramOpts::new("speechstack_guard_lane_wait_seconds", "From arrival to grant of the lane.")
                .buckets(SECONDS.to_vec()),
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(hints.clone()))?;
        registry.register(Box::new(service_seconds.clone()))?;
        registry.register(Box::new(lane_wait_seconds.clone()))?;
        let requests: Vec<IntCounter> = Outcome::ALL
            .iter()
            .map(|outcome| requests.get_metric_with_label_values(&[outcome.as_str()]))
            .collect::<Result<_, _>>()?;
        let hints: Vec<IntCounter> = Class::ALL
            .iter()
            .map(|class| hints.get_metric_with_label_values(&[class.as_str()]))
            .collect::<Result<_, _>>()?;
        Ok(Self { requests: requests.into(), hints: hints.into(), service_seconds, lane_wait_seconds })
    }

    /// Counts a hint.
    pub fn hint(&self, class: Class) {
        let at = Class::ALL.iter().position(|other| *other == class);
        if let Some(counter) = at.and_then(|at| self.hints.get(at)) {
            counter.inc();
        }
    }

    /// The account of one request, which ends its span.
    pub fn tally(&self, span: Span) -> Tally {
        let (trace, span) = (span.trace().clone(), Mutex::new(span));
        let account = Account { metrics: self.clone(), settled: AtomicBool::new(false), trace, span };
        Tally { account: Arc::new(account) }
    }

    fn count(&self, outcome: Outcome) {
        if let Some(counter) = self.requests.get(outcome as usize) {
            counter.inc();
        }
    }
}

/// One request's account: the first settlement counts. When the last clone is dropped unsettled, the client has gone.
#[derive(Clone, Debug)]
pub struct Tally {
    account: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    metrics: Metrics,
    settled: AtomicBool,
    trace: Trace,
    span: Mutex<Span>,
}

impl Tally {
    /// Where what is done for the request is in its trace.
    pub fn trace(&self) -> &Trace {
        &self.account.trace
    }

    /// Says with which status the client was answered.
    pub fn answered(&self, status: StatusCode) {
        self.account.span.lock().set("http.response.status_code", status.as_u16());
    }

    /// Says how the request ended.
    pub fn settle(&self, outcome: Outcome) {
        self.account.settle(outcome);
    }
}

impl Account {
    fn settle(&self, outcome: Outcome) {
        if !self.settled.swap(true, Ordering::Relaxed) {
            self.metrics.count(outcome);
            let mut span = std::mem::take(&mut *self.span.lock());
            span.set("speechstack.outcome", outcome.as_str());
            if outcome.is_fault() {
                span.set("error.type", outcome.as_str());
                span.fail(outcome.as_str());
            }
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.settle(Outcome::ClientGone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_counter() {
        for (at, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, at);
        }
    }

    #[test]
    fn a_request_is_counted_once() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let tally = metrics.tally(Span::default());
        tally.settle(Outcome::Deadline);
        tally.settle(Outcome::Served);
        drop(tally);
        drop(metrics.tally(Span::default()));
        let counts: Vec<u64> = metrics.requests.iter().map(IntCounter::get).collect();
        assert_eq!(counts.iter().sum::<u64>(), 2);
        assert_eq!(counts[Outcome::Deadline as usize], 1);
        assert_eq!(counts[Outcome::ClientGone as usize], 1);
    }
}
