//! Kills the processes of an engine's container directly, where guard and engine share a process namespace.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::guard::judge::remediation::Kill;

const LOOK: Duration = Duration::from_millis(50);

/// Ends every process of the container of that key. What cannot be killed here is left to the kubelet.
pub async fn end(key: String, how: Kill, grace: Duration) {
    let Some(namespace) = namespace(&key) else { return };
    let proc = Path::new("/proc");
    if how == Kill::Graceful {
        send(proc, namespace, Signal::SIGTERM);
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline && !find(proc, namespace).is_empty() {
            sleep(LOOK).await;
        }
    }
    send(proc, namespace, Signal::SIGKILL);
}

/// The processes of the container of that key.
pub fn of(key: &str, proc: &Path) -> Vec<i32> {
    namespace(key).map_or_else(Vec::new, |namespace| find(proc, namespace))
}

/// The inode of the mount namespace, with which a key begins.
fn namespace(key: &str) -> Option<u64> {
    key.split('-').next()?.parse().ok()
}

fn send(proc: &Path, namespace: u64, signal: Signal) {
    for pid in find(proc, namespace) {
        if let Err(error) = kill(Pid::from_raw(pid), signal) {
            tracing::warn!(pid, %error, "unable to kill an engine process");
        }
    }
}

/// The processes in that mount namespace; none when it is our own.
fn find(proc: &Path, namespace: u64) -> Vec<i32> {
    let wanted = format!("mnt:[{namespace}]");
    let is_in = |process: &Path| {
        fs::read_link(process.join("ns/mnt")).is_ok_and(|target| target.as_os_str() == OsStr::new(&wanted))
    };
    if is_in(&proc.join("self")) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid > 1 && is_in(&proc.join(pid.to_string())))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn process(proc: &Path, name: &str, namespace: u64) {
        fs::create_dir_all(proc.join(name).join("ns")).unwrap();
        symlink(format!("mnt:[{namespace}]"), proc.join(name).join("ns/mnt")).unwrap();
    }

    #[test]
    fn only_the_containers_processes_are_killed() {
        let proc = tempfile::tempdir().unwrap();
        let mut engine = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        process(proc.path(), "self", 1);
        process(proc.path(), &engine.id().to_string(), 7);
        process(proc.path(), &other.id().to_string(), 8);
        fs::create_dir_all(proc.path().join("sys")).unwrap();
        send(proc.path(), namespace("7-00000000000000ab").unwrap(), Signal::SIGKILL);
        assert_eq!(engine.wait().unwrap().signal(), Some(9));
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn our_own_namespace_and_odd_keys_kill_nobody() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), "self", 7);
        process(proc.path(), "4194305", 7);
        process(proc.path(), "1", 8);
        assert!(find(proc.path(), 7).is_empty());
        assert!(find(proc.path(), 8).is_empty(), "never the first process");
        assert_eq!(namespace("engine/1"), None);
        assert_eq!(namespace(""), None);
    }
}
