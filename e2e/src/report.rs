//! What a stack says of its engines at `GET /state`, as a client reads it.

use contract::{EngineReport, Incident, State};
use serde::Deserialize;

/// The reply of the gateway's admin port.
#[derive(Clone, Debug, Deserialize)]
pub struct StackReport {
    /// All engines.
    pub engines: Vec<EngineReport>,
}

impl StackReport {
    /// The engine of that name.
    pub fn engine(&self, name: &str) -> Option<&EngineReport> {
        self.engines.iter().find(|engine| engine.name == name)
    }
}

/// Whether the engine takes its full share of requests.
pub fn is_healthy(engine: &EngineReport) -> bool {
    matches!(engine.state, State::Healthy | State::Saturated)
}

/// Milliseconds from the first bad reply to the first of these events.
pub fn event_at(incident: &Incident, events: &[&str]) -> Option<u64> {
    let first = incident.timeline.iter().find(|moment| events.contains(&moment.event.as_str()));
    first.map(|moment| moment.at_ms)
}
