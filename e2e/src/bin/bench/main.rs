//! Measures what gateway and guard cost, in ratios to a direct call and to nginx within one run.
//!
//! Everything runs on one core, against one fake engine, in interleaved rounds; ratios are medians over the rounds.
//! A goal that is missed is a number to publish, not a failure. What does not depend on the machine's speed, instructions and
//! allocations, is also compared with a committed baseline.

mod answer;
mod barge;
mod baseline;
mod dialogue;
mod fake;
mod formats;
mod instructions;
mod meter;
mod passthrough;
mod report;
mod run;
mod streams;
mod subject;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use speechstack_e2e::binaries;

use subject::Pair;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures speed and size of the proxy.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub struct Args {
    /// Interleaved rounds of each latency measurement, each there and back.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Requests of each side in one round.
    #[arg(long, default_value_t = 500)]
    requests: usize,
    /// MiB of the large upload.
    #[arg(long, default_value_t = 1024)]
    upload_mib: u64,
    /// Uploads in flight at the same time, 64 MiB each.
    #[arg(long, default_value_t = 16)]
    uploads: usize,
    /// Where `cargo bench` left its results.
    #[arg(long, default_value = "target/criterion")]
    criterion: PathBuf,
    /// Python environment with `smg` and `litellm[proxy]`, which are measured as well.
    #[arg(long, value_name = "DIR")]
    rivals: Option<PathBuf>,
    /// Only instructions, allocations and system calls per request.
    #[arg(long)]
    instructions_only: bool,
    /// Only streaming sessions.
    #[arg(long)]
    streams: bool,
    /// Only formats: speech encoded, recordings decoded, a long one split.
    #[arg(long, conflicts_with = "streams")]
    formats: bool,
    /// Only a spoken conversation: the stages from a question's end to its answer's first sound.
    #[arg(long, conflicts_with_all = ["streams", "formats"])]
    answer: bool,
    /// Idle sessions that are held open at a time.
    #[arg(long, default_value_t = 10_000)]
    idle_sessions: usize,
    /// Be a relay of bytes: where to listen, and where to.
    #[arg(long, hide = true, num_args = 2)]
    raw_relay: Vec<SocketAddr>,
    /// Compare instructions and allocations with the baseline in this file, and fail if they have grown.
    #[arg(long, value_name = "FILE", conflicts_with = "write_baseline")]
    gate: Option<PathBuf>,
    /// Measure instructions and allocations, and write them into this file.
    #[arg(long, value_name = "FILE")]
    write_baseline: Option<PathBuf>,
    /// Be the bare pass-through that is measured beside the gateway: where to listen, and the two engines.
    #[arg(long, hide = true, num_args = 3)]
    pass_through: Vec<SocketAddr>,
    /// CPU on which everything runs; the last one when not given.
    #[arg(long)]
    cpu: Option<usize>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let [listen, stt, tts] = args.pass_through[..] {
        return passthrough::serve(listen, Pair { stt, tts });
    }
    if let [listen, target] = args.raw_relay[..] {
        return passthrough::raw(listen, target);
    }
    if args.streams {
        // Engines work beside the gateway: one core would make latencies those of the engine.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        println!("{}", runtime.block_on(streams::all(args.idle_sessions))?);
        return Ok(());
    }
    if args.answer {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        println!("{}", runtime.block_on(answer::all())?);
        return Ok(());
    }
    // Before any thread exists, so that threads and child processes inherit it.
    let cpu = pin(args.cpu)?;
    eprintln!("all on cpu {cpu}, {} rounds of {} requests", args.rounds, args.requests);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    if let Some(file) = args.gate.as_ref().or(args.write_baseline.as_ref()) {
        let folder = tempfile::Builder::new().prefix("speechstack-bench-").tempdir()?;
        let figures = runtime.block_on(instructions::figures(folder.path()))?;
        let profile = profile()?;
        return match args.gate {
            Some(_) => baseline::compare(file, &profile, figures),
            None => baseline::write(file, &profile, figures),
        };
    }
    let table = match args.formats {
        true => runtime.block_on(formats::all())?,
        false => runtime.block_on(run::all(&args))?,
    };
    println!("{table}");
    Ok(())
}

/// The build profile, by the folder of this program: the gateway beside it is of the same one.
fn profile() -> Result<String> {
    let folder = binaries::folder()?;
    let name = folder.file_name().context("the program has no folder")?;
    Ok(name.to_string_lossy().into_owned())
}

fn pin(cpu: Option<usize>) -> Result<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)).unwrap_or(0);
    let cpu = cpu.unwrap_or(last);
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)?;
    Ok(cpu)
}
