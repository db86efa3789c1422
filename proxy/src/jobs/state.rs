//! What this gateway knows of all jobs.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio_util::sync::CancellationToken;

use super::record::{Record, Status};
use super::store::Changes;

/// Records, and which of them run here.
#[derive(Default)]
pub struct State {
    /// Ids sort by time.
    pub jobs: BTreeMap<String, Record>,
    /// What ends those that run here.
    pub running: HashMap<String, CancellationToken>,
}

/// What has to be done for a job whose gateway is no more.
#[derive(Debug, PartialEq)]
pub struct Orphan {
    pub id: String,
    /// The gateway; this one when it lost the job by itself.
    pub gateway: Option<String>,
}

impl State {
    /// Takes a record over unless a newer one is known.
    pub fn set(&mut self, mut record: Record) {
        let known = self.jobs.get(&record.id);
        if known.is_some_and(|known| known.revision > record.revision) {
            return;
        }
        if let Some(known) = known.filter(|known| known.attempts == record.attempts)
            && (known.status, record.status) == (Status::Running, Status::Running)
        {
            record.heard = record.heard.max(known.heard);
        }
        self.jobs.insert(record.id.clone(), record);
    }

    pub fn remove(&mut self, id: &str) {
        self.jobs.remove(id);
        if let Some(token) = self.running.get(id) {
            token.cancel();
        }
    }

    /// Takes over what other gateways changed. Work of this gateway on jobs that are no longer its own is ended.
    pub fn apply(&mut self, changes: Changes, gateway: &str) {
        if changes.is_all {
            let there: HashSet<&str> = changes.changed.iter().map(|(id, _)| id.as_str()).collect();
            self.jobs.retain(|id, _| there.contains(id.as_str()));
        }
        for (id, record) in changes.changed {
            match record {
                Some(record) => self.set(record),
                None => drop(self.jobs.remove(&id)),
            }
        }
        for (id, token) in &self.running {
            if !self.jobs.get(id).is_some_and(|job| job.runs_at(gateway)) {
                token.cancel();
            }
        }
    }

    /// Those that wait, in order.
    pub fn queued(&self) -> impl Iterator<Item = &Record> {
        self.jobs.values().filter(|job| job.status == Status::Queued)
    }

    /// The next one to begin, when fewer than `most` run here.
    pub fn next(&self, most: usize, now: u64) -> Option<&Record> {
        let free = self.running.len() < most;
        let may_begin = |job: &&Record| job.not_before <= now && !self.running.contains_key(&job.id);
        self.queued().find(may_begin).filter(|_| free)
    }

    /// Bytes of uploads.
    pub fn bytes(&self) -> u64 {
        self.jobs.values().filter(|job| !job.status.is_final()).map(|job| job.bytes).sum()
    }

    /// Jobs that `gateway` does not work on, and must if their own gateway has ended.
    pub fn orphans(&self, gateway: &str) -> Vec<Orphan> {
        let is_lost = |job: &&Record| match job.status {
            Status::Running => !(job.runs_at(gateway) && self.running.contains_key(&job.id)),
            _ => job.is_unannounced() && job.gateway.as_deref() != Some(gateway),
        };
        let lost = self.jobs.values().filter(is_lost);
        lost.map(|job| Orphan { id: job.id.clone(), gateway: job.gateway.clone() }).collect()
    }

    /// Those that ended before a time.
    pub fn ended_before(&self, time: u64) -> Vec<String> {
        let old = |job: &&Record| job.ended.is_some_and(|ended| ended < time);
        self.jobs.values().filter(old).map(|job| job.id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, status: Status, gateway: Option<&str>, revision: u64) -> Record {
        Record { status, gateway: gateway.map(str::to_owned), revision, ..Record::example(id) }
    }

    fn changes(is_all: bool, changed: Vec<Record>) -> Changes {
        let changed = changed.into_iter().map(|record| (record.id.clone(), Some(record))).collect();
        Changes { is_all, changed }
    }

    #[test]
    fn an_older_record_is_not_taken_over_and_progress_does_not_go_back() {
        let mut state = State::default();
        state.set(Record { heard: 5.0, ..record("a", Status::Running, Some("me"), 3) });
        state.apply(changes(false, vec![record("a", Status::Queued, None, 2)]), "me");
        assert_eq!(state.jobs["a"].status, Status::Running);
        state.apply(changes(false, vec![record("a", Status::Running, Some("me"), 3)]), "me");
        assert_eq!(state.jobs["a"].heard, 5.0);
        state.apply(changes(false, vec![record("a", Status::Queued, None, 4)]), "me");
        assert_eq!((state.jobs["a"].status, state.jobs["a"].heard), (Status::Queued, 0.0));
    }

    #[test]
    fn work_ends_when_the_job_is_another_gateways_or_gone() {
        for taken in [
            changes(false, vec![record("a", Status::Running, Some("other"), 2)]),
            changes(false, vec![record("a", Status::Canceled, Some("other"), 2)]),
            Changes { is_all: false, changed: vec![("a".into(), None)] },
            changes(true, Vec::new()),
        ] {
            let mut state = State::default();
            state.set(record("a", Status::Running, Some("me"), 1));
            let token = CancellationToken::new();
            state.running.insert("a".into(), token.clone());
            state.apply(changes(false, Vec::new()), "me");
            assert!(!token.is_cancelled());
            state.apply(taken, "me");
            assert!(token.is_cancelled());
        }
    }

    #[test]
    fn orphans_are_jobs_that_run_elsewhere_or_were_lost_here() {
        let mut state = State::default();
        state.running.insert("mine".into(), CancellationToken::new());
        for job in [
            record("mine", Status::Running, Some("me"), 1),
            record("lost", Status::Running, Some("me"), 1),
            record("other", Status::Running, Some("other"), 1),
            record("old", Status::Running, None, 1),
            record("queued", Status::Queued, None, 1),
            record("ended", Status::Succeeded, Some("other"), 1),
        ] {
            state.set(job);
        }
        let orphans: Vec<String> = state.orphans("me").into_iter().map(|orphan| orphan.id).collect();
        assert_eq!(orphans, ["lost", "old", "other"]);
    }
}
