//! What a guard says of its engine: the wire contract, as far as the operator reads it.

use serde::Deserialize;

/// A guard's report of its engine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The running instance: a new process has a new key.
    pub instance: String,
    /// Lifecycle state.
    pub state: State,
    /// Verdict.
    pub verdict: Verdict,
    /// Class of the fault behind the verdict.
    pub class: Option<String>,
    /// Restarts since the guard started.
    pub restarts: u64,
    /// A restart that waits for the operator's answer; few guards have one.
    pub repair: Option<Box<RepairRequest>>,
}

/// Lifecycle state of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its process starts.
    Starting,
    /// It runs and is not proven yet.
    Warming,
    /// It is proven by inference.
    Healthy,
    /// It is proven and has as much work as it takes.
    Saturated,
    /// It is proven and slower or poorer than it should be.
    Degraded,
    /// It is doubted and still serves.
    Suspect,
    /// The guard cannot tell.
    Unknown,
    /// It is proven unable to serve.
    Wedged,
    /// It is kept from requests until its restart.
    Fenced,
    /// It is being restarted.
    Restarting,
    /// It was restarted and is watched.
    Probation,
    /// Its process does not end.
    KillStuck,
    /// It says that it cannot run here.
    ConfigError,
    /// The guard's own restarts are used up.
    Exhausted,
    /// A word of another version, or none yet.
    #[default]
    #[serde(other)]
    Other,
}

impl State {
    /// The name shown in status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Warming => "warming",
            Self::Healthy => "healthy",
            Self::Saturated => "saturated",
            Self::Degraded => "degraded",
            Self::Suspect => "suspect",
            Self::Unknown | Self::Other => "unknown",
            Self::Wedged => "wedged",
            Self::Fenced => "fenced",
            Self::Restarting => "restarting",
            Self::Probation => "probation",
            Self::KillStuck => "kill_stuck",
            Self::ConfigError => "config_error",
            Self::Exhausted => "exhausted",
        }
    }
}

/// What the guard judges of the running instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Not judged yet.
    Pending,
    /// It serves.
    Serving,
    /// It serves, slower or poorer than it should.
    Degraded,
    /// It serves and is doubted.
    Suspect,
    /// The evidence is not enough.
    Undecided,
    /// It cannot serve.
    Wedged,
    /// It cannot start.
    Unstartable,
    /// A word of another version, or none yet.
    #[default]
    #[serde(other)]
    Other,
}

impl Report {
    /// Whether the engine is proven by inference now.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        use State::{Degraded, Healthy, Probation, Saturated, Suspect};
        matches!(self.state, Healthy | Saturated | Degraded | Suspect | Probation)
            && matches!(self.verdict, Verdict::Serving | Verdict::Degraded | Verdict::Suspect)
    }

    /// Whether the engine is proven unable to serve.
    #[must_use]
    pub fn is_wedged(&self) -> bool {
        self.verdict == Verdict::Wedged
    }

    /// Whether the engine is suspected, or worse.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        use State::{Exhausted, Fenced, KillStuck, Restarting, Suspect, Unknown, Wedged};
        self.is_wedged()
            || matches!(self.state, Suspect | Unknown | Wedged | Fenced | Restarting | KillStuck | Exhausted)
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
    /// What it asks for.
    pub act: Wanted,
    /// Unix time of the request, milliseconds.
    pub since_unix_ms: u64,
}

/// What a guard asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// The restart of an engine that cannot serve.
    Restart,
    /// The restart of one that still serves.
    Recycle,
    /// A word of another version.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use speechstack_proxy::report as wire;

    use super::*;

    #[test]
    fn every_word_of_a_guard_is_known() {
        for state in wire::State::ALL {
            let read: State = serde_json::from_value(json!(state)).unwrap();
            assert_eq!(json!(read.as_str()), json!(state));
            assert_ne!(read, State::Other);
        }
        for verdict in ["pending", "serving", "degraded", "suspect", "undecided", "wedged", "unstartable"] {
            assert_ne!(serde_json::from_value::<Verdict>(json!(verdict)).unwrap(), Verdict::Other);
        }
    }

    #[test]
    fn words_of_a_newer_guard_are_read_past() {
        let repair = json!({"instance": "i", "attempt": 0, "act": "dance", "since_unix_ms": 1});
        let report =
            json!({"instance": "i", "state": "new", "verdict": "newer", "repair": repair, "more": {}});
        let report: Report = serde_json::from_value(report).unwrap();
        assert_eq!((report.state, report.verdict), (State::Other, Verdict::Other));
        assert_eq!(report.repair.as_ref().unwrap().act, Wanted::Other);
        assert!(!report.is_verified() && !report.is_doubted());
        assert_eq!(report.state.as_str(), "unknown");
    }
}
