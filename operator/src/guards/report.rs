//! What the operator keeps of a guard's report: of thousands of pods, not the rest.

use contract::{Class, ModelCache, RepairRequest, State, VerdictName};
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
    pub verdict: VerdictName,
    /// Class of the fault behind the verdict.
    #[serde(deserialize_with = "contract::class::lenient")]
    pub class: Option<Class>,
    /// The engine's own words about why it does not serve yet.
    pub says: Option<Box<str>>,
    /// The model that it serves, as it says itself.
    pub model: Option<Box<str>>,
    /// The profile that its container chose, as it says itself.
    pub profile: Option<Box<str>>,
    /// Its model files while it is not proven; few engines start at a time.
    pub model_cache: Option<Box<ModelCache>>,
    /// Restarts since the guard started.
    pub restarts: u64,
    /// A restart that waits for the operator's answer; few guards have one.
    pub repair: Option<Box<RepairRequest>>,
}

impl Report {
    /// Whether the engine is proven by inference now.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        use State::{Degraded, Healthy, Probation, Saturated, Suspect};
        matches!(self.state, Healthy | Saturated | Degraded | Suspect | Probation)
            && matches!(self.verdict, VerdictName::Serving | VerdictName::Degraded | VerdictName::Suspect)
    }

    /// Whether the engine is proven unable to serve.
    #[must_use]
    pub fn is_wedged(&self) -> bool {
        self.verdict == VerdictName::Wedged
    }

    /// Whether the engine is suspected, or worse.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        use State::{Ejected, Exhausted, KillStuck, Restarting, Suspect, Unknown, Wedged};
        self.is_wedged()
            || matches!(self.state, Suspect | Unknown | Wedged | Ejected | Restarting | KillStuck | Exhausted)
    }
}

#[cfg(test)]
mod tests {
    use contract::Act;
    use serde_json::json;

    use super::*;

    #[test]
    fn words_of_a_newer_guard_are_read_past() {
        let repair = json!({"instance": "i", "attempt": 0, "act": "dance", "class": "Z", "since_unix_ms": 1});
        let report = json!({
            "instance": "i", "state": "new", "verdict": "newer", "class": "Z", "repair": repair, "more": {},
            "model_cache": {"bytes": 5, "bytes_per_second": 1, "unchanged_since_unix_ms": 7, "activity": "dreaming"},
        });
        let report: Report = serde_json::from_value(report).unwrap();
        assert_eq!((report.state, report.verdict, report.class), (State::Other, VerdictName::Other, None));
        assert_eq!(report.repair.as_ref().unwrap().act, Act::Other);
        assert_eq!(report.model_cache.as_ref().unwrap().activity, contract::CacheActivity::Other);
        assert!(!report.is_verified() && !report.is_doubted());
        assert_eq!(report.state.as_str(), "unknown");
    }
}
