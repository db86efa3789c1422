//! What the driver says, as metrics.

use prometheus::{Gauge, IntCounter, IntGauge, Opts, Registry};

use crate::guard::heal::gpu::GpuState;

/// Metrics of one engine's GPU.
#[derive(Clone, Debug)]
pub struct Metrics {
    xids: IntCounter,
    futile: IntGauge,
    utilisation: Gauge,
    memory: IntGauge,
}

impl Metrics {
    /// Registers them for the engine of that name.
    pub fn register(registry: &Registry, engine: &str) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("engine", engine);
        let metrics = Self {
            xids: IntCounter::with_opts(opts(
                "speechstack_gpu_xid_total",
                "Xid errors of the engine's GPU.",
            ))?,
            futile: IntGauge::with_opts(opts(
                "speechstack_gpu_restart_is_futile",
                "1 if the driver wants more than a restart of the engine.",
            ))?,
            utilisation: Gauge::with_opts(opts(
                "speechstack_gpu_utilisation_ratio",
                "Share of the time in which the GPU ran a kernel.",
            ))?,
            memory: IntGauge::with_opts(opts("speechstack_gpu_memory_bytes", "GPU memory in use."))?,
        };
        registry.register(Box::new(metrics.xids.clone()))?;
        registry.register(Box::new(metrics.futile.clone()))?;
        registry.register(Box::new(metrics.utilisation.clone()))?;
        registry.register(Box::new(metrics.memory.clone()))?;
        Ok(metrics)
    }

    /// Counts an Xid error.
    pub fn xid(&self) {
        self.xids.inc();
    }

    /// Shows the state.
    pub fn show(&self, state: &GpuState) {
        self.futile.set(i64::from(state.restart_is_futile()));
        if let Some(usage) = state.usage {
            self.utilisation.set(usage.utilisation);
            self.memory.set(i64::try_from(usage.memory).unwrap_or(i64::MAX));
        }
    }
}
