//! What the upstream half counts: `speechstack_gateway_upstream_*`.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use contract::{Capability, State};

use crate::upstream::failure::Failure;
use crate::upstream::hosted::Denied;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Served,
    Rejected,
    ClientGone,
    Failed(Failure),
}

impl Outcome {
    const NAMES: [&str; 13] = [
        "served",
        "rejected",
        "client_gone",
        "refused",
        "reset",
        "silent",
        "busy",
        "deadline",
        "faulty",
        "broken",
        "malformed",
        "unserved",
        "internal",
    ];

    /// Its name in metrics and spans.
    pub(super) fn as_str(self) -> &'static str {
        Self::NAMES[self.index()]
    }

    fn index(self) -> usize {
        match self {
            Self::Served => 0,
            Self::Rejected => 1,
            Self::ClientGone => 2,
            Self::Failed(Failure::Refused) => 3,
            Self::Failed(Failure::Reset) => 4,
            Self::Failed(Failure::Silent) => 5,
            Self::Failed(Failure::Busy) => 6,
            Self::Failed(Failure::Deadline) => 7,
            Self::Failed(Failure::Faulty(_)) => 8,
            Self::Failed(Failure::Broken) => 9,
            Self::Failed(Failure::Malformed) => 10,
            Self::Failed(Failure::Unserved) => 11,
            Self::Failed(Failure::Internal) => 12,
        }
    }
}

/// What became of a job whose answer was overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hedged {
    /// The second engine's answer counted.
    Won,
    /// It did not.
    Lost,
    /// It never went to a second engine.
    Denied,
}

impl Hedged {
    const NAMES: [&str; 3] = ["won", "lost", "denied"];
}

/// How work on a long file ended.
const RESULTS: [&str; 2] = ["ok", "failed"];

/// The metrics, all present from the start.
#[derive(Clone, Debug)]
pub struct Metrics {
    attempts: [[IntCounter; Outcome::NAMES.len()]; Capability::ALL.len()],
    retries: [IntCounter; Outcome::NAMES.len()],
    pub(super) budget_exhausted: IntCounter,
    pub(super) waiting: IntGauge,
    pub(super) waits_total: IntCounter,
    pub(super) replay_bytes: IntGauge,
    /// Long files, and the pieces of them: heard, failed.
    pub(super) long_files: [IntCounter; 2],
    pub(super) long_pieces: [IntCounter; 2],
    pub(super) long_bytes: IntGauge,
    hedges: [[IntCounter; Hedged::NAMES.len()]; Capability::ALL.len()],
    endpoint_state: IntGaugeVec,
    hosted: IntCounterVec,
}

impl Metrics {
    /// Makes and registers them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = |name: &str, help: &str| Opts::new(format!("speechstack_gateway_upstream_{name}"), help);
        let attempts = IntCounterVec::new(
            name("attempts_total", "requests sent to a guard, by engine capability and how that ended"),
            &["capability", "outcome"],
        )?;
        let retries = IntCounterVec::new(
            name("retries_total", "requests sent again, by what the attempt before showed"),
            &["reason"],
        )?;
        let hedges = IntCounterVec::new(
            Opts::new(
                "speechstack_hedges_total",
                "jobs whose answer was overdue, by whether a second engine got them and was first",
            ),
            &["capability", "result"],
        )?;
        let long_files = IntCounterVec::new(
            Opts::new("speechstack_gateway_long_files_total", "files that were split, by how that ended"),
            &["result"],
        )?;
        let long_pieces = IntCounterVec::new(
            Opts::new("speechstack_gateway_long_pieces_total", "pieces of long files, by how that ended"),
            &["result"],
        )?;
        let hosted = IntCounterVec::new(
            Opts::new(
                "speechstack_gateway_hosted_jobs_total",
                "jobs for engines of others: sent there, or denied because the budget of the day is used up",
            ),
            &["engine", "result"],
        )?;
        registry.register(Box::new(hosted.clone()))?;
        let metrics = Self {
            hosted,
            attempts: Capability::ALL.map(|capability| {
                Outcome::NAMES.map(|outcome| attempts.with_label_values(&[capability.as_str(), outcome]))
            }),
            retries: Outcome::NAMES.map(|reason| retries.with_label_values(&[reason])),
            budget_exhausted: IntCounter::with_opts(name(
                "retry_budget_exhausted_total",
                "retries that the budget did not allow",
            ))?,
            waiting: IntGauge::with_opts(name("waiting", "requests that wait for an engine to come back"))?,
            waits_total: IntCounter::with_opts(name("waits_total", "requests that waited so"))?,
            replay_bytes: IntGauge::with_opts(name(
                "replay_bytes",
                "bytes of request bodies kept for replay, in memory and on disk",
            ))?,
            long_files: RESULTS.map(|result| long_files.with_label_values(&[result])),
            long_pieces: RESULTS.map(|result| long_pieces.with_label_values(&[result])),
            long_bytes: IntGauge::new(
                "speechstack_gateway_long_bytes",
                "bytes of pieces of long files that are in memory",
            )?,
            hedges: Capability::ALL.map(|capability| {
                Hedged::NAMES.map(|result| hedges.with_label_values(&[capability.as_str(), result]))
            }),
            endpoint_state: IntGaugeVec::new(
                name("endpoint_state", "1 for the state that an engine is in as its gateway sees it"),
                &["engine", "state"],
            )?,
        };
        registry.register(Box::new(attempts))?;
        registry.register(Box::new(retries))?;
        registry.register(Box::new(hedges))?;
        registry.register(Box::new(long_files))?;
        registry.register(Box::new(long_pieces))?;
        registry.register(Box::new(metrics.long_bytes.clone()))?;
        registry.register(Box::new(metrics.budget_exhausted.clone()))?;
        registry.register(Box::new(metrics.waiting.clone()))?;
        registry.register(Box::new(metrics.waits_total.clone()))?;
        registry.register(Box::new(metrics.replay_bytes.clone()))?;
        registry.register(Box::new(metrics.endpoint_state.clone()))?;
        Ok(metrics)
    }

    /// A job goes to an engine of others.
    pub(super) fn hosted(&self, engine: &str) {
        self.hosted.with_label_values(&[engine, "sent"]).inc();
    }

    /// A job would have gone to engines of others.
    pub(super) fn denied(&self, denied: &Denied) {
        for engine in &denied.engines {
            self.hosted.with_label_values(&[engine, "denied"]).inc();
        }
        for engine in &denied.news {
            tracing::warn!(%engine, "the budget of an engine of others is used up for today");
        }
    }

    pub(super) fn attempt(&self, capability: Capability, outcome: Outcome) {
        self.attempts[capability as usize][outcome.index()].inc();
    }

    pub(super) fn retry(&self, after: Failure) {
        self.retries[Outcome::Failed(after).index()].inc();
    }

    pub(super) fn hedge(&self, capability: Capability, hedged: Hedged) {
        self.hedges[capability as usize][hedged as usize].inc();
    }

    /// Forgets the series of an engine that is gone.
    pub(super) fn forget(&self, engine: &str) {
        for state in State::ALL.iter().map(|state| state.as_str()).chain(["unreachable"]) {
            // Absent is as good as removed.
            let _ = self.endpoint_state.remove_label_values(&[engine, state]);
        }
    }

    pub(super) fn state_of(&self, engine: &str) -> StateGauge {
        let gauge = |state: &str| self.endpoint_state.with_label_values(&[engine, state]);
        StateGauge {
            states: State::ALL.map(|state| gauge(state.as_str())),
            unreachable: gauge("unreachable"),
        }
    }
}

/// One engine's gauges.
#[derive(Debug)]
pub(super) struct StateGauge {
    states: [IntGauge; State::ALL.len()],
    unreachable: IntGauge,
}

impl StateGauge {
    /// Shows that state, or that the engine cannot be reached.
    pub(super) fn show(&self, shown: Option<State>) {
        for (state, gauge) in State::ALL.iter().zip(&self.states) {
            gauge.set((Some(*state) == shown).into());
        }
        self.unreachable.set(shown.is_none().into());
    }
}
