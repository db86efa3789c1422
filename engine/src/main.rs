//! Entry point of `speechstack-engine`.

use clap::Parser;
use speechstack_engine::args::{Args, Command};
use speechstack_engine::{app, check, say};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let asked = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let targets = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer();
    tracing_subscriber::registry().with(targets).with(lines.with_writer(std::io::stderr)).init();
    match (&args.command, args.config()?) {
        (Some(Command::Say(say)), _) => say::run(say),
        (Some(Command::Check(check)), _) => check::run(check),
        (None, Some(config)) => app::run(config),
        (None, None) => anyhow::bail!("--kind is missing"),
    }
}
