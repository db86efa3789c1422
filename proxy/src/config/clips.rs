//! Recordings of voices that are kept by name.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where speakers and voices are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clips {
    /// Folder of recordings, which several gateways may share; without it none are kept.
    pub dir: Option<PathBuf>,
    /// Recordings that are kept, of all callers together; beyond it 429.
    pub max: usize,
    /// The engine's voice that takes on the sound of a recording.
    pub base_voice: String,
}

impl Default for Clips {
    fn default() -> Self {
        Self { dir: None, max: 1000, base_voice: "Magpie-ZeroShot.Female-1".into() }
    }
}
