//! Inputs that wedge engines: refused after the second time, forgotten after a while.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::served::Served;

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

/// The list of suspected and proven poisonous inputs.
#[derive(Debug)]
pub struct Poison {
    forget_after: Duration,
    inputs: HashMap<InputHash, Record>,
    served: Served,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    wedges: u32,
    last: Instant,
}

/// Inputs remembered; beyond it the oldest is forgotten.
const MOST_INPUTS: usize = 1024;
/// Wedges that prove an input poisonous: one may be chance.
const PROOF: u32 = 2;

impl Poison {
    /// An empty list that forgets an input `forget_after` its last wedge.
    pub fn new(forget_after: Duration) -> Self {
        Self { forget_after, inputs: HashMap::new(), served: Served::default() }
    }

    /// Forgets inputs after another time from now on.
    pub fn configure(&mut self, forget_after: Duration) {
        self.forget_after = forget_after;
    }

    /// Notes that the input was served, which clears it of suspicion.
    pub fn served(&mut self, input: InputHash) {
        self.inputs.remove(&input);
        self.served.push(input.0);
    }

    /// Notes that a confirmed wedge began with this input. Returns whether it can be to blame: an input that a client
    /// sends all day is in flight at every wedge.
    pub fn record(&mut self, input: InputHash, now: Instant) -> bool {
        if self.served.contains(input.0) {
            return false;
        }
        let forget_after = self.forget_after;
        self.inputs.retain(|_, record| now.saturating_duration_since(record.last) < forget_after);
        if self.inputs.len() >= MOST_INPUTS
            && !self.inputs.contains_key(&input)
            && let Some(oldest) =
                self.inputs.iter().min_by_key(|(_, record)| record.last).map(|(input, _)| *input)
        {
            self.inputs.remove(&oldest);
        }
        let record = self.inputs.entry(input).or_insert(Record { wedges: 0, last: now });
        record.wedges = record.wedges.saturating_add(1);
        record.last = now;
        true
    }

    /// Whether the input is to be refused.
    pub fn is_poison(&self, input: InputHash, now: Instant) -> bool {
        self.inputs.get(&input).is_some_and(|record| {
            record.wedges >= PROOF && now.saturating_duration_since(record.last) < self.forget_after
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn one_wedge_is_chance_and_two_are_proof() {
        let (mut poison, now) = (Poison::new(HOUR), Instant::now());
        poison.record(InputHash(1), now);
        assert!(!poison.is_poison(InputHash(1), now));
        poison.record(InputHash(1), now + Duration::from_secs(60));
        assert!(poison.is_poison(InputHash(1), now + Duration::from_secs(61)));
        assert!(!poison.is_poison(InputHash(2), now));
    }

    #[test]
    fn an_input_that_was_served_is_never_to_blame() {
        let (mut poison, now) = (Poison::new(HOUR), Instant::now());
        assert!(poison.record(InputHash(1), now));
        poison.served(InputHash(1));
        assert!(!poison.record(InputHash(1), now));
        assert!(!poison.record(InputHash(1), now));
        assert!(!poison.is_poison(InputHash(1), now));
    }

    #[test]
    fn it_forgets_after_the_last_wedge() {
        let (mut poison, now) = (Poison::new(HOUR), Instant::now());
        poison.record(InputHash(1), now);
        poison.record(InputHash(1), now + HOUR / 2);
        assert!(poison.is_poison(InputHash(1), now + HOUR));
        assert!(!poison.is_poison(InputHash(1), now + HOUR + HOUR / 2));
        poison.record(InputHash(1), now + 2 * HOUR);
        assert!(!poison.is_poison(InputHash(1), now + 2 * HOUR), "the count starts anew");
    }

    #[test]
    fn it_is_bounded_and_drops_the_oldest() {
        let (mut poison, now) = (Poison::new(HOUR), Instant::now());
        for at in 0..3000 {
            poison.record(InputHash(at), now + Duration::from_millis(at));
        }
        assert_eq!(poison.inputs.len(), MOST_INPUTS);
        let end = now + Duration::from_secs(4);
        poison.record(InputHash(2999), end);
        assert!(poison.is_poison(InputHash(2999), end));
        poison.record(InputHash(0), end);
        assert!(!poison.is_poison(InputHash(0), end));
    }

    #[test]
    fn hashes_survive_being_written() {
        let hash = InputHash(0x00ab_cdef);
        assert_eq!(hash.to_string(), "0000000000abcdef");
        assert_eq!(hash.to_string().parse(), Ok(hash));
    }
}
