//! A container that no kill ends, as one whose process hangs in its GPU's driver.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::ptrace;
use nix::unistd::Pid;

use super::scenario::Namespace;
use super::wait::await_condition;

/// For a process to appear in /proc.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Keeps a container from ending until it is dropped.
///
/// A killed process that is traced stays a zombie until its tracer looks at it, and the first process of a PID
/// namespace cannot end while another is left in it.
#[derive(Debug)]
pub struct StuckKill {
    /// The tracer's thread ends when this is dropped, and with it the trace.
    _hold: mpsc::Sender<()>,
}

impl StuckKill {
    /// Starts a process in a container and traces it.
    ///
    /// # Errors
    /// When the process does not start or cannot be traced.
    pub async fn hold(space: &Namespace, pod: &str, container: &str) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1 << 30);
        // A number that tells this process from all others on the machine.
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let sleep = format!("sleep {unique} >/dev/null 2>&1 &");
        space.exec(pod, container, &["/bin/sh", "-c", &sleep]).await?;
        let pid = await_condition("the process to trace runs", TEST_TIMEOUT, async || find(unique)).await?;
        let (hold, held) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let traced = ptrace::seize(pid, ptrace::Options::empty());
            // The caller waits for it.
            let _ = tell.send(traced);
            let _ = held.recv();
        });
        told.recv().context("the tracer died")?.with_context(|| format!("unable to trace process {pid}"))?;
        Ok(Self { _hold: hold })
    }
}

/// The process `sleep <seconds>`.
fn find(seconds: u64) -> Result<Pid> {
    let wanted = format!("sleep\0{seconds}\0");
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // Processes end while they are looked at.
        if std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes()) {
            return Ok(Pid::from_raw(pid));
        }
    }
    bail!("no process `sleep {seconds}`")
}
