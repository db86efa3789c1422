//! The program `speechstack` against a live stack: files, subtitles, speakers, jobs, speech, exit codes.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use speechstack_e2e::audio::Measure;
use speechstack_e2e::binaries;
use speechstack_e2e::client::say_into;
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions};
use speechstack_e2e::words::word_error;
use tokio::process::Command;

/// Longest run of the program.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);
const SENTENCE: &str = "She told me that the train was late again.";
const OTHER: &str = "Please open the window and turn off the light.";

/// Runs the program with a gateway, without a terminal.
async fn run(url: &str, folder: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binaries::find("speechstack")?);
    command.current_dir(folder).args(["--server", url]).args(arguments).env("NO_PROXY", "127.0.0.1");
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(TEST_TIMEOUT, command.output()).await;
    ended.with_context(|| format!("{arguments:?} has not ended"))?.context("unable to run speechstack")
}

/// What it printed, when it ended well.
async fn printed(url: &str, folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = run(url, folder, arguments).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{arguments:?}: {} {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// How it ended and what it said, when it did not end well.
async fn refused(url: &str, folder: &Path, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = run(url, folder, arguments).await?;
    ensure!(!output.status.success(), "{arguments:?} ended well");
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

#[tokio::test]
async fn files_are_written_down_and_texts_spoken_at_a_terminal() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    say_into(&at("train.wav"), &[("rms", SENTENCE)])?;
    say_into(&at("dialogue.wav"), &[("slt", OTHER), ("rms", SENTENCE)])?;
    let stack = Stack::start(StackOptions {
        engines: vec![EngineOptions::new("parakeet-0", "stt"), EngineOptions::new("magpie-0", "tts")],
        gateway: json!({"jobs": {"dir": at("jobs")}}),
        ..StackOptions::new("terminal")
    })
    .await?;
    let (url, here) = (stack.url.as_str(), folder.path());

    let text = printed(url, here, &["transcribe", "train.wav"]).await?;
    ensure!(word_error(SENTENCE, &text) <= 0.2 && text.ends_with('\n'), "{text:?}");

    // Two files into a folder by a pattern; the second time there is nothing to do, and nothing is asked of the gateway.
    printed(url, here, &["transcribe", "*.wav", "--format", "srt", "--out", "out"]).await?;
    let subtitles = std::fs::read_to_string(at("out/train.srt"))?;
    ensure!(subtitles.starts_with("1\n00:00:0") && subtitles.contains(" --> "), "{subtitles}");
    ensure!(at("out/dialogue.srt").is_file() && !at("out/dialogue.srt.part").exists());
    let again =
        run("http://127.0.0.1:9", here, &["transcribe", "*.wav", "--format", "srt", "--out", "out"]).await?;
    ensure!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));

    let turns = printed(url, here, &["transcribe", "dialogue.wav", "--speakers"]).await?;
    let speakers: Vec<&str> =
        turns.lines().filter_map(|line| line.split_once(": ")).map(|(speaker, _)| speaker).collect();
    ensure!(speakers == ["A", "B"], "{turns}");

    // A job, and the same job again by the same command.
    let words = ["transcribe", "train.wav", "--job", "--format", "json"];
    let first: Value = serde_json::from_str(&printed(url, here, &words).await?)?;
    ensure!(word_error(SENTENCE, first["text"].as_str().unwrap_or_default()) <= 0.2, "{first}");
    ensure!(first["words"].as_array().is_some_and(|words| words.len() > 5), "{first}");
    printed(url, here, &words).await?;
    let jobs = printed(url, here, &["jobs"]).await?;
    let rows: Vec<&str> = jobs.lines().collect();
    ensure!(rows.len() == 1 && rows[0].contains("succeeded"), "{jobs}");
    let id = rows[0].split_whitespace().next().unwrap_or_default();
    let subtitles = printed(url, here, &["jobs", "wait", id, "--format", "vtt"]).await?;
    ensure!(subtitles.starts_with("WEBVTT"), "{subtitles}");
    printed(url, here, &["jobs", "delete", id]).await?;
    let (code, said) = refused(url, here, &["jobs", "result", id]).await?;
    ensure!(code == Some(1) && said.contains("no such job"), "{code:?} {said}");

    // Speech into a file, into a pipe, and written down again.
    printed(url, here, &["speak", "--out", "hello.wav", SENTENCE]).await?;
    let seconds = Measure::of_file(std::fs::read(at("hello.wav"))?.into())?.seconds;
    ensure!((1.5..8.0).contains(&seconds), "{seconds} s");
    let heard = printed(url, here, &["transcribe", "hello.wav"]).await?;
    ensure!(word_error(SENTENCE, &heard) <= 0.2, "{heard}");
    let piped = run(url, here, &["speak", "--format", "flac", OTHER]).await?;
    ensure!(
        piped.status.success() && piped.stdout.starts_with(b"fLaC"),
        "{}",
        String::from_utf8_lossy(&piped.stderr)
    );

    let status = printed(url, here, &["status"]).await?;
    ensure!(status.contains("parakeet-0") && status.contains("healthy"), "{status}");

    // Exit codes tell scripts what to do: mend the file, mend the command, or try again later.
    std::fs::write(at("text.wav"), "no sound")?;
    let (code, said) = refused(url, here, &["transcribe", "text.wav"]).await?;
    ensure!(code == Some(1) && !said.contains("panicked"), "{code:?} {said}");
    let (code, said) = refused(url, here, &["transcribe", "text.wav", "train.wav", "--out", "mixed"]).await?;
    ensure!(
        code == Some(1) && said.contains("1 of 2 files failed") && at("mixed/train.txt").is_file(),
        "{code:?} {said}"
    );
    let (code, said) = refused(url, here, &["transcribe", "none.wav"]).await?;
    ensure!(code == Some(1) && said.contains("none.wav"), "{code:?} {said}");
    let (code, said) = refused(url, here, &["transcribe", "train.wav", "dialogue.wav"]).await?;
    ensure!(code == Some(2) && said.contains("--out"), "{code:?} {said}");
    let (code, said) = refused("http://127.0.0.1:9", here, &["status"]).await?;
    ensure!(code == Some(3) && said.contains("SPEECHSTACK_URL"), "{code:?} {said}");
    let completion = printed(url, here, &["completion", "bash"]).await?;
    ensure!(completion.contains("transcribe") && completion.contains("--speakers"));
    stack.stop().await
}

#[tokio::test]
async fn the_lines_of_the_readme_work_as_pasted() -> Result<()> {
    let readme = std::fs::read_to_string(binaries::repository().join("README.md"))?;
    let lines =
        readme.split("```sh\n").nth(1).and_then(|block| block.split("```").next()).context("no lines")?;
    let folder = tempfile::tempdir()?;
    let stack = Stack::start(StackOptions {
        engines: vec![EngineOptions::new("parakeet-0", "stt"), EngineOptions::new("magpie-0", "tts")],
        gateway: json!({"jobs": {"dir": folder.path().join("jobs")}}),
        ..StackOptions::new("readme")
    })
    .await?;
    let lines = lines.replacen("http://127.0.0.1:8080", &stack.url, 1);
    ensure!(lines.contains(&stack.url), "the address of the demo has changed: {lines}");
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &lines]).current_dir(folder.path()).env("NO_PROXY", "127.0.0.1");
    let ended = tokio::time::timeout(TEST_TIMEOUT, shell.kill_on_drop(true).output()).await;
    let output = ended.context("the lines have not ended")??;
    let (told, said) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{} {said}\n{told}", output.status);
    for part in [
        "1\n00:00:0",
        "WEBVTT\n",
        "<v A>",
        r#""speaker":"A""#,
        r#""type":"transcript.text.done""#,
        r#""type":"speech.audio.done""#,
        r#""status":"succeeded""#,
        "data: [DONE]",
    ] {
        ensure!(told.contains(part), "no {part} in {told}");
    }
    ensure!(!told.contains(r#""error":{"#), "{told}");
    let text = told.rsplit("[DONE]").next().unwrap_or_default();
    ensure!(word_error("good morning and welcome the meeting starts at nine", text) <= 0.3, "{text}");
    let music = std::fs::read(folder.path().join("hello.mp3"))?;
    ensure!(music.starts_with(b"ID3") || music.first() == Some(&0xff), "{} bytes", music.len());
    stack.stop().await
}
