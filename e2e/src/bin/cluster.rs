//! Starts and ends a real Kubernetes cluster of two nodes, and runs commands in it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use speechstack_e2e::cluster::layout::Layout;
use speechstack_e2e::cluster::{boot, images, sandbox};

/// A real Kubernetes cluster of two nodes on this machine, in namespaces of its own.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster, run a command in it, end it.
    Run {
        /// Clusters of different names can run side by side.
        #[arg(long, default_value = "test")]
        name: String,
        /// Only etcd and an API server that counts the operator's requests: no nodes, controllers or images.
        #[arg(long)]
        bare: bool,
        /// What to run; without it the cluster runs until it is ended by a signal.
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Start a cluster that stays.
    Up {
        /// The cluster's name.
        #[arg(long, default_value = "dev")]
        name: String,
    },
    /// End a cluster that was started by `up`.
    Down {
        /// The cluster's name.
        #[arg(long, default_value = "dev")]
        name: String,
    },
    /// Run a command, or a shell, in a running cluster.
    Enter {
        /// The cluster's name.
        #[arg(long, default_value = "dev")]
        name: String,
        /// What to run.
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Build the images that clusters load, where a binary has changed.
    Images {
        /// A folder of neural models: build the engine's image with them too, which `up` loads
        #[arg(long, value_name = "DIR")]
        models: Option<PathBuf>,
        /// Build operator and proxy for arm64 too, and manifest lists of both architectures
        #[arg(long, conflicts_with = "models")]
        lists: bool,
    },
    /// Be the first process of the namespaces.
    #[command(hide = true)]
    First {
        #[arg(long)]
        name: String,
        #[arg(long)]
        bare: bool,
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Start the cluster inside its namespaces.
    #[command(hide = true)]
    Boot {
        #[arg(long)]
        name: String,
        #[arg(long)]
        bare: bool,
        #[arg(last = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let ended = match Args::parse().command {
        // Not on a runtime: the first process waits for every child there is.
        Command::First { name, bare, command } => {
            Layout::new(&name).and_then(|layout| sandbox::first(&layout, bare, &command))
        }
        command => run(command),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("cluster: {error:#}");
        ExitCode::FAILURE
    })
}

#[tokio::main(flavor = "current_thread")]
async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run { name, bare, command } => {
            if let Some(obstacle) = sandbox::obstacle() {
                return skip(&obstacle);
            }
            return sandbox::run(&Layout::new(&name)?, bare, &command).await;
        }
        Command::Boot { name, bare, command } => {
            return boot::boot(&Layout::new(&name)?, bare, &command).await;
        }
        Command::Up { name } => {
            if let Some(obstacle) = sandbox::obstacle() {
                bail!("{obstacle}");
            }
            let layout = Layout::new(&name)?;
            sandbox::up(&layout).await?;
            let enter = sandbox::write_enter(&layout)?;
            println!("The cluster is ready. Its network is its own, so enter it:");
            println!("  {}            # a shell; or a command: kubectl, helm, curl", enter.display());
            println!("Inside, KUBECONFIG is {}", layout.kubeconfig("admin").display());
            println!("and service names such as NAME.NAMESPACE resolve. `make cluster-down` ends it.");
        }
        Command::Down { name } => sandbox::down(&Layout::new(&name)?).await?,
        Command::Enter { name, command } => sandbox::enter(&Layout::new(&name)?, &command)?,
        Command::Images { models, lists } => match models {
            Some(models) => images::build_models(&Layout::new("images")?, &models).await?,
            None if lists => images::build_lists(&Layout::new("images")?).await?,
            None => images::build(&Layout::new("images")?).await?,
        },
        Command::First { .. } => bail!("only the start of the program"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Where a cluster is impossible its tests are left out, but never silently and never in CI.
fn skip(obstacle: &str) -> Result<ExitCode> {
    eprintln!("\n*** CLUSTER TESTS SKIPPED: {obstacle} ***\n");
    if std::env::var("CI").is_ok_and(|value| value == "true") {
        bail!("in CI the cluster tests must run");
    }
    Ok(ExitCode::SUCCESS)
}
