//! What formats cost: speech encoded, recordings decoded, a long recording split over two engines, and the page's size.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::json;
use speechstack_e2e::client::Client;

use crate::fake::{Fake, SPEECH_MARK, SPEECH_SECONDS};
use crate::meter::{cpu_ns, median, percentile};
use crate::report::Table;
use crate::run::checked;
use crate::subject::{self, Pair, Proxies, Subject};
use crate::wire::{self, Connection};

/// What clients may ask for, and how much later than the engine's its first audio may be.
const FORMATS: [(&str, &str); 7] = [
    ("pcm", "<= 0.5 ms"),
    ("wav", "<= 0.5 ms"),
    ("flac", "-"),
    ("mp3", "<= 60 ms"),
    ("opus", "<= 60 ms"),
    ("webm", "<= 60 ms"),
    ("aac", "-"),
];
const ROUNDS: usize = 20;
/// A second of 16 kHz samples.
const SECOND_BYTES: u64 = 32_000;
/// An engine's time for a job and for each second of its audio, microseconds: about what Parakeet takes.
const JOB_US: u64 = 80_000;
const AUDIO_SECOND_US: u64 = 8_333;
/// The long recording.
const LONG_SECONDS: u64 = 3600;

/// Measures all of them.
pub async fn all() -> Result<Table> {
    let folder = tempfile::Builder::new().prefix("speechstack-bench-").tempdir()?;
    let folder = folder.path();
    let mut table = Table::default();
    let real = (subject::engine("stt", folder)?, subject::engine("tts", folder)?);
    let stt = Fake::start("stt-0", "stt", format!("http://{}", real.0.address)).await?;
    let tts = Fake::start("tts-0", "tts", format!("http://{}", real.1.address)).await?;
    let engines = Pair { stt: stt.address, tts: tts.address };
    let gateway = Proxies::new("formats", engines, false, json!({}), folder)?.gateway().await?;
    tokio::task::block_in_place(|| speech(&mut table, &gateway, engines.tts))?;
    page(&mut table, gateway.address).await?;
    let second = Fake::start("stt-1", "stt", format!("http://{}", real.0.address)).await?;
    for fake in [&stt, &second] {
        fake.received.takes_all.store(true, Ordering::Relaxed);
    }
    recordings(&mut table, &gateway, [&stt, &second], folder).await?;
    drop(gateway);
    long(&mut table, [&stt, &second], folder).await?;
    Ok(table)
}

fn spoken(format: &str) -> serde_json::Value {
    json!({"model": "tts-1", "voice": "alloy", "input": SPEECH_MARK, "response_format": format})
}

/// Time to the first audio beyond the engine's own, and CPU per second of it.
fn speech(table: &mut Table, gateway: &Subject, engine: SocketAddr) -> Result<()> {
    let direct = wire::json("/v1/audio/synthesize_online", &json!({"text": SPEECH_MARK}).to_string());
    let mut engine = Connection::open(engine)?;
    let mut client = Connection::open(gateway.address)?;
    for (format, goal) in FORMATS {
        let request = wire::json("/v1/audio/speech", &spoken(format).to_string());
        let first = client.exchange(&request)?;
        if first.status == 400 {
            eprintln!("{format} is not measured: {}", first.beginning.lines().last().unwrap_or_default());
            client = Connection::open(gateway.address)?;
            continue;
        }
        checked(format, first)?;
        let (mut alone, mut first, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            alone.push(checked("direct", engine.exchange(&direct)?)?.first_byte.as_secs_f64() * 1e3);
            let before = cpu_ns(gateway.pid())?;
            first.push(checked(format, client.exchange(&request)?)?.first_byte.as_secs_f64() * 1e3);
            cpu.push((cpu_ns(gateway.pid())? - before) as f64 / 1e6 / SPEECH_SECONDS);
        }
        let added = |share: f64| percentile(&first, share) - percentile(&alone, share);
        table.row(
            &format!("speech as {format}: first audio added"),
            format!("p50 {:.2} ms, p95 {:.2} ms", added(0.5), added(0.95)),
            format!("direct {:.2} ms", median(&alone)),
            None,
            goal,
        );
        let each = median(&cpu);
        table.row(
            &format!("speech as {format}: gateway's CPU per second of audio"),
            format!("{each:.2} ms, {:.0} x real time", 1e3 / each),
            "-".to_owned(),
            None,
            "-",
        );
    }
    Ok(())
}

/// CPU of the gateway per second of a recording that it decodes for the engine, and of one that it passes on.
async fn recordings(table: &mut Table, speaking: &Subject, engines: [&Fake; 2], folder: &Path) -> Result<()> {
    let speaking = Client::new(format!("http://{}", speaking.address), Duration::from_secs(60))?;
    // An engine that takes WAV and FLAC.
    let addresses = engines.map(|engine| engine.address);
    let gateway = Proxies::hearing("recordings", addresses, "nim_http", "0s", folder)?.gateway().await?;
    let client = Client::new(format!("http://{}", gateway.address), Duration::from_secs(60))?;
    for (format, goal) in [("flac", "-"), ("webm", "<= 2 ms"), ("opus", "<= 2 ms"), ("mp3", "<= 2 ms")] {
        let file: Bytes = speaking.post("/v1/audio/speech", &spoken(format)).await?.body;
        let name = format!("clip.{format}");
        let mut cpu = Vec::new();
        for _ in 0..ROUNDS {
            let before = cpu_ns(gateway.pid())?;
            let reply = client.transcribe(&name, file.clone(), "json").await?;
            ensure!(reply.status == 200, "{format}: {}", reply.text());
            cpu.push((cpu_ns(gateway.pid())? - before) as f64 / 1e6 / SPEECH_SECONDS);
        }
        table.row(
            &format!("recording in {format}: gateway's CPU per second of audio"),
            format!("{:.2} ms", median(&cpu)),
            "-".to_owned(),
            None,
            goal,
        );
    }
    Ok(())
}

/// Bytes that the page at `/` loads.
async fn page(table: &mut Table, gateway: SocketAddr) -> Result<()> {
    let client = Client::new(format!("http://{gateway}"), Duration::from_secs(10))?;
    let index = client.get("/").await?;
    let mut bytes = index.body.len();
    let mut files = loaded(&index.text(), "page/");
    let mut at = 0;
    while let Some(file) = files.get(at).cloned() {
        let reply = client.get(&format!("/page/{file}")).await?;
        ensure!(reply.status == 200, "{file}: {}", reply.status);
        bytes += reply.body.len();
        for more in loaded(&reply.text(), "./") {
            if !files.contains(&more) {
                files.push(more);
            }
        }
        at += 1;
    }
    let value = format!("{:.0} KB", bytes as f64 / 1e3);
    table.row("page: what it loads, uncompressed", value, "-".to_owned(), None, "< 200 KB");
    Ok(())
}

/// Names of files in quotation marks, after a prefix.
fn loaded(text: &str, prefix: &str) -> Vec<String> {
    text.split('"').filter_map(|part| part.strip_prefix(prefix)).map(str::to_owned).collect()
}

/// Wall time of an hour of audio on two engines, whole and split, and for which share of it the engines work.
async fn long(table: &mut Table, engines: [&Fake; 2], folder: &Path) -> Result<()> {
    for fake in engines {
        fake.received.job_us.store(JOB_US, Ordering::Relaxed);
        fake.received.audio_second_us.store(AUDIO_SECOND_US, Ordering::Relaxed);
    }
    let addresses = engines.map(|engine| engine.address);
    let busy = || engines.iter().map(|engine| engine.received.busy_us.load(Ordering::Relaxed)).sum::<u64>();
    let (mut seconds, mut work) = (Vec::new(), Vec::new());
    for (name, split_after) in [("whole", "0s"), ("split", "2m")] {
        let gateway = Proxies::hearing(name, addresses, "parakeet", split_after, folder)?.gateway().await?;
        let before = busy();
        let lasted = tokio::task::block_in_place(|| {
            let begun = Instant::now();
            let mut connection = Connection::open(gateway.address)?;
            checked(name, connection.upload("/v1/audio/transcriptions", LONG_SECONDS * SECOND_BYTES)?)?;
            anyhow::Ok(begun.elapsed().as_secs_f64())
        })?;
        seconds.push(lasted);
        work.push((busy() - before) as f64 / 1e6);
    }
    let (whole, split) = seconds.first().zip(seconds.get(1)).context("not measured")?;
    table.row(
        "an hour of audio split over two engines",
        format!("{split:.1} s, {:.2} x as fast", whole / split),
        format!("whole {whole:.1} s"),
        Some(split / whole),
        ">= 1.8 x as fast",
    );
    let (alone, pieces) = work.first().zip(work.get(1)).context("not measured")?;
    table.row(
        "the same: share of the time in which both engines work",
        format!("{:.0} %, {pieces:.1} s of work", 100.0 * pieces / 2.0 / split),
        format!("whole {alone:.1} s of work"),
        None,
        ">= 95 %",
    );
    Ok(())
}
