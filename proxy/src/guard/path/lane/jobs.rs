//! The registry of what the engine works on: every job, probe and conversation from its start to its end.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::job::input::InputHash;
use crate::protocol::Task;

/// Later jobs that must end before a lost one gives its permit back: the engine works, and has dropped it.
const OVERTAKEN: u32 = 3;

/// What a job is to the queue. The first of these that waits starts first, but for ageing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A golden probe.
    Probe,
    /// Part of a conversation or of a job whose earlier pieces were served.
    Session,
    /// A few seconds of work.
    Short,
    /// More.
    Long,
}

/// What holds a job back from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// One of the jobs that the engine runs at a time.
    Job,
    /// One of the conversations at a time.
    Stream,
    /// None: it goes past the lane.
    None,
}

/// A job as it asks for the engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// What it asks for; `None` for a probe.
    pub task: Option<Task>,
    /// Place of its protocol among the engine's.
    pub protocol: usize,
    /// Seconds of work.
    pub predicted: f64,
    /// Its class in the queue.
    pub priority: Priority,
    /// Who asks, if that is known.
    pub tenant: Option<u64>,
}

impl Claim {
    /// A golden probe, whose work is short.
    pub const PROBE: Self =
        Self { task: None, protocol: 0, predicted: 0.0, priority: Priority::Probe, tenant: None };
}

/// A job that the engine works on.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Unique in its lane, in the order of arrival.
    pub id: u64,
    /// As it asked for the engine.
    pub claim: Claim,
    /// What it holds.
    pub permit: Permit,
    /// When the engine got it.
    pub started: Instant,
    /// Time without progress after which its client gets an error; `None` for what has no limit.
    pub deadline: Option<Duration>,
    /// When the engine last gave a sign of work on it: its start, a part of its answer.
    pub progress: Instant,
    /// Hash of its input.
    pub input: Option<InputHash>,
    /// Whether its deadline has passed.
    pub lost: bool,
    /// Whether the engine cannot go on before the client reads or sends.
    pub awaits_client: bool,
    /// Jobs that started later and have ended.
    pub overtaken: u32,
}

impl Job {
    /// Seconds left of the prediction; zero when it is overdue.
    pub fn remaining(&self, now: Instant) -> f64 {
        (self.claim.predicted - now.saturating_duration_since(self.started).as_secs_f64()).max(0.0)
    }

    /// Whether it is a golden probe.
    pub fn is_probe(&self) -> bool {
        self.claim.task.is_none()
    }
}

/// The registry.
#[derive(Debug, Default)]
pub struct Jobs {
    /// In the order in which they started, each with what ends its call.
    jobs: Vec<(Job, CancellationToken)>,
    /// When any job last showed a sign of work, ended ones too.
    progress: Option<Instant>,
}

impl Jobs {
    /// Adds a job that starts now; the token ends its call.
    pub fn start(&mut self, id: u64, claim: Claim, permit: Permit, now: Instant) -> CancellationToken {
        let token = CancellationToken::new();
        let job = Job {
            id,
            claim,
            permit,
            started: now,
            deadline: None,
            progress: now,
            input: None,
            lost: false,
            awaits_client: false,
            overtaken: 0,
        };
        self.jobs.push((job, token.clone()));
        token
    }

    /// The job of that id, while it runs.
    pub fn get_mut(&mut self, id: u64) -> Option<&mut Job> {
        self.jobs.iter_mut().map(|(job, _)| job).find(|job| job.id == id)
    }

    /// Notes a sign of work on a job.
    pub fn advance(&mut self, id: u64, now: Instant) {
        if let Some(job) = self.get_mut(id) {
            job.progress = job.progress.max(now);
            self.progress = self.progress.max(Some(now));
        }
    }

    /// Takes a job out. One that the engine has `answered` overtakes those that it had before: a lost one among them that
    /// was overtaken often is given up.
    pub fn end(&mut self, id: u64, answered: bool) {
        let Some(at) = self.jobs.iter().position(|(job, _)| job.id == id) else { return };
        let (ended, _) = self.jobs.remove(at);
        if !answered {
            return;
        }
        for (job, token) in &mut self.jobs {
            if job.started < ended.started {
                job.overtaken += 1;
                if job.lost && job.overtaken >= OVERTAKEN {
                    token.cancel();
                }
            }
        }
    }

    /// Ends the calls of lost jobs.
    pub fn forget_lost(&self) {
        self.jobs.iter().filter(|(job, _)| job.lost).for_each(|(_, token)| token.cancel());
    }

    /// Ends all calls: the engine that had the jobs is gone.
    pub fn clear(&mut self) {
        self.jobs.drain(..).for_each(|(_, token)| token.cancel());
        self.progress = None;
    }

    /// All that run, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().map(|(job, _)| job)
    }

    /// How many hold such a permit.
    pub fn holding(&self, permit: Permit) -> usize {
        self.iter().filter(|job| job.permit == permit).count()
    }

    /// When any job last showed a sign of work.
    pub fn last_progress(&self) -> Option<Instant> {
        self.progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Claim = Claim {
        task: Some(Task::Transcribe),
        protocol: 0,
        predicted: 1.0,
        priority: Priority::Short,
        tenant: None,
    };

    #[test]
    fn a_lost_job_is_given_up_when_the_engine_has_answered_later_ones() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut jobs = Jobs::default();
        let stuck = jobs.start(0, CLAIM, Permit::Job, at(0));
        let slow = jobs.start(1, CLAIM, Permit::Job, at(1));
        jobs.get_mut(0).unwrap().lost = true;
        for id in 2..5 {
            assert!(!stuck.is_cancelled());
            jobs.start(id, CLAIM, Permit::Job, at(id));
            jobs.end(id, true);
        }
        assert!(stuck.is_cancelled());
        assert!(!slow.is_cancelled(), "its deadline has not passed");
    }

    #[test]
    fn a_job_that_the_engine_did_not_answer_overtakes_none() {
        let now = Instant::now();
        let mut jobs = Jobs::default();
        jobs.start(0, CLAIM, Permit::Job, now);
        jobs.start(1, CLAIM, Permit::Job, now + Duration::from_secs(1));
        jobs.end(1, false);
        assert_eq!(jobs.iter().map(|job| job.overtaken).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_replaced_engine_ends_every_call() {
        let mut jobs = Jobs::default();
        let token = jobs.start(0, CLAIM, Permit::Stream, Instant::now());
        jobs.clear();
        assert!(token.is_cancelled());
        assert_eq!(jobs.holding(Permit::Stream), 0);
    }
}
