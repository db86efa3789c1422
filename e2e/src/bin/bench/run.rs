//! The measurements, one function each.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Args;
use crate::fake::{Fake, SPEECH_MARK};
use crate::instructions;
use crate::meter::{cpu_ns, median, median_ratio, peak_kib, percentile, reset_peak, resident_kib, spread};
use crate::report::{Table, criterion_ms};
use crate::subject::{self, Pair, Proxies, Subject};
use crate::wire::{self, Connection};

const MIB: u64 = 1 << 20;
/// A second of speech, 16 kHz, 16 bit.
pub const CLIP_BYTES: u64 = 32_000;
const PARALLEL_UPLOAD: u64 = 64 * MIB;
/// A side whose ratios to the anchor are further apart says nothing: all are measured again, at most so often.
const MOST_SPREAD: f64 = 0.1;
const TRIES: usize = 3;
/// What the others are compared with.
const ANCHOR: &str = "nginx";

/// One way to the engine.
struct Side<'a> {
    name: &'static str,
    /// Where to send a transcription.
    address: SocketAddr,
    /// Where to send a speech request, and as what.
    speech: (SocketAddr, Vec<u8>),
    /// The processes in between.
    processes: Vec<&'a Subject>,
}

/// Samples of one side, one per round.
#[derive(Default)]
struct Samples {
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    cpu_us: Vec<f64>,
}

/// Runs every measurement, or those alone that count instead of taking time.
pub async fn all(args: &Args) -> Result<Table> {
    let folder = tempfile::Builder::new().prefix("speechstack-bench-").tempdir()?;
    let mut table = Table::default();
    if !args.instructions_only {
        timed(&mut table, args, folder.path()).await?;
    }
    instructions::all(&mut table, folder.path()).await?;
    Ok(table)
}

async fn timed(table: &mut Table, args: &Args, folder: &Path) -> Result<()> {
    let real = (subject::engine("stt", folder)?, subject::engine("tts", folder)?);
    let stt = Fake::start("stt-0", "stt", format!("http://{}", real.0.address)).await?;
    let tts = Fake::start("tts-0", "tts", format!("http://{}", real.1.address)).await?;
    let engines = Pair { stt: stt.address, tts: tts.address };
    let lane = subject::open_lane();
    let alone = Proxies::new("alone", engines, false, json!({}), folder)?;
    let guarded = Proxies::new("guarded", engines, true, lane, folder)?;

    let nginx = subject::nginx(engines, folder, None)?;
    let bare = subject::passthrough(engines, folder, None)?;
    let gateway_alone = alone.gateway().await?;
    let guards = (guarded.guard("stt", None)?, guarded.guard("tts", None)?);
    let gateway = guarded.gateway().await?;
    idle(table, &gateway, &guards.0, nginx.as_ref())?;

    let speech = json!({"model": "tts-1", "voice": "alloy", "input": SPEECH_MARK, "response_format": "pcm"});
    let speech = wire::json("/v1/audio/speech", &speech.to_string());
    let direct_speech = wire::json("/v1/audio/synthesize_online", &json!({"text": SPEECH_MARK}).to_string());
    let mut sides = vec![Side {
        name: "direct",
        address: engines.stt,
        speech: (engines.tts, direct_speech.clone()),
        processes: Vec::new(),
    }];
    for (name, rival) in [(ANCHOR, nginx.as_ref()), ("bare hyper", Some(&bare))] {
        if let Some(rival) = rival {
            let speech = (rival.address, direct_speech.clone());
            sides.push(Side { name, address: rival.address, speech, processes: vec![rival] });
        }
    }
    sides.push(Side {
        name: "gateway",
        address: gateway_alone.address,
        speech: (gateway_alone.address, speech.clone()),
        processes: vec![&gateway_alone],
    });
    sides.push(Side {
        name: "gateway+guard",
        address: gateway.address,
        speech: (gateway.address, speech),
        processes: vec![&gateway, &guards.0],
    });
    let rivals = match &args.rivals {
        Some(environment) => rivals(environment, engines, folder)?,
        None => Vec::new(),
    };
    let own = sides.len();
    for (name, rival) in &rivals {
        let speech = (rival.address, Vec::new());
        sides.push(Side { name, address: rival.address, speech, processes: vec![rival] });
    }
    // The clients block; the fake engine runs on the runtime's own worker.
    tokio::task::block_in_place(|| {
        for side in &sides[own..] {
            until_served(side)?;
        }
        transcriptions(table, args, &sides, &stt)?;
        let sides = &sides[..own];
        first_bytes(table, args, sides)?;
        uploads(table, args, sides, &stt)?;
        slow_uploads(table, sides, &stt)?;
        dialogue(table, sides)
    })?;
    benched(table, &args.criterion);
    Ok(())
}

/// Gateways of others, which serve transcriptions alone.
fn rivals(environment: &Path, engines: Pair, folder: &Path) -> Result<Vec<(&'static str, Subject)>> {
    let smg = subject::smg(environment, engines, folder)?;
    let litellm = subject::litellm(environment, engines, folder)?;
    Ok(vec![("smg", smg), ("litellm", litellm)])
}

/// A gateway may listen before it knows its engine.
fn until_served(side: &Side<'_>) -> Result<()> {
    let request = wire::transcription(CLIP_BYTES);
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let reply = Connection::open(side.address).and_then(|mut connection| connection.exchange(&request));
        match reply.and_then(|reply| checked(side.name, reply)) {
            Ok(_) => return Ok(()),
            Err(error) => ensure!(Instant::now() < deadline, "{} does not serve: {error:#}", side.name),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn idle(table: &mut Table, gateway: &Subject, guard: &Subject, nginx: Option<&Subject>) -> Result<()> {
    let mb = |kib: u64| format!("{:.1} MB", kib as f64 * 1024.0 / 1e6);
    let nginx = nginx.map(Subject::idle_kib).transpose()?;
    let anchor = nginx.map_or_else(|| "-".to_owned(), |kib| format!("nginx {}", mb(kib)));
    for (what, subject) in [("idle memory, gateway", gateway), ("idle memory, guard", guard)] {
        let kib = subject.idle_kib()?;
        let ratio = nginx.map(|nginx| kib as f64 / nginx as f64);
        table.row(what, mb(kib), anchor.clone(), ratio, "<= 12 MB");
    }
    Ok(())
}

/// Latency and CPU of a 32 KB transcription, one at a time.
fn transcriptions(table: &mut Table, args: &Args, sides: &[Side<'_>], engine: &Fake) -> Result<()> {
    let request = wire::transcription(CLIP_BYTES);
    let mut connections = Vec::new();
    for side in sides {
        let mut connection = Connection::open(side.address)?;
        let before = engine.received.bytes.load(Ordering::Relaxed);
        for _ in 0..200 {
            checked(side.name, connection.exchange(&request)?)?;
        }
        // A proxy that drops the body would look fast.
        let received = (engine.received.bytes.load(Ordering::Relaxed) - before) / 200;
        ensure!(
            received >= CLIP_BYTES,
            "{}: the engine received {received} bytes of {CLIP_BYTES}",
            side.name
        );
        connections.push(connection);
    }
    let anchor = sides.iter().position(|side| side.name == ANCHOR);
    let mut tries = 0;
    let samples = loop {
        let samples = rounds(args, sides, &mut connections, &request)?;
        tries += 1;
        let anchor = anchor.map(|nth| &samples[nth]);
        let widest = anchor.map_or(0.0, |anchor| {
            samples.iter().skip(1).map(|side| spread(&side.cpu_us, &anchor.cpu_us)).fold(0.0, f64::max)
        });
        if widest <= MOST_SPREAD || tries == TRIES {
            break samples;
        }
        eprintln!("the ratios are up to {:.0} % apart: measured again", widest * 100.0);
    };
    let added = |of: &[f64]| -> Vec<f64> {
        of.iter().zip(&samples[0].p50_us).map(|(of, direct)| of - direct).collect()
    };
    let anchor = anchor.map(|nth| &samples[nth]);
    for (side, samples) in sides.iter().zip(&samples).skip(1) {
        let mut row = |what: &str, of: &[f64], to: Option<Vec<f64>>, goal: &str| {
            let value = match &to {
                Some(to) => format!("{:.0} us, spread {:.1} %", median(of), spread(of, to) * 100.0),
                None => format!("{:.0} us", median(of)),
            };
            let shown =
                to.as_ref().map_or_else(|| "-".to_owned(), |to| format!("{ANCHOR} {:.0} us", median(to)));
            let ratio = to.map(|to| median_ratio(of, &to));
            table.row(&format!("{what}, {}", side.name), value, shown, ratio, goal);
        };
        let cpu = anchor.map(|anchor| anchor.cpu_us.clone());
        row("cpu per 32 KB transcription", &samples.cpu_us, cpu, "1.0 x nginx");
        let latency = anchor.map(|anchor| added(&anchor.p50_us));
        row("latency added p50", &added(&samples.p50_us), latency, "1.0 x nginx");
        row("latency p99", &samples.p99_us, anchor.map(|anchor| anchor.p99_us.clone()), "1.2 x nginx");
    }
    Ok(())
}

/// Every side in turn, there and back again in each round, so that drift hits all of them alike.
fn rounds(
    args: &Args,
    sides: &[Side<'_>],
    connections: &mut [Connection],
    request: &[u8],
) -> Result<Vec<Samples>> {
    let mut samples: Vec<Samples> = sides.iter().map(|_| Samples::default()).collect();
    for _ in 0..args.rounds {
        for nth in (0..sides.len()).chain((0..sides.len()).rev()) {
            let (side, connection) = (&sides[nth], &mut connections[nth]);
            let cpu = cpu_of(side)?;
            let mut latencies = Vec::with_capacity(args.requests);
            for _ in 0..args.requests {
                let begun = Instant::now();
                checked(side.name, connection.exchange(request)?)?;
                latencies.push(begun.elapsed().as_secs_f64() * 1e6);
            }
            let samples = &mut samples[nth];
            samples.p50_us.push(median(&latencies));
            samples.p99_us.push(percentile(&latencies, 0.99));
            samples.cpu_us.push((cpu_of(side)? - cpu) as f64 / 1e3 / args.requests as f64);
        }
    }
    Ok(samples)
}

/// Time to the first byte of speech.
fn first_bytes(table: &mut Table, args: &Args, sides: &[Side<'_>]) -> Result<()> {
    let streams = (args.rounds * 10).max(20);
    let mut samples: Vec<Vec<f64>> = sides.iter().map(|_| Vec::new()).collect();
    let mut connections = Vec::new();
    for side in sides {
        connections.push(Connection::open(side.speech.0)?);
    }
    for _ in 0..streams {
        for (nth, side) in sides.iter().enumerate() {
            let reply = checked(side.name, connections[nth].exchange(&side.speech.1)?)?;
            samples[nth].push(reply.first_byte.as_secs_f64() * 1e3);
        }
    }
    let (direct50, direct99) = (median(&samples[0]), percentile(&samples[0], 0.99));
    for (side, samples) in sides.iter().zip(&samples).skip(1) {
        let (p50, p99) = (median(samples) - direct50, percentile(samples, 0.99) - direct99);
        table.row(
            &format!("speech first byte added, {}", side.name),
            format!("p50 {p50:.2} ms, p99 {p99:.2} ms"),
            format!("direct {direct50:.2} ms"),
            None,
            "p50 0.5 ms, p99 2 ms",
        );
    }
    Ok(())
}

/// Peak memory of uploads: a large one twice, then many in flight.
fn uploads(table: &mut Table, args: &Args, sides: &[Side<'_>], engine: &Fake) -> Result<()> {
    let large = args.upload_mib * MIB;
    for side in sides.iter().skip(1) {
        for what in ["first", "second"] {
            let before = memory(side, true)?;
            let begun = Instant::now();
            let received = engine.received.bytes.load(Ordering::Relaxed);
            checked(side.name, Connection::open(side.address)?.upload("/v1/audio/transcriptions", large)?)?;
            let received = engine.received.bytes.load(Ordering::Relaxed) - received;
            ensure!(received >= large, "{}: {received} of {large} bytes arrived", side.name);
            table.row(
                &format!("peak of {what} {} MiB upload, {}", args.upload_mib, side.name),
                growth(&before, &memory(side, false)?, 1),
                format!("{:.1} s", begun.elapsed().as_secs_f64()),
                None,
                "256 KiB",
            );
        }
    }
    // Slow reading makes them overlap.
    engine.received.read_pause_us.store(1000, Ordering::Relaxed);
    for side in sides.iter().skip(1) {
        let before = memory(side, true)?;
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..args.uploads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut connection = Connection::open(side.address)?;
                        checked(side.name, connection.upload("/v1/audio/transcriptions", PARALLEL_UPLOAD)?)
                    })
                })
                .collect();
            for client in clients {
                client.join().ok().context("a client panicked")??;
            }
            anyhow::Ok(())
        })?;
        table.row(
            &format!("peak of each of {} uploads, {}", args.uploads, side.name),
            growth(&before, &memory(side, false)?, args.uploads as u64),
            format!("{:.1} s", begun.elapsed().as_secs_f64()),
            None,
            "256 KiB",
        );
    }
    engine.received.read_pause_us.store(0, Ordering::Relaxed);
    Ok(())
}

/// Growth while many large uploads have begun and come slowly.
fn slow_uploads(table: &mut Table, sides: &[Side<'_>], engine: &Fake) -> Result<()> {
    const CLIENTS: usize = 64;
    let piece = wire::noise(64 * 1024);
    for side in sides.iter().skip(1) {
        let before = memory(side, true)?;
        let received = engine.received.bytes.load(Ordering::Relaxed);
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut connection = Connection::open(side.address)?;
            connection.begin_upload("/v1/audio/transcriptions", 1024 * MIB)?;
            clients.push(connection);
        }
        for _ in 0..16 {
            for connection in &mut clients {
                connection.send(&piece)?;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let growth = growth(&before, &memory(side, false)?, 1);
        drop(clients);
        let received = (engine.received.bytes.load(Ordering::Relaxed) - received) / MIB;
        table.row(
            &format!("peak of {CLIENTS} slow 1 GiB uploads, {}", side.name),
            growth,
            format!("{received} MiB arrived"),
            None,
            "16384 KiB",
        );
    }
    Ok(())
}

/// CPU of the gateway for a long transcript with speakers: two replies of the engine read, merged, and written.
fn dialogue(table: &mut Table, sides: &[Side<'_>]) -> Result<()> {
    const TIMES: usize = 10;
    let request = wire::dialogue(CLIP_BYTES);
    for side in sides.iter().filter(|side| side.name == "gateway") {
        let mut connection = Connection::open(side.address)?;
        let mut samples = Vec::new();
        let mut bytes = 0;
        for _ in 0..TIMES {
            let before = cpu_of(side)?;
            bytes = checked(side.name, connection.exchange(&request)?)?.bytes;
            samples.push((cpu_of(side)? - before) as f64 / 1e6);
        }
        table.row(
            "cpu of 30 k words x 4.6 k turns, JSON in and out",
            format!("{:.1} ms", median(&samples)),
            format!("reply of {} KiB", bytes / 1024),
            None,
            "13 ms",
        );
    }
    Ok(())
}

/// What `cargo bench` measured in process.
fn benched(table: &mut Table, criterion: &Path) {
    let found = criterion_ms(criterion, "");
    if found.is_empty() {
        eprintln!("no results of `cargo bench` in {}", criterion.display());
    }
    for (name, ms) in found {
        if let Some(name) = name.strip_prefix("edge/") {
            let goal = if name.starts_with("quota") { "<= 2 us" } else { "<= 1 us" };
            table.row(&format!("edge: {name}"), format!("{:.0} ns", ms * 1e6), "-".to_owned(), None, goal);
            continue;
        }
        table.row(&format!("merge: {name}"), format!("{ms:.3} ms"), "-".to_owned(), None, "30 k words 3 ms");
    }
}

/// Resident KiB of each process of a side (and a new peak), or its peak.
fn memory(side: &Side<'_>, reset: bool) -> Result<Vec<u64>> {
    let of = |subject: &&Subject| {
        if !reset {
            return peak_kib(subject.pid());
        }
        reset_peak(subject.pid())?;
        resident_kib(subject.pid())
    };
    side.processes.iter().map(of).collect()
}

fn growth(before: &[u64], after: &[u64], uploads: u64) -> String {
    let each = before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before) / uploads);
    let each: Vec<String> = each.map(|kib| format!("{kib} KiB")).collect();
    each.join(" + ")
}

fn cpu_of(side: &Side<'_>) -> Result<u64> {
    side.processes.iter().map(|subject| cpu_ns(subject.pid())).sum()
}

/// The reply, if it is a good one; `name` is who gave it.
pub fn checked(name: &str, reply: wire::Reply) -> Result<wire::Reply> {
    ensure!(reply.status == 200, "{name}: {}", reply.beginning);
    ensure!(reply.bytes > 0, "{name}: an empty reply");
    Ok(reply)
}
