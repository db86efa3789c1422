//! Random numbers for ties and jitter: seeded, lock-free, not for secrets.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// The step of splitmix64: the golden ratio in 64 bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A splitmix64 generator (Steele, Lea, Flood 2014) that many tasks may roll.
#[derive(Debug)]
pub struct Rng(AtomicU64);

impl Rng {
    /// The same seed gives the same row.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A row of its own for each process.
    pub fn random() -> Self {
        Self::new(RandomState::new().hash_one(0_u8))
    }

    /// A uniform number.
    pub fn roll(&self) -> u64 {
        mix(self.0.fetch_add(STEP, Ordering::Relaxed))
    }

    /// A uniform number from `1 - spread` to `1 + spread`.
    pub fn jitter(&self, spread: f64) -> f64 {
        1.0 + spread * (2.0 * unit(self.roll()) - 1.0)
    }
}

/// The top bits of a roll as a number from 0 up to but not including 1.
pub fn unit(roll: u64) -> f64 {
    (roll >> 11) as f64 / (1_u64 << 53) as f64
}

/// One round of splitmix64: every bit of the input changes half of the output's.
pub fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(STEP);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
