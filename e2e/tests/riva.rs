//! NVIDIA's own Riva client against live engines and against the gateway; the contract itself is in `sdk/riva.py`.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use speechstack_e2e::binaries::repository;
use speechstack_e2e::client::{Client, say_into};
use speechstack_e2e::stack::{Stack, StackOptions};
use speechstack_e2e::{binaries, ports, processes};
use tokio::process::{Child, Command};

/// How long an engine may take to load its models.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// An engine that serves gRPC, killed when dropped.
struct Engine {
    grpc: SocketAddr,
    _process: Child,
}

/// Starts an engine and waits until it is ready.
async fn start(kind: &str, protocols: &str, state: &std::path::Path) -> Result<Engine> {
    let (listen, grpc) = (ports::free()?, ports::free()?);
    let mut command = Command::from(processes::tied_command(&binaries::find(binaries::ENGINE)?));
    command.args(["--kind", kind, "--protocol", protocols, "--listen", &listen.to_string()]);
    command.args(["--grpc", &grpc.to_string(), "--state-dir"]).arg(state.join(kind));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let process = command.spawn().context("unable to start the engine")?;
    let client = Client::new(format!("http://{listen}"), Duration::from_secs(5))?;
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !client.get("/v1/health/ready").await.is_ok_and(|reply| reply.status == 200) {
        ensure!(Instant::now() < deadline, "the engine is not ready after {TEST_TIMEOUT:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(Engine { grpc, _process: process })
}

/// Runs the contract against servers with recordings made for it.
async fn contract(stt: &str, tts: &str, more: &[&str]) -> Result<()> {
    let python = repository().join(".venv/bin/python");
    ensure!(python.exists(), "{} is missing: `make sdks` makes it", python.display());
    let folder = tempfile::tempdir()?;
    let (clip, dialogue) = (folder.path().join("clip.wav"), folder.path().join("dialogue.wav"));
    say_into(&clip, &[("rms", "She told me that the train was late again.")])?;
    say_into(
        &dialogue,
        &[
            ("slt", "Please call me back tomorrow morning at nine."),
            ("kal16", "The government will announce the new budget next week."),
        ],
    )?;
    let output = Command::new(&python)
        .arg(repository().join("e2e/sdk/riva.py"))
        .args(["--stt", stt, "--tts", tts, "--word", "train"])
        .arg("--clip")
        .arg(&clip)
        .arg("--dialogue")
        .arg(&dialogue)
        .args(more)
        .env("NO_PROXY", "127.0.0.1")
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("unable to run {}", python.display()))?;
    let shown =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{shown}");
    ensure!(output.status.success(), "the contract does not hold:\n{shown}");
    Ok(())
}

#[tokio::test]
async fn nvidias_client_recognizes_and_speaks_and_has_the_same_messages() -> Result<()> {
    let state = tempfile::tempdir()?;
    let (stt, tts) = tokio::try_join!(
        start("stt", "nim_http,riva", state.path()),
        start("tts", "magpie,riva_tts", state.path())
    )?;
    let protos = repository().join("proto");
    let protos = ["--protos", protos.to_str().context("the path of proto/ is not UTF-8")?];
    contract(&stt.grpc.to_string(), &tts.grpc.to_string(), &protos).await
}

/// Behind the gateway are engines that know nothing of gRPC; one of them fails every job until it is restarted.
#[tokio::test]
async fn nvidias_client_recognizes_and_speaks_over_the_gateway_while_an_engine_is_sick() -> Result<()> {
    let grpc = ports::free()?;
    let mut options = StackOptions::new("riva-gateway");
    options.gateway = json!({"drain": "3s", "grpc": {"listen": grpc.to_string()}});
    let stack = Stack::start(options).await?;
    stack.arm("parakeet-0", &json!({"mode": "F1"})).await?;
    let public = stack.url.strip_prefix("http://").context("the stack has no URL")?.to_owned();
    // Both ports speak gRPC.
    contract(&public, &grpc.to_string(), &[]).await?;
    stack.healed("parakeet-0", 1).await?;
    stack.stop().await
}
