//! Why a caller is refused, and the reply to it.

use std::time::Duration;

use http::StatusCode;

/// What is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds of audio that are heard.
    AudioSeconds,
    /// Characters that are spoken.
    Characters,
}

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
    /// Too many requests came in a minute.
    #[error("the limit of {limit} requests a minute is reached; retry in {} s", seconds(*retry_after))]
    Requests {
        /// Requests a minute.
        limit: u32,
        /// When the next one may come.
        retry_after: Duration,
    },
    /// Too many requests run.
    #[error("{limit} requests of this API key are in progress, which is its limit; retry when one has ended")]
    Jobs {
        /// Requests at a time.
        limit: u32,
    },
    /// Too many sessions are open.
    #[error("{limit} sessions of this API key are open, which is its limit; retry when one has ended")]
    Streams {
        /// Sessions at a time.
        limit: u32,
    },
    /// The day's quota is used up, or too small for this.
    #[error(
        "the quota of {} does not allow this; it begins anew in {} s", quota(*unit, *limit), seconds(*retry_after)
    )]
    Day {
        /// What is used up.
        unit: Unit,
        /// What there is in a day: seconds, characters.
        limit: f64,
        /// When the next day begins.
        retry_after: Duration,
    },
}

fn seconds(time: Duration) -> u64 {
    time.as_secs_f64().ceil() as u64
}

fn quota(unit: Unit, limit: f64) -> String {
    match unit {
        Unit::AudioSeconds => format!("{} minutes of audio a day", limit / 60.0),
        Unit::Characters => format!("{limit} characters a day"),
    }
}

impl Refused {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::Wrong { .. } | Self::Expired { .. } => StatusCode::UNAUTHORIZED,
            Self::Scope { .. } => StatusCode::FORBIDDEN,
            Self::TooManyTries { .. }
            | Self::Requests { .. }
            | Self::Jobs { .. }
            | Self::Streams { .. }
            | Self::Day { .. } => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// Machine-readable reason.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing_api_key",
            Self::Wrong { .. } | Self::Expired { .. } => "invalid_api_key",
            Self::TooManyTries { .. } => "too_many_failed_tries",
            Self::Scope { .. } => "insufficient_permissions",
            Self::Requests { .. } | Self::Jobs { .. } => "rate_limit_exceeded",
            Self::Streams { .. } => "too_many_sessions",
            Self::Day { .. } => "insufficient_quota",
        }
    }

    /// The quota that is used up, by the name that metrics and tldw's clients have for it.
    pub fn quota(&self) -> Option<&'static str> {
        match self {
            Self::Requests { .. } => Some("requests_per_minute"),
            Self::Jobs { .. } => Some("concurrent_jobs"),
            Self::Streams { .. } => Some("concurrent_streams"),
            Self::Day { unit: Unit::AudioSeconds, .. } => Some("daily_minutes"),
            Self::Day { unit: Unit::Characters, .. } => Some("daily_characters"),
            Self::Missing
            | Self::Wrong { .. }
            | Self::Expired { .. }
            | Self::TooManyTries { .. }
            | Self::Scope { .. } => None,
        }
    }

    /// When a retry may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyTries { retry_after }
            | Self::Requests { retry_after, .. }
            | Self::Day { retry_after, .. } => Some(*retry_after),
            // When one ends cannot be known.
            Self::Jobs { .. } | Self::Streams { .. } => Some(Duration::from_secs(1)),
            Self::Missing | Self::Wrong { .. } | Self::Expired { .. } | Self::Scope { .. } => None,
        }
    }
}
