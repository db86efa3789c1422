//! The liveness probe of an engine container, and its wait before a stop. Fails only when a restart request names this very container.
//!
//! ```text
//! speechstack-livez [--dir DIR]                  writes DIR/instance and DIR/vitals; exit 1 only if DIR/restart names this instance
//! speechstack-livez [--dir DIR] drain SECONDS    asks the guard for a drain and waits for it; exit 0 always
//! ```
//!
//! Whatever goes wrong here must not restart an engine that serves: every error exits 0.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

mod command;
mod instance;
mod request;
mod vitals;

use command::Command;
use request::RestartRequest;

/// Between two looks for the guard's word that the lane is idle.
const LOOK: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let command = match Command::parse(env::args().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("speechstack-livez: {error}");
            return ExitCode::SUCCESS;
        }
    };
    let key = match own_key() {
        Ok(key) => key,
        Err(error) => {
            eprintln!("speechstack-livez: unable to tell which container this is: {error}");
            return ExitCode::SUCCESS;
        }
    };
    match command {
        Command::Probe { dir } => probe(&dir, &key),
        Command::Drain { dir, limit } => {
            drain(&dir, &key, limit);
            ExitCode::SUCCESS
        }
    }
}

fn probe(dir: &Path, key: &str) -> ExitCode {
    if let Err(error) = write(dir, "instance", key) {
        eprintln!("speechstack-livez: unable to write the instance: {error}");
    }
    match read_request(dir).and_then(|request| request.against(key).map(str::to_owned)) {
        Some(reason) => {
            println!("restart requested: {reason}");
            ExitCode::FAILURE
        }
        None => {
            // The guard does without it: no reason to say anything.
            let _ = write(dir, "vitals", vitals::measure(key).trim_end());
            ExitCode::SUCCESS
        }
    }
}

/// Has the guard finish what is in flight, unless the container is to be killed for a fault.
fn drain(dir: &Path, key: &str, limit: Duration) {
    if read_request(dir).is_some_and(|request| request.against(key).is_some()) {
        return;
    }
    let drained = dir.join("drained");
    // Left by an earlier drain; the guard writes it again.
    let _ = fs::remove_file(&drained);
    if let Err(error) = write(dir, "drain", key) {
        eprintln!("speechstack-livez: unable to ask for a drain: {error}");
        return;
    }
    let started = Instant::now();
    while !drained.exists() && started.elapsed() < limit {
        thread::sleep(LOOK.min(limit));
    }
}

fn own_key() -> io::Result<String> {
    let namespace = fs::read_link("/proc/self/ns/mnt")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    instance::key(&namespace.to_string_lossy(), &mounts)
        .ok_or_else(|| io::Error::other("/proc/self has no mount namespace or no root mount"))
}

fn read_request(dir: &Path) -> Option<RestartRequest> {
    use io::Read as _;
    let mut text = String::new();
    let file = fs::File::open(dir.join("restart")).ok()?;
    file.take(request::MOST_BYTES).read_to_string(&mut text).ok()?;
    RestartRequest::parse(&text)
}

/// Replaces the file whole: a reader sees the old text or the new one.
fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let temporary: PathBuf = dir.join(format!(".{name}.{}", std::process::id()));
    let written = fs::write(&temporary, format!("{text}\n"))
        .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&temporary, dir.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
