//! A job's hold on the lane: a place in the queue, then the right to run.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::guard::path::lane::jobs::Jobs;
use crate::guard::path::lane::{Claim, Ejected, Job, Lane, Permit, clock, sane};
use crate::job::input::InputHash;

/// A place in the queue. Dropping it gives it up.
#[derive(Debug)]
pub struct Ticket {
    id: u64,
    lane: Lane,
    /// `None` once it has resolved.
    granted: Option<oneshot::Receiver<Slot>>,
}

impl Ticket {
    pub(super) fn new(id: u64, lane: Lane, granted: oneshot::Receiver<Slot>) -> Self {
        Self { id, lane, granted: Some(granted) }
    }

    /// Waits for the lane, its upload complete and ready to start at once. May be cancelled and called again.
    ///
    /// # Errors
    /// [`Ejected`] as soon as the lane is.
    pub async fn granted(&mut self) -> Result<Slot, Ejected> {
        if let Some(waiter) = self.lane.shared.lock().queue.get_mut(self.id) {
            waiter.ready = true;
        }
        self.lane.dispatch();
        self.resolved().await
    }

    /// Corrects the prediction while the job waits, once more is known of its size.
    pub fn revise(&self, predicted_seconds: f64) {
        if let Some(waiter) = self.lane.shared.lock().queue.get_mut(self.id) {
            waiter.claim.predicted = sane(predicted_seconds);
        }
    }

    /// Resolves when the lane is ejected; for use while not yet ready to start. Keeps the place.
    pub async fn ejected(&mut self) -> Ejected {
        // No slot is given to a ticket that is not ready, so only an ejection ends this.
        let unclaimed = self.resolved().await;
        drop(unclaimed);
        Ejected
    }

    async fn resolved(&mut self) -> Result<Slot, Ejected> {
        let granted = self.granted.as_mut().ok_or(Ejected)?;
        let slot = granted.await;
        self.granted = None;
        slot.map_err(|_| Ejected)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.lane.shared.lock().queue.remove(self.id);
    }
}

/// The right to run one job, and its entry in the registry. Dropping it ends the job and lets the next one start.
#[derive(Debug)]
pub struct Slot {
    id: u64,
    lane: Lane,
    permit: Permit,
    ended: CancellationToken,
    jobs_at_start: usize,
    answered: bool,
}

impl Slot {
    /// Starts the job of that id.
    pub(super) fn start(
        id: u64,
        lane: &Lane,
        running: &mut Jobs,
        claim: Claim,
        permit: Permit,
        now: Instant,
    ) -> Self {
        let ended = running.start(id, claim, permit, now);
        let jobs_at_start = running.holding(Permit::Job);
        Self { id, lane: lane.clone(), permit, ended, jobs_at_start, answered: false }
    }

    /// What it holds.
    pub fn permit(&self) -> Permit {
        self.permit
    }

    /// How many jobs the engine had at a time while this one ran, itself included: the mean of its start and now.
    pub fn jobs(&self) -> usize {
        let now = self.lane.shared.lock().running.holding(Permit::Job);
        (self.jobs_at_start + now).div_ceil(2)
    }

    /// Notes what is known of the job when the engine gets it.
    pub fn begin(&self, input: Option<InputHash>, deadline: Option<Duration>) {
        self.update(|job| (job.input, job.deadline) = (input, deadline));
    }

    /// The engine showed a sign of work on it.
    pub fn progress(&self) {
        self.lane.shared.lock().running.advance(self.id, clock());
    }

    /// Whether the engine cannot go on before the client reads or sends.
    pub fn awaits_client(&self, awaits: bool) {
        self.update(|job| job.awaits_client = awaits);
        if !awaits {
            self.progress();
        }
    }

    /// Its deadline has passed.
    pub fn lose(&self) {
        self.update(|job| job.lost = true);
    }

    /// The engine has answered it whole.
    pub fn answered(&mut self) {
        self.answered = true;
    }

    /// Ends when the call is of no use any more: the engine was replaced, or has lost the job.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    fn update(&self, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.lane.shared.lock().running.get_mut(self.id) {
            change(job);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.lane.shared.lock().running.end(self.id, self.answered);
        self.lane.dispatch();
    }
}
