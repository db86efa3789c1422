//! Decides when an answer is overdue, whether the job may go to a second engine, and which outcome counts. Pure.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::config;
use crate::error::Error;
use crate::upstream::NO_WAIT_SECONDS;
use crate::upstream::balance::{Candidate, Tier};
use crate::upstream::exchange::Stop;

#[cfg(test)]
mod tests;

/// How soon after a hedge was not possible it is tried again.
pub(super) const RECHECK: Duration = Duration::from_millis(250);

/// What is predicted for a job on an endpoint, seconds.
#[derive(Clone, Copy, Debug)]
pub struct Forecast {
    /// Until it starts.
    pub wait: f64,
    /// From then on.
    pub work: f64,
}

/// How long an engine that has all of a job may show nothing of an answer; `None` for work that is never hedged.
///
/// The wait in the queue comes on top: before its turn a job's silence proves nothing.
pub fn overdue_after(forecast: Forecast, config: &config::Hedge) -> Option<Duration> {
    let fits = forecast.work <= config.max_predicted.as_secs_f64();
    if !config.enabled || !fits {
        return None;
    }
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).ok();
    let work = seconds(config.factor * forecast.work)?;
    seconds(forecast.wait)?.checked_add(work.max(config.after))
}

/// Whether an engine is so idle and so well known that a hedge costs no other job any time. What is heard live goes beside
/// other live work: such engines hear many at once, and no queue is the sign of room.
pub fn has_room(candidate: &Candidate, is_live: bool) -> bool {
    candidate.tier == Tier::Reported
        && candidate.weight >= 1.0
        && (is_live || candidate.in_flight == 0)
        && candidate.wait <= NO_WAIT_SECONDS
}

/// Whether an outcome counts while another attempt of the same job runs: an answer does, and an error that no other engine
/// is asked about. What an engine never saw is no answer of it.
pub fn is_definite<T>(outcome: &Result<T, Stop>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(Stop::Failed(failure)) => !failure.is_retryable(),
        Err(Stop::Final(error)) => matches!(error, Error::EngineRefused { .. } | Error::PoisonInput),
    }
}

/// Hedges that may be sent: a share of the jobs, and a few at once.
#[derive(Debug)]
pub struct Budget {
    /// Millionths of a hedge.
    tokens: AtomicU32,
}

impl Budget {
    const HEDGE: u32 = 1_000_000;
    /// As many at once, so that the first hang of a quiet system is hedged too.
    pub const BURST: u32 = 3;
    const CAPACITY: u32 = Self::BURST * Self::HEDGE;

    /// A job was started; `share` is the hedges per job. Writes nothing while the budget is full.
    pub fn deposit(&self, share: f64) {
        // What is no number counts as 0.
        let share = (share.clamp(0.0, 1.0) * f64::from(Self::HEDGE)) as u32;
        let more =
            |tokens: u32| (tokens < Self::CAPACITY).then(|| tokens.saturating_add(share).min(Self::CAPACITY));
        // Full is as good as deposited.
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Takes one hedge if there is one.
    pub fn withdraw(&self) -> bool {
        let less = |tokens: u32| tokens.checked_sub(Self::HEDGE);
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { tokens: AtomicU32::new(Self::CAPACITY) }
    }
}

/// Tells the task that polls an attempt that its answer is overdue. Rung from within the attempt, so it wakes nothing itself.
#[derive(Debug)]
pub struct Alarm {
    armed: bool,
    rings: AtomicBool,
}

impl Alarm {
    /// One that may ring if `armed`.
    pub fn new(armed: bool) -> Self {
        Self { armed, rings: AtomicBool::new(false) }
    }

    /// Whether it may ring.
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    /// The answer is overdue.
    pub fn ring(&self) {
        self.rings.store(true, Ordering::Relaxed);
    }

    /// Whether it rang since this was asked last.
    pub fn rang(&self) -> bool {
        self.rings.swap(false, Ordering::Relaxed)
    }
}
