//! Log lines on standard error, written by a thread of their own: a slow reader of the log holds up no request.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::LogFormat;

/// Lines that wait for the log's reader; beyond it new ones are dropped.
const MAX_LINES: usize = 8_192;

/// Starts logging; lines carry fields, never audio or text of users. Dropping what is returned writes the lines that wait.
///
/// # Errors
/// When the filter cannot be read.
pub fn start(filter: &str, format: LogFormat) -> anyhow::Result<WorkerGuard> {
    let targets: Targets = filter.parse().with_context(|| format!("--log {filter:?}"))?;
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(MAX_LINES).lossy(true).finish(std::io::stderr());
    let lines = fmt::layer().with_writer(writer).with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(targets);
    match format {
        LogFormat::Text => registry.with(lines).init(),
        LogFormat::Json => registry.with(lines.json()).init(),
    }
    Ok(guard)
}
