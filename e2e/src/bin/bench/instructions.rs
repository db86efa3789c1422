//! Instructions, allocations and system calls of the gateway per 32 KB transcription: what does not depend on the machine's
//! speed.
//!
//! A run of few requests is subtracted from one of many, so that start, warm-up and stop cancel out. Both last equally long, so
//! that what the gateway does by the clock cancels out too.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::baseline::{self, Figures};
use crate::fake::Fake;
use crate::report::Table;
use crate::run::{CLIP_BYTES, checked};
use crate::subject::{self, Log, Pair, Proxies, Subject, Tool};
use crate::wire::{self, Connection};

/// How many requests are sent.
#[derive(Clone, Copy, Debug)]
pub struct Requests {
    warm_up: usize,
    fewer: usize,
    more: usize,
}

impl Requests {
    /// For figures to publish.
    pub const MANY: Self = Self { warm_up: 200, fewer: 500, more: 1500 };
    /// For a comparison that takes seconds.
    pub const FEW: Self = Self { warm_up: 50, fewer: 50, more: 250 };
}

/// What was counted in a whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Instructions in user space, or system calls.
    events: u64,
    /// Blocks of memory asked for.
    allocations: u64,
}

/// What one request costs.
#[derive(Clone, Copy, Debug)]
struct Cost {
    events: f64,
    allocations: f64,
}

/// Whose requests are counted.
#[derive(Clone, Copy, Debug)]
enum Counted {
    Gateway(Log),
    /// Behind a gateway that is not counted.
    Guard,
    Passthrough,
    Nginx,
}

/// Measures with each tool that is installed, and adds its rows.
pub async fn all(table: &mut Table, folder: &Path) -> Result<()> {
    let bench = Bench::new(folder, Requests::MANY).await?;
    if is_there(Tool::Callgrind) {
        let [logged, silent] = bench.gateway(Tool::Callgrind).await?;
        let [bare, nginx] = bench.rivals(Tool::Callgrind).await?;
        let guard = bench.cost(Tool::Callgrind, Counted::Guard).await?.context("no guard")?;
        let value = format!("{:.1} thousand (log off: {:.1})", logged.events / 1e3, silent.events / 1e3);
        let anchor = rivals(bare, nginx, |cost| format!("{:.1}", cost.events / 1e3));
        let ratio = nginx.map(|nginx| logged.events / nginx.events);
        table.row("instructions per 32 KB transcription", value, anchor, ratio, "60 thousand");
        let value = format!("{:.1} (log off: {:.1})", logged.allocations, silent.allocations);
        let anchor = rivals(bare, None, |cost| format!("{:.1}", cost.allocations));
        table.row("allocations per 32 KB transcription", value, anchor, None, "25");
        let value = format!("{:.1} thousand, {:.1} allocations", guard.events / 1e3, guard.allocations);
        table.row("the same of the guard alone", value, "-".to_owned(), None, "-");
    }
    if is_there(Tool::Strace) {
        let [logged, silent] = bench.gateway(Tool::Strace).await?;
        let [bare, nginx] = bench.rivals(Tool::Strace).await?;
        let value = format!("{:.1} (log off: {:.1})", logged.events, silent.events);
        let anchor = rivals(bare, nginx, |cost| format!("{:.1}", cost.events));
        let ratio = nginx.map(|nginx| logged.events / nginx.events);
        table.row("system calls per 32 KB transcription", value, anchor, ratio, "8");
        let guard = bench.cost(Tool::Strace, Counted::Guard).await?.context("no guard")?;
        table.row("the same of the guard alone", format!("{:.1}", guard.events), "-".to_owned(), None, "-");
    }
    Ok(())
}

fn rivals(bare: Option<Cost>, nginx: Option<Cost>, show: impl Fn(Cost) -> String) -> String {
    let named = [("hyper", bare), ("nginx", nginx)];
    let shown = named.into_iter().filter_map(|(name, cost)| Some(format!("{name} {}", show(cost?))));
    shown.collect::<Vec<_>>().join(", ")
}

/// Instructions and allocations, with the log as it is by itself.
pub async fn figures(folder: &Path) -> Result<Figures> {
    if !is_there(Tool::Callgrind) {
        bail!("valgrind is missing: nothing can be compared");
    }
    let bench = Bench::new(folder, Requests::FEW).await?;
    let gateway = bench.cost(Tool::Callgrind, Counted::Gateway(Log::Default)).await?.context("no gateway")?;
    let guard = bench.cost(Tool::Callgrind, Counted::Guard).await?.context("no guard")?;
    let rounded = |cost: Cost| baseline::Cost {
        instructions: cost.events.round(),
        allocations: cost.allocations.round(),
    };
    Ok(Figures { gateway: rounded(gateway), guard: rounded(guard) })
}

fn is_there(tool: Tool) -> bool {
    let there = Path::new(tool.program()).exists();
    if !there {
        eprintln!("{} is missing: not measured", tool.program());
    }
    there
}

/// What all of the measurements share.
struct Bench<'a> {
    engines: Pair,
    /// For the probes of guards.
    _real: [Subject; 2],
    folder: &'a Path,
    requests: Requests,
}

impl<'a> Bench<'a> {
    async fn new(folder: &'a Path, requests: Requests) -> Result<Self> {
        let real = [subject::engine("stt", folder)?, subject::engine("tts", folder)?];
        let stt = Fake::start("stt-0", "stt", format!("http://{}", real[0].address)).await?;
        let tts = Fake::start("tts-0", "tts", format!("http://{}", real[1].address)).await?;
        let engines = Pair { stt: stt.address, tts: tts.address };
        Ok(Self { engines, _real: real, folder, requests })
    }

    /// The gateway with its log on and off.
    async fn gateway(&self, tool: Tool) -> Result<[Cost; 2]> {
        let logged = self.cost(tool, Counted::Gateway(Log::Default)).await?.context("no gateway")?;
        let silent = self.cost(tool, Counted::Gateway(Log::Off)).await?.context("no gateway")?;
        Ok([logged, silent])
    }

    /// The bare pass-through, and nginx if it is installed.
    async fn rivals(&self, tool: Tool) -> Result<[Option<Cost>; 2]> {
        Ok([self.cost(tool, Counted::Passthrough).await?, self.cost(tool, Counted::Nginx).await?])
    }

    /// What one more request adds; `None` when there is no such program.
    async fn cost(&self, tool: Tool, counted: Counted) -> Result<Option<Cost>> {
        let Requests { warm_up, fewer: few, more: many } = self.requests;
        let Some((more, lasted)) = self.total(tool, counted, warm_up + many, Duration::ZERO).await? else {
            return Ok(None);
        };
        let Some((fewer, _)) = self.total(tool, counted, warm_up + few, lasted).await? else {
            return Ok(None);
        };
        ensure!(more.events > fewer.events, "{many} requests cost {more:?}, {few} cost {fewer:?}");
        let each = |more: u64, fewer: u64| more.saturating_sub(fewer) as f64 / (many - few) as f64;
        Ok(Some(Cost {
            events: each(more.events, fewer.events),
            allocations: each(more.allocations, fewer.allocations),
        }))
    }

    /// What a whole run with that many requests costs, and how long it took them; the program idles up to `least`.
    async fn total(
        &self,
        tool: Tool,
        counted: Counted,
        requests: usize,
        least: Duration,
    ) -> Result<Option<(Counts, Duration)>> {
        let counts = self.folder.join("counts");
        let under = Some((tool, counts.as_path()));
        let (subject, before) = match counted {
            Counted::Gateway(log) => {
                let proxies = Proxies::new("counted", self.engines, false, json!({}), self.folder)?;
                (Some(proxies.gateway_under(under, log).await?), Vec::new())
            }
            Counted::Guard => {
                let lane = subject::open_lane();
                let proxies = Proxies::new("counted", self.engines, true, lane, self.folder)?;
                let guard = proxies.guard("stt", under)?;
                let others = vec![proxies.guard("tts", None)?, proxies.gateway().await?];
                (Some(guard), others)
            }
            Counted::Passthrough => {
                (Some(subject::passthrough(self.engines, self.folder, under)?), Vec::new())
            }
            Counted::Nginx => (subject::nginx(self.engines, self.folder, under)?, Vec::new()),
        };
        let Some(subject) = subject else { return Ok(None) };
        let address = before.last().unwrap_or(&subject).address;
        let request = wire::transcription(CLIP_BYTES);
        // The client blocks; the fake engine runs on the runtime's own worker.
        let lasted = tokio::task::block_in_place(|| {
            let begun = Instant::now();
            let mut connection = Connection::open(address)?;
            for _ in 0..requests {
                checked("counted", connection.exchange(&request)?)?;
            }
            std::thread::sleep(least.saturating_sub(begun.elapsed()));
            let lasted = begun.elapsed();
            drop(connection);
            subject.stop()?;
            anyhow::Ok(lasted)
        })?;
        let text = std::fs::read_to_string(&counts)
            .with_context(|| format!("{} wrote no {}", tool.program(), counts.display()))?;
        std::fs::remove_file(&counts)?;
        let total = match tool {
            Tool::Callgrind => callgrind(&text),
            Tool::Strace => strace(&text),
        };
        Ok(Some((total.with_context(|| format!("{} counted nothing", tool.program()))?, lasted)))
    }
}

/// The instructions of all threads, which callgrind sums up in one line, and the calls of the allocator's entry points.
fn callgrind(text: &str) -> Option<Counts> {
    let mut counts = Counts::default();
    // `cfn=(7) name` at the first mention of a function, `cfn=(7)` later; `fn=` lines name functions too.
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut called = "";
    let mut totals = None;
    for line in text.lines() {
        if let Some(of) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let (id, name) = of.split_once(' ').unwrap_or((of, ""));
            if !name.is_empty() {
                names.insert(id, name);
            }
            called = names.get(id).copied().unwrap_or_default();
        } else if let Some(calls) = line.strip_prefix("calls=") {
            if allocates(called) {
                counts.allocations += calls.split(' ').next()?.parse::<u64>().ok()?;
            }
        } else if let Some(total) = line.strip_prefix("totals:") {
            totals = total.trim().parse().ok();
        }
    }
    counts.events = totals?;
    Some(counts)
}

/// Whether a function is what Rust code calls for a new block, or for a larger one.
fn allocates(function: &str) -> bool {
    matches!(
        function,
        "mi_malloc"
            | "mi_malloc_aligned"
            | "mi_zalloc"
            | "mi_zalloc_aligned"
            | "mi_realloc"
            | "mi_realloc_aligned"
    )
}

/// The calls of all threads: the fourth column of the last line, `100.00 0.5 12 4711 9 total`.
fn strace(text: &str) -> Option<Counts> {
    let line = text.lines().rev().find(|line| line.trim_end().ends_with("total"))?;
    let events = line.split_whitespace().nth(3)?.parse().ok()?;
    Some(Counts { events, allocations: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrind_says_the_sum_of_all_threads_and_who_called_the_allocator() {
        let text = "\
events: Ir
summary: 194000

fn=(1) main
5 7
cfn=(2) mi_malloc
calls=3 10
5 90
cfn=(3) memcpy
calls=9 10
5 90

fn=(4) other
cfn=(2)
calls=2 10
6 60

totals: 194000
";
        assert_eq!(callgrind(text), Some(Counts { events: 194_000, allocations: 5 }));
        assert_eq!(callgrind("fn=(1) main\n5 7\n"), None);
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
        assert_eq!(strace(table).map(|counts| counts.events), Some(200));
        assert_eq!(strace(""), None);
    }
}
