//! The proxy's process: started, killed and started again.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use crate::stack::Stack;
use crate::{binaries, processes};

/// Starts the proxy of the configuration in `folder`; its output is added to `log`.
///
/// # Errors
/// When its binary is missing or does not start.
pub(super) fn spawn(folder: &Path, mark: &str, log: &Path) -> Result<Child> {
    let output = File::options().create(true).append(true).open(log);
    let output = output.with_context(|| format!("unable to write {}", log.display()))?;
    let mut command = processes::tied_command(&binaries::find(binaries::PROXY)?);
    command.args(["standalone", "--config"]).arg(folder.join("stack.yaml"));
    command.env(processes::MARK, mark).env("SPEECHSTACK_LOG", "info").current_dir(folder);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    command.spawn().context("unable to start the proxy")
}

impl Stack {
    /// SIGKILLs the proxy and its engines, starts them again, and waits until every engine is healthy.
    ///
    /// # Errors
    /// When the new one does not start.
    pub async fn crash(&mut self) -> Result<()> {
        self.proxy.kill()?;
        self.proxy.wait()?;
        processes::sweep(&self.mark);
        self.proxy = spawn(self.folder.path(), &self.mark, &self.log)?;
        self.wait_for_gateway().await?;
        self.healthy().await
    }
}
