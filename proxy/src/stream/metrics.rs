//! What sessions count.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// The metrics of sessions. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) decodes: IntCounterVec,
    /// Bytes of audio that decodes keep for another try.
    pub(super) held: IntGauge,
    sessions: IntGaugeVec,
}

/// A session that is counted until it is dropped.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Metrics {
    /// Makes them and registers them.
    ///
    /// # Errors
    /// When a metric of that name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let decodes = IntCounterVec::new(
            Opts::new("speechstack_gateway_session_decodes_total", "Decodes for sessions that ended"),
            &["kind", "result"],
        )?;
        let sessions = IntGaugeVec::new(
            Opts::new("speechstack_gateway_sessions", "Streaming sessions that are open"),
            &["dialect"],
        )?;
        let held = IntGauge::new(
            "speechstack_gateway_session_bytes",
            "Bytes of audio of sessions that is kept for another try",
        )?;
        registry.register(Box::new(decodes.clone()))?;
        registry.register(Box::new(held.clone()))?;
        registry.register(Box::new(sessions.clone()))?;
        Ok(Self { decodes, held, sessions })
    }

    /// Counts a session of a dialect.
    pub fn begin(&self, dialect: &'static str) -> Counted {
        let gauge = self.sessions.with_label_values(&[dialect]);
        gauge.inc();
        Counted(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
