//! A socket in front of the container engine's, which a test can close for a while.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};
use tokio::task::JoinHandle;

/// Forwards connections.
pub struct Relay {
    path: PathBuf,
    gate: Arc<RwLock<()>>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts to forward; its socket is beside the other.
    pub fn start(to: &Path) -> Result<Self> {
        let (path, to) = (to.with_extension("relay"), to.to_owned());
        let listener = UnixListener::bind(&path)?;
        let gate = Arc::new(RwLock::new(()));
        let open = gate.clone();
        let task = tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(forward(from, to.clone(), open.clone()));
            }
        });
        Ok(Self { path, gate, task })
    }

    /// Its socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes new connections, but forwards none until the guard is dropped. The client here has one for each request.
    pub async fn close(&self) -> OwnedRwLockWriteGuard<()> {
        self.gate.clone().write_owned().await
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut from: UnixStream, to: PathBuf, gate: Arc<RwLock<()>>) {
    drop(gate.read().await);
    if let Ok(mut to) = UnixStream::connect(&to).await {
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    }
}
