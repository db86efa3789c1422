//! Runs tests that need a cluster around them, a few at a time, those that disturb the nodes alone.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use parking_lot::Mutex;

use super::turn::{Kind, Turns};
use super::{BARE, Cluster, INSIDE};

/// More than the tests at work: some wait for their turn, and some for their namespaces to go.
const THREADS: usize = 8;
/// The value of [`INSIDE`] by which a caller says that it runs the cluster's tests by themselves, afterwards.
const LATER: &str = "later";

/// What a test does once it is its turn.
type Body = Box<dyn FnOnce(&Turns) -> Result<()> + Send>;

/// A test of the cluster.
pub struct Test {
    name: &'static str,
    kind: Kind,
    body: Body,
}

impl Test {
    /// A test that leaves the nodes as they are; others run beside it.
    pub fn new<F>(name: &'static str, body: F) -> Self
    where
        F: AsyncFnOnce(Cluster) -> Result<()> + Send + 'static,
    {
        Self::of(name, Kind::Working, body)
    }

    /// As [`Test::new`], one that mostly waits; it runs beside as many others as there are without it.
    pub fn waiting<F>(name: &'static str, body: F) -> Self
    where
        F: AsyncFnOnce(Cluster) -> Result<()> + Send + 'static,
    {
        Self::of(name, Kind::Waiting, body)
    }

    /// A test that disturbs nodes or other tests; it runs after the others, by itself.
    pub fn alone<F>(name: &'static str, body: F) -> Self
    where
        F: AsyncFnOnce(Cluster) -> Result<()> + Send + 'static,
    {
        Self::of(name, Kind::Alone, body)
    }

    fn of<F>(name: &'static str, kind: Kind, body: F) -> Self
    where
        F: AsyncFnOnce(Cluster) -> Result<()> + Send + 'static,
    {
        Self { name, kind, body: Box::new(move |turns| in_turn(name, kind, turns, body)) }
    }
}

fn in_turn(
    name: &str,
    kind: Kind,
    turns: &Turns,
    body: impl AsyncFnOnce(Cluster) -> Result<()>,
) -> Result<()> {
    // A client lives on the runtime that made it, so each test has its own of both.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let turn = turns.take(kind).await?;
        let began = Instant::now();
        let result = body(Cluster::current()?.in_turn(turn)).await;
        eprintln!("{name}: {:.1} s", began.elapsed().as_secs_f64());
        result
    })
}

/// What a suite needs around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Two nodes and all that belongs to them.
    Whole,
    /// etcd and the API server alone.
    Bare,
}

/// Runs the tests as `cargo test` would; outside of a cluster there are none, which in CI is an error. Nor are there in
/// a cluster of another extent.
pub fn run(extent: Extent, mut tests: Vec<Test>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let inside = match std::env::var(INSIDE) {
        Ok(name) if name == LATER => false,
        Ok(_) => (extent == Extent::Bare) == std::env::var_os(BARE).is_some(),
        Err(_) => {
            eprintln!("\n*** CLUSTER TESTS DO NOT RUN HERE: they need `make cluster-test` ***\n");
            if !arguments.list && std::env::var("CI").is_ok_and(|value| value == "true") {
                return ExitCode::FAILURE;
            }
            false
        }
    };
    if !inside {
        tests.clear();
    }
    // Those that are alone come last.
    tests.sort_by_key(|test| test.kind == Kind::Alone);
    let turns = Turns::new();
    let failures = Arc::new(Mutex::new(Vec::new()));
    let trials = tests.into_iter().map(|test| {
        let (turns, failures) = (turns.clone(), Arc::clone(&failures));
        let name = test.name;
        Trial::test(name, move || {
            (test.body)(&turns).map_err(|error| {
                // Without a backtrace, which would be longer than what it explains.
                let text = format!("{error:#}");
                failures.lock().push(format!("{name}: {}", brief(&text)));
                Failed::from(text)
            })
        })
    });
    let code = libtest_mimic::run(&arguments, trials.collect()).exit_code();
    // Last, since a reader of a long log sees its end first.
    for failure in failures.lock().iter() {
        eprintln!("FAILED {failure}");
    }
    code
}

/// The message of a failure on one line, of bounded length: its start, and its end where a status stands.
fn brief(text: &str) -> String {
    const KEPT: usize = 1_500;
    let line: Vec<_> = text.split_whitespace().collect();
    let line = line.join(" ");
    if line.len() <= 2 * KEPT {
        return line;
    }
    let (head, tail) = (line.floor_char_boundary(KEPT), line.ceil_char_boundary(line.len() - KEPT));
    format!("{} ... {}", &line[..head], &line[tail..])
}
