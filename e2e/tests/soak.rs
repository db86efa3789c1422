//! A soak: what production does to a stack for hours, and nothing may be restarted, lost or leaked.
//!
//! Three times the work that the engines can do; three of ten clients leave early; one of fifty inferences fails; some clients
//! send or read slowly; two of five parts of the time are starved of CPU, and in each the proxy stands still for three seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use speechstack_e2e::client::{Client, Reply, say};
use speechstack_e2e::load::{Ask, Load};
use speechstack_e2e::report::StackReport;
use speechstack_e2e::slow;
use speechstack_e2e::stack::{Stack, StackOptions};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Environment variable with the length, minutes.
const MINUTES: &str = "SPEECHSTACK_SOAK_MINUTES";
const DEFAULT_MINUTES: f64 = 2.5;
const ENGINES: [&str; 3] = ["parakeet-0", "parakeet-1", "magpie-0"];
/// Work offered over work that can be done.
const OVERLOAD: f64 = 3.0;
/// Share of inferences that fail.
const FAILURES: f64 = 0.02;
/// A cycle, and the part of it that is starved.
const CYCLE: Duration = Duration::from_secs(50);
const STARVED: std::ops::Range<Duration> = Duration::from_secs(15)..Duration::from_secs(35);
/// How long the proxy stands still in it.
const STOPPED: Duration = Duration::from_secs(3);
const MAX_IN_FLIGHT: usize = 300;
/// Growth of the proxy's memory from the second cycle to the last that is no leak: a part, and KiB. The first fills the allocator.
const GROWTH: (f64, f64) = (1.15, 6.0 * 1024.0);

/// What became of the requests, by what the client did and how it ended.
#[derive(Debug, Default)]
struct Tally {
    ends: BTreeMap<(&'static str, String), u64>,
    /// Of transcriptions that were served.
    seconds: Vec<f32>,
    /// First texts of statuses that are neither success nor overload.
    failures: Vec<String>,
}

/// What one client does.
#[derive(Clone, Copy, Debug)]
enum Behaviour {
    Transcribe,
    Speak,
    /// Leaves after this time.
    Leave(Duration),
    SlowUpload,
    SlowReader,
}

impl Behaviour {
    /// Spread evenly and the same in each run.
    fn of(nth: u64) -> (&'static str, Self) {
        // Multiples of the golden ratio.
        let spread = (nth as f64 * 0.618_033_988_749_895).fract();
        match nth % 50 {
            5 => ("slow upload", Self::SlowUpload),
            15 => ("slow reader", Self::SlowReader),
            at if matches!(at % 10, 1 | 4 | 7) => {
                ("left early", Self::Leave(Duration::from_secs_f64(2.0 * spread)))
            }
            at if at % 10 == 8 => ("speech", Self::Speak),
            _ => ("transcription", Self::Transcribe),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_cancels_errors_and_starvation_restart_and_leak_nothing() -> Result<()> {
    let minutes = std::env::var(MINUTES).ok().map(|minutes| minutes.parse()).transpose()?;
    let time = Duration::from_secs_f64(60.0 * minutes.unwrap_or(DEFAULT_MINUTES));
    let stack = Stack::start(options()).await?;
    let clips = clips()?;
    let capacity = capacity(&stack, &clips[0]).await?;
    for engine in ENGINES {
        stack.arm(engine, &json!({"mode": "F3", "trigger": {"p": FAILURES}})).await?;
    }
    let tally = Arc::new(Mutex::new(Tally::default()));
    let began = Instant::now();
    let load = tokio::spawn(clients(stack.url.clone(), clips, capacity * OVERLOAD, Arc::clone(&tally)));
    let cycles = (time.as_secs_f64() / CYCLE.as_secs_f64()) as usize;
    ensure!(cycles >= 3, "{MINUTES} has to be {} or more", 3.0 * CYCLE.as_secs_f64() / 60.0);
    let mut memory = vec![0; cycles];
    let mut least_serving = usize::MAX;
    while began.elapsed() < time {
        starve(&stack, began).await;
        let cycle = (began.elapsed().as_secs_f64() / CYCLE.as_secs_f64()) as usize;
        let most = &mut memory[cycle.min(cycles - 1)];
        *most = stack.memory_kib()?.max(*most);
        let state = stack.state().await?;
        least_serving = least_serving.min(state.engines.iter().filter(|engine| engine.weight > 0.0).count());
        let restarted: Vec<_> = state.engines.iter().filter(|engine| engine.restarts > 0).collect();
        ensure!(restarted.is_empty(), "restarted after {:?}: {restarted:#?}", began.elapsed());
    }
    load.abort();
    quiet(&stack).await?;
    let (before, after) = (memory[1] as f64, memory[cycles - 1] as f64);
    let tally = std::mem::take(&mut *tally.lock());
    report(&tally, capacity, &memory, least_serving, began.elapsed());
    ensure!(
        after <= before * GROWTH.0 + GROWTH.1,
        "the proxy grew from {before:.0} KiB in the second cycle to {after:.0} KiB in the last"
    );
    let late: u64 = tally.ends.iter().filter(|((_, end), _)| end == "504").map(|(_, count)| count).sum();
    let all: u64 = tally.ends.values().sum();
    ensure!(late * 100 <= all, "{late} of {all} requests passed their deadline");
    ensure!(tally.failures.is_empty(), "neither success nor overload: {:#?}", tally.failures);
    stack.stop().await
}

/// The policy as users have it, with probes each few seconds so that many of them meet what happens.
fn options() -> StackOptions {
    let mut options = StackOptions::new("soak");
    options.guard = json!({
        "probe": {"idle_period": "3s", "content_period": "5s"},
        // Recognition on a CPU.
        "lane": {"max_waiting": 16, "max_wait_seconds": 15, "fixed_seconds": 0.3, "seconds_per_audio_second": 0.5},
    });
    options
}

/// A second of speech, and about eight.
fn clips() -> Result<[Bytes; 2]> {
    let long = "We should meet at the station in the morning. The weather will be cold and windy tomorrow.";
    Ok([
        say(&[("slt", "Good morning.")])?,
        say(&[("rms", long), ("slt", "I think it will cost a lot of money.")])?,
    ])
}

/// Short transcriptions per second that the stack can do.
async fn capacity(stack: &Stack, clip: &Bytes) -> Result<f64> {
    let load =
        Load::bounded(stack.client.clone(), Ask::Transcribe(clip.clone()), Duration::from_millis(5), 4);
    sleep(Duration::from_secs(3)).await;
    let (mark, began) = (load.mark(), Instant::now());
    sleep(Duration::from_secs(10)).await;
    let done = load.counts().ok - mark.ok;
    ensure!(done > 0, "no transcription in ten seconds");
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

/// Begins so many requests each second, for ever.
async fn clients(url: String, clips: [Bytes; 2], rate: f64, tally: Arc<Mutex<Tally>>) -> Result<()> {
    let client = Client::new(&url, Duration::from_secs(120))?;
    let permits = Arc::new(tokio::sync::Semaphore::new(MAX_IN_FLIGHT));
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for nth in 0.. {
        ticks.tick().await;
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let (client, url, tally) = (client.clone(), url.clone(), Arc::clone(&tally));
        let clip = clips[usize::from(nth % 3 == 0)].clone();
        tokio::spawn(async move {
            let (name, behaviour) = Behaviour::of(nth);
            let began = Instant::now();
            let end = play(&client, &url, clip, behaviour).await;
            tally.lock().ended(name, end, began.elapsed());
            drop(permit);
        });
    }
    Ok(())
}

/// `None` when the client did not wait for the end.
async fn play(client: &Client, url: &str, clip: Bytes, behaviour: Behaviour) -> Option<Result<Reply>> {
    let text = "The weather will be cold and windy tomorrow.";
    match behaviour {
        Behaviour::Transcribe => Some(client.transcribe("clip.wav", clip, "json").await),
        Behaviour::Speak => Some(client.speak("alloy", text, "wav").await),
        Behaviour::Leave(after) => timeout(after, client.transcribe("clip.wav", clip, "json")).await.ok(),
        // Other tests check the replies to slow clients; here only their effect on others counts.
        Behaviour::SlowUpload => {
            let _ = slow::upload(url, 10).await;
            None
        }
        Behaviour::SlowReader => {
            let _ = slow::reader(url, text, 10).await;
            None
        }
    }
}

impl Tally {
    fn ended(&mut self, name: &'static str, end: Option<Result<Reply>>, took: Duration) {
        let end = match end {
            None => "-".to_owned(),
            Some(Ok(reply)) => {
                if name == "transcription" && reply.status == 200 {
                    self.seconds.push(took.as_secs_f32());
                }
                // 500 is what the engines were made to answer; 503 and 429 are overload, and 504 is starvation.
                if !matches!(reply.status, 200 | 429 | 500 | 503 | 504) && self.failures.len() < 10 {
                    self.failures.push(format!("{name}: {} {}", reply.status, reply.text()));
                }
                reply.status.to_string()
            }
            Some(Err(error)) => {
                if self.failures.len() < 10 {
                    self.failures.push(format!("{name}: {error:#}"));
                }
                "broken".to_owned()
            }
        };
        *self.ends.entry((name, end)).or_default() += 1;
    }
}

/// Lets a second or more pass; in a starved minute every core is taken, and the proxy is stopped once.
async fn starve(stack: &Stack, began: Instant) {
    let at = Duration::from_secs_f64(began.elapsed().as_secs_f64() % CYCLE.as_secs_f64());
    if !STARVED.contains(&at) {
        return sleep(Duration::from_secs(1)).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    for _ in 0..2 * cores {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
    }
    let part = (STARVED.end - at) / 2;
    sleep(part).await;
    stack.pause();
    sleep(STOPPED).await;
    stack.resume();
    sleep(part).await;
    stop.store(true, Ordering::Relaxed);
}

/// Without clients every engine serves, and no permit is held. An engine that failed at random counts as degraded for a while.
async fn quiet(stack: &Stack) -> Result<()> {
    stack.idle().await?;
    let serves = |state: &StackReport| state.engines.iter().all(|engine| engine.weight > 0.0);
    stack.wait_until("every engine serves", serves).await.context("the stack does not recover")?;
    for engine in ENGINES {
        let restarts = stack.measured(engine, "speechstack_false_restarts_total", &[]).await?;
        ensure!(restarts == 0.0, "{restarts} false restarts of {engine}");
    }
    Ok(())
}

fn report(tally: &Tally, capacity: f64, memory: &[u64], least_serving: usize, time: Duration) {
    let mut seconds = tally.seconds.clone();
    seconds.sort_by(f32::total_cmp);
    let quantile = |part: f64| {
        let at = (seconds.len() as f64 * part) as usize;
        seconds.get(at.min(seconds.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    eprintln!("\nsoak of {:.0} s; the engines do {capacity:.1} short transcriptions/s", time.as_secs_f64());
    for ((client, end), count) in &tally.ends {
        eprintln!("  {client:<14} {end:<7} {count:>8}");
    }
    eprintln!(
        "  transcriptions served: p50 {:.2} s, p99 {:.2} s, slowest {:.2} s",
        quantile(0.5),
        quantile(0.99),
        quantile(1.0)
    );
    let cycles: Vec<String> = memory.iter().map(|kib| format!("{:.1}", *kib as f64 / 1024.0)).collect();
    eprintln!("  most memory of the proxy by cycles, MiB: {}", cycles.join(", "));
    eprintln!("  engines in rotation: at least {least_serving} of 3; restarts: 0\n");
}
