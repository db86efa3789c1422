//! A job on the lane's thread: the faults that strike while it runs, its pace, and whether its client stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::core::Core;
use crate::fault::{ColdStart, Plan};
use crate::lane::ServiceClock;

/// How often a stuck job looks whether it is let go.
const STUCK_PERIOD: Duration = Duration::from_millis(20);

/// What a job takes along to its thread.
pub struct Start {
    core: Arc<Core>,
    running: Arc<AtomicBool>,
    slow: f64,
    delay: Duration,
    stuck: bool,
}

/// A job under way, until it is dropped.
pub struct Run {
    core: Arc<Core>,
    running: Arc<AtomicBool>,
    cold: Option<ColdStart>,
    /// Holds the job back to its pace.
    pub clock: ServiceClock,
}

/// The client of a job; dropped while the job runs, it counts as gone.
pub struct Client {
    core: Arc<Core>,
    running: Arc<AtomicBool>,
}

/// The two ends of a job that queues for the lane.
pub fn prepare(core: &Arc<Core>, plan: &Plan) -> (Start, Client) {
    let running = Arc::new(AtomicBool::new(false));
    let start = Start {
        core: core.clone(),
        running: running.clone(),
        slow: plan.slow,
        delay: Duration::try_from_secs_f64(plan.delay_s).unwrap_or_default(),
        stuck: plan.stuck,
    };
    (start, Client { core: core.clone(), running })
}

impl Start {
    /// Begins the job, as late as F32, F34 and F38 have it, whether or not the client waits for it.
    #[must_use]
    pub fn begin(self) -> Run {
        let Self { core, running, slow, delay, stuck } = self;
        running.store(true, Ordering::Release);
        let mut cold = None;
        if let Some(faults) = &core.faults {
            while stuck && faults.holds(Instant::now()) {
                std::thread::sleep(STUCK_PERIOD);
            }
            cold = faults.cold_start(Instant::now());
        }
        std::thread::sleep(delay + cold.map_or(Duration::ZERO, |cold| cold.length));
        let clock = ServiceClock::start(core.pace, slow);
        Run { core, running, cold, clock }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Release);
        if let (Some(faults), Some(cold)) = (&self.core.faults, self.cold) {
            faults.warmed(cold);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The end of the process is no client's doing.
        let draining = self.core.draining.load(Ordering::Acquire);
        if let Some(faults) = self.core.faults.as_ref()
            && self.running.load(Ordering::Acquire)
            && !draining
        {
            faults.client_left(Instant::now());
        }
    }
}
