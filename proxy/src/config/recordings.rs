//! Audio of sessions that is kept where clients ask for it.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};

/// Where recordings are kept, how many bytes of them, and how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recordings {
    /// Folder of them; without it none are kept.
    pub dir: Option<PathBuf>,
    /// Bytes of all of them together; beyond it no more is kept.
    pub disk: ByteSize,
    /// How long one is kept.
    #[serde(with = "duration")]
    pub ttl: Duration,
}

impl Default for Recordings {
    fn default() -> Self {
        Self { dir: None, disk: ByteSize::gib(16), ttl: Duration::from_secs(30 * 24 * 3600) }
    }
}
