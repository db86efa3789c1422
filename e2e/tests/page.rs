//! The page for people, in Chromium with a fake microphone; what is done there is in `page/page.mjs`.

use anyhow::{Context, Result, ensure};
use speechstack_e2e::binaries::repository;
use speechstack_e2e::client::say_into;
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions};
use tokio::process::Command;

#[tokio::test]
async fn the_page_transcribes_listens_and_speaks_in_a_browser() -> Result<()> {
    let folder = repository().join("e2e/page");
    ensure!(folder.join("node_modules/puppeteer-core").exists(), "no puppeteer-core: `make sdks` fetches it");
    let stack = Stack::start(StackOptions {
        engines: vec![EngineOptions::new("parakeet-0", "stt"), EngineOptions::new("magpie-0", "tts")],
        ..StackOptions::new("page")
    })
    .await?;
    let temporary = tempfile::tempdir()?;
    let clip = temporary.path().join("clip.wav");
    let turns = [
        ("rms", "She told me that the train was late again."),
        ("slt", "Then we should take the bus to the city tomorrow morning."),
    ];
    say_into(&clip, &turns)?;
    let output = Command::new("node")
        .arg(folder.join("page.mjs"))
        .env("SPEECHSTACK_URL", stack.url.trim_end_matches("/v1"))
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
    stack.stop().await
}
