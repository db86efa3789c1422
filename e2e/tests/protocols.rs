//! Every call of the public API over engines of other protocols than the default: NIM, NeMo-Speech, FastAPI, OpenAI.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use speechstack_e2e::audio::Measure;
use speechstack_e2e::client::say;
use speechstack_e2e::report::is_healthy;
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions, quick_policy};
use speechstack_e2e::words::word_error;

const TRANSCRIBE: &str = "/v1/audio/transcriptions";
const SENTENCE: &str = "She told me that the train was late again.";

fn engine(name: &str, kind: &'static str, protocols: &'static [&'static str]) -> EngineOptions {
    EngineOptions { protocols, ..EngineOptions::new(name, kind) }
}

/// NVIDIA's Speech NIM containers: HTTP and gRPC in one process.
fn nim(name: &str, recognizers: usize) -> StackOptions {
    let recognizer = |at: usize| engine(&format!("asr-{at}"), "stt", &["nim_http", "riva"]);
    let mut engines: Vec<_> = (0..recognizers).map(recognizer).collect();
    engines.push(engine("tts-0", "tts", &["magpie", "riva_tts"]));
    StackOptions { engines, guard: quick_policy(), ..StackOptions::new(name) }
}

/// Transcripts in every format, of every container that the gateway itself speaks.
async fn transcribes(stack: &Stack, words: bool) -> Result<()> {
    let clip = say(&[("rms", SENTENCE)])?;
    for format in ["json", "text"] {
        let reply = stack.client.transcribe("clip.wav", clip.clone(), format).await?;
        ensure!(reply.status == 200, "{format}: {} {}", reply.status, reply.text());
        let heard = if format == "json" { reply.json()?["text"].to_string() } else { reply.text() };
        ensure!(word_error(SENTENCE, heard.trim_matches('"')) <= 0.2, "{format}: heard {heard:?}");
    }
    let verbose = stack.client.transcribe("clip.wav", clip.clone(), "verbose_json").await?.json()?;
    let duration = verbose["duration"].as_f64().context("no duration")?;
    ensure!((duration - Measure::of_file(clip.clone())?.seconds).abs() < 0.3, "{verbose}");
    ensure!(verbose["segments"].as_array().is_some_and(|segments| !segments.is_empty()), "{verbose}");
    let srt = stack.client.transcribe("clip.wav", clip.clone(), "srt").await?.text();
    ensure!(srt.starts_with("1\n00:00:0"), "{srt}");
    let vtt = stack.client.transcribe("clip.wav", clip.clone(), "vtt").await?.text();
    ensure!(vtt.starts_with("WEBVTT\n\n"), "{vtt}");
    let fields = [("response_format", "verbose_json"), ("timestamp_granularities[]", "word")];
    let reply = stack.client.upload(TRANSCRIBE, "clip.wav", clip, &fields).await?;
    if words {
        let words = reply.json()?["words"].as_array().map(Vec::len).unwrap_or_default();
        ensure!(words >= 6, "{words} words");
    } else {
        ensure!(reply.status == 400, "{} {}", reply.status, reply.text());
        ensure!(reply.json()?["error"]["param"] == "timestamp_granularities", "{}", reply.text());
    }
    Ok(())
}

/// Speech in every format, and each of them heard again.
async fn speaks(stack: &Stack) -> Result<()> {
    for format in ["wav", "flac", "opus", "mp3"] {
        let speech = stack.client.speak("alloy", SENTENCE, format).await?;
        ensure!(speech.status == 200, "{format}: {} {}", speech.status, speech.text());
        let name = format!("speech.{format}");
        let heard = stack.client.transcribe(&name, speech.body, "json").await?;
        ensure!(heard.status == 200, "{format}: {} {}", heard.status, heard.text());
        let heard = heard.json()?["text"].as_str().unwrap_or_default().to_owned();
        let error = word_error(SENTENCE, &heard);
        let bound = if matches!(format, "wav" | "flac") { 0.2 } else { 0.5 };
        ensure!(error <= bound, "{format}: word error {error:.2}, heard {heard:?}");
    }
    Ok(())
}

#[tokio::test]
async fn nim_containers_serve_the_whole_api() -> Result<()> {
    let stack = Stack::start(nim("nim", 1)).await?;
    transcribes(&stack, true).await?;
    speaks(&stack).await?;
    let dialogue = say(&[("slt", SENTENCE), ("rms", "I think it will cost a lot of money.")])?;
    let reply = stack.client.transcribe_with_speakers("dialogue.wav", dialogue).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    let segments = reply.json()?["segments"].as_array().map(Vec::len).unwrap_or_default();
    ensure!(segments >= 2, "{}", reply.text());
    stack.stop().await
}

#[tokio::test]
async fn a_wedge_of_a_nim_over_grpc_heals() -> Result<()> {
    a_wedge_heals(nim("nim-wedge", 2)).await
}

/// As a NIM with a streaming model only: each job, and each golden probe, is a stream.
#[tokio::test]
async fn a_wedge_of_an_engine_of_streams_heals() -> Result<()> {
    let engines = ["asr-0", "asr-1"].map(|name| engine(name, "stt", &["riva_streaming"]));
    let options =
        StackOptions { engines: engines.into(), guard: quick_policy(), ..StackOptions::new("streams-wedge") };
    a_wedge_heals(options).await
}

/// As [`a_wedge_of_an_engine_of_streams_heals`], each stream a conversation over WebSocket.
#[tokio::test]
async fn a_wedge_of_an_engine_of_websockets_heals() -> Result<()> {
    for protocols in [&["nim_realtime"][..], &["nemo_speech_streaming"]] {
        let engines = ["asr-0", "asr-1"].map(|name| engine(name, "stt", protocols));
        let name = format!("{}-wedge", protocols[0]);
        let options =
            StackOptions { engines: engines.into(), guard: quick_policy(), ..StackOptions::new(&name) };
        a_wedge_heals(options).await.with_context(|| name)?;
    }
    Ok(())
}

async fn a_wedge_heals(options: StackOptions) -> Result<()> {
    let stack = Stack::start(options).await?;
    let clip = say(&[("rms", SENTENCE)])?;
    let fields = [("response_format", "verbose_json"), ("timestamp_granularities[]", "word")];
    for fault in ["F1", "F7"] {
        let before = stack.state().await?.engine("asr-0").context("asr-0 is gone")?.restarts;
        stack.arm("asr-0", &json!({"mode": fault})).await?;
        // Only gRPC has word times: the wedge shows there, and the client gets its words from the other engine.
        for _ in 0..6 {
            let reply = stack.client.upload(TRANSCRIBE, "clip.wav", clip.clone(), &fields).await?;
            ensure!(reply.status == 200, "{fault}: {} {}", reply.status, reply.text());
        }
        stack
            .wait_until("the wedged engine was restarted and serves", |state| {
                state.engine("asr-0").is_some_and(|engine| engine.restarts > before && is_healthy(engine))
            })
            .await?;
    }
    stack.stop().await
}

#[tokio::test]
async fn other_servers_serve_what_they_can() -> Result<()> {
    let stack = |name: &str, stt: &'static [&'static str], tts: &'static [&'static str]| StackOptions {
        engines: vec![engine("stt-0", "stt", stt), engine("tts-0", "tts", tts)],
        ..StackOptions::new(name)
    };
    for (name, stt, tts) in [
        ("nemo", &["nemo_speech"][..], &["nemo_speech"][..]),
        ("fastapi", &["parakeet_fastapi"], &["riva_tts"]),
        ("streams", &["riva_streaming"], &["magpie"]),
        ("nim-realtime", &["nim_realtime"], &["magpie"]),
        ("nemo-realtime", &["nemo_speech_streaming"], &["magpie"]),
        ("openai", &["openai"], &["openai"]),
    ] {
        let mut options = stack(name, stt, tts);
        if name == "openai" {
            // As hosted servers do.
            options.engines.iter_mut().for_each(|engine| engine.api_key = Some("sk-test"));
        }
        let stack = Stack::start(options).await.with_context(|| name.to_owned())?;
        transcribes(&stack, true).await.with_context(|| name.to_owned())?;
        speaks(&stack).await.with_context(|| name.to_owned())?;
        stack.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_attempt_on_one_protocol_is_made_good_on_another() -> Result<()> {
    let engines = vec![
        engine("parakeet", "stt", &["parakeet"]),
        engine("nim", "stt", &["nim_http", "riva"]),
        EngineOptions::new("tts-0", "tts"),
    ];
    let stack = Stack::start(StackOptions { engines, ..StackOptions::new("cross") }).await?;
    let clip = say(&[("rms", SENTENCE)])?;
    for wedged in ["parakeet", "nim"] {
        stack.arm(wedged, &json!({"mode": "F1"})).await?;
        for _ in 0..4 {
            let reply = stack.client.transcribe("clip.wav", clip.clone(), "srt").await?;
            ensure!(reply.status == 200, "{wedged}: {} {}", reply.status, reply.text());
        }
        stack.wait_until("all engines serve again", |state| state.engines.iter().all(is_healthy)).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stack.stop().await
}
