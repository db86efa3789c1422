//! Why a command failed, and the exit code of that.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::StatusCode;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The input or output of the program.
    #[error("{0}")]
    Stream(#[from] std::io::Error),
    /// No HTTP client could be made.
    #[error("unable to make an HTTP client: {0}")]
    Client(reqwest::Error),
    /// No answer.
    #[error(
        "no answer from {server} ({reason}); is that the gateway? --server or SPEECHSTACK_URL names another"
    )]
    Silent {
        /// The gateway.
        server: String,
        /// The innermost cause.
        reason: String,
    },
    /// The gateway refused.
    #[error("{message}{}", retry.map(|wait| format!(" (again in {} s)", wait.as_secs())).unwrap_or_default())]
    Refused {
        /// Its status.
        status: StatusCode,
        /// What it says.
        message: String,
        /// When to try again, where it says so.
        retry: Option<Duration>,
    },
    /// An answer of an unexpected form.
    #[error("unexpected answer to {what}: {reason}; is {server} a SpeechStack gateway?")]
    Unreadable {
        /// The call.
        what: &'static str,
        /// The gateway.
        server: String,
        /// What is wrong.
        reason: String,
    },
    /// A job failed or was ended by somebody.
    #[error("job {id}: {reason}")]
    Job {
        /// The job.
        id: String,
        /// What the gateway says.
        reason: String,
    },
    /// Some of several files failed; each was reported.
    #[error("{failed} of {all} files failed")]
    Some {
        /// How many.
        failed: usize,
        /// Of how many.
        all: usize,
        /// The exit code.
        code: u8,
    },
    /// The stack cannot serve.
    #[error("not ready: {0}")]
    NotReady(String),
    /// Ended by the user.
    #[error("interrupted; the gateway keeps jobs and uploads, and the same command goes on with them")]
    Interrupted,
}

impl Error {
    /// Whether the same may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Silent { .. } | Self::NotReady(_) => true,
            Self::Refused { status, .. } => {
                *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
                    || *status == StatusCode::LOCKED
                    || (status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED)
            }
            _ => false,
        }
    }

    /// Whether the gateway answered with that status.
    pub fn is(&self, refusal: StatusCode) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == refusal)
    }

    /// The exit code of the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Interrupted => 130,
            Self::Some { code, .. } => *code,
            _ if self.is_temporary() => 3,
            _ => 1,
        }
    }
}
