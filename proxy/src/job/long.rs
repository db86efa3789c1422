//! Long files: where they are cut, and how the transcripts of the pieces become one.

mod cutter;
mod joined;

pub use cutter::{Cutter, Piece, Rules};
pub use joined::{Heard, Joined};

use crate::audio::convert::RATE;

/// Seconds of so many samples.
pub fn seconds(samples: u64) -> f64 {
    samples as f64 / f64::from(RATE)
}

/// Samples of so many seconds.
pub fn samples(seconds: f64) -> u64 {
    (seconds * f64::from(RATE)) as u64
}
