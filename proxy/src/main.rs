//! Entry point of `speechstack-proxy`.

use anyhow::Context;
use clap::Parser;
use speechstack_proxy::{app, args, logging};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = args::Args::parse();
    let _logging = logging::start(&args.log, args.log_format)?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.install_default().ok().context("another crypto provider is installed already")?;
    app::run(args.command).await
}
