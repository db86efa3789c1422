//! Which inputs engines served of late: whatever wedged an engine, they were not it.

use std::collections::{HashSet, VecDeque};

/// Inputs remembered.
const MOST: usize = 4096;

/// Hashes of inputs that were served, the oldest forgotten first.
#[derive(Debug, Default)]
pub struct Served {
    inputs: HashSet<u64>,
    oldest_first: VecDeque<u64>,
}

impl Served {
    /// Notes that the input of that hash was served.
    pub fn push(&mut self, input: u64) {
        if !self.inputs.insert(input) {
            return;
        }
        self.oldest_first.push_back(input);
        if self.oldest_first.len() > MOST
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.inputs.remove(&oldest);
        }
    }

    /// Whether it was.
    pub fn contains(&self, input: u64) -> bool {
        self.inputs.contains(&input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_the_latest_and_no_more() {
        let mut served = Served::default();
        for input in 0..=MOST as u64 {
            served.push(input);
            served.push(input);
        }
        assert!(!served.contains(0));
        assert!(served.contains(1) && served.contains(MOST as u64));
        assert_eq!((served.inputs.len(), served.oldest_first.len()), (MOST, MOST));
    }
}
