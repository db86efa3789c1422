//! The operator's entry point.

use clap::Parser;
use speechstack_operator::args::{Args, Command};
use speechstack_operator::{app, logging};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Crd => {
            print!("{}", speechstack_crds::yaml()?);
            Ok(())
        }
        Command::Run(run) => {
            logging::start(&run.log, run.log_format)?;
            app::run(run.normalised()).await
        }
    }
}
