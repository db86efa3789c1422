//! Work that is charged before it is done and settled after it.

use std::sync::Arc;

use crate::edge::principal::Principal;
use crate::edge::{RequestId, unix_millis};
use crate::error::{Refused, Unit};

/// An amount that is set aside for work. Dropped without being settled, it is given back.
#[derive(Debug)]
#[must_use = "what is dropped is not charged"]
pub struct Charge {
    caller: Arc<Principal>,
    request_id: RequestId,
    unit: Unit,
    reserved: f64,
}

impl Charge {
    /// Sets an amount aside for a caller.
    pub(super) fn new(caller: Arc<Principal>, request_id: RequestId, unit: Unit, reserved: f64) -> Self {
        Self { caller, request_id, unit, reserved }
    }

    /// Whether other gateways leave that much.
    ///
    /// # Errors
    /// [`Refused::Day`].
    pub(super) async fn agreed(&self) -> Result<(), Refused> {
        self.caller.day_of_all(self.unit, self.reserved).await
    }

    /// The work is done, and took that much.
    pub fn settle(self, amount: f64) {
        // Beyond the limit it counts as well: the next work is refused.
        let _ = self.caller.spend(&self.request_id, self.unit, amount, unix_millis());
    }

    /// The work is done, and took what was expected.
    pub fn settle_all(self) {
        let amount = self.reserved;
        self.settle(amount);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.caller.release(self.unit, self.reserved);
    }
}
