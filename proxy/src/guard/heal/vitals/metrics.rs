//! What the engine's processes do, as metrics.

use prometheus::{Gauge, IntGauge, IntGaugeVec, Opts, Registry};

use crate::guard::heal::vitals::{Activity, Sample};

/// Gauges of one engine's processes.
#[derive(Clone, Debug)]
pub struct Metrics {
    cores: Gauge,
    throttled: Gauge,
    waiting: Gauge,
    blocked: IntGauge,
    threads: IntGaugeVec,
    memory: IntGauge,
    age: Gauge,
    pressure: Gauge,
}

impl Metrics {
    /// Registers them for the engine of that name.
    pub fn register(registry: &Registry, engine: &str) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("engine", engine);
        let gauge = |name: &str, help: &str| {
            let gauge = Gauge::with_opts(opts(name, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let threads = IntGaugeVec::new(
            opts("speechstack_engine_process_threads", "Threads of the engine's processes by state."),
            &["state"],
        )?;
        registry.register(Box::new(threads.clone()))?;
        let memory = IntGauge::with_opts(opts(
            "speechstack_engine_process_memory_bytes",
            "Memory that the engine's processes use.",
        ))?;
        registry.register(Box::new(memory.clone()))?;
        let blocked = IntGauge::with_opts(opts(
            "speechstack_engine_process_blocked",
            "1 if a thread of the engine waits inside the kernel for seconds.",
        ))?;
        registry.register(Box::new(blocked.clone()))?;
        Ok(Self {
            cores: gauge(
                "speechstack_engine_process_cpu_cores",
                "CPU cores that the engine's processes use.",
            )?,
            throttled: gauge(
                "speechstack_engine_process_throttled_ratio",
                "Share of the time in which a CPU limit holds the engine's processes back.",
            )?,
            waiting: gauge(
                "speechstack_engine_process_waiting_ratio",
                "Share of the time in which threads of the engine that could run wait for a CPU.",
            )?,
            blocked,
            threads,
            memory,
            age: gauge("speechstack_engine_process_sample_age_seconds", "Age of the last look at them.")?,
            pressure: gauge(
                "speechstack_guard_node_cpu_pressure_ratio",
                "Share of the time in which a process of the node waits for a CPU.",
            )?,
        })
    }

    /// Shows the last sample and what the last seconds say.
    pub fn sampled(&self, sample: &Sample) {
        let rest = sample.threads.saturating_sub(sample.running.saturating_add(sample.blocked));
        for (state, count) in [("running", sample.running), ("blocked", sample.blocked), ("sleeping", rest)] {
            self.threads.with_label_values(&[state]).set(i64::from(count));
        }
        self.memory.set(i64::try_from(sample.memory).unwrap_or(i64::MAX));
    }

    /// Shows what the last seconds say.
    pub fn active(&self, activity: &Activity) {
        self.cores.set(activity.cpu_share);
        self.throttled.set(activity.throttled_share);
        self.waiting.set(activity.waiting_share);
        self.blocked.set(i64::from(activity.blocked));
        self.age.set(activity.age.as_secs_f64());
    }

    /// The node's pressure.
    pub fn pressed(&self, share: f64) {
        self.pressure.set(share);
    }
}
