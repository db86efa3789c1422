//! Starts a stack's processes, finds them again and leaves none behind.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Environment variable that marks every process of one stack; children inherit it.
pub const MARK: &str = "SPEECHSTACK_E2E";

/// A command that gets SIGTERM when the thread that spawned it ends, so that a killed test run leaves nothing behind.
pub fn tied_command(program: &Path) -> Command {
    if !Path::new("/usr/bin/setpriv").exists() {
        return Command::new(program);
    }
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(program);
    command
}

/// The processes whose environment carries the mark, with their command lines.
pub fn marked(mark: &str) -> Vec<(Pid, Vec<String>)> {
    let wanted = format!("{MARK}={mark}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        let words = |file: &str| {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
            words.map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>()
        };
        if words("environ").contains(&wanted) {
            found.push((pid, words("cmdline")));
        }
    }
    found
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(pid: Pid, signal: Signal) {
    let _ = kill_process(pid, signal);
}

/// Kills whatever of a stack still runs.
pub fn sweep(mark: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left = marked(mark);
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        for (pid, _) in left {
            signal(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
