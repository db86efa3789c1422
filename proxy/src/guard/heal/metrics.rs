//! Counters of the health loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use contract::{Class, State};

use crate::guard::heal::prober::Which;
use crate::guard::judge::evidence::Failed;
use crate::guard::path::lane::{LaneView, Permit};

/// Metrics of one guard's health loop; labels are bounded sets.
#[derive(Clone, Debug)]
pub struct Metrics {
    engine: String,
    state: IntGaugeVec,
    lane_waiting: IntGauge,
    lane_waiting_seconds: Gauge,
    lane_running: IntGauge,
    lane_streams: IntGauge,
    verdicts: IntCounterVec,
    probes: IntCounterVec,
    probe_seconds: Histogram,
    restarts: IntCounterVec,
    detect_seconds: Histogram,
    recovery_seconds: Histogram,
    false_restarts: IntCounter,
    excused_probes: IntCounter,
    ejected_seconds: Counter,
    budget: Gauge,
    /// Since when the engine is ejected, as far as it is not counted yet.
    ejected_since: Arc<Mutex<Option<Instant>>>,
}

impl Metrics {
    /// Registers them for the engine of that name.
    pub fn register(registry: &Registry, engine: &str) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("engine", engine);
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(opts(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).const_label("engine", engine).buckets(buckets.to_vec());
            let histogram = Histogram::with_opts(opts)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let state =
            IntGaugeVec::new(opts("speechstack_state", "1 for the state the engine is in."), &["state"])?;
        registry.register(Box::new(state.clone()))?;
        let lane_waiting =
            IntGauge::with_opts(opts("speechstack_guard_lane_waiting", "Jobs that wait for the lane."))?;
        registry.register(Box::new(lane_waiting.clone()))?;
        let lane_running = IntGauge::with_opts(opts(
            "speechstack_guard_lane_running",
            "Jobs and probes that hold a permit.",
        ))?;
        registry.register(Box::new(lane_running.clone()))?;
        let metrics = Self {
            engine: engine.to_owned(),
            state,
            lane_waiting,
            lane_waiting_seconds: registered(
                registry,
                Gauge::with_opts(opts(
                    "speechstack_guard_lane_waiting_seconds",
                    "Predicted seconds of work of the jobs that wait for the lane.",
                ))?,
            )?,
            lane_running,
            lane_streams: registered(
                registry,
                IntGauge::with_opts(opts(
                    "speechstack_guard_lane_streams",
                    "Conversations that the engine hears.",
                ))?,
            )?,
            verdicts: counter(
                "speechstack_verdicts_total",
                "Suspicions that ended, by class and result.",
                &["class", "result"],
            )?,
            probes: counter(
                "speechstack_probe_total",
                "Golden probes by input and result.",
                &["probe", "result"],
            )?,
            probe_seconds: histogram(
                "speechstack_probe_seconds",
                "Duration of golden probes.",
                &[0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0],
            )?,
            restarts: counter("speechstack_restarts_total", "Engine restarts by rung.", &["rung"])?,
            detect_seconds: histogram(
                "speechstack_detect_seconds",
                "From the first bad byte to the verdict.",
                &[0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0],
            )?,
            recovery_seconds: histogram(
                "speechstack_recovery_seconds",
                "From the first bad byte to a verified engine.",
                &[1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1200.0],
            )?,
            false_restarts: registered(
                registry,
                IntCounter::with_opts(opts(
                    "speechstack_false_restarts_total",
                    "Restarts without a failed golden probe in the minute before.",
                ))?,
            )?,
            excused_probes: registered(
                registry,
                IntCounter::with_opts(opts(
                    "speechstack_excused_probes_total",
                    "Late probes that prove nothing: work was ahead, or the guard was starved.",
                ))?,
            )?,
            ejected_seconds: registered(
                registry,
                Counter::with_opts(opts(
                    "speechstack_ejected_seconds_total",
                    "Time out of rotation, starts included.",
                ))?,
            )?,
            budget: registered(
                registry,
                Gauge::with_opts(opts(
                    "speechstack_restart_budget",
                    "Restarts that the guard's own budget allows now.",
                ))?,
            )?,
            ejected_since: Arc::default(),
        };
        metrics.state(State::Starting);
        Ok(metrics)
    }

    /// The engine is in that state.
    pub fn state(&self, now: State) {
        for state in State::ALL {
            self.state.with_label_values(&[state.as_str()]).set(i64::from(state == now));
        }
    }

    /// What waits for the lane and what has it.
    pub fn lane(&self, lane: &LaneView) {
        let holding = |permit| {
            let count = lane.running.iter().filter(|job| job.permit == permit).count();
            i64::try_from(count).unwrap_or(i64::MAX)
        };
        self.lane_waiting.set(i64::try_from(lane.waiting).unwrap_or(i64::MAX));
        // The sum of nothing is -0.
        self.lane_waiting_seconds.set(lane.waiting_seconds + 0.0);
        self.lane_running.set(holding(Permit::Job));
        self.lane_streams.set(holding(Permit::Stream));
    }

    /// A suspicion ended.
    pub fn verdict(&self, class: Class, result: &str) {
        self.verdicts.with_label_values(&[class.as_str(), result]).inc();
    }

    /// A probe ended.
    pub fn probed(&self, which: Which, failure: Option<Failed>, took: Duration) {
        let result = match failure {
            None => "pass",
            Some(Failed::Timeout) => "timeout",
            Some(Failed::Unreachable) => "unreachable",
            Some(Failed::Fault(_)) => "fault",
            Some(Failed::Content) => "content",
            Some(Failed::Rejected) => "rejected",
            Some(Failed::Busy) => "busy",
            Some(Failed::Unsuited) => "unsuited",
        };
        self.probes.with_label_values(&[which.as_str(), result]).inc();
        self.probe_seconds.observe(took.as_secs_f64());
    }

    /// A restart was ordered that no golden probe had proven.
    pub fn unproven_restart(&self) {
        self.false_restarts.inc();
    }

    /// A late probe proves nothing.
    pub fn excused_probe(&self) {
        self.excused_probes.inc();
    }

    /// Whether the engine is out of rotation now.
    pub fn ejected(&self, ejected: bool, now: Instant) {
        let mut since = self.ejected_since.lock();
        if let Some(before) = since.take() {
            self.ejected_seconds.inc_by(now.saturating_duration_since(before).as_secs_f64());
        }
        *since = ejected.then_some(now);
    }

    /// So many restarts the guard's own budget allows.
    pub fn budget(&self, restarts: f64) {
        self.budget.set(restarts.max(0.0));
    }

    /// A restart was ordered.
    pub fn restarted(&self, rung: &str) {
        self.restarts.with_label_values(&[rung]).inc();
    }

    /// A wedge was proven this long after its first bad byte.
    pub fn detected(&self, after: Duration) {
        self.detect_seconds.observe(after.as_secs_f64());
    }

    /// The engine was verified again this long after the first bad byte.
    pub fn recovered(&self, after: Duration) {
        self.recovery_seconds.observe(after.as_secs_f64());
        tracing::info!(engine = self.engine, seconds = after.as_secs_f64(), "engine verified again");
    }
}

fn registered<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: M,
) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
