//! The state of the engine that every handler shares.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::backend::Capability;
use crate::fault::Switchboard;
use crate::kind::Kind;
use crate::lane::{Gate, Pace};

/// What every handler needs.
pub struct Core {
    /// What the engine is for.
    pub kind: Kind,
    /// What it works with.
    pub capability: Capability,
    /// Names of the protocols that it speaks.
    pub protocols: Vec<&'static str>,
    /// The API key that protocol `openai` asks for.
    pub api_key: Option<String>,
    /// Admission to the lane.
    pub gate: Arc<Gate>,
    /// The switchboard, when it is on.
    pub faults: Option<Switchboard>,
    /// The shortest service time.
    pub pace: Pace,
    /// Set when the engine is stopping.
    pub draining: AtomicBool,
}
