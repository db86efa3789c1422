//! States of an engine instance, and verdicts on it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an engine instance is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Process started, shallow health not green yet.
    Starting,
    /// Shallow health green, golden probes not passed yet.
    Warming,
    /// Proven by inference.
    Healthy,
    /// Proven, and its queue is long.
    Saturated,
    /// Proven, but slow or repeatedly suspected: lower weight.
    Degraded,
    /// A request or probe failed; probes decide.
    Suspect,
    /// Suspect and undecided for too long: lower weight, no kill.
    Unknown,
    /// Proven unable to serve; a restart is due.
    Wedged,
    /// Wedged, and the restart is deferred.
    Ejected,
    /// Being restarted.
    Restarting,
    /// Restarted and passing probes, weight ramping up.
    Probation,
    /// The process does not die.
    KillStuck,
    /// Cannot start for a reason that a restart does not cure.
    ConfigError,
    /// Restarts did not help or are used up: no further act until a probe passes or a person resets.
    Exhausted,
    /// A state that only a newer version knows, or none yet.
    #[default]
    #[serde(other)]
    Other,
}

impl State {
    /// All states but [`State::Other`], for metrics that must exist before the first event.
    pub const ALL: [State; 14] = [
        State::Starting,
        State::Warming,
        State::Healthy,
        State::Saturated,
        State::Degraded,
        State::Suspect,
        State::Unknown,
        State::Wedged,
        State::Ejected,
        State::Restarting,
        State::Probation,
        State::KillStuck,
        State::ConfigError,
        State::Exhausted,
    ];

    /// Whether an engine in it gets no traffic.
    pub fn is_out(self) -> bool {
        match self {
            State::Healthy
            | State::Saturated
            | State::Degraded
            | State::Suspect
            | State::Unknown
            | State::Probation
            | State::Other => false,
            State::Starting
            | State::Warming
            | State::Wedged
            | State::Ejected
            | State::Restarting
            | State::KillStuck
            | State::ConfigError
            | State::Exhausted => true,
        }
    }

    /// The name on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Warming => "warming",
            State::Healthy => "healthy",
            State::Saturated => "saturated",
            State::Degraded => "degraded",
            State::Suspect => "suspect",
            State::Unknown | State::Other => "unknown",
            State::Wedged => "wedged",
            State::Ejected => "ejected",
            State::Restarting => "restarting",
            State::Probation => "probation",
            State::KillStuck => "kill_stuck",
            State::ConfigError => "config_error",
            State::Exhausted => "exhausted",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// What is concluded about an engine instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictName {
    /// Nothing proven yet.
    #[default]
    Pending,
    /// It serves.
    Serving,
    /// It serves, slowly or doubtfully.
    Degraded,
    /// Under suspicion; probes are running.
    Suspect,
    /// Suspect, and the evidence stays contradictory.
    Undecided,
    /// It cannot serve.
    Wedged,
    /// It cannot start, and a restart would not change that.
    Unstartable,
    /// A verdict that only a newer version knows.
    #[serde(other)]
    Other,
}

impl VerdictName {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            VerdictName::Pending => "pending",
            VerdictName::Serving => "serving",
            VerdictName::Degraded => "degraded",
            VerdictName::Suspect => "suspect",
            VerdictName::Undecided | VerdictName::Other => "undecided",
            VerdictName::Wedged => "wedged",
            VerdictName::Unstartable => "unstartable",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Display for VerdictName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_reads_back_and_an_unknown_one_is_other() {
        for state in State::ALL {
            let text = format!("\"{}\"", state.as_str());
            assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
            assert_eq!(serde_json::to_string(&state).unwrap(), text);
        }
        assert_eq!(serde_json::from_str::<State>("\"new\"").unwrap(), State::Other);
        assert_eq!(serde_json::from_str::<VerdictName>("\"newer\"").unwrap(), VerdictName::Other);
    }
}
