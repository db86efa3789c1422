//! Instructions and system calls of the gateway per 32 KB transcription: what does not depend on the machine's speed.
//!
//! A run of [`FEWER`] requests is subtracted from one of [`MORE`], so that start, warm-up and stop cancel out. Both last equally
//! long, so that what the gateway does by the clock cancels out too.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::fake::Fake;
use crate::report::Table;
use crate::run::{CLIP_BYTES, checked};
use crate::subject::{Log, Pair, Proxies, Tool};
use crate::wire::{self, Connection};

const WARM_UP: usize = 200;
const FEWER: usize = 500;
const MORE: usize = 1500;
/// Nothing listens there: no request of this measurement is passed on to a real engine.
const NO_ENGINE: &str = "http://127.0.0.1:9";

/// What one request costs.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// With the log at its default level, into a file.
    logged: f64,
    /// With the log off.
    silent: f64,
}

/// Measures with each tool that is installed, and adds its row.
pub async fn all(table: &mut Table, folder: &Path) -> Result<()> {
    let stt = Fake::start("stt-0", "stt", NO_ENGINE.to_owned()).await?;
    let tts = Fake::start("tts-0", "tts", NO_ENGINE.to_owned()).await?;
    let engines = Pair { stt: stt.address, tts: tts.address };
    if let Some(cost) = cost(Tool::Callgrind, engines, folder).await? {
        let Cost { logged, silent } = cost;
        let value = format!("{:.0} thousand (log off: {:.0} thousand)", logged / 1e3, silent / 1e3);
        table.row("instructions per 32 KB transcription", value, "-".to_owned(), None, "60 thousand");
    }
    if let Some(Cost { logged, silent }) = cost(Tool::Strace, engines, folder).await? {
        let value = format!("{logged:.1} (log off: {silent:.1})");
        table.row("system calls per 32 KB transcription", value, "-".to_owned(), None, "8");
    }
    Ok(())
}

async fn cost(tool: Tool, engines: Pair, folder: &Path) -> Result<Option<Cost>> {
    if !Path::new(tool.program()).exists() {
        eprintln!("{} is missing: not measured", tool.program());
        return Ok(None);
    }
    let logged = difference(tool, Log::Default, engines, folder).await?;
    let silent = difference(tool, Log::Off, engines, folder).await?;
    Ok(Some(Cost { logged, silent }))
}

/// What one more request adds.
async fn difference(tool: Tool, log: Log, engines: Pair, folder: &Path) -> Result<f64> {
    let (more, lasted) = total(tool, log, MORE, Duration::ZERO, engines, folder).await?;
    let (fewer, _) = total(tool, log, FEWER, lasted, engines, folder).await?;
    ensure!(more > fewer, "{MORE} requests cost {more}, {FEWER} cost {fewer}: the difference is no cost");
    Ok((more - fewer) as f64 / (MORE - FEWER) as f64)
}

/// What a whole run of a gateway with that many requests costs, and how long it took them; it idles up to `least`.
async fn total(
    tool: Tool,
    log: Log,
    requests: usize,
    least: Duration,
    engines: Pair,
    folder: &Path,
) -> Result<(u64, Duration)> {
    let proxies = Proxies::new("counted", engines, false, json!({}), folder)?;
    let counts = folder.join("counts");
    let gateway = proxies.gateway_under(tool, &counts, log).await?;
    let request = wire::transcription(CLIP_BYTES);
    // The client blocks; the fake engine runs on the runtime's own worker.
    let lasted = tokio::task::block_in_place(|| {
        let begun = Instant::now();
        let mut connection = Connection::open(gateway.address)?;
        for _ in 0..WARM_UP + requests {
            checked("gateway", connection.exchange(&request)?)?;
        }
        std::thread::sleep(least.saturating_sub(begun.elapsed()));
        let lasted = begun.elapsed();
        drop(connection);
        gateway.stop()?;
        anyhow::Ok(lasted)
    })?;
    let text = std::fs::read_to_string(&counts)
        .with_context(|| format!("{} wrote no {}", tool.program(), counts.display()))?;
    std::fs::remove_file(&counts)?;
    let total = match tool {
        Tool::Callgrind => callgrind_total(&text),
        Tool::Strace => strace_total(&text),
    };
    Ok((total.with_context(|| format!("{} counted nothing", tool.program()))?, lasted))
}

/// The instructions of all threads: callgrind sums them up in one line.
fn callgrind_total(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

/// The calls of all threads: the fourth column of the last line, `100.00 0.5 12 4711 9 total`.
fn strace_total(text: &str) -> Option<u64> {
    let line = text.lines().rev().find(|line| line.trim_end().ends_with("total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrind_says_the_sum_of_all_threads() {
        let text = "version: 1\nevents: Ir\nsummary: 194000\n\nfn=(1) main\n5 7\n\ntotals: 194000\n";
        assert_eq!(callgrind_total(text), Some(194_000));
        assert_eq!(callgrind_total("fn=(1) main\n5 7\n"), None);
    }

    #[test]
    fn strace_says_the_sum_of_all_calls() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           6       100           read
 40.00    0.000400           4       100         7 epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           5       200         7 total
";
        assert_eq!(strace_total(table), Some(200));
        assert_eq!(strace_total(""), None);
    }
}
