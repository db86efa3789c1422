//! Log lines on standard error.

use anyhow::Context;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::LogFormat;

/// Starts logging; lines carry fields, never secrets.
pub fn start(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let targets: Targets = filter.parse().with_context(|| format!("--log {filter:?}"))?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(targets);
    match format {
        LogFormat::Text => registry.with(lines).init(),
        LogFormat::Json => registry.with(lines.json()).init(),
    }
    Ok(())
}
