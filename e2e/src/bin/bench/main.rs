//! Measures what gateway and guard cost, in ratios to a direct call and to nginx within one run.
//!
//! Everything runs on one core, against one fake engine, in interleaved rounds; ratios are medians over the rounds.
//! A goal that is missed is a number to publish, not a failure.

mod fake;
mod instructions;
mod meter;
mod report;
mod run;
mod subject;
mod wire;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// Measures speed and size of the proxy.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub struct Args {
    /// Interleaved rounds of each latency measurement.
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
    /// Only instructions and system calls per request: seconds, without nginx and the real engines.
    #[arg(long)]
    instructions_only: bool,
    /// CPU on which everything runs; the last one when not given.
    #[arg(long)]
    cpu: Option<usize>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    // Before any thread exists, so that threads and child processes inherit it.
    let cpu = pin(args.cpu)?;
    eprintln!("all on cpu {cpu}, {} rounds of {} requests", args.rounds, args.requests);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let table = runtime.block_on(run::all(&args))?;
    println!("{table}");
    Ok(())
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
