//! Classifies what an attempt showed: a reply for the client, or a failure that another engine may make good.

use std::time::Duration;

use ::http::{HeaderMap, StatusCode};

use contract::{Capability, Class, header};

use crate::error::Error;

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Refused,
    /// The connection ended before a reply.
    Reset,
    /// No reply long after any was due.
    Silent,
    /// The engine's queue is full.
    Busy,
    /// The guard gave the job up.
    Deadline,
    /// The fault lies with the engine.
    Faulty(Option<Class>),
    /// A good status, and a reply that broke off.
    Broken,
    /// A good status, and a reply that is not what the protocol sends.
    Malformed,
    /// It does not know the request.
    Unserved,
    /// An error that no guard vouches for: another engine may well show it too.
    Internal,
}

impl Failure {
    /// The failure in a reply's head; `None` when the reply is the client's, 2xx or 4xx.
    pub fn of_reply(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        let class = headers.get(header::CLASS).and_then(|value| value.to_str().ok()).and_then(Class::parse);
        let elsewhere = headers.get(header::RETRY).is_some_and(|value| value == "elsewhere");
        match status {
            StatusCode::TOO_MANY_REQUESTS => Some(Self::Busy),
            StatusCode::GATEWAY_TIMEOUT => Some(Self::Deadline),
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => Some(Self::Faulty(class)),
            _ if elsewhere => Some(Self::Faulty(class)),
            _ if status.is_server_error() => Some(Self::Internal),
            _ => None,
        }
    }

    /// Whether another engine may serve the same request.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Internal => false,
            Self::Refused
            | Self::Reset
            | Self::Silent
            | Self::Busy
            | Self::Deadline
            | Self::Broken
            | Self::Malformed
            | Self::Unserved
            | Self::Faulty(_) => true,
        }
    }

    /// Whether the same engine may be asked once more when there is no other: it took the job, and its reply was lost.
    pub fn is_worth_repeating(self) -> bool {
        matches!(self, Self::Broken | Self::Malformed)
    }

    /// Whether the engine spent its full time on the request, so that few more tries are affordable.
    pub fn is_timeout(self) -> bool {
        match self {
            Self::Silent | Self::Deadline => true,
            Self::Refused
            | Self::Reset
            | Self::Busy
            | Self::Faulty(_)
            | Self::Broken
            | Self::Malformed
            | Self::Unserved
            | Self::Internal => false,
        }
    }

    /// What the client's error says.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::Reset => "connection lost",
            Self::Silent => "no answer",
            Self::Busy => "queue full",
            Self::Deadline => "out of time",
            Self::Faulty(Some(Class::Sticky | Class::Capture)) => "its GPU context is lost",
            Self::Faulty(Some(Class::DeviceLost)) => "its GPU is lost",
            Self::Faulty(Some(Class::Memory)) => "out of GPU memory",
            Self::Faulty(Some(Class::Environment)) => "its driver or image does not fit",
            Self::Faulty(Some(Class::Quality)) => "it answered nonsense",
            Self::Faulty(Some(Class::Hang)) => "it hangs",
            Self::Faulty(Some(Class::Refused)) => "it is not running",
            Self::Faulty(Some(Class::Ambiguous | Class::Periodic | Class::Trend | Class::Xid) | None) => {
                "engine fault"
            }
            Self::Broken => "its reply broke off",
            Self::Malformed => "its reply is malformed",
            Self::Unserved => "it does not know the request",
            Self::Internal => "internal error",
        }
    }

    /// What the client gets when nothing else is left. Any timeout is final, so that a long job does not run
    /// again and again; else a full queue is, because waiting helps.
    pub fn error(failures: &[Failure], capability: Capability, retry_after: Duration) -> Option<Error> {
        let last = *failures.last()?;
        Some(if failures.iter().any(|failure| failure.is_timeout()) {
            Error::Deadline { capability }
        } else if failures.contains(&Self::Busy) {
            Error::Overloaded { capability, retry_after }
        } else {
            Error::EngineFailed { capability, reason: last.reason(), retry_after }
        })
    }
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    #[test]
    fn replies_are_distinguished_from_failures() {
        let none = HeaderMap::new();
        let mut elsewhere = HeaderMap::new();
        elsewhere.insert(header::RETRY, HeaderValue::from_static("elsewhere"));
        elsewhere.insert(header::CLASS, HeaderValue::from_static("A"));
        let of = |status: u16, headers| Failure::of_reply(StatusCode::from_u16(status).unwrap(), headers);
        for status in [200, 206, 400, 404, 413, 415, 422] {
            assert_eq!(of(status, &none), None);
        }
        assert_eq!(of(429, &none), Some(Failure::Busy));
        assert_eq!(of(500, &none), Some(Failure::Internal));
        assert_eq!(of(500, &elsewhere), Some(Failure::Faulty(Some(Class::Sticky))));
        assert_eq!(of(400, &elsewhere), Some(Failure::Faulty(Some(Class::Sticky))));
        assert_eq!(of(503, &none), Some(Failure::Faulty(None)));
        assert_eq!(of(504, &elsewhere), Some(Failure::Deadline));
    }

    #[test]
    fn the_client_gets_the_error_that_helps_most() {
        let capability = Capability::Stt;
        let error = |failures: &[Failure]| Failure::error(failures, capability, Duration::from_secs(3));
        assert_eq!(error(&[]), None);
        assert_eq!(error(&[Failure::Deadline, Failure::Busy]), Some(Error::Deadline { capability }));
        assert!(matches!(error(&[Failure::Busy, Failure::Faulty(None)]), Some(Error::Overloaded { .. })));
        assert!(matches!(
            error(&[Failure::Refused, Failure::Reset]),
            Some(Error::EngineFailed { reason: "connection lost", .. })
        ));
    }
}
