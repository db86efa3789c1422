//! How the data path tells the control loop what it saw.

use tokio::sync::mpsc;

use crate::guard::judge::observation::Observation;
use crate::guard::path::lane::Hold;

/// Observations that may wait for the health loop, which takes microseconds for each.
const BACKLOG: usize = 4096;

/// An observation, and what is held until the health loop has concluded from it.
#[derive(Debug)]
pub struct Seen {
    /// The observation.
    pub observation: Observation,
    /// Keeps jobs from the engine.
    pub hold: Option<Hold>,
}

/// Where the data path reports to. Cheap to clone; never waits.
#[derive(Clone, Debug)]
pub struct Observer {
    sender: mpsc::Sender<Seen>,
}

impl Observer {
    /// An observer and the end where the health loop reads.
    pub fn channel() -> (Self, mpsc::Receiver<Seen>) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        (Self { sender }, receiver)
    }

    /// Reports one observation.
    pub fn observe(&self, observation: Observation) {
        self.observe_holding(observation, None);
    }

    /// Reports one observation; what is held is let go once the health loop has concluded from it.
    pub fn observe_holding(&self, observation: Observation, hold: Option<Hold>) {
        // A closed channel means that the guard is stopping.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.sender.try_send(Seen { observation, hold }) {
            tracing::warn!("observation dropped: the health loop does not keep up");
        }
    }
}
