//! The page for people, in Chromium with a fake microphone; what is done there is in `page/page.mjs` and `page/login.mjs`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use speechstack_e2e::binaries::{self, repository};
use speechstack_e2e::client::say_into;
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions};
use tokio::process::Command;

#[tokio::test]
async fn the_page_transcribes_listens_and_speaks_in_a_browser() -> Result<()> {
    let stack = Stack::start(StackOptions { engines: engines(), ..StackOptions::new("page") }).await?;
    browse("page.mjs", &stack, "").await?;
    stack.stop().await
}

#[tokio::test]
async fn the_page_asks_for_a_key_where_the_gateway_does() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let keys = folder.path().join("keys.yaml");
    let key = key(&keys).await?;
    let stack = Stack::start(StackOptions {
        engines: engines(),
        gateway: json!({"auth": {"mode": "keys", "keys_file": keys}}),
        ..StackOptions::new("page-login")
    })
    .await?;
    browse("login.mjs", &stack, &key).await?;
    stack.stop().await
}

fn engines() -> Vec<EngineOptions> {
    vec![EngineOptions::new("parakeet-0", "stt"), EngineOptions::new("magpie-0", "tts")]
}

/// A key in a file.
async fn key(file: &Path) -> Result<String> {
    let mut command = Command::new(binaries::find(binaries::PROXY)?);
    let made = command.args(["keys", "--file"]).arg(file).args(["add", "page"]).output().await?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(String::from_utf8(made.stdout)?.trim().to_owned())
}

/// Runs a script of `page/`.
async fn browse(script: &str, stack: &Stack, key: &str) -> Result<()> {
    let folder = repository().join("e2e/page");
    ensure!(folder.join("node_modules/puppeteer-core").exists(), "no puppeteer-core: `make sdks` fetches it");
    let temporary = tempfile::tempdir()?;
    let clip = temporary.path().join("clip.wav");
    let turns = [
        ("rms", "She told me that the train was late again."),
        ("slt", "Then we should take the bus to the city tomorrow morning."),
    ];
    say_into(&clip, &turns)?;
    let output = Command::new("node")
        .arg(folder.join(script))
        .env("SPEECHSTACK_URL", stack.url.trim_end_matches("/v1"))
        .env("SPEECHSTACK_KEY", key)
        .env("SPEECHSTACK_CLIP", &clip)
        .env("SPEECHSTACK_WORD", "train")
        .env("NO_PROXY", "127.0.0.1")
        .kill_on_drop(true)
        .output()
        .await
        .context("unable to run node")?;
    let shown = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    println!("{}", shown.concat());
    ensure!(output.status.success(), "the page does not work:\n{}", shown.concat());
    Ok(())
}
