//! A program that outlives who started it: its process id is on file, so that another process can stop it.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};

use super::layout::{Layout, SYSTEM_PATH};
use super::wait::await_condition;
use crate::processes;

/// One part of a cluster.
#[derive(Clone, Debug)]
pub struct Daemon {
    name: String,
    mark: String,
    pid_file: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// The part `name` of a cluster, whether it runs or not.
    pub fn new(layout: &Layout, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            mark: layout.unique(),
            pid_file: layout.run().join(format!("{name}.pid")),
            log: layout.logs().join(format!("{name}.log")),
        }
    }

    /// Starts it; what it prints is appended to its log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, program: &Path, arguments: &[impl AsRef<OsStr>]) -> Result<Pid> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("unable to write {}", self.log.display()))?;
        let mut command = Command::new(program);
        command.args(arguments);
        // Proxies of the machine's environment would carry the cluster's own traffic away.
        command.env_clear().env("PATH", SYSTEM_PATH).env("HOME", "/root").env(processes::MARK, &self.mark);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("unable to start {}", self.name))?;
        std::fs::write(&self.pid_file, child.id().to_string())?;
        Pid::from_raw(child.id().cast_signed()).context("no process id")
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        let pid = std::fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The state follows the name, which ends with the last bracket.
        let state = stat.rsplit(')').next()?.trim_start().chars().next()?;
        if state == 'Z' { None } else { Pid::from_raw(pid) }
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub async fn stop(&self) -> Result<()> {
        if let Some(pid) = self.pid() {
            processes::signal(pid, Signal::KILL);
        }
        await_condition(&format!("{} is gone", self.name), Duration::from_secs(30), async || {
            ensure!(self.pid().is_none(), "it still runs");
            Ok(())
        })
        .await
    }

    /// Says why, when it does not run any more.
    ///
    /// # Errors
    /// When it has ended; the message has the tail of its log.
    pub fn ensure_running(&self) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        bail!("{} has ended, see {}:\n{tail}", self.name, self.log.display())
    }
}
