//! The record of one fault of an engine, from the first bad reply to recovery.

use serde::{Deserialize, Serialize};

use crate::Class;
use crate::vitals::ThreadCounts;

/// The record of one wedge, from the first bad byte to health. Holds no audio and no text of users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Unique id, ordered by time.
    pub id: String,
    /// The engine's name.
    pub engine: String,
    /// The instance that wedged.
    pub instance: String,
    /// Unix time of the first bad byte, milliseconds.
    pub started_unix_ms: u64,
    /// Class of the fault.
    pub class: Class,
    /// Which known signature was seen.
    pub signature: Option<String>,
    /// The engine's error body, redacted, at most 4 KiB.
    pub body: Option<String>,
    /// Hash of the request that showed it first, hex.
    pub request_hash: Option<String>,
    /// Probes sent meanwhile.
    pub probes: Vec<ProbeRecord>,
    /// What happened when, milliseconds since the start.
    pub timeline: Vec<Moment>,
    /// Rung of the repair ladder taken last.
    pub remediation: Option<String>,
    /// Restarts used.
    pub restarts: u32,
    /// Milliseconds from the first bad byte until the engine was verified again.
    pub healthy_after_ms: Option<u64>,
    /// What the engine's processes showed before they were killed, or when they ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessRecord>,
}

/// What an engine's processes showed last. At most about 16 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Their threads by state, where they could be counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<ThreadCounts>,
    /// Single threads, the most telling first, where they could be read: at most 64 and 8 KiB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dump: Vec<ThreadRecord>,
    /// The last lines of output that tell of trouble, redacted, oldest first: at most 100 and 8 KiB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// One thread of an engine's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadRecord {
    /// The name that the process gave it.
    pub name: String,
    /// The kernel's letter for its state: `R`, `S`, `D`, ...
    pub state: char,
    /// The kernel function that it waits in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wchan: Option<String>,
    /// Functions on its kernel stack, innermost first, where they may be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<String>,
}

/// One golden probe within an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeRecord {
    /// When it ended, milliseconds since the incident's start.
    pub at_ms: u64,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// Which probe: `stt_a`, `stt_b`, `tts`.
    pub probe: String,
    /// `pass`, or why it failed.
    pub result: String,
}

/// One moment of an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds since the incident's start.
    pub at_ms: u64,
    /// What happened: `hint`, `ejected`, `wedged`, `restart`, `started`, `warming`, `probation`, `healthy`, ...
    pub event: String,
}
