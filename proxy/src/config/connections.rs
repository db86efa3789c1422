//! What listeners allow: open connections, and how slowly clients may send.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};

use crate::net::{Limits, body::Pace};

/// Limits of one listener and of the request bodies that come over it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Connections {
    /// Open connections; beyond it accepting waits.
    pub max: usize,
    /// Longest arrival of a request's head.
    #[serde(with = "duration")]
    pub head_timeout: Duration,
    /// How long a connection without requests is kept.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Longest silence in a request's body, and the time over which its rate is averaged.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// Least rate of a request's body, a second.
    pub body_rate: ByteSize,
}

impl Default for Connections {
    fn default() -> Self {
        let (limits, pace) = (Limits::default(), Pace::default());
        Self {
            max: limits.max_connections,
            head_timeout: limits.head_timeout,
            idle_timeout: limits.idle_timeout,
            body_timeout: pace.window,
            body_rate: ByteSize::b(pace.bytes_per_second),
        }
    }
}

impl Connections {
    /// What the listener allows.
    pub fn limits(&self) -> Limits {
        Limits { max_connections: self.max, head_timeout: self.head_timeout, idle_timeout: self.idle_timeout }
    }

    /// How fast bodies must come.
    pub fn pace(&self) -> Pace {
        Pace { window: self.body_timeout, bytes_per_second: self.body_rate.as_u64() }
    }

    /// What of these cannot be: the field and the reason.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let times = [
            ("head_timeout", self.head_timeout),
            ("idle_timeout", self.idle_timeout),
            ("body_timeout", self.body_timeout),
        ];
        if self.max == 0 {
            return Some(("max", "must be at least 1"));
        }
        times.into_iter().find(|(_, time)| time.is_zero()).map(|(field, _)| (field, "must be longer than 0"))
    }
}
