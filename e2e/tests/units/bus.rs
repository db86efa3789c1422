//! A message bus of the test's own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};
use speechstack_e2e::processes;
use tempfile::TempDir;

/// A private D-Bus daemon; it ends with this value.
pub struct Bus {
    /// Where it listens, as D-Bus writes addresses.
    pub address: String,
    daemon: Child,
    _folder: TempDir,
}

impl Bus {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ss-bus-").tempdir_in("/tmp")?;
        let address = format!("unix:path={}", folder.path().join("bus").display());
        let mut command = processes::tied_command(Path::new("/usr/bin/dbus-daemon"));
        command.args(["--session", "--nofork", "--nopidfile", "--print-address=1", "--address"]).arg(address);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut daemon = command.spawn().context("unable to start dbus-daemon; is it installed?")?;
        let stdout = daemon.stdout.take().context("dbus-daemon has no output")?;
        let mut address = String::new();
        // It prints its address once it listens.
        BufReader::new(stdout).read_line(&mut address)?;
        Ok(Self { address: address.trim().to_owned(), daemon, _folder: folder })
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
