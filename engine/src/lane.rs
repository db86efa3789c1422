//! Jobs first come first served, one at a time on each thread, and each thread owns models of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Jobs that may wait; further ones are refused.
pub const MAX_WAITING: usize = 64;

/// The shortest service time of a job: `fixed + per_audio_second * audio_s`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    /// Seconds for any job.
    pub fixed_s: f64,
    /// Seconds for each second of audio.
    pub per_audio_second: f64,
}

impl std::str::FromStr for Pace {
    type Err = String;

    /// Reads `a,b`, both in seconds, at most an hour.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            part.trim().parse::<f64>().ok().filter(|value| (0.0..=3600.0).contains(value)).ok_or(())
        };
        match text.split_once(',').map(|(fixed, per_second)| (number(fixed), number(per_second))) {
            Some((Ok(fixed_s), Ok(per_audio_second))) => Ok(Self { fixed_s, per_audio_second }),
            _ => Err("expected two numbers of seconds, as in 0.05,0.02".into()),
        }
    }
}

/// Holds a running job back to its pace.
#[derive(Debug)]
pub struct ServiceClock {
    pace: Pace,
    /// Everything takes this many times as long.
    slow: f64,
    started: Instant,
    slept: Duration,
}

impl ServiceClock {
    /// A clock for a job that starts now.
    #[must_use]
    pub fn start(pace: Pace, slow: f64) -> Self {
        Self { pace, slow, started: Instant::now(), slept: Duration::ZERO }
    }

    /// Sleeps until a job of `audio_s` seconds of audio may be finished; early when `gone` says so.
    pub fn hold(&mut self, audio_s: f64, gone: impl Fn() -> bool) {
        const SLICE: Duration = Duration::from_millis(20);
        let worked = self.started.elapsed().saturating_sub(self.slept);
        let due = service_time(self.pace, self.slow, worked, audio_s);
        let asleep = Instant::now();
        while self.started.elapsed() < due && !gone() {
            std::thread::sleep(SLICE.min(due.saturating_sub(self.started.elapsed())));
        }
        self.slept += asleep.elapsed();
    }
}

fn service_time(pace: Pace, slow: f64, worked: Duration, audio_s: f64) -> Duration {
    let paced = pace.fixed_s + pace.per_audio_second * audio_s;
    Duration::try_from_secs_f64(worked.as_secs_f64().max(paced) * slow).unwrap_or(worked)
}

/// What came of loading the models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// Still at it.
    NotYet,
    /// Ready.
    Yes,
    /// Could not be loaded; see the log.
    Failed,
}

/// The lane is gone: its models failed to load, or the job panicked.
#[derive(Debug, thiserror::Error)]
#[error("the job was lost")]
pub struct Lost;

/// Who may enter a lane, how many have, and whether its models are loaded.
#[derive(Debug)]
pub struct Gate {
    /// Jobs that the lane runs at a time.
    pub jobs: usize,
    loading: AtomicUsize,
    failed: AtomicBool,
    in_flight: AtomicUsize,
    max_in_flight: AtomicUsize,
    accepted: AtomicU64,
    started: AtomicU64,
}

/// A place in the lane, from admission to the end of the job.
#[derive(Debug)]
pub struct Place {
    /// Inferences that ran or waited when this one came.
    pub ahead: usize,
    gate: Arc<Gate>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Figures of a lane since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Figures {
    /// Inferences accepted.
    pub inferences: u64,
    /// Jobs that began to run.
    pub started: u64,
    /// Inferences accepted and not finished now.
    pub in_flight: usize,
    /// The most inferences that were in flight at once.
    pub max_concurrent: usize,
}

impl Gate {
    /// The gate of a lane that runs `jobs` at a time, at least one.
    #[must_use]
    pub fn new(jobs: usize) -> Self {
        let jobs = jobs.max(1);
        Self {
            jobs,
            loading: AtomicUsize::new(jobs),
            failed: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            max_in_flight: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            started: AtomicU64::new(0),
        }
    }

    /// Whether the models of all threads are loaded.
    #[must_use]
    pub fn loaded(&self) -> Loaded {
        match (self.failed.load(Ordering::Acquire), self.loading.load(Ordering::Acquire)) {
            (true, _) => Loaded::Failed,
            (false, 0) => Loaded::Yes,
            (false, _) => Loaded::NotYet,
        }
    }

    /// Takes a place unless `limit` are taken already.
    #[must_use]
    pub fn enter(self: &Arc<Self>, limit: usize) -> Option<Place> {
        let grow = |taken| (taken < limit).then_some(taken + 1);
        let ahead = self.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, grow).ok()?;
        self.max_in_flight.fetch_max(ahead + 1, Ordering::AcqRel);
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Some(Place { ahead, gate: self.clone() })
    }

    /// The figures so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            inferences: self.accepted.load(Ordering::Relaxed),
            started: self.started.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Acquire),
            max_concurrent: self.max_in_flight.load(Ordering::Acquire),
        }
    }
}

type Job<M> = Box<dyn FnOnce(&mut M) + Send>;

/// A queue in front of the models `M`, which never leave their threads.
pub struct Lane<M> {
    jobs: mpsc::Sender<Job<M>>,
}

impl<M: 'static> Lane<M> {
    /// Starts as many threads as the gate has jobs and loads the models in each; the gate tells when all have.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start<E: std::fmt::Display>(
        gate: &Arc<Gate>,
        load: impl Fn() -> Result<M, E> + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job<M>>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..gate.jobs {
            let (gate, queue, load) = (gate.clone(), queue.clone(), load.clone());
            std::thread::Builder::new().name("lane".into()).spawn(move || work(&gate, &queue, load))?;
        }
        Ok(Self { jobs })
    }

    /// Queues a job. It owns its [`Place`] and gives it up before its last word to the client, who may come back at
    /// once.
    pub fn submit(&self, job: impl FnOnce(&mut M) + Send + 'static) {
        if self.jobs.send(Box::new(job)).is_err() {
            tracing::warn!("job refused by a closed lane");
        }
    }

    /// Queues a job and awaits its result.
    ///
    /// # Errors
    /// [`Lost`] when the job did not run to its end.
    pub async fn run<T: Send + 'static>(
        &self,
        place: Place,
        job: impl FnOnce(&mut M) -> T + Send + 'static,
    ) -> Result<T, Lost> {
        let (sender, result) = oneshot::channel();
        self.submit(move |models| {
            // Declared after the captured sender, so that a panic too gives the place up before the client hears.
            let place = place;
            // A client that left while its job waited costs nothing.
            if !sender.is_closed() {
                let made = job(models);
                drop(place);
                let _gone = sender.send(made);
            }
        });
        result.await.map_err(|_| Lost)
    }
}

/// A thread of a lane: loads its models and runs jobs until the lane is gone.
fn work<M, E: std::fmt::Display>(
    gate: &Gate,
    queue: &Mutex<mpsc::Receiver<Job<M>>>,
    load: impl Fn() -> Result<M, E>,
) {
    let mut models = match load() {
        Ok(models) => models,
        Err(error) => {
            tracing::error!(%error, "failed to load models");
            gate.failed.store(true, Ordering::Release);
            return;
        }
    };
    gate.loading.fetch_sub(1, Ordering::AcqRel);
    loop {
        // One thread waits for the next job, the others for their turn to wait.
        let next = queue.lock().recv();
        let Ok(job) = next else { return };
        gate.started.fetch_add(1, Ordering::Relaxed);
        let run = std::panic::AssertUnwindSafe(|| job(&mut models));
        if std::panic::catch_unwind(run).is_err() {
            tracing::error!("job panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_is_two_numbers() {
        assert_eq!("0.5, 0.02".parse(), Ok(Pace { fixed_s: 0.5, per_audio_second: 0.02 }));
        for wrong in ["", "1", "a,b", "1,-2", "1,2,3", "inf,0", "nan,0"] {
            assert!(wrong.parse::<Pace>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn service_time_is_the_pace_or_the_work_times_the_slowness() {
        let pace = Pace { fixed_s: 0.5, per_audio_second: 0.1 };
        let work = Duration::from_millis(300);
        assert_eq!(service_time(pace, 1.0, work, 10.0), Duration::from_millis(1500));
        assert_eq!(service_time(pace, 4.0, work, 0.0), Duration::from_secs(2));
        assert_eq!(service_time(Pace::default(), 3.0, work, 10.0), Duration::from_millis(900));
    }

    #[tokio::test]
    async fn jobs_run_in_order_one_at_a_time_and_survive_a_panic() {
        let gate = Arc::new(Gate::new(1));
        let lane = Lane::start(&gate, || Ok::<_, Lost>(Vec::new())).unwrap();
        let first = lane.run(gate.enter(2).unwrap(), |seen: &mut Vec<u32>| seen.push(1));
        let second = lane.run(gate.enter(2).unwrap(), |seen: &mut Vec<u32>| seen.push(2));
        assert!(gate.enter(2).is_none());
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_ok() && second.is_ok());
        assert!(lane.run(gate.enter(1).unwrap(), |_| panic!("on purpose")).await.is_err());
        let seen = lane.run(gate.enter(1).unwrap(), |seen| seen.clone()).await.unwrap();
        assert_eq!(seen, [1, 2]);
        let figures = gate.figures();
        assert_eq!((figures.inferences, figures.max_concurrent, figures.started), (4, 2, 4));
    }

    #[tokio::test]
    async fn as_many_jobs_run_at_a_time_as_the_gate_has() {
        let gate = Arc::new(Gate::new(2));
        let lane = Lane::start(&gate, || Ok::<_, Lost>(())).unwrap();
        let (release, held) = mpsc::channel::<()>();
        let stuck = lane.run(gate.enter(9).unwrap(), move |()| held.recv().is_ok());
        let others = async {
            for _ in 0..3 {
                assert!(lane.run(gate.enter(9).unwrap(), |()| ()).await.is_ok());
            }
            release.send(()).unwrap();
        };
        let (stuck, ()) = tokio::join!(stuck, others);
        assert!(matches!(stuck, Ok(true)));
        assert_eq!(gate.loaded(), Loaded::Yes);
    }

    #[tokio::test]
    async fn models_that_fail_to_load_are_reported_and_lose_jobs() {
        let gate = Arc::new(Gate::new(1));
        let lane = Lane::<()>::start(&gate, || Err(Lost)).unwrap();
        assert!(lane.run(gate.enter(1).unwrap(), |()| ()).await.is_err());
        assert_eq!(gate.loaded(), Loaded::Failed);
    }
}
