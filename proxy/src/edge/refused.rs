//! Why a caller is refused, and what is told of it.

use std::time::Duration;

use http::StatusCode;

/// Why a caller is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    /// There is no key where one is needed.
    #[error("no API key was given: send it as `Authorization: Bearer KEY`")]
    Missing,
    /// The key is none that is known.
    #[error("incorrect API key: {masked}")]
    Wrong {
        /// The key as it may be shown.
        masked: String,
    },
    /// The time of the key is over.
    #[error("the API key {masked} has expired; ask for a new one")]
    Expired {
        /// The key as it may be shown.
        masked: String,
    },
    /// The address has sent too many wrong keys.
    #[error("too many wrong API keys came from this address; retry later")]
    TooManyTries {
        /// When it may try again.
        retry_after: Duration,
    },
    /// The key is good, and not for this.
    #[error("this API key may not {what}")]
    Scope {
        /// What it may not do.
        what: String,
    },
}

impl Refused {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::Wrong { .. } | Self::Expired { .. } => StatusCode::UNAUTHORIZED,
            Self::Scope { .. } => StatusCode::FORBIDDEN,
            Self::TooManyTries { .. } => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// Machine-readable reason.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing_api_key",
            Self::Wrong { .. } | Self::Expired { .. } => "invalid_api_key",
            Self::TooManyTries { .. } => "too_many_failed_tries",
            Self::Scope { .. } => "insufficient_permissions",
        }
    }

    /// When a retry may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyTries { retry_after } => Some(*retry_after),
            Self::Missing | Self::Wrong { .. } | Self::Expired { .. } | Self::Scope { .. } => None,
        }
    }
}
