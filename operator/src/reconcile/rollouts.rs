//! How many engines of the fleet take a new template at the same time that no user asked for.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Context;
use crate::workloads::LiveWorkload;

/// Namespace and name of a workload.
pub type Key = (String, String);

/// How long after its write the watches may still show a workload as it was.
const UNSEEN: Duration = Duration::from_secs(30);

/// The budget of the fleet, and what was begun that the watches do not show yet.
pub struct Rollouts {
    most: usize,
    begun: Mutex<HashMap<Key, Instant>>,
}

impl Rollouts {
    /// With that budget, at least 1.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), begun: Mutex::default() }
    }

    /// Whether a workload may begin now, beside those that are not whole. A workload that begins holds its place at once, so
    /// that two reconciles do not take the same one.
    pub fn admit(&self, key: &Key, partial: &BTreeSet<Key>, now: Instant) -> bool {
        let mut begun = self.begun.lock();
        begun.retain(|_, at| now.saturating_duration_since(*at) < UNSEEN);
        let others: BTreeSet<&Key> =
            partial.iter().chain(begun.keys()).filter(|other| *other != key).collect();
        let free = others.len() < self.most;
        if free {
            begun.insert(key.clone(), now);
        }
        free
    }
}

/// Engines of all stacks that are rolled out or have fewer pods available than wanted. An update waits for them: a template
/// that does not work stops at the first engines that got it.
pub fn partial(context: &Context) -> BTreeSet<Key> {
    let mut partial = BTreeSet::new();
    context.workloads.for_each_engine(|namespace, name, live| {
        if !is_whole(live) {
            partial.insert((namespace.to_owned(), name.to_owned()));
        }
    });
    partial
}

/// Whether all pods have the newest template and are available.
fn is_whole(live: &LiveWorkload) -> bool {
    live.observed && live.updated >= live.replicas && live.available >= live.replicas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("speech".to_owned(), name.to_owned())
    }

    #[test]
    fn no_more_begin_than_the_budget_allows() {
        let now = Instant::now();
        let rollouts = Rollouts::new(2);
        let none = BTreeSet::new();
        assert!(rollouts.admit(&key("a"), &none, now));
        assert!(rollouts.admit(&key("a"), &none, now), "it has its place");
        assert!(rollouts.admit(&key("b"), &none, now));
        assert!(!rollouts.admit(&key("c"), &none, now), "the watches do not show a and b yet");
        let later = now + UNSEEN;
        let shown = BTreeSet::from([key("a"), key("b")]);
        assert!(!rollouts.admit(&key("c"), &shown, later), "a and b are rolled out");
        assert!(rollouts.admit(&key("b"), &shown, later));
        let shown = BTreeSet::from([key("b")]);
        assert!(rollouts.admit(&key("c"), &shown, later));
        assert!(!rollouts.admit(&key("d"), &shown, later));
    }

    #[test]
    fn a_budget_of_none_is_one() {
        assert!(Rollouts::new(0).admit(&key("a"), &BTreeSet::new(), Instant::now()));
    }
}
