//! How long the engine at least takes for inputs that were given up before it answered.

use std::collections::VecDeque;
use std::time::Duration;

use crate::job::input::InputHash;

/// Inputs remembered; the oldest are forgotten.
const MAX_INPUTS: usize = 256;
/// Times the time after which an input was given up that it is predicted to take the next time.
const FACTOR: u32 = 2;

/// The inputs that were given up. A long job is thus never taken for a hang twice after the same time.
#[derive(Debug, Default)]
pub struct Cut {
    inputs: VecDeque<(InputHash, Duration)>,
}

impl Cut {
    /// An input was given up `after` its start.
    pub fn record(&mut self, input: InputHash, after: Duration) {
        let longest = self.inputs.iter().position(|(known, _)| *known == input);
        let before =
            longest.and_then(|at| self.inputs.remove(at)).map_or(Duration::ZERO, |(_, before)| before);
        if self.inputs.len() == MAX_INPUTS {
            self.inputs.pop_front();
        }
        self.inputs.push_back((input, after.max(before)));
    }

    /// An input was served in that time: in less than it was given before, it is not long.
    pub fn served(&mut self, input: InputHash, service: Duration) {
        self.inputs.retain(|(known, after)| *known != input || *after <= service);
    }

    /// Seconds that an input is predicted to take at least.
    pub fn least(&self, input: InputHash) -> Option<f64> {
        let (_, after) = self.inputs.iter().find(|(known, _)| *known == input)?;
        Some((*after * FACTOR).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_given_more_time_than_it_had() {
        let mut cut = Cut::default();
        cut.record(InputHash(1), Duration::from_secs(20));
        cut.record(InputHash(1), Duration::from_secs(5));
        assert_eq!((cut.least(InputHash(1)), cut.least(InputHash(2))), (Some(40.0), None));
    }

    #[test]
    fn an_input_that_is_served_sooner_is_not_long() {
        let mut cut = Cut::default();
        cut.record(InputHash(1), Duration::from_secs(20));
        cut.served(InputHash(1), Duration::from_secs(35));
        assert_eq!(cut.least(InputHash(1)), Some(40.0));
        cut.served(InputHash(1), Duration::from_secs(2));
        assert_eq!(cut.least(InputHash(1)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut cut = Cut::default();
        (0..1000).for_each(|at| cut.record(InputHash(at), Duration::from_secs(1)));
        assert_eq!((cut.inputs.len(), cut.least(InputHash(0))), (MAX_INPUTS, None));
    }
}
