//! `guard` and `gateway` as processes of their own, from the one file that describes the stack.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use speechstack_e2e::client::{Client, say};
use speechstack_e2e::{binaries, ports, processes};

const STOP_TIMEOUT: Duration = Duration::from_secs(20);
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
    /// A guard that is killed leaves its engine behind, so it is asked to stop first.
    fn drop(&mut self) {
        processes::signal(Pid::from_child(&self.0), Signal::TERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
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

/// A Redis without a password, on a free port.
fn redis(folder: &Path) -> Result<(Process, String)> {
    let address = ports::free()?;
    let mut command = processes::tied_command(Path::new("redis-server"));
    command
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--save", "", "--dir"])
        .arg(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let process = command.spawn().context("redis-server is installed by `make packages-test`")?;
    Ok((Process(process), format!("redis://{address}/0")))
}

async fn job(client: &Client, id: &str) -> Result<Value> {
    let reply = client.get(&format!("/v1/audio/jobs/{id}")).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    reply.json()
}

/// The job once it is as wanted.
async fn until(client: &Client, id: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        let job = job(client, id).await?;
        if wanted(&job) {
            return Ok(job);
        }
        ensure!(
            job["status"] != "failed" && Instant::now() < deadline,
            "{job} does not come to what is wanted"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_job_goes_on_at_another_gateway_when_its_own_is_killed_or_stops() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_redis, url) = redis(folder.path())?;
    let engine = ports::free()?;
    let config = json!({
        "gateway": {
            "drain": "3s",
            "long": {"split_after": "12s", "piece": "12s"},
            "jobs": {"dir": folder.path().join("jobs"), "running": 1, "redis": {"url": url, "ttl": "2s"}},
        },
        "engines": [{
            "name": "parakeet-0", "capability": "stt", "url": format!("http://{engine}"),
            "guard": ports::free()?, "guard_admin": ports::free()?,
            "command": [binaries::find(binaries::ENGINE)?, "--kind", "stt", "--listen", engine.to_string()],
        }],
    });
    let file = folder.path().join("stack.yaml");
    std::fs::write(&file, config.to_string())?;
    let _guard = Process::start(&file, &["guard"])?;
    let gateway = || -> Result<(Process, Client)> {
        let (listen, admin) = (ports::free()?, ports::free()?);
        let set = [format!("gateway.listen={listen}"), format!("gateway.admin={admin}")];
        let process = Process::start(&file, &["gateway", "--set", &set[0], "--set", &set[1]])?;
        Ok((process, Client::new(format!("http://{listen}"), Duration::from_secs(60))?))
    };
    let speech = say(&[("rms", "The seventh river of the morning is as wide as the first one."); 12])?;
    let make = async |client: &Client| -> Result<String> {
        let fields = [("async", "true"), ("response_format", "text")];
        let reply = client.upload("/v1/audio/transcriptions", "long.wav", speech.clone(), &fields).await?;
        ensure!(reply.status == 202, "{} {}", reply.status, reply.text());
        let job: Value = serde_json::from_slice(&reply.body)?;
        Ok(job["id"].as_str().context("a job has an id")?.to_owned())
    };
    let has_begun = |job: &Value| job["progress"].as_f64().is_some_and(|progress| progress > 0.0);

    let (mut killed, first) = gateway()?;
    ready(&first).await?;
    let id = make(&first).await?;
    until(&first, &id, has_begun).await?;
    killed.0.kill()?;
    let (stopped, second) = gateway()?;
    ready(&second).await?;
    let ended = until(&second, &id, |job| job["status"] == "succeeded").await?;
    ensure!(ended["attempts"] == 2, "{ended}");
    let heard = second.get(&format!("/v1/audio/jobs/{id}/result")).await?.text();
    ensure!(heard.matches("river").count() > 8, "{heard}");

    let id = make(&second).await?;
    until(&second, &id, has_begun).await?;
    let (_last, third) = gateway()?;
    ready(&third).await?;
    stopped.stop()?;
    let ended = until(&third, &id, |job| job["status"] == "succeeded").await?;
    ensure!(ended["attempts"] == 1, "a stop counts as an attempt: {ended}");
    Ok(())
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
