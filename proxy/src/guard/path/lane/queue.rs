//! The jobs that wait for the engine, and which of them is next.

use std::collections::HashMap;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::guard::path::lane::fair::Turns;
use crate::guard::path::lane::{Claim, Priority, Slot};

/// Seconds of waiting by which a job rises past one of the next better class.
const AGEING: f64 = 20.0;

/// A job that waits.
#[derive(Debug)]
pub struct Waiter {
    pub id: u64,
    pub claim: Claim,
    /// Whether its upload is complete and it would start at once; until then others may overtake it.
    pub ready: bool,
    /// When it arrived.
    pub since: Instant,
    pub grant: oneshot::Sender<Slot>,
}

impl Waiter {
    /// Its place, the least first. Probes do not age and are not overtaken: they are few, and decide about all others.
    fn rank(&self, now: Instant) -> f64 {
        let class = match self.claim.priority {
            Priority::Probe => return f64::NEG_INFINITY,
            Priority::Session => 0.0,
            Priority::Short => 1.0,
            Priority::Long => 2.0,
        };
        class - now.saturating_duration_since(self.since).as_secs_f64() / AGEING
    }
}

/// The queue, in the order of arrival.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Vec<Waiter>,
    turns: Turns,
}

impl Queue {
    pub fn push(&mut self, waiter: Waiter) {
        self.waiting.push(waiter);
    }

    /// Takes the ready one that is next out of the queue: of the tenant whose turn it is, the one of the least rank.
    pub fn pop(&mut self, now: Instant) -> Option<Waiter> {
        let ready = self.waiting.iter().enumerate().filter(|(_, waiter)| waiter.ready);
        let ranked = ready.map(|(at, waiter)| {
            let turn = match waiter.claim.priority {
                Priority::Probe => f64::NEG_INFINITY,
                _ => self.turns.start(waiter.claim.tenant),
            };
            (at, (turn, waiter.rank(now)))
        });
        // The first of equals, as they are in the order of arrival.
        let (next, _) = ranked.reduce(|best, other| if other.1 < best.1 { other } else { best })?;
        let next = self.waiting.remove(next);
        // Where no job tells whose it is, there are no turns to count.
        let has_tenants = |waiter: &Waiter| waiter.claim.tenant.is_some();
        let counts = has_tenants(&next) || self.waiting.iter().any(has_tenants);
        if counts && next.claim.priority != Priority::Probe {
            self.turns.serve(next.claim.tenant, next.claim.predicted);
        }
        Some(next)
    }

    /// The one of that id.
    pub fn get_mut(&mut self, id: u64) -> Option<&mut Waiter> {
        self.waiting.iter_mut().find(|waiter| waiter.id == id)
    }

    pub fn remove(&mut self, id: u64) {
        self.waiting.retain(|waiter| waiter.id != id);
    }

    /// Refuses all but probes.
    pub fn clear(&mut self) {
        self.waiting.retain(|waiter| waiter.claim.priority == Priority::Probe);
    }

    /// How many of that class wait or upload.
    pub fn count(&self, priority: Priority) -> usize {
        self.waiting.iter().filter(|waiter| waiter.claim.priority == priority).count()
    }

    /// Jobs that would start at once.
    pub fn ready(&self) -> usize {
        self.jobs().filter(|waiter| waiter.ready).count()
    }

    /// Jobs whose upload is under way.
    pub fn uploading(&self) -> usize {
        self.jobs().filter(|waiter| !waiter.ready).count()
    }

    /// Predicted work of the ready ones that a newcomer of that class has ahead.
    pub fn seconds(&self, priority: Priority) -> f64 {
        let ahead = self.jobs().filter(|waiter| waiter.ready && waiter.claim.priority <= priority);
        ahead.map(|waiter| waiter.claim.predicted).sum()
    }

    /// Ready ones of a tenant.
    pub fn ready_of(&self, tenant: Option<u64>) -> usize {
        self.jobs().filter(|waiter| waiter.ready && waiter.claim.tenant == tenant).count()
    }

    /// Predicted work that a newcomer of that class and tenant has ahead: all of its own, and of each other tenant what is served in
    /// turn meanwhile.
    pub fn seconds_for(&self, priority: Priority, tenant: Option<u64>, predicted: f64) -> f64 {
        let mut of: HashMap<Option<u64>, f64> = HashMap::new();
        for waiter in self.jobs().filter(|waiter| waiter.ready) {
            if waiter.claim.tenant != tenant || waiter.claim.priority <= priority {
                *of.entry(waiter.claim.tenant).or_default() += waiter.claim.predicted;
            }
        }
        let own = of.remove(&tenant).unwrap_or(0.0);
        own + of.values().map(|other| other.min(own + predicted)).sum::<f64>()
    }

    fn jobs(&self) -> impl Iterator<Item = &Waiter> {
        self.waiting.iter().filter(|waiter| waiter.claim.priority != Priority::Probe)
    }
}
