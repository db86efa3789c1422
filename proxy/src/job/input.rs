//! What a job works on, by its hash.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

use http::HeaderValue;
use twox_hash::XxHash3_64;

/// Hash of the audio that a request asks the engine to work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InputHash(pub u64);

impl InputHash {
    /// As [`contract::header::INPUT`] carries it.
    pub fn header(self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).unwrap_or(HeaderValue::from_static("0"))
    }

    /// That of a whole input.
    pub fn of(input: &[u8]) -> Self {
        let mut hasher = InputHasher::default();
        hasher.push(input);
        hasher.finish()
    }
}

/// What is hashed whole, and of how much each sample after it is taken.
const STRIDE: u64 = 4096;
/// Bytes of a sample: 16 ms of speech in its plainest form, of each 128 ms.
const SAMPLE: u64 = 512;

/// Hashes audio that comes in pieces: xxh3-64 of its first [`STRIDE`] bytes, of a [`SAMPLE`] of each further stride, and of its
/// length.
///
/// To hash every byte would cost as much as a quarter of the rest of the forwarding path. Recordings that agree in length and
/// in all samples, but not in between, are not met outside of tests.
#[derive(Default)]
pub struct InputHasher {
    hasher: XxHash3_64,
    len: u64,
}

impl InputHasher {
    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        let (mut at, mut rest) = (self.len, piece);
        self.len += piece.len() as u64;
        while !rest.is_empty() {
            let within = at % STRIDE;
            let sampled = if at < STRIDE { STRIDE } else { SAMPLE };
            let until = if within < sampled { sampled } else { STRIDE };
            let bytes = rest.len().min((until - within) as usize);
            if within < sampled {
                self.hasher.write(&rest[..bytes]);
            }
            rest = &rest[bytes..];
            at += bytes as u64;
        }
    }

    /// The hash of what came so far.
    pub fn finish(&self) -> InputHash {
        let mut hasher = self.hasher.clone();
        hasher.write_u64(self.len);
        InputHash(hasher.finish())
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
        let input: Vec<u8> = (0..70_000_u32).map(|at| (at % 251) as u8).collect();
        for piece in [1, 63, 512, 1024, 4096, 5000, 65_536] {
            let mut hasher = InputHasher::default();
            input.chunks(piece).for_each(|piece| hasher.push(piece));
            assert_eq!(hasher.finish(), InputHash::of(&input), "in pieces of {piece}");
        }
    }

    #[test]
    fn short_inputs_differ_by_any_byte_and_long_ones_by_any_sample_or_their_length() {
        let silence = vec![0; 40_000];
        let hash = InputHash::of(&silence);
        for at in [0, 1000, 4095, 4096, 4600, 36_864, 37_375] {
            let mut other = silence.clone();
            other[at] = 1;
            assert_ne!(InputHash::of(&other), hash, "byte {at}");
        }
        assert_ne!(InputHash::of(&silence[..39_999]), hash);
        assert_ne!(InputHash::of(b""), InputHash::of(&[0]));
    }
}
