//! The operator's entry point.

use clap::Parser;
use speechstack_operator::args::{Args, Command};
use speechstack_operator::preset::Presets;
use speechstack_operator::{app, cli, logging};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// Each worker has a heap of its own, and two are enough for a thousand stacks on a node of any size.
#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Crd => {
            print!("{}", speechstack_crds::yaml()?);
            Ok(())
        }
        Command::Presets { file } => {
            println!("{}", Presets::load(file.as_deref())?.table());
            Ok(())
        }
        Command::Ask(ask) => {
            if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
                tracing::debug!("a crypto provider is installed already");
            }
            print!("{}", cli::answer(ask).await?);
            Ok(())
        }
        Command::Run(run) => {
            logging::start(&run.log, run.log_format)?;
            app::run(run.normalised()).await
        }
    }
}
