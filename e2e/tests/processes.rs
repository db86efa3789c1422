//! `guard` and `gateway` as processes of their own, from the one file that describes the stack.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal};
use serde_json::json;
use speechstack_e2e::client::{Client, say};
use speechstack_e2e::{binaries, ports, processes};

const TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// A process that does not outlive the test.
struct Process(Child);

impl Process {
    fn start(config: &Path, words: &[&str]) -> Result<Self> {
        let mut command = processes::tied_command(&binaries::find(binaries::PROXY)?);
        command.args(words).arg("--config").arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().context("unable to start the proxy")?))
    }

    /// SIGTERM, and whether it ended well.
    fn stop(mut self) -> Result<()> {
        processes::signal(Pid::from_child(&self.0), Signal::TERM);
        let status = self.0.wait()?;
        ensure!(status.success(), "ended with {status}");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_guard_and_a_gateway_serve_together_and_survive_each_other() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (listen, engine) = (ports::free()?, ports::free()?);
    let engine_binary = binaries::find(binaries::ENGINE)?;
    let config = json!({
        "gateway": {"listen": listen, "admin": ports::free()?, "drain": "3s"},
        "engines": [{
            "name": "parakeet-0", "capability": "stt", "url": format!("http://{engine}"),
            "guard": ports::free()?, "guard_admin": ports::free()?,
            "command": [engine_binary, "--kind", "stt", "--listen", engine.to_string()],
        }],
    });
    let file = folder.path().join("stack.yaml");
    std::fs::write(&file, config.to_string())?;
    let client = Client::new(format!("http://{listen}"), Duration::from_secs(60))?;
    let clip = say(&[("rms", "Good morning.")])?;

    // The gateway comes first: it waits for a guard that is not there yet.
    let gateway = Process::start(&file, &["gateway"])?;
    let guard = Process::start(&file, &["guard", "--engine", "parakeet-0"])?;
    ready(&client).await?;
    let heard = client.transcribe("clip.wav", clip.clone(), "text").await?;
    ensure!(heard.status == 200, "{} {}", heard.status, heard.text());
    ensure!(heard.text().contains("morning"), "{}", heard.text());

    // A guard that stops takes its engine with it and is found again when it is back.
    guard.stop()?;
    ensure!(std::net::TcpStream::connect(engine).is_err(), "the engine outlived its guard");
    let guard = Process::start(&file, &["guard"])?;
    ready(&client).await?;
    let heard = client.transcribe("clip.wav", clip, "text").await?;
    ensure!(heard.status == 200, "{} {}", heard.status, heard.text());
    gateway.stop()?;
    guard.stop()
}

async fn ready(client: &Client) -> Result<()> {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        if client.get("/readyz").await.is_ok_and(|reply| reply.status == 200) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not ready after {TEST_TIMEOUT:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
