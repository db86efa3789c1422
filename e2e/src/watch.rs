//! Writes down every change in what a stack says of its engines.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::Client;
use crate::report::StackReport;
use contract::EngineReport;

/// How often the state is read.
const PERIOD: Duration = Duration::from_millis(40);

/// One engine from one moment on.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When it was first seen so.
    pub at: Instant,
    /// The engine.
    pub engine: String,
    /// Its state.
    pub state: String,
    /// The verdict on it.
    pub verdict: String,
    /// The class behind the verdict.
    pub class: Option<String>,
    /// Restarts so far.
    pub restarts: u64,
}

impl Sample {
    /// The engine as reported now.
    pub fn of(engine: EngineReport) -> Self {
        Self {
            at: Instant::now(),
            engine: engine.name,
            state: engine.state.to_string(),
            verdict: engine.verdict.to_string(),
            class: engine.class.map(|class| class.to_string()),
            restarts: engine.restarts,
        }
    }
}

/// A watcher at work until it is dropped.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Vec<Sample>>>,
    reader: JoinHandle<()>,
}

impl Watch {
    /// Watches the stack behind an admin port.
    pub fn start(admin: Client) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        let reader = tokio::spawn(async move {
            loop {
                let state = admin.get("/state").await.and_then(|reply| reply.json());
                if let Some(state) = state.ok().and_then(|state| serde_json::from_value(state).ok()) {
                    note(&mut shared.lock(), state);
                }
                tokio::time::sleep(PERIOD).await;
            }
        });
        Self { seen, reader }
    }

    /// How an engine was from `since` on, oldest first; the first entry may have begun before.
    pub fn since(&self, engine: &str, since: Instant) -> Vec<Sample> {
        let seen = self.seen.lock();
        let of_engine: Vec<&Sample> = seen.iter().filter(|sample| sample.engine == engine).collect();
        let first = of_engine.iter().rposition(|sample| sample.at <= since).unwrap_or(0);
        of_engine.into_iter().skip(first).cloned().collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn note(seen: &mut Vec<Sample>, state: StackReport) {
    for engine in state.engines {
        let sample = Sample::of(engine);
        let last = seen.iter().rfind(|last| last.engine == sample.engine);
        if last.is_none_or(|last| Sample { at: last.at, ..sample.clone() } != *last) {
            seen.push(sample);
        }
    }
}
