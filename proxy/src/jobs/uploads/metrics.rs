//! What uploads in parts count.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::End;

/// The metrics, all present from the start.
#[derive(Clone, Debug)]
pub struct Metrics {
    kept: IntGauge,
    bytes: IntGauge,
    complete: IntCounter,
    /// As [`End`].
    ended: [IntCounter; 2],
    /// Parts: kept, broken off or refused.
    parts: [IntCounter; 2],
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let kept = IntGauge::new("speechstack_gateway_uploads", "uploads in parts that are kept")?;
        let bytes = IntGauge::new(
            "speechstack_gateway_upload_bytes",
            "bytes of uploads in parts as announced, arrived or not",
        )?;
        let complete = IntCounter::new(
            "speechstack_gateway_uploads_complete_total",
            "uploads in parts of which the last byte arrived",
        )?;
        let ended = IntCounterVec::new(
            Opts::new(
                "speechstack_gateway_uploads_removed_total",
                "uploads in parts that were removed, and why",
            ),
            &["reason"],
        )?;
        let parts = IntCounterVec::new(
            Opts::new("speechstack_gateway_upload_parts_total", "parts of uploads, by how that went"),
            &["result"],
        )?;
        registry.register(Box::new(kept.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(complete.clone()))?;
        registry.register(Box::new(ended.clone()))?;
        registry.register(Box::new(parts.clone()))?;
        Ok(Self {
            kept,
            bytes,
            complete,
            ended: ["deleted", "expired"].map(|reason| ended.with_label_values(&[reason])),
            parts: ["kept", "failed"].map(|result| parts.with_label_values(&[result])),
        })
    }

    pub(super) fn kept(&self, uploads: usize, bytes: u64) {
        self.kept.set(i64::try_from(uploads).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn complete(&self) {
        self.complete.inc();
    }

    pub(super) fn ended(&self, end: End) {
        self.ended[end as usize].inc();
    }

    pub(super) fn part(&self, kept: bool) {
        self.parts[usize::from(!kept)].inc();
    }
}
