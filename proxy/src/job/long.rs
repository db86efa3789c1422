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

/// Pieces for each engine into which a file is cut at least: while one is heard the next is ready, and all engines end at about
/// the same time.
const ROUNDS: f64 = 4.0;
/// Pieces are not made shorter than this for that, seconds: each costs its engine a call and an overlap.
const SHORTEST: f64 = 60.0;

/// The longest piece, seconds, of a file of so many that `engines` hear: `most`, unless that leaves engines without work.
pub fn piece_seconds(seconds: f64, engines: usize, most: f64) -> f64 {
    (seconds / (engines.max(1) as f64 * ROUNDS)).max(SHORTEST).min(most)
}

/// Samples of so many seconds.
pub fn samples(seconds: f64) -> u64 {
    (seconds * f64::from(RATE)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_long_where_there_are_enough_of_them_for_all_engines() {
        assert_eq!(piece_seconds(3600.0, 2, 120.0), 120.0);
        assert_eq!(piece_seconds(600.0, 2, 120.0), 75.0);
        assert_eq!(piece_seconds(600.0, 8, 120.0), 60.0);
        assert_eq!(piece_seconds(600.0, 0, 120.0), 120.0);
        assert_eq!(piece_seconds(600.0, 8, 20.0), 20.0);
    }
}
