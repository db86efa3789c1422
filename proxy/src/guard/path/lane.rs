//! The GPU lane: who may use the engine now, who waits, and how many seconds of work that is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::config;

#[cfg(test)]
mod tests;

/// The lane of one engine. Cloning shares it.
///
/// Jobs are served in the order in which they came, among those that are ready to start, and continuations first. A job
/// that waits has predicted seconds of work, so the lane knows how much is ahead of a newcomer.
#[derive(Clone, Debug)]
pub struct Lane {
    shared: Arc<Shared>,
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

/// What a job is to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A job of its own.
    Newcomer,
    /// The next piece of a job whose earlier pieces were served: it goes before newcomers.
    Continuation,
}

/// Continuations that may wait for each job that may run. More than one is early: the first of a client's pieces is being
/// played while the second is made.
const MAX_CONTINUATIONS: usize = 8;

/// The engine is out of rotation: nothing starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lane is ejected")]
pub struct Ejected;

/// A job that has the lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Running {
    /// When it got the lane.
    pub started: Instant,
    /// Seconds that it is predicted to take.
    pub predicted: f64,
}

/// The lane at one moment. Probes are not part of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LaneView {
    /// Jobs that have the lane, in the order in which they got it.
    pub running: Vec<Running>,
    /// Jobs that wait and would start at once.
    pub waiting: usize,
    /// Their predicted work together, seconds.
    pub waiting_seconds: f64,
    /// Jobs whose upload is under way: no work ahead yet.
    pub uploading: usize,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    max_waiting: usize,
    max_wait_seconds: f64,
    max_uploads: usize,
    jobs: usize,
    ejected: bool,
    next_id: u64,
    running: Vec<(u64, Running)>,
    probing: usize,
    waiting: VecDeque<Waiter>,
    probes: VecDeque<oneshot::Sender<Slot>>,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    predicted: f64,
    kind: Kind,
    /// Whether its upload is complete and it would start at once; until then others may overtake it.
    ready: bool,
    grant: oneshot::Sender<Slot>,
}

impl Lane {
    /// An open, empty lane.
    pub fn new(config: &config::Lane) -> Self {
        let state = State {
            max_waiting: config.max_waiting,
            max_wait_seconds: config.max_wait_seconds,
            max_uploads: config.max_uploads,
            jobs: config.jobs.max(1),
            ejected: false,
            next_id: 0,
            running: Vec::new(),
            probing: 0,
            waiting: VecDeque::new(),
            probes: VecDeque::new(),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state) }) }
    }

    /// Takes over the limits of the queue. How many jobs run at a time is for [`Lane::set_jobs`].
    pub fn configure(&self, config: &config::Lane) {
        let mut state = self.shared.state.lock();
        state.max_waiting = config.max_waiting;
        state.max_wait_seconds = config.max_wait_seconds;
        state.max_uploads = config.max_uploads;
    }

    /// Takes a place in the queue for `predicted_seconds` of work: a newcomer at its end, a continuation before all newcomers.
    ///
    /// It is work ahead of others only from [`Ticket::granted`] on.
    ///
    /// # Errors
    /// [`Refusal::Full`] when as many jobs wait or upload, or as much work is ahead, as the configuration allows; for a
    /// continuation, when `MAX_CONTINUATIONS` of them wait for each job that may run. [`Refusal::Ejected`] while ejected.
    pub fn enqueue(&self, predicted_seconds: f64, kind: Kind, now: Instant) -> Result<Ticket, Refusal> {
        let mut state = self.shared.state.lock();
        if state.ejected {
            return Err(Ejected.into());
        }
        let continuations = state.waiting.iter().filter(|waiter| waiter.kind == Kind::Continuation).count();
        let at = match kind {
            Kind::Newcomer => {
                state.admit(now)?;
                state.waiting.len()
            }
            Kind::Continuation if continuations >= state.jobs * MAX_CONTINUATIONS => {
                return Err(Refusal::Full { wait: state.next_free(now) });
            }
            Kind::Continuation => continuations,
        };
        let id = state.new_id();
        let (grant, granted) = oneshot::channel();
        let predicted = sane(predicted_seconds);
        state.waiting.insert(at, Waiter { id, predicted, kind, ready: false, grant });
        Ok(Ticket { id, lane: self.clone(), granted: Some(granted) })
    }

    /// Waits for the lane ahead of all waiting jobs, also while ejected, but never beside more jobs than allowed.
    ///
    /// Behind a hung job this never resolves: give it a deadline.
    pub async fn probe_slot(&self) -> Slot {
        loop {
            let (grant, granted) = oneshot::channel();
            self.shared.state.lock().probes.push_back(grant);
            self.dispatch();
            // Granting ends only with the lane itself, which `self` keeps alive.
            if let Ok(slot) = granted.await {
                return slot;
            }
        }
    }

    /// Takes the engine out of rotation: waiting jobs are refused at once, newcomers are refused, running jobs go on.
    pub fn eject(&self) {
        let mut state = self.shared.state.lock();
        state.ejected = true;
        state.waiting.clear();
    }

    /// Undoes [`Lane::eject`].
    pub fn readmit(&self) {
        self.shared.state.lock().ejected = false;
    }

    /// Whether the lane is ejected.
    pub fn is_ejected(&self) -> bool {
        self.shared.state.lock().ejected
    }

    /// How many jobs may run at a time.
    pub fn jobs(&self) -> usize {
        self.shared.state.lock().jobs
    }

    /// Changes how many jobs may run at a time, at least one. Running jobs are left alone.
    pub fn set_jobs(&self, jobs: usize) {
        self.shared.state.lock().jobs = jobs.max(1);
        self.dispatch();
    }

    /// What runs and what waits.
    pub fn view(&self) -> LaneView {
        let state = self.shared.state.lock();
        let waiting = state.ready().count();
        LaneView {
            running: state.running.iter().map(|(_, running)| *running).collect(),
            waiting,
            waiting_seconds: state.waiting_seconds(),
            uploading: state.waiting.len() - waiting,
        }
    }

    /// Predicted seconds until a job that arrives now would start.
    pub fn queue_seconds(&self, now: Instant) -> f64 {
        self.shared.state.lock().queue_seconds(now)
    }

    /// Gives free permits to probes first, then to ready jobs.
    fn dispatch(&self) {
        loop {
            let mut state = self.shared.state.lock();
            if !state.has_room() {
                return;
            }
            let (id, grant) = if let Some(grant) = state.probes.pop_front() {
                state.probing += 1;
                (None, grant)
            } else if let Some(at) = state.waiting.iter().position(|waiter| waiter.ready)
                && let Some(waiter) = state.waiting.remove(at)
            {
                state.running.push((waiter.id, Running { started: clock(), predicted: waiter.predicted }));
                (Some(waiter.id), waiter.grant)
            } else {
                return;
            };
            drop(state);
            // A job that left in this very moment gives the slot back by dropping it, which takes the lock again.
            let unclaimed = grant.send(Slot { id, lane: self.clone() });
            drop(unclaimed);
        }
    }
}

impl State {
    fn has_room(&self) -> bool {
        self.running.len() + self.probing < self.jobs
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Whether there is place for a newcomer.
    fn admit(&self, now: Instant) -> Result<(), Refusal> {
        let ahead = self.queue_seconds(now);
        if ahead > self.max_wait_seconds {
            let wait = seconds(ahead - self.max_wait_seconds);
            return Err(Refusal::Full { wait: wait.max(self.next_free(now)) });
        }
        let waiting = self.ready().count();
        let free = waiting == 0 && self.has_room();
        let uploading = self.waiting.len() - waiting;
        if (!free && waiting >= self.max_waiting) || uploading >= self.max_uploads {
            return Err(Refusal::Full { wait: self.next_free(now) });
        }
        Ok(())
    }

    /// Jobs that wait and would start at once.
    fn ready(&self) -> impl Iterator<Item = &Waiter> {
        self.waiting.iter().filter(|waiter| waiter.ready)
    }

    fn waiting_seconds(&self) -> f64 {
        self.ready().map(|waiter| waiter.predicted).sum()
    }

    fn queue_seconds(&self, now: Instant) -> f64 {
        let running: f64 = self.running.iter().map(|(_, running)| running.remaining(now)).sum();
        if self.has_room() && self.ready().next().is_none() {
            return 0.0;
        }
        (running + self.waiting_seconds()) / self.jobs as f64
    }

    /// Predicted time until the first running job ends.
    fn next_free(&self, now: Instant) -> Duration {
        let soonest = self.running.iter().map(|(_, running)| running.remaining(now)).reduce(f64::min);
        seconds(soonest.unwrap_or(0.0))
    }
}

impl Running {
    /// Seconds left of the prediction; zero when it is overdue.
    pub fn remaining(&self, now: Instant) -> f64 {
        (self.predicted - now.saturating_duration_since(self.started).as_secs_f64()).max(0.0)
    }
}

/// A place in the queue. Dropping it gives it up.
#[derive(Debug)]
pub struct Ticket {
    id: u64,
    lane: Lane,
    /// `None` once it has resolved.
    granted: Option<oneshot::Receiver<Slot>>,
}

impl Ticket {
    /// Waits for the lane, its upload complete and ready to start at once. May be cancelled and called again.
    ///
    /// # Errors
    /// [`Ejected`] as soon as the lane is.
    pub async fn granted(&mut self) -> Result<Slot, Ejected> {
        if let Some(waiter) =
            self.lane.shared.state.lock().waiting.iter_mut().find(|waiter| waiter.id == self.id)
        {
            waiter.ready = true;
        }
        self.lane.dispatch();
        self.resolved().await
    }

    /// Corrects the prediction while the job waits, once more is known of its size.
    pub fn revise(&self, predicted_seconds: f64) {
        let mut state = self.lane.shared.state.lock();
        if let Some(waiter) = state.waiting.iter_mut().find(|waiter| waiter.id == self.id) {
            waiter.predicted = sane(predicted_seconds);
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
        let mut state = self.lane.shared.state.lock();
        if let Some(at) = state.waiting.iter().position(|waiter| waiter.id == self.id) {
            state.waiting.remove(at);
        }
    }
}

/// The right to run one job. Dropping it lets the next one start.
#[derive(Debug)]
pub struct Slot {
    /// `None` for a probe.
    id: Option<u64>,
    lane: Lane,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.lane.shared.state.lock();
        match self.id {
            Some(id) => state.running.retain(|(running, _)| *running != id),
            None => state.probing = state.probing.saturating_sub(1),
        }
        drop(state);
        self.lane.dispatch();
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
