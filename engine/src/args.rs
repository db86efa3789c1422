//! Command line and environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::app::Config;
use crate::backend::Models;
use crate::check::CheckArgs;
use crate::kind::Kind;
use crate::lane::Pace;
use crate::neural::quantize::Precision;
use crate::protocol::{self, Protocol};
use crate::say::SayArgs;

/// Speech engine of SpeechStack for machines without a GPU.
///
/// It speaks the protocols of GPU speech engines, by neural networks on a CPU, and can play every way in which such an engine
/// fails. Without its models it works with libflite and libpocketsphinx: for tests and demos, never for production speech.
#[derive(Debug, Parser)]
#[command(version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// What to serve: stt recognizes, tts synthesizes, llm answers by templates, for tests of conversations alone
    #[arg(long, value_enum, required = true, env = "SPEECHSTACK_ENGINE_KIND")]
    pub kind: Option<Kind>,
    /// Protocols to speak, separated by commas [default: parakeet for stt, magpie for tts, openai for llm]
    #[arg(long, value_name = "NAME", value_delimiter = ',', env = "SPEECHSTACK_ENGINE_PROTOCOL")]
    pub protocol: Vec<Protocol>,
    /// Address of the HTTP protocols, of health and of the fault switchboard
    #[arg(long, default_value = "127.0.0.1:9101", env = "SPEECHSTACK_ENGINE_LISTEN")]
    pub listen: SocketAddr,
    /// Address of the gRPC protocols
    #[arg(long, value_name = "ADDRESS", env = "SPEECHSTACK_ENGINE_GRPC")]
    pub grpc: Option<SocketAddr>,
    /// The API key that requests of protocol openai must bear [default: none is asked for]
    #[arg(long, value_name = "KEY", env = "SPEECHSTACK_ENGINE_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Serve the fault switchboard at /_engine/fault
    #[arg(long, env = "SPEECHSTACK_ENGINE_FAULTS")]
    pub faults: bool,
    /// Make a job last at least A + B * audio seconds, given as A,B
    #[arg(long, value_name = "A,B", default_value = "0,0", env = "SPEECHSTACK_ENGINE_PACE")]
    pub pace: Pace,
    /// Jobs that run at a time, each with models of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16), env = "SPEECHSTACK_ENGINE_JOBS")]
    pub jobs: u8,
    /// Folder of neural models, as make models fetches them [default: none, pocketsphinx and flite are used]
    #[arg(long, value_name = "DIR", env = "SPEECHSTACK_ENGINE_MODELS")]
    pub models: Option<PathBuf>,
    /// Folder of an NVIDIA Parakeet TDT in ONNX, as onnx-asr or sherpa-onnx have it, to recognize instead of Whisper
    #[arg(long, value_name = "DIR", env = "SPEECHSTACK_ENGINE_MODEL_DIR")]
    pub model_dir: Option<PathBuf>,
    /// Threads of neural networks, 0 for one on each core and at most 8
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=64), env = "SPEECHSTACK_ENGINE_THREADS")]
    pub threads: u8,
    /// Weights of Whisper: 32 bits, 8 bits, or mixed: 8 bits in the decoder [default: mixed where the processor multiplies bytes
    /// exactly, else 32]
    #[arg(long, value_enum, env = "SPEECHSTACK_ENGINE_PRECISION")]
    pub precision: Option<Precision>,
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
    /// Say what a folder of a model holds, whether it runs, and how fast
    Check(CheckArgs),
}

impl Args {
    /// The configuration to serve with; `None` without a kind, which the parser demands.
    ///
    /// # Errors
    /// When the protocols do not go together.
    pub fn config(&self) -> Result<Option<Config>, protocol::Error> {
        let Some(kind) = self.kind else { return Ok(None) };
        let mut protocols = self.protocol.clone();
        if protocols.is_empty() {
            protocols.push(Protocol::default_of(kind));
        }
        protocol::check(kind, &protocols, self.grpc)?;
        Ok(Some(Config {
            kind,
            protocols,
            listen: self.listen,
            grpc: self.grpc,
            api_key: self.api_key.clone(),
            faults: self.faults,
            pace: self.pace,
            jobs: usize::from(self.jobs),
            models: Models {
                folder: self
                    .models
                    .clone()
                    .filter(|folder| !folder.as_os_str().is_empty() && folder.as_os_str() != "none"),
                parakeet: self.model_dir.clone(),
                threads: usize::from(self.threads),
                precision: self.precision,
            },
            state_dir: self.state_dir.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split(' '))
    }

    fn names(line: &str) -> Vec<&'static str> {
        let config = parse(line).unwrap().config().unwrap().unwrap();
        config.protocols.iter().map(|protocol| protocol.name()).collect()
    }

    #[test]
    fn serving_needs_a_kind_and_saying_does_not() {
        assert!(parse("engine").is_err());
        let args = parse("engine --kind tts --listen 127.0.0.1:0 --faults --pace 0.1,0.02 --jobs 4").unwrap();
        let config = args.config().unwrap().unwrap();
        assert_eq!(config.pace, Pace { fixed_s: 0.1, per_audio_second: 0.02 });
        assert_eq!(config.jobs, 4);
        for jobs in ["0", "17", "x"] {
            assert!(parse(&format!("engine --kind tts --jobs {jobs}")).is_err(), "{jobs}");
        }
        let say = parse("engine say --out f.wav hello").unwrap();
        assert!(matches!(say.command, Some(Command::Say(_))) && say.config().unwrap().is_none());
        assert!(parse("engine --kind whisper").is_err());
    }

    #[test]
    fn protocols_default_by_kind_and_must_go_together() {
        assert_eq!(names("engine --kind stt"), ["parakeet"]);
        assert_eq!(names("engine --kind tts"), ["magpie"]);
        let both = "engine --kind stt --protocol nim_http,riva --grpc 127.0.0.1:0";
        assert_eq!(names(both), ["nim_http", "riva"]);
        assert!(parse("engine --kind stt --protocol riva").unwrap().config().is_err());
        let unknown = parse("engine --kind stt --protocol whisper").unwrap_err().to_string();
        assert!(unknown.contains("nim_http"), "{unknown}");
    }

    #[test]
    fn help_says_what_it_is_not_for() {
        let help = parse("engine --help").unwrap_err().to_string();
        assert!(help.contains("never for production speech"), "{help}");
    }
}
