//! Entry point of `speechstack-proxy`.

use clap::Parser;
use speechstack_proxy::{app, args, logging};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = args::Args::parse();
    logging::start(&args.log, args.log_format)?;
    app::run(args.command).await
}
