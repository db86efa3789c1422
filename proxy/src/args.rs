//! The command line: every flag has an environment variable.

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::reload::File;
use crate::keys;
use crate::roundtrip::Roundtrip;

/// OpenAI-compatible audio gateway and self-healing guard for speech engines.
#[derive(Clone, Debug, Parser)]
#[command(name = "speechstack-proxy", version)]
pub struct Args {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
    /// Which log lines are written, as in `info,speechstack_proxy=debug`.
    #[arg(long, env = "SPEECHSTACK_LOG", default_value = "info", global = true)]
    pub log: String,
    /// How log lines look.
    #[arg(long, env = "SPEECHSTACK_LOG_FORMAT", default_value = "text", global = true)]
    pub log_format: LogFormat,
}

/// What to run.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// The public API in front of all guards that the file lists.
    Gateway(File),
    /// The guard of one engine.
    Guard {
        /// The file.
        #[command(flatten)]
        file: File,
        /// Which engine of the file; not needed when there is only one.
        #[arg(long, env = "SPEECHSTACK_ENGINE")]
        engine: Option<String>,
    },
    /// Gateway and guards in one process, engines as its children: a whole stack on one machine.
    Standalone(File),
    /// Makes, lists and revokes API keys in a file.
    Keys(keys::Order),
    /// Speaks a sentence through a gateway, transcribes it back, and compares.
    Roundtrip(Roundtrip),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
