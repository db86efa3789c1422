//! What a stack says of its engines at `GET /state`, as a client reads it.

use serde::Deserialize;

/// The reply of the gateway's admin port.
#[derive(Clone, Debug, Deserialize)]
pub struct StackReport {
    /// All engines.
    pub engines: Vec<EngineReport>,
}

/// One engine.
#[derive(Clone, Debug, Deserialize)]
pub struct EngineReport {
    /// Unique name.
    pub name: String,
    /// `parakeet` or `magpie`.
    pub kind: String,
    /// Its own base URL.
    pub url: String,
    /// The running process.
    #[serde(default)]
    pub instance: String,
    /// Lifecycle state, such as `healthy`.
    pub state: String,
    /// What is concluded, such as `serving`.
    pub verdict: String,
    /// Class of the fault behind the verdict.
    pub class: Option<String>,
    /// Share of traffic, 0 to 1.
    #[serde(default)]
    pub weight: f64,
    /// Predicted wait in seconds.
    pub queue_seconds: f64,
    /// Restarts since the guard started.
    pub restarts: u64,
    /// Wedges, oldest first.
    pub incidents: Vec<Incident>,
}

/// One wedge.
#[derive(Clone, Debug, Deserialize)]
pub struct Incident {
    /// Unique id.
    pub id: String,
    /// Class of the fault.
    pub class: String,
    /// Known signature that was seen.
    pub signature: Option<String>,
    /// What happened when.
    pub timeline: Vec<Moment>,
    /// Rung of the repair ladder taken last.
    pub remediation: Option<String>,
    /// Restarts used.
    pub restarts: u32,
    /// Milliseconds until the engine was verified again.
    pub healthy_after_ms: Option<u64>,
}

/// One moment of an incident.
#[derive(Clone, Debug, Deserialize)]
pub struct Moment {
    /// Milliseconds since the first bad byte.
    pub at_ms: u64,
    /// What happened.
    pub event: String,
}

impl StackReport {
    /// The engine of that name.
    pub fn engine(&self, name: &str) -> Option<&EngineReport> {
        self.engines.iter().find(|engine| engine.name == name)
    }
}

impl EngineReport {
    /// Whether the engine takes its full share of requests.
    pub fn is_healthy(&self) -> bool {
        matches!(self.state.as_str(), "healthy" | "saturated")
    }
}

impl Incident {
    /// Milliseconds from the first bad byte to the first of these events.
    pub fn at(&self, events: &[&str]) -> Option<u64> {
        let first = self.timeline.iter().find(|moment| events.contains(&moment.event.as_str()));
        first.map(|moment| moment.at_ms)
    }
}
