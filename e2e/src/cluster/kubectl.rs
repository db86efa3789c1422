//! `kubectl` of the cluster's own build, for what tests do as a user would.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Cluster;

/// No call of a test waits longer than this, `kubectl wait` included.
const TIMEOUT: Duration = Duration::from_secs(300);

impl Cluster {
    /// Runs `kubectl` as the administrator and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the message has its words.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with_input(arguments, "").await
    }

    /// As [`Cluster::kubectl`], with a text on its standard input, for `-f -`.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(self.layout.binary("kubectl")?);
        command.arg("--kubeconfig").arg(self.layout.kubeconfig("admin")).args(arguments);
        run(command, input).await
    }

    /// Runs a tool of the tree, such as `helm`, as the administrator and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the message has its words.
    pub async fn tool(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.env("PATH", self.layout.search_path()).env("KUBECONFIG", self.layout.kubeconfig("admin"));
        command.args(arguments);
        run(command, "").await
    }
}

async fn run(mut command: Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let shown = format!("{:?}", command.as_std());
    let finish = async {
        let mut child = command.spawn().with_context(|| format!("unable to run {shown}"))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        // It may end without reading, and then says why.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await?;
        let (out, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{shown}: {told}{out}");
        Ok(out.into_owned())
    };
    tokio::time::timeout(TIMEOUT, finish).await.with_context(|| format!("{shown} takes too long"))?
}
