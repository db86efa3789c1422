//! What can replace the engine process behind a guard, and what it tells of that process.

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::guard::judge::remediation::Kill;

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

/// What can replace the engine process behind a guard.
///
/// Implemented by [`ChildProcess`](crate::guard::heal::child::ChildProcess) for a child process, and by
/// [`Kubelet`](crate::guard::heal::kubelet::Kubelet) where the kubelet does it.
pub trait Actuator: Send + Sync {
    /// The present instance; changes when the process ends and when a new one starts.
    fn instance(&self) -> watch::Receiver<Instance>;

    /// Ends the instance of that key, if it is still the present one, and starts a new one.
    /// A late order, whose key is gone, does nothing. Resolves once the new process runs. `why` is for people.
    fn restart(&self, key: String, kill: Kill, why: String) -> BoxFuture<'static, Result<(), Error>>;
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
    /// The supervisor ended.
    #[error("the stack is stopping")]
    Stopping,
}
