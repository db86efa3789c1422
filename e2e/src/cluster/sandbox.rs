//! The namespaces around a cluster. Its processes, networks and mounts exist only in them, so that all of it is gone
//! when their first process is, however that ended.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions};
use tokio::signal::unix::{SignalKind, signal};

use super::layout::Layout;
use super::node::configuration::hierarchies;
use super::{BARE, INSIDE, wait};
use crate::processes;

/// Why this process cannot start a cluster, if it cannot.
pub fn obstacle() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("a cluster needs Linux".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Some("a cluster needs root".to_owned());
    }
    let status = Command::new("unshare").args(["--mount", "--net", "--pid", "--fork", "true"]).status();
    match status {
        Ok(status) if status.success() => None,
        _ => Some("a cluster needs the right to make namespaces".to_owned()),
    }
}

/// Starts a cluster in new namespaces, runs a command in it, and ends it; a signal ends it at once.
///
/// # Errors
/// When a cluster of this name runs already, it does not start, or something of it is left behind.
pub async fn run(layout: &Layout, bare: bool, command: &[OsString]) -> Result<ExitCode> {
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let _lock = lock(layout)?;
    remove(layout).await.context("unable to remove what an earlier run left")?;
    prepare(layout)?;
    let program = std::env::current_exe()?;
    // Killed when this process ends, even by SIGKILL; and with it the first process inside, and with that all others.
    let mut inside = Command::new("setpriv");
    inside.args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]);
    inside.args(["--mount-proc", "--propagation=private", "--"]).arg(program);
    inside.args(["first", "--name", layout.name()]).args(bare.then_some("--bare")).arg("--").args(command);
    inside.env_remove(INSIDE).env_remove(BARE);
    let mut inside = inside.spawn().context("unable to make namespaces")?;
    std::fs::write(layout.run().join("outer.pid"), std::process::id().to_string())?;
    std::fs::write(layout.run().join("unshare.pid"), inside.id().to_string())?;

    let (killed, status) = loop {
        if let Some(status) = inside.try_wait()? {
            break (false, status);
        }
        let [interrupt, terminate, hangup] = &mut ends;
        let received = async {
            tokio::select! {
                _ = next(interrupt) => (),
                _ = next(terminate) => (),
                _ = next(hangup) => (),
            }
        };
        if tokio::time::timeout(Duration::from_millis(50), received).await.is_ok() {
            eprintln!("cluster {} is ended", layout.name());
            inside.kill()?;
            break (true, inside.wait()?);
        }
    };
    remove(layout).await.context("the cluster left something behind")?;
    if killed {
        return Ok(ExitCode::from(130));
    }
    ensure!(status.signal().is_none(), "the cluster ended with {status}");
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

async fn next(stream: &mut std::io::Result<tokio::signal::unix::Signal>) {
    match stream {
        Ok(stream) => _ = stream.recv().await,
        Err(_) => std::future::pending().await,
    }
}

/// The first process of the namespaces: starts the one that does the work, buries the dead, ends when the work ends.
///
/// # Errors
/// When the work cannot be started.
pub fn first(layout: &Layout, bare: bool, command: &[OsString]) -> Result<ExitCode> {
    let mut work = Command::new(std::env::current_exe()?);
    work.args(["boot", "--name", layout.name()]).args(bare.then_some("--bare")).arg("--").args(command);
    let work = work.spawn().context("unable to start the cluster's work")?;
    let work = Pid::from_raw(work.id().cast_signed());
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if Some(pid) == work => {
                let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
                return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(error) => bail!("unable to wait for the cluster's work: {error}"),
        }
    }
}

/// Starts a cluster that stays, in the background, and waits until it is ready.
///
/// # Errors
/// When it does not start.
pub async fn up(layout: &Layout) -> Result<()> {
    // Held only by a running cluster; a moment's lock finds out.
    drop(lock(layout)?);
    std::fs::create_dir_all(layout.root().join("run"))?;
    let log = layout.root().join("run").join(format!("{}.log", layout.name()));
    let output = File::create(&log)?;
    let mut outer = Command::new("setsid");
    outer.arg(std::env::current_exe()?).args(["run", "--name", layout.name()]);
    outer.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut outer = outer.spawn().context("unable to start the cluster")?;
    let ready = layout.run().join("ready");
    let began = Instant::now();
    loop {
        let told = || std::fs::read_to_string(&log).unwrap_or_default();
        if let Some(status) = outer.try_wait()? {
            bail!("the cluster ended with {status}:\n{}", told());
        }
        // One of an earlier run is removed before the first process starts.
        if ready.exists() && began.elapsed() > Duration::from_millis(500) && first_pid(layout).is_some() {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(180) {
            let _ = outer.kill();
            bail!("the cluster is not ready after 3 minutes:\n{}", told());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Ends a cluster that was started by [`up`], or removes what is left of one.
///
/// # Errors
/// When something of it stays.
pub async fn down(layout: &Layout) -> Result<()> {
    if let Some(pid) = read_pid(&layout.run().join("outer.pid")) {
        let running = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        if String::from_utf8_lossy(&running).contains("cluster") {
            processes::signal(pid, Signal::TERM);
        }
    }
    let lock = wait::await_condition("the cluster has ended", Duration::from_secs(60), async || lock(layout))
        .await?;
    remove(layout).await?;
    drop(lock);
    Ok(())
}

/// Replaces this process by a command inside a running cluster.
///
/// # Errors
/// When the cluster does not run.
pub fn enter(layout: &Layout, command: &[OsString]) -> Result<()> {
    let first = first_pid(layout).context("the cluster does not run: start it by `make cluster`")?;
    let shell = [std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into())];
    let command = if command.is_empty() { &shell } else { command };
    let mut inside = Command::new("nsenter");
    inside.args(["--target", &first.as_raw_nonzero().to_string(), "--mount", "--net", "--pid"]);
    inside.args(["sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(std::env::current_dir()?).args(command);
    inside.env(INSIDE, layout.name());
    inside.env("KUBECONFIG", layout.kubeconfig("admin")).env("PATH", layout.search_path());
    Err(inside.exec()).context("unable to enter the cluster")
}

/// Writes a short command that enters the cluster: `target/cluster/bin/enter COMMAND...`.
///
/// # Errors
/// When it cannot be written.
pub fn write_enter(layout: &Layout) -> Result<PathBuf> {
    let path = layout.binaries().join("enter");
    let program = std::env::current_exe()?;
    let script = format!(
        "#!/bin/sh\n# Runs a command, or a shell, inside the cluster.\nexec '{}' enter --name '{}' -- \"$@\"\n",
        program.display(),
        layout.name()
    );
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(path)
}

/// The process id, as this machine counts, of the first process of the cluster's namespaces.
fn first_pid(layout: &Layout) -> Option<Pid> {
    let parent = read_pid(&layout.run().join("unshare.pid"))?.as_raw_nonzero().to_string();
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let of = stat.rsplit(')').next()?.split_whitespace().nth(1)?;
        if of == parent { Pid::from_raw(pid) } else { None }
    })
}

fn read_pid(file: &Path) -> Option<Pid> {
    Pid::from_raw(std::fs::read_to_string(file).ok()?.trim().parse().ok()?)
}

fn prepare(layout: &Layout) -> Result<()> {
    for folder in [layout.run(), layout.logs(), layout.run().join("volumes")] {
        if folder.ends_with(layout.name()) && folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("unable to make {}", folder.display()))?;
    }
    Ok(())
}

/// Held for as long as a cluster of this name runs.
fn lock(layout: &Layout) -> Result<File> {
    let folder = layout.root().join("run");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{}.lock", layout.name()));
    let file = File::create(&path).with_context(|| format!("unable to write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("a cluster {} of this tree runs already", layout.name()),
        Err(TryLockError::Error(error)) => Err(error).context("unable to lock"),
    }
}

/// Removes a cluster's files and control groups, after the kernel has ended its processes, and checks that all is gone.
async fn remove(layout: &Layout) -> Result<()> {
    let patience = Duration::from_secs(30);
    wait::await_condition("nothing is left", patience, async || {
        let left = processes::marked(&layout.unique());
        ensure!(left.is_empty(), "these processes are left: {left:?}");
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let run = layout.run().display().to_string();
        if let Some(mount) = mounts.lines().find(|line| line.contains(&run)) {
            bail!("this mount is left: {mount}");
        }
        for hierarchy in hierarchies() {
            for entry in std::fs::read_dir(&hierarchy)?.flatten() {
                if entry.file_name().to_string_lossy().starts_with(&layout.unique()) {
                    remove_control_group(&entry.path())?;
                }
            }
        }
        if layout.run().exists() {
            std::fs::remove_dir_all(layout.run())?;
        }
        Ok(())
    })
    .await
}

/// Control groups are removed from the leaves up; their files go by themselves.
fn remove_control_group(group: &Path) -> Result<()> {
    for entry in std::fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_control_group(&entry.path())?;
        }
    }
    std::fs::remove_dir(group).with_context(|| format!("unable to remove {}", group.display()))
}
