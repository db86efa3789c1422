//! Command line and environment.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Speech at a terminal: transcribes files and speaks text over a SpeechStack gateway.
///
/// Exit codes: 0 all is done; 1 a file or request failed; 2 wrong usage; 3 the gateway or its engines cannot serve now, try
/// again later; 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "speechstack", version)]
pub struct Args {
    /// The gateway
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SPEECHSTACK_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub server: String,
    /// An API key of the gateway, where it asks for one
    #[arg(long, global = true, env = "SPEECHSTACK_API_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// No progress on stderr
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write down what is said in files
    Transcribe(Transcribe),
    /// Speak a text
    Speak(Speak),
    /// Transcriptions in the background: list them, wait for one, fetch its result
    Jobs(Jobs),
    /// The engines of the stack, what they do and their last repairs
    Status(Status),
    /// Print the completion of a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Arguments of `transcribe`.
#[derive(Debug, clap::Args)]
pub struct Transcribe {
    /// Audio or video files; a pattern such as 'talks/**/*.mp3' in quotes is expanded here
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,
    /// The form of a transcript
    #[arg(long, short, value_enum, default_value_t = Format::Txt)]
    pub format: Format,
    /// Say who speaks
    #[arg(long)]
    pub speakers: bool,
    /// Write DIR/NAME.FORMAT for each file instead of printing; files that have one already are left out
    #[arg(long, short, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// With --out: write down again what is there already
    #[arg(long, requires = "out")]
    pub force: bool,
    /// A model of the gateway
    #[arg(long)]
    pub model: Option<String>,
    /// The language, such as en or de-DE; heard by the engine if not given
    #[arg(long)]
    pub language: Option<String>,
    /// Words and names that occur
    #[arg(long)]
    pub prompt: Option<String>,
    /// Files at a time
    #[arg(long, short, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub parallel: u8,
    /// Send the file in parts and let the gateway work in the background whatever its size, so that a broken connection
    /// or an interruption loses nothing: the same command goes on; from 8 MB on it does so if the gateway can
    #[arg(long)]
    pub job: bool,
}

/// Forms of a transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Plain text
    Txt,
    /// SubRip subtitles
    Srt,
    /// WebVTT subtitles
    Vtt,
    /// Words and segments with their times
    Json,
}

/// Arguments of `speak`.
#[derive(Debug, clap::Args)]
pub struct Speak {
    /// The text; read from the input if not given
    pub text: Vec<String>,
    /// The file to write; its ending gives the format. Without it the audio goes to the output, if that is no terminal
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// mp3, opus, aac, flac, wav or pcm [default: by the file's ending, else mp3]
    #[arg(long, short)]
    pub format: Option<String>,
    /// A voice of the gateway
    #[arg(long, default_value = "alloy")]
    pub voice: String,
    /// A model of the gateway
    #[arg(long, default_value = "tts-1")]
    pub model: String,
    /// 0.25 to 4
    #[arg(long)]
    pub speed: Option<f32>,
}

/// Arguments of `jobs`.
#[derive(Debug, clap::Args)]
pub struct Jobs {
    /// What to do [default: list]
    #[command(subcommand)]
    pub command: Option<JobCommand>,
}

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// The newest jobs
    List {
        /// At most so many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=100))]
        limit: u16,
    },
    /// Wait for the end of a job and print its transcript
    Wait {
        /// The job
        id: String,
        /// The form of the transcript
        #[arg(long, short, value_enum, default_value_t = Format::Txt)]
        format: Format,
    },
    /// Print the transcript of a job that has ended
    Result {
        /// The job
        id: String,
        /// The form of the transcript
        #[arg(long, short, value_enum, default_value_t = Format::Txt)]
        format: Format,
    },
    /// End jobs
    Cancel {
        /// The jobs
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// End and forget jobs
    Delete {
        /// The jobs
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// As the gateway gives it
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_well_formed() {
        Args::command().debug_assert();
    }
}
