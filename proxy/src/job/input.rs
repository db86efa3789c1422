//! What a job works on, by its hash.

use std::fmt;
use std::str::FromStr;

/// Hash of what a request asks the engine to work on: xxh3-64 of the audio or of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InputHash(pub u64);

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
}
