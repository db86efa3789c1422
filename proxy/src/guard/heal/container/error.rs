//! Why a container engine does not do what it should, and which field of the configuration mends it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a container cannot be looked at, created or restarted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no socket.
    #[error(
        "engines[].container.socket: no container engine has a socket at {tried}; start Docker, or Podman's by \
         `systemctl enable --now podman.socket`, or name the socket"
    )]
    NoSocket {
        /// Where it was looked for.
        tried: String,
    },
    /// The socket belongs to others.
    #[error(
        "engines[].container.socket: no permission to use {}; run as root or in the group of the socket, or use Podman without root",
        path.display()
    )]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// Nothing answers.
    #[error("engines[].container.socket: unable to connect to {}: {source}; is the container engine running?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The container does not exist.
    #[error(
        "engines[].container.name: there is no container {name:?}; create it, or set engines[].container.image so that it is created"
    )]
    Absent {
        /// Its name.
        name: String,
    },
    /// The image does not exist here.
    #[error("engines[].container.image: {image:?} is not on this machine; pull it first")]
    NoImage {
        /// Its name.
        image: String,
    },
    /// The value of a variable cannot be read.
    #[error("engines[].container.env_files: unable to read {} for {variable}: {source}", path.display())]
    EnvFile {
        /// The variable.
        variable: String,
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A field that cannot be.
    #[error("{field} {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The container engine refuses.
    #[error("the container engine refuses to {what} the container: {status} {message}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Its HTTP status.
        status: u16,
        /// Its message.
        message: String,
    },
    /// The container engine does not answer in time.
    #[error("the container engine at {} does not answer when asked to {what} the container", path.display())]
    Silent {
        /// What was asked for.
        what: &'static str,
        /// The socket.
        path: PathBuf,
    },
    /// The socket fails, or its answer is none.
    #[error("unable to {what} the container: {source}")]
    Api {
        /// What was asked for.
        what: &'static str,
        /// The reason.
        #[source]
        source: Box<bollard::errors::Error>,
    },
}

impl Error {
    /// What a failed call means.
    pub(super) fn of(what: &'static str, path: &Path, source: bollard::errors::Error) -> Self {
        use bollard::errors::Error as Api;
        match source {
            Api::DockerResponseServerError { status_code: status, message } => {
                Self::Refused { what, status, message }
            }
            Api::SocketNotFoundError(tried) => Self::NoSocket { tried },
            Api::RequestTimeoutError => Self::Silent { what, path: path.into() },
            source => Self::Api { what, source: Box::new(source) },
        }
    }
}
