//! When a job is also sent to a second engine.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};

/// Hedging: a job whose answer is overdue also goes to an idle engine, and the first answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hedge {
    /// Whether it is done at all.
    pub enabled: bool,
    /// An answer is not overdue sooner, beyond the predicted wait in the engine's queue.
    #[serde(with = "duration")]
    pub after: Duration,
    /// Nor sooner than so many times the predicted work.
    pub factor: f64,
    /// Hedges per job on average, 0 to 1.
    pub share: f64,
    /// A job of more predicted work is never hedged.
    #[serde(with = "duration")]
    pub max_predicted: Duration,
}

impl Default for Hedge {
    fn default() -> Self {
        Self {
            enabled: true,
            after: Duration::from_secs(1),
            factor: 3.0,
            share: 0.03,
            max_predicted: Duration::from_secs(20),
        }
    }
}

impl Hedge {
    /// What of these cannot be: the field and the reason.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        if self.after.is_zero() {
            return Some(("after", "must be longer than 0"));
        }
        if !self.factor.is_finite() || self.factor < 1.0 {
            return Some(("factor", "must be at least 1"));
        }
        (!(0.0..=1.0).contains(&self.share)).then_some(("share", "must be from 0 to 1"))
    }
}
