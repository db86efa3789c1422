//! Limits of streaming sessions.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};

/// What all sessions together and each of them may take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sessions {
    /// Sessions at a time; beyond it 429.
    pub max: usize,
    /// How long a session may bring nothing.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Longest session.
    #[serde(with = "duration")]
    pub max_length: Duration,
    /// Largest message; beyond it the session is closed.
    pub max_message: ByteSize,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            max: 4096,
            idle_timeout: Duration::from_secs(300),
            max_length: Duration::from_secs(2 * 3600),
            // OpenAI's limit of an event is 15 MiB.
            max_message: ByteSize::mib(16),
        }
    }
}

impl Sessions {
    /// What of these cannot be: the field and the reason.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let times = [("idle_timeout", self.idle_timeout), ("max_length", self.max_length)];
        if self.max_message.as_u64() == 0 {
            return Some(("max_message", "must be more than 0"));
        }
        times.into_iter().find(|(_, time)| time.is_zero()).map(|(field, _)| (field, "must be longer than 0"))
    }
}
