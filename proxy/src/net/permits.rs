//! Permits for work in flight, under a limit that may change meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the permits that are taken. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Permits {
    taken: Arc<AtomicUsize>,
}

/// A place; dropping it frees it.
#[derive(Debug)]
pub struct Permit {
    taken: Arc<AtomicUsize>,
}

impl Permits {
    /// Takes a place if fewer than `limit` are taken.
    pub fn take(&self, limit: usize) -> Option<Permit> {
        let one_more = |taken: usize| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Permit { taken: Arc::clone(&self.taken) })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_counts_when_a_place_is_taken() {
        let permits = Permits::default();
        let (first, second) = (permits.take(2).unwrap(), permits.take(2).unwrap());
        assert!(permits.take(2).is_none());
        assert!(permits.take(3).is_some(), "and is free again at once");
        drop(first);
        assert!(permits.take(1).is_none(), "a lower limit waits until work has ended");
        drop(second);
        assert!(permits.take(1).is_some());
    }
}
