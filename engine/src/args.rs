//! Command line and environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::app::{Config, Kind};
use crate::lane::Pace;
use crate::say::SayArgs;

/// Reference speech engine of SpeechStack: for tests and demos, never for production speech.
///
/// It speaks the HTTP dialects of GPU speech engines on a plain CPU, with libflite and libpocketsphinx, and can play
/// every way in which such an engine fails.
#[derive(Debug, Parser)]
#[command(version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Dialect to speak: parakeet recognizes, magpie synthesizes
    #[arg(long, value_enum, required = true, env = "SPEECHSTACK_ENGINE_KIND")]
    pub kind: Option<Kind>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:9101", env = "SPEECHSTACK_ENGINE_LISTEN")]
    pub listen: SocketAddr,
    /// Serve the fault switchboard at /_engine/fault
    #[arg(long, env = "SPEECHSTACK_ENGINE_FAULTS")]
    pub faults: bool,
    /// Make a job last at least A + B * audio seconds, given as A,B
    #[arg(long, value_name = "A,B", default_value = "0,0", env = "SPEECHSTACK_ENGINE_PACE")]
    pub pace: Pace,
    /// Where faults that survive a restart are kept [default: a folder in the temporary directory, named by the port]
    #[arg(long, value_name = "DIR", env = "SPEECHSTACK_ENGINE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Speak lines or a dialogue into a WAV file
    Say(SayArgs),
}

impl Args {
    /// The configuration to serve with; `None` without a kind, which the parser demands.
    #[must_use]
    pub fn config(&self) -> Option<Config> {
        Some(Config {
            kind: self.kind?,
            listen: self.listen,
            faults: self.faults,
            pace: self.pace,
            state_dir: self.state_dir.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split(' '))
    }

    #[test]
    fn serving_needs_a_kind_and_saying_does_not() {
        assert!(parse("engine").is_err());
        let args = parse("engine --kind tts --listen 127.0.0.1:0 --faults --pace 0.1,0.02").unwrap();
        assert_eq!(args.config().unwrap().pace, Pace { fixed_s: 0.1, per_audio_second: 0.02 });
        assert!(matches!(parse("engine say --out f.wav hello").unwrap().command, Some(Command::Say(_))));
        assert!(parse("engine --kind whisper").is_err());
    }

    #[test]
    fn help_says_what_it_is_not_for() {
        let help = parse("engine --help").unwrap_err().to_string();
        assert!(help.contains("never for production speech"), "{help}");
    }
}
