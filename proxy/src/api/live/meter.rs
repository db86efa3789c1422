//! The audio of a session, counted while it runs: a client that is never gone pays all the same.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::edge::{Principal, RequestId, unix_millis};
use crate::error::{Refused, Unit};

/// How often what was heard is counted.
pub const EVERY: Duration = Duration::from_secs(10);

/// Counts the audio of a session whose caller is known. Cloning shares it.
#[derive(Clone)]
pub struct Meter {
    caller: Arc<Principal>,
    request_id: RequestId,
    /// Seconds that are counted.
    settled: Arc<Mutex<f64>>,
}

impl Meter {
    /// One for the session of that request.
    pub fn of(request_id: &RequestId) -> Option<Self> {
        let caller = request_id.caller()?;
        Some(Self { caller, request_id: request_id.clone(), settled: Arc::default() })
    }

    /// Counts the audio up to that second of the session.
    ///
    /// # Errors
    /// The caller's quota is used up.
    pub fn settle(&self, seconds: f64) -> Result<(), Refused> {
        let mut settled = self.settled.lock();
        let more = (seconds - *settled).max(0.0);
        *settled = settled.max(seconds);
        self.caller.spend(&self.request_id, Unit::AudioSeconds, more, unix_millis())
    }
}
