//! Counters of repair.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry};
use speechstack_crds::{Outcome, RepairRecord, Rung};

use super::budget::age;
use super::decide::Held;

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
