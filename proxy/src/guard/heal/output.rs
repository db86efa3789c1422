//! What an engine process prints: passed on to our own standard error, its last lines kept, known texts found.
//!
//! The engine never waits for this: what the reader of our standard error does not take in time is dropped and counted.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::AsyncRead;
use tokio::sync::broadcast;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

use contract::Class;
use contract::redact::redact;

use crate::guard::path::signatures::Catalogue;

mod hints;
mod lines;

pub use hints::observe;

/// Lines that wait for the reader of our standard error; beyond it new ones are dropped.
const MAX_WAITING: usize = 4096;
/// Lines that are kept.
const KEPT_LINES: usize = 100;
/// Bytes that are kept of each: all together are searched at once.
const KEPT_BYTES: usize = 512;
/// Lines that are searched in a second. What a flood hides is found among the kept lines once the process has ended.
const SEARCHED_A_SECOND: u32 = 2000;
/// Between two hints, and between two of the same text.
const HINT_PERIOD: Duration = Duration::from_secs(30);
const SAME_HINT_PERIOD: Duration = Duration::from_secs(600);
/// How long a text of class D counts as the reason of an exit, however much is printed after it.
const REASON_TTL: Duration = Duration::from_secs(300);
/// Hints that wait for the health loop.
const HINTS: usize = 16;
/// Between two log lines about dropped lines.
const DROPPED_PERIOD: Duration = Duration::from_secs(10);

/// A known text that the engine printed.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputHint {
    /// What it shows.
    pub class: Class,
    /// Which signature it is.
    pub signature: String,
    /// The line, redacted.
    pub line: String,
    /// When it was read.
    pub seen: Instant,
}

/// What the present process printed last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastWords {
    /// Its last lines, oldest first, redacted: those that tell of trouble.
    pub lines: Vec<String>,
    /// The known text among them: its class and signature.
    pub finding: Option<(Class, String)>,
    /// Lines that our standard error did not take in time, since the guard started.
    pub dropped: u64,
}

/// The output of one engine over all its processes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Output {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: String,
    sink: NonBlocking,
    dropped: ErrorCounter,
    /// Writes the lines that wait when it is dropped.
    _writer: WorkerGuard,
    state: Mutex<State>,
    hints: broadcast::Sender<OutputHint>,
}

#[derive(Debug)]
struct State {
    catalogue: Arc<Catalogue>,
    lines: VecDeque<Vec<u8>>,
    /// A text of class D, and when it was printed.
    reason: Option<(Instant, String)>,
    searched: (Instant, u32),
    hinted: VecDeque<(Instant, String)>,
    told_dropped: (Option<Instant>, u64),
}

impl Output {
    /// Output that goes to `sink`, which may block: it has a thread of its own.
    pub fn new(engine: &str, catalogue: Arc<Catalogue>, sink: impl Write + Send + 'static) -> Self {
        let builder = NonBlockingBuilder::default().buffered_lines_limit(MAX_WAITING).lossy(true);
        let (sink, writer) = builder.thread_name("engine-output").finish(sink);
        let state = State {
            catalogue,
            lines: VecDeque::new(),
            reason: None,
            searched: (Instant::now(), 0),
            hinted: VecDeque::new(),
            told_dropped: (None, 0),
        };
        Self {
            shared: Arc::new(Shared {
                engine: engine.to_owned(),
                dropped: sink.error_counter(),
                sink,
                _writer: writer,
                state: Mutex::new(state),
                hints: broadcast::channel(HINTS).0,
            }),
        }
    }

    /// A new process: what the one before printed is forgotten.
    pub fn begin(&self) {
        let mut state = self.shared.state.lock();
        state.lines.clear();
        state.reason = None;
        state.hinted.clear();
    }

    /// Looks for the texts of other rules from now on.
    pub fn configure(&self, catalogue: Arc<Catalogue>) {
        self.shared.state.lock().catalogue = catalogue;
    }

    /// Known texts as they are printed, at most one in 30 seconds.
    pub fn hints(&self) -> broadcast::Receiver<OutputHint> {
        self.shared.hints.subscribe()
    }

    /// Passes on what comes out of `pipe` until its end.
    pub async fn follow(&self, pipe: impl AsyncRead + Unpin) {
        lines::read(pipe, |line| self.line(line, Instant::now())).await;
    }

    /// What the present process printed last.
    pub fn last_words(&self, now: Instant) -> LastWords {
        let state = self.shared.state.lock();
        let text = state.lines.iter().map(Vec::as_slice).collect::<Vec<_>>().join(&b'\n');
        let among = state.catalogue.find(&text).map(|(class, signature)| (class, signature.to_owned()));
        let recent = |at: &Instant| now.saturating_duration_since(*at) <= REASON_TTL;
        let reason = state.reason.as_ref().filter(|(at, _)| recent(at));
        let reason = reason.map(|(_, signature)| (Class::Environment, signature.clone()));
        LastWords {
            lines: state
                .lines
                .iter()
                .filter(|line| tells_of_trouble(line))
                .map(|line| redact(line))
                .collect(),
            finding: among.filter(|(class, _)| class.is_sticky() || reason.is_none()).or(reason),
            dropped: self.dropped(),
        }
    }

    fn dropped(&self) -> u64 {
        u64::try_from(self.shared.dropped.dropped_lines()).unwrap_or(u64::MAX)
    }

    /// Takes one line, with its end of line.
    fn line(&self, line: &[u8], now: Instant) {
        // Never waits; what does not fit is dropped and counted.
        let _ = self.shared.sink.clone().write_all(line);
        let mut state = self.shared.state.lock();
        state.keep(line);
        if let Some(dropped) = state.dropped(self.dropped(), now) {
            tracing::warn!(engine = self.shared.engine, dropped, "lines of the engine's output dropped");
        }
        if let Some(hint) = state.search(line, now) {
            drop(state);
            tracing::warn!(
                engine = self.shared.engine,
                class = hint.class.as_str(),
                signature = hint.signature,
                "engine printed a known text"
            );
            // No listener is no error.
            let _ = self.shared.hints.send(hint);
        }
    }
}

impl State {
    fn keep(&mut self, line: &[u8]) {
        let line = line.trim_ascii_end();
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.get(..KEPT_BYTES).unwrap_or(line).to_vec());
    }

    /// The hint that this line is, if it is time for one.
    fn search(&mut self, line: &[u8], now: Instant) -> Option<OutputHint> {
        let (since, count) = &mut self.searched;
        if now.saturating_duration_since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count > SEARCHED_A_SECOND {
            return None;
        }
        let (class, signature) = self.catalogue.find(line)?;
        let signature = signature.to_owned();
        if class == Class::Environment {
            self.reason = Some((now, signature.clone()));
        }
        let since = |at: &Instant| now.saturating_duration_since(*at);
        self.hinted.retain(|(at, _)| since(at) < SAME_HINT_PERIOD);
        if self.hinted.iter().any(|(at, known)| since(at) < HINT_PERIOD || *known == signature) {
            return None;
        }
        self.hinted.push_back((now, signature.clone()));
        Some(OutputHint { class, signature, line: redact(line.trim_ascii_end()), seen: now })
    }

    /// How many lines were dropped since that was last logged, if it is time to say so.
    fn dropped(&mut self, all: u64, now: Instant) -> Option<u64> {
        let (at, told) = &mut self.told_dropped;
        let rested = at.is_none_or(|at| now.saturating_duration_since(at) >= DROPPED_PERIOD);
        let new = all.saturating_sub(*told);
        (new > 0 && rested).then(|| {
            (*at, *told) = (Some(now), all);
            new
        })
    }
}

/// Whether a line is about a fault. Others may be what users said, and are not kept in records.
fn tells_of_trouble(line: &[u8]) -> bool {
    const SIGNS: &[&str] = &[
        "abort",
        "assert",
        "critical",
        "cublas",
        "cuda",
        "cudnn",
        "error",
        "exception",
        "fail",
        "fatal",
        "killed",
        "nccl",
        "oom",
        "panic",
        "segmentation",
        "signal",
        "traceback",
        "warn",
    ];
    let line = String::from_utf8_lossy(line).to_ascii_lowercase();
    line.trim_start().starts_with("file \"") || SIGNS.iter().any(|sign| line.contains(sign))
}

#[cfg(test)]
mod tests;
