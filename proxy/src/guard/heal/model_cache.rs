//! How far an engine's download is: the size of its model files, while it is not proven.
//!
//! | file | part |
//! |---|---|
//! | `walk` | what a folder takes on disk |
//! | `progress` | what sizes in a row say (pure) |

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Opts, Registry};
use tokio::sync::oneshot;

use contract::ModelCache;

use crate::guard::heal::vitals::recorder::Recorder;
use crate::net::drain::Drain;

mod progress;
mod walk;

use progress::Progress;
use walk::Size;

/// Between two looks at a folder that is measured quickly.
const PERIOD: Duration = Duration::from_secs(10);
/// A look that took long is followed by a rest of so many times as long.
const REST: u32 = 10;
/// How soon it is noticed that an engine is not proven any more.
const WAKE: Duration = Duration::from_secs(1);
/// How far back it counts whether the engine's processes do something...
const BUSY_WINDOW: Duration = Duration::from_secs(30);
/// ...which they do from so many cores on.
const BUSY_CORES: f64 = 0.2;

/// Measures one engine's model files. Cheap to clone; asking it never waits.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    wanted: AtomicBool,
    measured: Mutex<Option<ModelCache>>,
}

impl Meter {
    /// Starts to measure while that is [wanted](Meter::look), until the drain is forced. Without a folder nothing is ever measured.
    ///
    /// # Errors
    /// When a metric of the same name exists.
    pub fn start(
        folder: Option<PathBuf>,
        vitals: Recorder,
        registry: &Registry,
        engine: &str,
        drain: &Drain,
    ) -> Result<Self, prometheus::Error> {
        let meter = Self::default();
        let Some(folder) = folder else { return Ok(meter) };
        let opts = Opts::new(
            "speechstack_guard_model_cache_bytes",
            "Size of the engine's model files when they were last measured, which is until it is proven.",
        );
        let bytes = IntGaugeVec::new(opts, &["engine"])?;
        registry.register(Box::new(bytes.clone()))?;
        let (measuring, engine, drain) = (meter.clone(), engine.to_owned(), drain.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = measuring.run(folder, vitals, bytes, &engine) => {}
                () = drain.forced() => {}
            }
        });
        Ok(meter)
    }

    /// What was measured of an engine that is not proven, where that is possible; nothing is measured of one that is.
    pub fn look(&self, is_unproven: bool) -> Option<ModelCache> {
        self.shared.wanted.store(is_unproven, Ordering::Relaxed);
        if is_unproven { self.shared.measured.lock().clone() } else { None }
    }

    async fn run(self, folder: PathBuf, vitals: Recorder, bytes: IntGaugeVec, engine: &str) {
        let mut progress = Progress::default();
        let mut has_failed = false;
        loop {
            if !self.shared.wanted.load(Ordering::Relaxed) {
                progress = Progress::default();
                *self.shared.measured.lock() = None;
                tokio::time::sleep(WAKE).await;
                continue;
            }
            let began = Instant::now();
            let size = measured(&folder).await;
            let now = Instant::now();
            match size {
                Ok(size) => {
                    let shown = i64::try_from(size.bytes).unwrap_or(i64::MAX);
                    bytes.with_label_values(&[engine]).set(shown);
                    let cache = progress.add(size, is_busy(&vitals, now), now, unix_ms());
                    *self.shared.measured.lock() = Some(cache);
                }
                Err(error) if !std::mem::replace(&mut has_failed, true) => {
                    let folder = folder.display().to_string();
                    tracing::info!(engine, folder, %error, "unable to measure the model cache");
                }
                Err(_) => {}
            }
            tokio::time::sleep(PERIOD.max((now - began).saturating_mul(REST))).await;
        }
    }
}

/// Measures on a thread of its own: a network file system that hangs must hold up neither requests nor the end of the process.
async fn measured(folder: &Path) -> io::Result<Size> {
    let (reply, replied) = oneshot::channel();
    let folder = folder.to_owned();
    let thread = std::thread::Builder::new().name("model-cache".into());
    thread.spawn(move || {
        // No listener is no error: the guard ends.
        let _ = reply.send(walk::measure(&folder));
    })?;
    replied.await.unwrap_or_else(|_| Err(io::Error::other("the measuring thread ended")))
}

fn is_busy(vitals: &Recorder, now: Instant) -> bool {
    let activity = vitals.activity(BUSY_WINDOW, now).filter(|activity| activity.age < BUSY_WINDOW);
    activity.is_some_and(|activity| activity.blocked || activity.cpu_share >= BUSY_CORES)
}

fn unix_ms() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn reaches(meter: &Meter, what: impl Fn(Option<&ModelCache>) -> bool) {
        let reached = async {
            while !what(meter.look(true).as_ref()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap();
    }

    #[tokio::test]
    async fn an_engine_that_is_proven_is_not_measured_and_one_that_starts_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".part"), vec![1; 1 << 20]).unwrap();
        let (registry, drain) = (Registry::new(), Drain::new());
        let folder = Some(dir.path().to_owned());
        let meter = Meter::start(folder, Recorder::default(), &registry, "stt-0", &drain).unwrap();
        assert_eq!(meter.look(false), None);
        tokio::time::sleep(2 * WAKE).await;
        assert!(registry.gather().is_empty(), "an engine that was proven before has no size");
        reaches(&meter, |cache| cache.is_some_and(|cache| cache.bytes >= 1 << 20)).await;
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains("speechstack_guard_model_cache_bytes{engine=\"stt-0\"} 1"), "{text}");
        assert_eq!(meter.look(false), None);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_read_is_no_report_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("later");
        assert!(measured(&folder).await.is_err());
        let meter =
            Meter::start(None, Recorder::default(), &Registry::new(), "stt-0", &Drain::new()).unwrap();
        tokio::time::sleep(2 * WAKE).await;
        assert_eq!(meter.look(true), None);
        std::fs::create_dir(&folder).unwrap();
        assert!(measured(&folder).await.is_ok());
    }
}
