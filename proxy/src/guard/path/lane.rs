//! The GPU lane: who may use the engine now, who waits, and how many seconds of work that is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::config;

mod fair;
mod jobs;
mod queue;
mod slot;
#[cfg(test)]
pub(in crate::guard) mod testing;
#[cfg(test)]
mod tests;

use jobs::Jobs;
pub use jobs::{Claim, Job, Permit, Priority};
use queue::{Queue, Waiter};
pub use slot::{Slot, Ticket};

/// The lane of one engine. Cloning shares it.
///
/// Among the jobs that are ready to start, the class of the job decides and then the order of arrival; a job that waits
/// long rises by a class. Where jobs tell whose they are, those who wait are served in turn before that. Each has predicted seconds of work, so the lane knows how much is ahead of a newcomer.
#[derive(Clone, Debug)]
pub struct Lane {
    shared: Arc<Mutex<State>>,
}

/// Why a job is not admitted to the lane.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Too much work waits already.
    #[error("the lane is full for {wait:?}")]
    Full {
        /// Predicted time until there is room.
        wait: Duration,
    },
    /// The engine is out of rotation.
    #[error(transparent)]
    Ejected(#[from] Ejected),
}

/// The engine is out of rotation: nothing starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lane is ejected")]
pub struct Ejected;

/// Parts of conversations that may wait for each job that may run. More than one is early: the first of a client's pieces
/// is being played while the second is made.
const MAX_CONTINUATIONS: usize = 8;
/// How soon a refused conversation may try again; how long the others last is for their clients to say.
const STREAM_WAIT: Duration = Duration::from_secs(5);

/// The lane at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LaneView {
    /// What the engine works on, in the order of start: jobs, probes and conversations.
    pub running: Vec<Job>,
    /// When any job last showed a sign of work.
    pub progress: Option<Instant>,
    /// Jobs that wait and would start at once.
    pub waiting: usize,
    /// Their predicted work together, seconds.
    pub waiting_seconds: f64,
    /// Jobs whose upload is under way: no work ahead yet.
    pub uploading: usize,
    /// Whether the engine takes one job at a time.
    pub serial: bool,
}

impl LaneView {
    /// Clients' jobs that hold a permit of the lane: what keeps an engine busy, or hung.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.running.iter().filter(|job| job.permit == Permit::Job && !job.is_probe())
    }

    /// Whether no client has a job running or waiting. Conversations last, and are no sign of work by themselves.
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.running.iter().all(|job| job.is_probe() || job.permit == Permit::Stream)
    }

    /// Whether conversations are open.
    pub fn is_conversing(&self) -> bool {
        self.running.iter().any(|job| job.permit == Permit::Stream)
    }
}

#[derive(Debug)]
struct State {
    max_waiting: usize,
    max_wait_seconds: f64,
    max_uploads: usize,
    max_streams: usize,
    jobs: usize,
    ejected: bool,
    /// Sticky faults seen that the health loop has not looked at yet: nothing starts meanwhile.
    holds: usize,
    next_id: u64,
    running: Jobs,
    queue: Queue,
}

impl Lane {
    /// An open, empty lane.
    pub fn new(config: &config::Lane) -> Self {
        let state = State {
            max_waiting: config.max_waiting,
            max_wait_seconds: config.max_wait_seconds,
            max_uploads: config.max_uploads,
            max_streams: config.max_streams,
            jobs: config.jobs.max(1),
            ejected: false,
            holds: 0,
            next_id: 0,
            running: Jobs::default(),
            queue: Queue::default(),
        };
        Self { shared: Arc::new(Mutex::new(state)) }
    }

    /// Takes over the limits of the queue. How many jobs run at a time is for [`Lane::set_jobs`].
    pub fn configure(&self, config: &config::Lane) {
        let mut state = self.shared.lock();
        state.max_waiting = config.max_waiting;
        state.max_wait_seconds = config.max_wait_seconds;
        state.max_uploads = config.max_uploads;
        state.max_streams = config.max_streams;
    }

    /// Takes a place in the queue. It is work ahead of others only from [`Ticket::granted`] on.
    ///
    /// # Errors
    /// [`Refusal::Full`] when as many jobs wait or upload, or as much work is ahead, as the configuration allows; for
    /// [`Priority::Session`], when `MAX_CONTINUATIONS` of them wait for each job that may run. [`Refusal::Ejected`] while
    /// ejected.
    pub fn enqueue(&self, claim: Claim, now: Instant) -> Result<Ticket, Refusal> {
        let mut state = self.shared.lock();
        if state.is_ejected() {
            return Err(Ejected.into());
        }
        let claim = Claim { predicted: sane(claim.predicted), ..claim };
        match claim.priority {
            Priority::Probe => {}
            Priority::Session if state.queue.count(Priority::Session) >= state.jobs * MAX_CONTINUATIONS => {
                return Err(Refusal::Full { wait: state.next_free(now) });
            }
            Priority::Session => {}
            Priority::Short | Priority::Long => state.admit(claim, now)?,
        }
        Ok(self.wait(&mut state, claim, false, now))
    }

    /// Waits for the lane ahead of all waiting jobs, also while ejected, but never beside more jobs than allowed.
    ///
    /// Behind a hung job this never resolves: give it a deadline.
    pub async fn probe_slot(&self, claim: Claim) -> Slot {
        loop {
            let mut ticket = self.wait(&mut self.shared.lock(), claim, true, clock());
            // Only an ejection in between ends the wait without a slot.
            if let Ok(slot) = ticket.granted().await {
                return slot;
            }
        }
    }

    fn wait(&self, state: &mut State, claim: Claim, ready: bool, now: Instant) -> Ticket {
        let id = state.new_id();
        let (grant, granted) = oneshot::channel();
        state.queue.push(Waiter { id, claim, ready, since: now, grant });
        Ticket::new(id, self.clone(), granted)
    }

    /// Starts a conversation beside the lane: it lasts as long as its client speaks.
    ///
    /// # Errors
    /// [`Refusal::Full`] when there are as many as the configuration allows. [`Refusal::Ejected`] while ejected.
    pub fn converse(&self, claim: Claim, now: Instant) -> Result<Slot, Refusal> {
        let mut state = self.shared.lock();
        if state.is_ejected() {
            return Err(Ejected.into());
        }
        if state.running.holding(Permit::Stream) >= state.max_streams {
            return Err(Refusal::Full { wait: STREAM_WAIT });
        }
        Ok(self.start(&mut state, claim, Permit::Stream, now))
    }

    /// Starts a job past the lane, whatever runs: a probe of an engine whose lane is blocked, or a request that the engine
    /// answers before it has the whole of it.
    pub fn bypass(&self, claim: Claim, now: Instant) -> Slot {
        self.start(&mut self.shared.lock(), claim, Permit::None, now)
    }

    fn start(&self, state: &mut State, claim: Claim, permit: Permit, now: Instant) -> Slot {
        let id = state.new_id();
        Slot::start(id, self, &mut state.running, claim, permit, now)
    }

    /// Takes the engine out of rotation: waiting jobs are refused at once, newcomers are refused, running jobs go on.
    pub fn eject(&self) {
        let mut state = self.shared.lock();
        state.ejected = true;
        state.queue.clear();
    }

    /// Undoes [`Lane::eject`]. For the health loop alone.
    pub fn readmit(&self) {
        self.shared.lock().ejected = false;
    }

    /// As [`Lane::eject`] until what is returned is dropped: for a fault that the health loop has yet to look at.
    pub fn hold(&self) -> Hold {
        let mut state = self.shared.lock();
        state.holds += 1;
        state.queue.clear();
        Hold { lane: self.clone() }
    }

    /// Whether the lane is ejected.
    #[cfg(test)]
    pub(in crate::guard) fn is_ejected(&self) -> bool {
        self.shared.lock().is_ejected()
    }

    /// How many jobs may run at a time.
    pub fn jobs(&self) -> usize {
        self.shared.lock().jobs
    }

    /// Changes how many jobs may run at a time, at least one. Running jobs are left alone.
    pub fn set_jobs(&self, jobs: usize) {
        self.shared.lock().jobs = jobs.max(1);
        self.dispatch();
    }

    /// How many jobs run at a time once one more has started.
    pub fn beside(&self) -> usize {
        let state = self.shared.lock();
        (state.running.holding(Permit::Job) + 1).min(state.jobs)
    }

    /// What runs and what waits.
    pub fn view(&self) -> LaneView {
        let state = self.shared.lock();
        LaneView {
            running: state.running.iter().cloned().collect(),
            progress: state.running.last_progress(),
            waiting: state.queue.ready(),
            waiting_seconds: state.queue.seconds(Priority::Long),
            uploading: state.queue.uploading(),
            serial: state.jobs == 1,
        }
    }

    /// Predicted seconds until a short job that arrives now would start.
    pub fn queue_seconds(&self, now: Instant) -> f64 {
        self.shared.lock().queue_seconds(Priority::Short, now)
    }

    /// The engine was replaced: ends every call that it had, and refuses all that wait for it.
    pub fn replaced(&self) {
        let mut state = self.shared.lock();
        state.running.clear();
        state.queue.clear();
    }

    /// Ends the calls whose deadline has passed and frees their permits. For use when a probe has passed meanwhile: the
    /// engine works and has lost them.
    pub fn forget_lost(&self) {
        self.shared.lock().running.forget_lost();
    }

    /// Gives free permits to those that are to start next.
    fn dispatch(&self) {
        loop {
            let mut state = self.shared.lock();
            if !state.has_room() {
                return;
            }
            let now = clock();
            let Some(Waiter { id, claim, grant, .. }) = state.queue.pop(now) else { return };
            let slot = Slot::start(id, self, &mut state.running, claim, Permit::Job, now);
            drop(state);
            // A job that left in this very moment gives the slot back by dropping it, which takes the lock again.
            let unclaimed = grant.send(slot);
            drop(unclaimed);
        }
    }
}

impl State {
    fn is_ejected(&self) -> bool {
        self.ejected || self.holds > 0
    }

    fn has_room(&self) -> bool {
        self.running.holding(Permit::Job) < self.jobs
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Whether there is place for a newcomer.
    fn admit(&self, claim: Claim, now: Instant) -> Result<(), Refusal> {
        let ahead = self.queue_seconds_for(claim, now);
        if ahead > self.max_wait_seconds {
            let wait = seconds(ahead - self.max_wait_seconds);
            return Err(Refusal::Full { wait: wait.max(self.next_free(now)) });
        }
        let waiting = self.queue.ready();
        let free = waiting == 0 && self.has_room();
        if claim.tenant.is_some() && self.queue.ready_of(claim.tenant) >= self.max_waiting_of_one() {
            return Err(Refusal::Full { wait: self.next_free(now) });
        }
        if (!free && waiting >= self.max_waiting) || self.queue.uploading() >= self.max_uploads {
            return Err(Refusal::Full { wait: self.next_free(now) });
        }
        Ok(())
    }

    /// Jobs of one tenant that may wait: the rest of the queue is for others.
    fn max_waiting_of_one(&self) -> usize {
        (self.max_waiting - self.max_waiting / 4).max(1)
    }

    /// Predicted seconds until a job that arrives now would start.
    fn queue_seconds_for(&self, claim: Claim, now: Instant) -> f64 {
        if claim.tenant.is_none() || (self.has_room() && self.queue.ready() == 0) {
            return self.queue_seconds(claim.priority, now);
        }
        let ahead = self.queue.seconds_for(claim.priority, claim.tenant, claim.predicted);
        (self.remaining(now).sum::<f64>() + ahead) / self.jobs as f64
    }

    fn queue_seconds(&self, priority: Priority, now: Instant) -> f64 {
        if self.has_room() && self.queue.ready() == 0 {
            return 0.0;
        }
        (self.remaining(now).sum::<f64>() + self.queue.seconds(priority)) / self.jobs as f64
    }

    /// Predicted time until the first running job ends.
    fn next_free(&self, now: Instant) -> Duration {
        seconds(self.remaining(now).reduce(f64::min).unwrap_or(0.0))
    }

    fn remaining(&self, now: Instant) -> impl Iterator<Item = f64> {
        self.running.iter().filter(|job| job.permit == Permit::Job).map(move |job| job.remaining(now))
    }
}

/// Nothing starts while it lives.
#[derive(Debug)]
pub struct Hold {
    lane: Lane,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.lane.shared.lock().holds -= 1;
    }
}

/// The clock that paused tests control.
fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn sane(seconds: f64) -> f64 {
    if seconds.is_finite() { seconds.max(0.0) } else { 0.0 }
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value.max(0.0)).unwrap_or_default()
}
