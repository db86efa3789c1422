//! What a guard says of its engine: the wire contract, as far as the operator reads it.

use serde::Deserialize;

/// A guard's report of its engine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The running instance: a new process has a new key.
    pub instance: String,
    /// Lifecycle state: `starting`, `warming`, `healthy`, `saturated`, `degraded`, `suspect`, `unknown`, `wedged`,
    /// `fenced`, `restarting`, `probation`, `kill_stuck`, `config_error`, `exhausted`.
    pub state: String,
    /// Verdict: `pending`, `serving`, `degraded`, `suspect`, `undecided`, `wedged`, `unstartable`.
    pub verdict: String,
    /// Class of the fault behind the verdict.
    pub class: Option<String>,
    /// Restarts since the guard started.
    pub restarts: u64,
    /// A restart that waits for the operator's answer.
    pub repair: Option<RepairRequest>,
}

impl Report {
    /// Whether the engine is proven by inference now.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        matches!(self.state.as_str(), "healthy" | "saturated" | "degraded" | "suspect" | "probation")
            && matches!(self.verdict.as_str(), "serving" | "degraded" | "suspect")
    }

    /// Whether the engine is proven unable to serve.
    #[must_use]
    pub fn is_wedged(&self) -> bool {
        self.verdict == "wedged"
    }

    /// Whether the engine is suspected, or worse.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.is_wedged()
            || matches!(
                self.state.as_str(),
                "suspect" | "unknown" | "wedged" | "fenced" | "restarting" | "kill_stuck" | "exhausted"
            )
    }
}

/// A restart that a guard wants and the operator has not answered yet.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RepairRequest {
    /// The instance that is to be restarted.
    pub instance: String,
    /// Number of the restart in its row, from 0.
    pub attempt: u32,
    /// Class of the fault.
    #[serde(default)]
    pub class: Option<String>,
    /// `restart`, or `recycle` for an engine that still serves.
    pub act: String,
    /// Unix time of the request, milliseconds.
    pub since_unix_ms: u64,
}
