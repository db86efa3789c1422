//! `speechstack`: a gateway at a terminal.

mod args;
mod client;
mod error;
mod files;
mod job;
mod jobs;
mod speak;
mod status;
mod transcribe;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Args, Command};
use client::Client;
use error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let ended = tokio::select! {
        ended = run(&args) => ended,
        _ = tokio::signal::ctrl_c() => Err(Error::Interrupted),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("speechstack: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(args: &Args) -> Result<(), Error> {
    let client = || Client::new(&args.server, args.key.as_deref());
    match &args.command {
        Command::Transcribe(order) => transcribe::run(&client()?, order, args.quiet).await,
        Command::Speak(order) => speak::run(&client()?, order).await,
        Command::Jobs(order) => jobs::run(&client()?, order, args.quiet).await,
        Command::Status(order) => status::run(&client()?, order).await,
        Command::Completion { shell } => {
            clap_complete::generate(*shell, &mut Args::command(), "speechstack", &mut std::io::stdout());
            Ok(())
        }
    }
}
