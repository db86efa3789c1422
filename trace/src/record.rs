//! What is recorded of a span: its name, its times, and what is known of it.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

use crate::context::{SpanId, TraceId};

/// The side of a call that a span is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Within a process.
    Internal,
    /// A request that was received.
    Server,
    /// A request that was sent.
    Client,
}

/// What an attribute says. Never audio, never text of users, never keys.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Words.
    Text(Cow<'static, str>),
    /// A count or a status.
    Int(i64),
    /// Seconds.
    Float(f64),
    /// Whether it is so.
    Bool(bool),
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) trace: TraceId,
    pub(crate) id: SpanId,
    pub(crate) parent: Option<SpanId>,
    pub(crate) state: Option<HeaderValue>,
    pub(crate) name: Cow<'static, str>,
    pub(crate) kind: Kind,
    /// Unix time.
    pub(crate) started: Duration,
    /// Unix time.
    pub(crate) ended: Duration,
    pub(crate) attributes: Vec<(&'static str, Value)>,
    /// Why it counts as failed.
    pub(crate) error: Option<Cow<'static, str>>,
}

/// Since the beginning of Unix time; zero before it.
pub(crate) fn unix(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Int(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}
