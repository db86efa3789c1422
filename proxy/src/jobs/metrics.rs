//! What jobs count.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::{Status, uploads};

/// The metrics, all present from the start.
#[derive(Clone, Debug)]
pub struct Metrics {
    kept: [IntGauge; Status::ALL.len()],
    ended: [IntCounter; Status::ALL.len()],
    bytes: IntGauge,
    /// Whether the Redis of several gateways is there.
    pub(super) redis_up: IntGauge,
    /// Deliveries of webhooks: taken, failed.
    webhooks: [IntCounter; 2],
    /// Of files that come in parts.
    pub(super) uploads: uploads::Metrics,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let kept = IntGaugeVec::new(
            Opts::new("speechstack_gateway_jobs", "jobs that are kept, by their status"),
            &["status"],
        )?;
        let ended = IntCounterVec::new(
            Opts::new("speechstack_gateway_jobs_ended_total", "jobs that ended, by their status"),
            &["status"],
        )?;
        let bytes = IntGauge::new("speechstack_gateway_job_bytes", "bytes of uploads of jobs on disk")?;
        let webhooks = IntCounterVec::new(
            Opts::new("speechstack_gateway_webhooks_total", "messages about ended jobs, by how that went"),
            &["result"],
        )?;
        registry.register(Box::new(kept.clone()))?;
        registry.register(Box::new(ended.clone()))?;
        let redis_up = IntGauge::new(
            "speechstack_gateway_jobs_redis_up",
            "whether jobs are shared through Redis now: 0 while they are refused, and without gateway.jobs.redis",
        )?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(redis_up.clone()))?;
        registry.register(Box::new(webhooks.clone()))?;
        Ok(Self {
            kept: Status::ALL.map(|status| kept.with_label_values(&[status.as_str()])),
            ended: Status::ALL.map(|status| ended.with_label_values(&[status.as_str()])),
            bytes,
            redis_up,
            webhooks: ["taken", "failed"].map(|result| webhooks.with_label_values(&[result])),
            uploads: uploads::Metrics::register(registry)?,
        })
    }

    pub(super) fn kept(&self, counts: [usize; Status::ALL.len()], bytes: u64) {
        for (gauge, count) in self.kept.iter().zip(counts) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn ended(&self, status: Status) {
        self.ended[status as usize].inc();
    }

    pub(super) fn delivery(&self, taken: bool) {
        self.webhooks[usize::from(!taken)].inc();
    }
}
