//! Formats that have no codec in this program, by the real ffmpeg, and without it.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use contract::Capability;
use reqwest::multipart::{Form, Part};
use serde_json::json;

use super::stack::{Stack, envelope, samples};
use crate::audio::Container;
use crate::audio::convert::{Limits, to_pcm};
use crate::protocol::Protocol;

/// Frames of 20 ms of the narrow-band codec at 12.2 kbit/s.
fn amr(seconds: usize) -> Vec<u8> {
    let mut file = b"#!AMR\n".to_vec();
    for frame in 0..seconds * 50 {
        file.push(0x3C);
        file.extend((0..31).map(|at| (frame * 7 + at * 11) as u8));
    }
    file
}

/// What ffmpeg makes of a tone of that many seconds.
fn tone(seconds: u32, output: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tone");
    let input = format!("sine=frequency=440:duration={seconds}");
    let made = std::process::Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", &input])
        .args(output)
        .arg(&file)
        .status()
        .expect("the Debian package ffmpeg is installed");
    assert!(made.success());
    fs::read(file).unwrap()
}

/// One engine that takes few formats, and the setting.
async fn stack(ffmpeg: &str) -> Stack {
    Stack::with(&[Capability::Stt, Capability::Tts], |config| {
        config.engines[0].protocols = Protocol::named("nim_http").into_iter().collect();
        config.gateway.ffmpeg = ffmpeg.into();
    })
    .await
}

async fn transcribe(stack: &Stack, file: Vec<u8>) -> reqwest::Response {
    let form = Form::new().part("file", Part::bytes(file).file_name("upload"));
    stack.post("/v1/audio/transcriptions").multipart(form).send().await.unwrap()
}

#[tokio::test]
async fn aac_is_encoded_by_ffmpeg_and_plays_as_long_as_the_speech() {
    let stack = stack("auto").await;
    let response = stack.speak(json!({"model": "tts-1", "input": "Hi.", "response_format": "aac"})).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "audio/aac");
    let file = response.bytes().await.unwrap();
    assert_eq!(Container::sniff(&file), Some(Container::Adts));
    let limits = Limits { max_seconds: 600.0, rate: 24_000, stop: Default::default() };
    let decoded = to_pcm(Cursor::new(file), Container::Adts, &limits, &mut Vec::new()).unwrap();
    let spoken = samples().len() as u64 / 2;
    // Priming and the last frame add up to three frames of 1,024 samples.
    assert!((spoken..=spoken + 3 * 1024).contains(&decoded.samples), "{} of {spoken}", decoded.samples);
}

#[tokio::test]
async fn without_ffmpeg_aac_is_refused_with_what_to_install() {
    let stack = stack("off").await;
    let response = stack.speak(json!({"model": "tts-1", "input": "Hi.", "response_format": "aac"})).await;
    let message = envelope(response, 400, Some("response_format")).await;
    assert!(message.contains("ffmpeg"), "{message}");
    assert_eq!(stack.engines[1].begun(), 0);
}

#[tokio::test]
async fn files_of_foreign_codecs_are_heard() {
    let stack = stack("auto").await;
    // Long enough that the index, which stands at its end, is not in what is read at first.
    let movie = tone(180, &["-c:a", "ac3", "-b:a", "448k", "-f", "mp4"]);
    assert!(movie.len() > 10_000_000);
    for (name, file, seconds) in [
        ("amr", amr(1), 1),
        ("wma", tone(2, &["-c:a", "wmav2", "-f", "asf"]), 2),
        ("ac3", tone(1, &["-c:a", "ac3", "-f", "matroska"]), 1),
        ("movie", movie, 180),
    ] {
        let before = stack.engines[0].seen.lock().len();
        let response = transcribe(&stack, file).await;
        assert_eq!(response.status(), 200, "{name}: {}", response.text().await.unwrap());
        let heard: usize = stack.engines[0].seen.lock()[before..]
            .iter()
            .map(|seen| seen.file().len().saturating_sub(44))
            .sum();
        let expected = seconds * 32_000;
        assert!(heard.abs_diff(expected) < expected / 5 + 4_000, "{name}: {heard} bytes of {expected}");
    }
}

#[tokio::test]
async fn long_files_of_foreign_codecs_are_split() {
    let stack = Stack::with(&[Capability::Stt], |config| {
        config.engines[0].protocols = Protocol::named("nim_http").into_iter().collect();
        config.gateway.long.split_after = Duration::from_secs(10);
        config.gateway.long.piece = Duration::from_secs(8);
    })
    .await;
    let response = transcribe(&stack, amr(24)).await;
    assert_eq!(response.status(), 200);
    assert!(stack.engines[0].begun() >= 3, "{} pieces", stack.engines[0].begun());
}

#[tokio::test]
async fn what_ffmpeg_cannot_decode_is_the_clients_error() {
    for (ffmpeg, word) in [("off", "amr"), ("auto", "amr"), ("/bin/false", "amr")] {
        let stack = stack(ffmpeg).await;
        // The mode of its only frame does not exist.
        let file = if ffmpeg == "auto" { b"#!AMR\n\x7c".to_vec() } else { amr(1) };
        let message = envelope(transcribe(&stack, file).await, 400, Some("file")).await;
        assert!(message.contains(word), "{ffmpeg}: {message}");
        assert_eq!(stack.engines[0].begun(), 0, "{ffmpeg}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let (program, note) = (folder.path().join("ffmpeg"), folder.path().join("pid"));
    fs::write(
        &program,
        format!("#!/bin/sh\necho $$ >{0}.new && mv {0}.new {0}\nexec sleep 600\n", note.display()),
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let stack = stack(program.to_str().unwrap()).await;
    let leaving = tokio::time::timeout(Duration::from_secs(2), transcribe(&stack, amr(1)));
    assert!(leaving.await.is_err(), "a process that gives nothing is waited for");
    let pid = fs::read_to_string(&note).unwrap();
    let process = std::path::Path::new("/proc").join(pid.trim());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while process.exists() {
        assert!(tokio::time::Instant::now() < deadline, "process {pid} lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
