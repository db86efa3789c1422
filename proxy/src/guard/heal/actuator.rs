//! What can replace the engine process behind a guard, and what it tells of that process.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::guard::heal::output::LastWords;
use crate::guard::heal::process_record::LastRecord;
use crate::guard::heal::{container, unit};
use crate::guard::judge::remediation::Kill;
use crate::guard::path::signatures::Catalogue;

/// Lines of an engine's log that are kept of its end.
pub const MAX_LINES: u32 = 50;
/// Bytes of these lines.
pub const MAX_WORDS: usize = 8 * 1024;

/// One life of an engine process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Unique over restarts.
    pub key: String,
    /// Where it is in its life.
    pub life: Life,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Not seen yet: its container has not started.
    Awaited,
    /// Running.
    Running,
    /// Ended by itself.
    Exited,
    /// Alive though it was killed.
    Stuck,
}

/// What a guard has proven, kept for one that is started after it beside the same engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The instance that golden probes have proven; `None` once it was found wedged.
    pub key: Option<String>,
    /// From the start of an instance to its proof, the longest seen.
    pub start: Duration,
}

/// What can replace the engine process behind a guard.
///
/// Implemented by [`ChildProcess`](crate::guard::heal::child::ChildProcess) for a child process, by
/// [`Kubelet`](crate::guard::heal::kubelet::Kubelet) where the kubelet does it, and by
/// [`Supervised`](crate::guard::heal::supervised::Supervised) where Docker, Podman or systemd does it.
pub trait Actuator: Send + Sync {
    /// The present instance; changes when the process ends and when a new one starts.
    fn instance(&self) -> watch::Receiver<Instance>;

    /// Ends the instance of that key, if it is still the present one, and starts a new one.
    /// A late order, whose key is gone, does nothing. Resolves once the new process runs. `why` is for people.
    fn restart(&self, key: String, kill: Kill, why: String) -> BoxFuture<'static, Result<(), Error>>;

    /// The last lines that the engine logged, at most [`MAX_WORDS`] bytes; `None` where nothing here can read its log.
    /// Engines log what users say: only known texts in it may be kept.
    fn end_of_log(&self) -> BoxFuture<'static, Option<String>> {
        Box::pin(std::future::ready(None))
    }

    /// Takes what the processes of the instance of that key showed before they were killed, or when they ended.
    fn record(&self, _key: &str) -> Option<LastRecord> {
        None
    }

    /// What the present process printed last, where its output passes through here.
    fn last_words(&self) -> LastWords {
        LastWords::default()
    }

    /// What an earlier guard of this engine kept; `None` where guards and engines start and end together.
    fn proven(&self) -> Option<Proven> {
        None
    }

    /// Keeps what is proven for a later guard.
    fn keep(&self, _proven: &Proven) {}

    /// Looks for the texts of other rules in what the process prints.
    fn recognise(&self, _catalogue: Arc<Catalogue>) {}
}

/// Why a restart did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The order named an instance that is gone.
    #[error("the order came late: its instance is gone")]
    Late,
    /// The process does not die.
    #[error("the process is still alive after SIGKILL")]
    Stuck,
    /// The command cannot be started.
    #[error("unable to start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The restart request cannot be written.
    #[error("unable to request the restart: {source}")]
    Request {
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// Docker or Podman cannot do it.
    #[error(transparent)]
    Container(#[from] container::Error),
    /// systemd cannot do it.
    #[error(transparent)]
    Unit(#[from] unit::Error),
    /// The old process ended, and no new one came.
    #[error("no new process was started within {} s", .0.as_secs())]
    Unstarted(Duration),
    /// The supervisor ended.
    #[error("the stack is stopping")]
    Stopping,
}

/// The end of a log: whole lines, at most [`MAX_LINES`] and [`MAX_WORDS`] bytes; `None` when nothing was logged.
pub(super) fn end_of_log(log: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(log);
    let (mut from, mut bytes) = (text.len(), 0);
    for line in text.split_inclusive('\n').rev().take(MAX_LINES as usize) {
        bytes += line.len();
        if bytes > MAX_WORDS {
            break;
        }
        from -= line.len();
    }
    let end = text.get(from..)?.trim_end();
    (!end.is_empty()).then(|| end.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_whole_lines_within_both_bounds() {
        assert_eq!(end_of_log(b""), None);
        assert_eq!(end_of_log(b"\n\n"), None);
        assert_eq!(end_of_log(b"one\ntwo \xff\n").as_deref(), Some("one\ntwo \u{fffd}"));
        let many: String = (0..200).map(|line| format!("line {line}\n")).collect();
        let end = end_of_log(many.as_bytes()).unwrap();
        assert_eq!(end.lines().count(), MAX_LINES as usize);
        assert!(end.starts_with("line 150\n") && end.ends_with("line 199"));
        let long = format!("{}\nlast\n", "x".repeat(MAX_WORDS));
        assert_eq!(end_of_log(long.as_bytes()).as_deref(), Some("last"));
    }
}
