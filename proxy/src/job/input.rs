//! What a job works on, by its hash.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

use twox_hash::XxHash3_64;

/// Hash of what a request asks the engine to work on: xxh3-64 of the audio or of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InputHash(pub u64);

impl InputHash {
    /// That of the whole input.
    #[cfg(test)]
    pub fn of(input: &[u8]) -> Self {
        Self(XxHash3_64::oneshot(input))
    }
}

/// Hashes an input that comes in pieces.
#[derive(Default)]
pub struct InputHasher(XxHash3_64);

impl InputHasher {
    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.0.write(piece);
    }

    /// The hash of what came so far.
    pub fn finish(&self) -> InputHash {
        InputHash(self.0.finish())
    }
}

impl fmt::Display for InputHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl FromStr for InputHash {
    type Err = std::num::ParseIntError;

    fn from_str(hex: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(hex, 16).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_survive_being_written() {
        let hash = InputHash(0x00ab_cdef);
        assert_eq!(hash.to_string(), "0000000000abcdef");
        assert_eq!(hash.to_string().parse(), Ok(hash));
    }

    #[test]
    fn pieces_have_the_hash_of_the_whole() {
        // As the reference implementation computes it.
        assert_eq!(InputHash::of(b"").to_string(), "2d06800538d394c2");
        let input: Vec<u8> = (0..70_000_u32).map(|at| (at % 251) as u8).collect();
        for piece in [1, 63, 1024, 65_536] {
            let mut hasher = InputHasher::default();
            input.chunks(piece).for_each(|piece| hasher.push(piece));
            assert_eq!(hasher.finish(), InputHash::of(&input));
        }
    }
}
