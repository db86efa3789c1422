//! An engine of others that stands in for one's own, at a price.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};

/// When an engine of others is used, and how much of it a day of UTC. At least one budget must be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hosted {
    /// It is used while the predicted wait for an engine of one's own is longer, and while there is none.
    #[serde(with = "duration")]
    pub beyond_wait: Duration,
    /// Jobs a day.
    pub jobs_per_day: Option<u64>,
    /// Minutes of audio a day.
    pub audio_minutes_per_day: Option<f64>,
    /// Characters a day, spoken or given to a language model.
    pub characters_per_day: Option<u64>,
}

impl Default for Hosted {
    fn default() -> Self {
        Self {
            beyond_wait: Duration::from_secs(30),
            jobs_per_day: None,
            audio_minutes_per_day: None,
            characters_per_day: None,
        }
    }
}

impl Hosted {
    /// What of these cannot be, in words.
    pub(super) fn fault(&self) -> Option<&'static str> {
        if self.jobs_per_day.is_none()
            && self.audio_minutes_per_day.is_none()
            && self.characters_per_day.is_none()
        {
            return Some("has no budget: set jobs_per_day, audio_minutes_per_day or characters_per_day");
        }
        if self.audio_minutes_per_day.is_some_and(|minutes| !minutes.is_finite() || minutes < 0.0) {
            return Some("needs audio_minutes_per_day from 0 on");
        }
        None
    }
}
