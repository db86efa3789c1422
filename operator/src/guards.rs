//! The guards of all engine pods: one state stream each, and the orders sent to them.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use parking_lot::RwLock;
use speechstack_crds::SpeechStack;
use tokio::sync::broadcast;

pub mod report;

pub use report::{RepairRequest, Report};

/// The last word of a guard.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it said.
    pub report: Report,
    /// Since when the engine is in this state.
    pub since: Timestamp,
    /// Whether its stream is open now.
    pub connected: bool,
}

/// What all guards say, by pod UID. Cheap to clone.
#[derive(Clone)]
pub struct Guards {
    seen: Arc<RwLock<HashMap<String, Seen>>>,
    changes: broadcast::Sender<ObjectRef<SpeechStack>>,
}

impl Guards {
    /// No guard known yet.
    #[must_use]
    pub fn new() -> Self {
        Self { seen: Arc::default(), changes: broadcast::channel(1024).0 }
    }

    /// The last word of the guard in that pod.
    #[must_use]
    pub fn seen(&self, pod_uid: &str) -> Option<Seen> {
        self.seen.read().get(pod_uid).cloned()
    }

    /// Stacks of which a guard said something new that matters for status or repair.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<ObjectRef<SpeechStack>> {
        self.changes.subscribe()
    }
}

impl Default for Guards {
    fn default() -> Self {
        Self::new()
    }
}
