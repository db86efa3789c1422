//! The end of a unit's log, by `journalctl` where that is installed.

use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::config;
use crate::guard::heal::actuator::{MAX_LINES, end_of_log};
use crate::guard::heal::unit::CALL_TIMEOUT;

/// Bytes that are read of the lines.
const MAX_READ: u64 = 1024 * 1024;

/// The last lines of that invocation of the unit; `None` without a journal, or when it cannot be read.
pub(super) async fn last_words(settings: &config::Unit, invocation: &str) -> Option<String> {
    let mut command = Command::new("journalctl");
    if settings.user {
        command.arg("--user");
    }
    command.args(["--no-pager", "--quiet", "--output=cat"]).arg(format!("--lines={MAX_LINES}"));
    command.arg(format!("_SYSTEMD_INVOCATION_ID={invocation}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut journal = command.spawn().ok()?;
    let mut log = Vec::new();
    let read = async {
        if let Some(stdout) = journal.stdout.take() {
            let _ = stdout.take(MAX_READ).read_to_end(&mut log).await;
        }
    };
    let _ = timeout(CALL_TIMEOUT, read).await;
    end_of_log(&log)
}
