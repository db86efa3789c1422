//! Picks the endpoint with the least predicted wait. Pure: no clock, no rng of its own.

use tokio::time::Instant;

use crate::rng::{mix, unit};

/// Waits closer to each other than this are equal, seconds.
const TIE_SECONDS: f64 = 0.01;

/// Seconds of work ahead of a new request: what the guard reported, less what time has worked off, plus what
/// we sent since.
///
/// Never a latency average: it takes big jobs for slow engines and engines that fail fast for quick ones.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    seconds: f64,
    at: Instant,
}

impl Backlog {
    /// Nothing ahead.
    pub fn none(now: Instant) -> Self {
        Self { seconds: 0.0, at: now }
    }

    /// Seconds of work ahead at `now`.
    pub fn wait(&self, now: Instant) -> f64 {
        (self.seconds - now.saturating_duration_since(self.at).as_secs_f64()).max(0.0)
    }

    /// The guard's own word replaces the guess.
    pub fn report(&mut self, queue_seconds: f64, now: Instant) {
        let seconds = if queue_seconds.is_finite() { queue_seconds.max(0.0) } else { 0.0 };
        *self = Self { seconds, at: now };
    }

    /// A request of so many predicted seconds was sent. One that fails keeps its charge: an engine that fails
    /// fast must not look free.
    pub fn dispatch(&mut self, predicted: f64, now: Instant) {
        let predicted = if predicted.is_finite() { predicted.max(0.0) } else { 0.0 };
        *self = Self { seconds: self.wait(now) + predicted, at: now };
    }
}

/// How much the news about an endpoint can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Its guard's reports arrive.
    Reported,
    /// They do not; used when no other is left.
    Unreported,
}

/// One endpoint as the balancer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// How far to trust the rest.
    pub tier: Tier,
    /// Whether it is only for what the others do not take part in.
    pub standby: bool,
    /// Share of traffic it may get, 0 (not routable) to 1.
    pub weight: f64,
    /// Predicted seconds until the request would start.
    pub wait: f64,
    /// Our requests on it.
    pub in_flight: usize,
}

/// The index of the candidate to send to, or `None` when none is routable.
///
/// A candidate of weight w takes part in the share w of the picks, a standby only when no other does. Of those that take part
/// the least wait wins, then the fewest requests in flight, then chance. `roll` is a uniform random number.
pub fn pick(candidates: &[Candidate], roll: u64) -> Option<usize> {
    let routable = |at: &usize| candidates.get(*at).is_some_and(|candidate| candidate.weight > 0.0);
    let tier = (0..candidates.len()).filter(routable).map(|at| candidates[at].tier).min()?;
    let trusted: Vec<usize> =
        (0..candidates.len()).filter(routable).filter(|at| candidates[*at].tier == tier).collect();
    // A roll of its own for each.
    let takes_part = |at: &usize| unit(mix(roll ^ mix(*at as u64 + 1))) < candidates[*at].weight;
    let mut best: Vec<usize> = trusted.iter().copied().filter(takes_part).collect();
    if best.iter().any(|at| !candidates[*at].standby) {
        best.retain(|at| !candidates[*at].standby);
    }
    if best.is_empty() {
        best = trusted;
    }
    let wait = best.iter().map(|at| candidates[*at].wait).fold(f64::INFINITY, f64::min);
    best.retain(|at| candidates[*at].wait <= wait + TIE_SECONDS);
    let in_flight = best.iter().map(|at| candidates[*at].in_flight).min()?;
    best.retain(|at| candidates[*at].in_flight == in_flight);
    best.get((mix(roll) % best.len().max(1) as u64) as usize).copied()
}

#[cfg(test)]
mod tests;
