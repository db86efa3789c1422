//! Takes samples of one engine and of the node, and keeps the last ones for the health loop.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::Registry;
use tokio::time::MissedTickBehavior;

use crate::guard::heal::vitals::metrics::Metrics;
use crate::guard::heal::vitals::pressure::{NODE, NodePressure};
use crate::guard::heal::vitals::source::Source;
use crate::guard::heal::vitals::{Activity, History, Sample};
use crate::net::drain::Drain;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(500);
/// What metrics sum up.
const SHOWN: Duration = Duration::from_secs(5);

/// The last samples of one engine. Cheap to clone; asking it never waits.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    history: History,
    pressure: Option<NodePressure>,
}

impl Recorder {
    /// Starts to take samples, until the drain is forced. Without a source only the node's pressure is known.
    ///
    /// # Errors
    /// When a metric of the same name exists.
    pub fn start(
        source: Option<Source>,
        registry: &Registry,
        engine: &str,
        drain: &Drain,
    ) -> Result<Self, prometheus::Error> {
        let recorder = Self::default();
        let metrics = Metrics::register(registry, engine)?;
        let drain = drain.clone();
        let taking = recorder.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = taking.run(source, metrics) => {}
                () = drain.forced() => {}
            }
        });
        Ok(recorder)
    }

    /// What the engine's processes did in the last `window`; `None` when that is not known.
    pub fn activity(&self, window: Duration, now: Instant) -> Option<Activity> {
        self.kept.lock().history.activity(window, now)
    }

    /// The node's pressure when it was last read; `None` where the kernel has none.
    pub fn pressure(&self) -> Option<NodePressure> {
        self.kept.lock().pressure
    }

    async fn run(self, mut source: Option<Source>, metrics: Metrics) {
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            // One look at a time: if the kernel holds it up, the last sample grows old, which says so.
            let looked = tokio::task::spawn_blocking(move || {
                let sample = source.as_mut().and_then(|source| source.sample(Instant::now()));
                (source, sample, NodePressure::read(Path::new(NODE), Instant::now()))
            });
            let Ok((back, sample, pressure)) = looked.await else { return };
            source = back;
            self.take(sample, pressure, &metrics);
        }
    }

    fn take(&self, sample: Option<(String, Sample)>, pressure: Option<NodePressure>, metrics: &Metrics) {
        if let Some(pressure) = pressure {
            let share = self.pressure().and_then(|earlier| pressure.share_since(&earlier));
            metrics.pressed(share.unwrap_or(pressure.avg10));
        }
        let now = Instant::now();
        {
            let mut kept = self.kept.lock();
            kept.pressure = pressure;
            if let Some((instance, sample)) = &sample {
                kept.history.record(instance, *sample);
            }
        }
        if let Some((_, sample)) = &sample {
            metrics.sampled(sample);
        }
        if let Some(activity) = self.activity(SHOWN, now) {
            metrics.active(&activity);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI32;

    use super::*;

    #[tokio::test]
    async fn samples_are_kept_and_shown() {
        let registry = Registry::new();
        let own = Arc::new(AtomicI32::new(nix::unistd::getpgrp().as_raw()));
        let source = Some(Source::child(own));
        let recorder = Recorder::start(source, &registry, "stt-0", &Drain::new()).unwrap();
        let sampled = async {
            while recorder.activity(Duration::from_secs(60), Instant::now()).is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), sampled).await.unwrap();
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(
            text.contains("speechstack_engine_process_threads{engine=\"stt-0\",state=\"sleeping\"}"),
            "{text}"
        );
        assert!(text.contains("speechstack_engine_process_cpu_cores{engine=\"stt-0\"}"), "{text}");
    }

    #[tokio::test]
    async fn without_a_source_only_the_node_is_known() {
        let recorder = Recorder::default();
        let metrics = Metrics::register(&Registry::new(), "stt-0").unwrap();
        let at = Instant::now();
        let pressure = NodePressure { at, avg10: 0.5, total: Duration::from_secs(1) };
        recorder.take(None, Some(pressure), &metrics);
        assert_eq!(recorder.pressure(), Some(pressure));
        assert_eq!(recorder.activity(SHOWN, at), None);
    }
}
