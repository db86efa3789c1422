//! OpenAI's own SDKs against a live stack; the contracts themselves are in `sdk/`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use speechstack_e2e::binaries::repository;
use speechstack_e2e::client::say_into;
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions};
use tokio::process::Command;

#[tokio::test]
async fn the_python_sdk_works_and_raises_the_right_exceptions() -> Result<()> {
    let python = repository().join(".venv/bin/python");
    ensure!(python.exists(), "{} is missing: `make sdks` makes it", python.display());
    run_contract("python", &python, "contract.py").await
}

#[tokio::test]
async fn the_node_sdk_works_and_raises_the_right_exceptions() -> Result<()> {
    let modules = repository().join("e2e/sdk/node/node_modules/openai");
    ensure!(modules.exists(), "{} is missing: `make sdks` makes it", modules.display());
    run_contract("node", Path::new("node"), "node/contract.mjs").await
}

#[tokio::test]
async fn the_go_sdk_works_and_raises_the_right_errors() -> Result<()> {
    let program = repository().join("target/sdk-go");
    ensure!(program.exists(), "{} is missing: `make sdks` makes it", program.display());
    run_contract("go", &program, "go/main.go").await
}

async fn run_contract(name: &str, program: &Path, script: &str) -> Result<()> {
    let stack = |variant: &str| StackOptions::new(&format!("sdk-{name}-{variant}"));
    let slow = EngineOptions { pace: Some("3,0"), ..EngineOptions::new("parakeet-0", "stt") };
    let absent = EngineOptions { present: false, ..EngineOptions::new("parakeet-0", "stt") };
    let healthy = Stack::start(StackOptions {
        engines: vec![EngineOptions::new("parakeet-0", "stt"), EngineOptions::new("magpie-0", "tts")],
        gateway: json!({"body_limit": "2 MiB", "clips": {"dir": "clips"}}),
        ..stack("healthy")
    });
    let busy = Stack::launch(StackOptions {
        engines: vec![slow],
        gateway: json!({"wait": {"max_wait": "0s"}}),
        guard: json!({"lane": {"max_waiting": 1, "fixed_seconds": 3}, "probe": {"timeout_min": "10s", "timeout_max": "20s"}}),
        ..stack("busy")
    });
    let absent = Stack::launch(StackOptions {
        engines: vec![absent],
        gateway: json!({"wait": {"max_wait": "0s"}}),
        ..stack("absent")
    });
    let (healthy, busy, absent) = tokio::try_join!(healthy, busy, absent)?;
    busy.wait_until("the slow engine is healthy", |state| {
        state.engines.iter().all(speechstack_e2e::report::is_healthy)
    })
    .await?;

    let folder = tempfile::tempdir()?;
    let clip: PathBuf = folder.path().join("clip.wav");
    let turns = [
        ("rms", "She told me that the train was late again."),
        ("slt", "Then we should take the bus to the city tomorrow morning."),
    ];
    say_into(&clip, &turns)?;
    let references = [("rms", "agent.wav"), ("slt", "caller.wav")].map(|(voice, name)| {
        let path = folder.path().join(name);
        let text = "I think it will cost a lot of money, and the weather will be cold and windy tomorrow.";
        say_into(&path, &[(voice, text)]).map(|()| path)
    });
    let references: Vec<PathBuf> = references.into_iter().collect::<Result<_>>()?;
    let references = std::env::join_paths(references)?;
    let output = Command::new(program)
        .arg(repository().join("e2e/sdk").join(script))
        .env("SPEECHSTACK_URL", &healthy.url)
        .env("SPEECHSTACK_BUSY_URL", &busy.url)
        .env("SPEECHSTACK_ABSENT_URL", &absent.url)
        .env("SPEECHSTACK_CLIP", &clip)
        .env("SPEECHSTACK_REFERENCES", &references)
        .env("SPEECHSTACK_WORD", "train")
        .env("NO_PROXY", "127.0.0.1")
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("unable to run {}", program.display()))?;
    let shown =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{shown}");
    ensure!(output.status.success(), "the contract does not hold:\n{shown}");
    healthy.stop().await?;
    busy.stop().await?;
    absent.stop().await
}
