//! The operator's own metrics, prefix `speechstack_`.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

mod stacks;

pub use stacks::Stacks;

/// Metrics of leader and reconciler. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    reconciles: IntCounterVec,
    seconds: HistogramVec,
    errors: IntCounterVec,
    calls: IntCounterVec,
    status_patches: IntCounterVec,
    stacks: Stacks,
    leader: IntGauge,
    watch_errors: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When a name is taken, which is a mistake in the code.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let buckets = vec![0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
        let seconds = HistogramVec::new(
            HistogramOpts::new("speechstack_reconcile_seconds", "Time of one reconcile.").buckets(buckets),
            &["result"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let leader = IntGauge::new("speechstack_leader", "Whether this replica leads.")?;
        registry.register(Box::new(leader.clone()))?;
        Ok(Self {
            reconciles: counter("speechstack_reconciles_total", "Reconciles.", &["result"])?,
            seconds,
            errors: counter("speechstack_reconcile_errors_total", "Failed reconciles, by step.", &["step"])?,
            calls: counter(
                "speechstack_object_calls_total",
                "Calls about owned objects.",
                &["verb", "kind"],
            )?,
            status_patches: counter("speechstack_status_patches_total", "Status patches.", &["result"])?,
            stacks: Stacks::default(),
            leader,
            watch_errors: counter("speechstack_watch_errors_total", "Watches that broke.", &["watch"])?,
        })
    }

    /// A reconcile ended.
    pub fn reconciled(&self, failed_step: Option<&'static str>, took: Duration) {
        let result = if failed_step.is_some() { "error" } else { "ok" };
        self.reconciles.with_label_values(&[result]).inc();
        self.seconds.with_label_values(&[result]).observe(took.as_secs_f64());
        if let Some(step) = failed_step {
            self.errors.with_label_values(&[step]).inc();
        }
    }

    /// A call about an owned object is made.
    pub fn called(&self, verb: &str, kind: &str) {
        self.calls.with_label_values(&[verb, kind]).inc();
    }

    /// A status was patched.
    pub fn patched(&self, ok: bool) {
        self.status_patches.with_label_values(&[if ok { "ok" } else { "error" }]).inc();
    }

    /// A watch broke and is set up again.
    pub fn watch_broke(&self, watch: &'static str) {
        self.watch_errors.with_label_values(&[watch]).inc();
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// What the statuses of stacks say; it is in no registry.
    #[must_use]
    pub fn stacks(&self) -> Stacks {
        self.stacks.clone()
    }
}

#[cfg(test)]
mod tests {
    use speechstack_crds::{Capability, EngineStatus, SpeechStackStatus};

    use super::*;

    /// An alert on a metric that is not exported never fires, or always does.
    #[test]
    fn alerts_ask_for_what_is_exported() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        metrics.leads(true);
        metrics.reconciled(Some("apply"), Duration::ZERO);
        let engine = EngineStatus {
            caution: None,
            name: "parakeet".into(),
            capability: Capability::Stt,
            desired: 1,
            ready: 1,
            verified: 1,
            updated: 1,
            model: None,
            profile: None,
            image_id: None,
            update_pending: false,
            asleep: false,
            prefill: None,
            pods: Vec::new(),
            last_failure: None,
        };
        let degraded = serde_json::json!([{
            "type": "Degraded", "status": "True", "reason": "Repairing", "message": "",
            "lastTransitionTime": "2026-11-01T00:00:00Z",
        }]);
        let conditions = serde_json::from_value(degraded).unwrap();
        let status = SpeechStackStatus { engines: vec![engine], conditions, ..SpeechStackStatus::default() };
        metrics.stacks().set("speech", "demo", &status);
        let _repairs = crate::repair::Metrics::register(&registry).unwrap();
        let text = crate::admin::text(&registry, &metrics.stacks());
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let exported: Vec<&str> = types.filter_map(|line| line.split(' ').next()).collect();

        let charts = include_str!("../../charts/speechstack/files/operator-alerts.yaml");
        let stacks = include_str!("../tests/golden/parakeet-nim.yaml");
        let mut asked = 0;
        for text in [charts, stacks] {
            let names = text.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
            // Those of gateways and guards are in the page of metrics, which is compared with the sources.
            let page = include_str!("../../docs/metrics.md");
            let is_metric =
                |name: &&str| name.starts_with("speechstack_") && !name.starts_with("speechstack_dev_");
            for name in names.filter(is_metric) {
                let ours = exported.contains(&name);
                assert!(ours || page.contains(&format!("`{name}`")), "no metric {name}");
                asked += usize::from(ours);
            }
        }
        assert!(asked >= 6, "{asked} metrics in all alerts");
    }

    #[test]
    fn a_stack_that_is_gone_leaves_no_series() {
        let stacks = Stacks::default();
        let status = serde_json::json!({
            "conditions": [{"type": "Ready", "status": "True", "reason": "Verified", "message": "",
                "lastTransitionTime": "2026-11-01T00:00:00Z"},
                {"type": "Progressing", "status": "True", "reason": "RollingOut", "message": "",
                "lastTransitionTime": "2026-11-01T00:00:00Z"}],
            "engines": [{"name": "ears", "capability": "stt", "desired": 1, "ready": 1, "verified": 1, "updated": 1}],
        });
        let status: SpeechStackStatus = serde_json::from_value(status).unwrap();
        stacks.set("speech", "demo", &status);
        let text = || {
            let mut text = String::new();
            stacks.write(&mut text);
            text
        };
        assert_eq!(
            text(),
            "# HELP speechstack_replicas Engine replicas by state: desired, ready or verified.\n\
             # TYPE speechstack_replicas gauge\n\
             speechstack_replicas{stack_namespace=\"speech\",stack=\"demo\",engine=\"ears\",state=\"desired\"} 1\n\
             speechstack_replicas{stack_namespace=\"speech\",stack=\"demo\",engine=\"ears\",state=\"ready\"} 1\n\
             speechstack_replicas{stack_namespace=\"speech\",stack=\"demo\",engine=\"ears\",state=\"verified\"} 1\n\
             # HELP speechstack_repair_suspended Engines whose repair stopped.\n\
             # TYPE speechstack_repair_suspended gauge\n\
             speechstack_repair_suspended{stack_namespace=\"speech\",stack=\"demo\"} 0\n\
             # HELP speechstack_condition Whether a condition of a stack is true.\n\
             # TYPE speechstack_condition gauge\n\
             speechstack_condition{stack_namespace=\"speech\",stack=\"demo\",condition=\"Ready\"} 1\n"
        );
        stacks.forget("speech", "demo");
        assert_eq!(text(), "");
    }
}
