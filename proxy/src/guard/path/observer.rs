//! How the data path tells the control loop what it saw.

use tokio::sync::mpsc;

use crate::guard::judge::observation::Observation;

/// Observations that may wait for the health loop, which takes microseconds for each.
const BACKLOG: usize = 4096;

/// Where the data path reports to. Cheap to clone; never waits.
#[derive(Clone, Debug)]
pub struct Observer {
    sender: mpsc::Sender<Observation>,
}

impl Observer {
    /// An observer and the end where the health loop reads.
    pub fn channel() -> (Self, mpsc::Receiver<Observation>) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        (Self { sender }, receiver)
    }

    /// Reports one observation.
    pub fn observe(&self, observation: Observation) {
        // A closed channel means that the guard is stopping.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.sender.try_send(observation) {
            tracing::warn!("observation dropped: the health loop does not keep up");
        }
    }
}
