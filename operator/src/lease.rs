//! Leader election by a Lease: at most one leader, also under partitions and with clocks that differ.
//!
//! A candidate takes over only after it has itself seen the record unchanged for the whole lease duration, by its own
//! monotonic clock. A leader counts from before it sent its last successful renewal and stops earlier than that, so
//! the old one has always stopped before a new one starts. Every write carries the resource version that was read.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// Times of the election.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How long a record must stand unchanged before another candidate takes over.
    pub duration: Duration,
    /// How long the leader goes on without a successful renewal; shorter than `duration`.
    pub renew_deadline: Duration,
    /// Wait between tries.
    pub retry: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Why leading ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// No renewal succeeded in time.
    #[error("the lease could not be renewed in time")]
    NotRenewed,
    /// Another candidate holds the lease.
    #[error("{0} holds the lease")]
    Taken(String),
}

/// One candidate.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    times: Times,
    /// The record as last seen, and since when by our clock.
    seen: Option<(Record, Instant)>,
    /// Since before our last successful write.
    renewed: Option<Instant>,
}

/// What of a Lease changes with each write of its holder.
#[derive(Clone, Debug, PartialEq)]
struct Record {
    holder: String,
    renewed: Option<MicroTime>,
    version: Option<String>,
}

impl Record {
    fn of(lease: &Lease) -> Self {
        let spec = lease.spec.as_ref();
        Self {
            holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
            renewed: spec.and_then(|spec| spec.renew_time.clone()),
            version: lease.metadata.resource_version.clone(),
        }
    }
}

/// What a try found.
enum Tried {
    /// We hold the lease, since before the try.
    Held,
    /// Somebody else does, or the API server did not say.
    NotHeld,
    /// Another holder is in the record.
    Other(String),
}

impl Elector {
    /// A candidate. `identity` must be its own, such as the pod's name.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, times: Times) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.into(),
            identity: identity.into(),
            times,
            seen: None,
            renewed: None,
        }
    }

    /// Waits until this candidate leads.
    pub async fn acquire(&mut self) {
        loop {
            let before = Instant::now();
            // A late answer would be worth less than its age.
            let tried = tokio::time::timeout(self.times.renew_deadline / 2, self.attempt()).await;
            if let Ok(Tried::Held) = tried {
                self.renewed = Some(before);
                return;
            }
            tokio::time::sleep(self.times.retry).await;
        }
    }

    /// Renews until the lease is lost. Nothing may be done in the leader's name once this has returned.
    pub async fn keep(&mut self) -> Lost {
        loop {
            let Some(renewed) = self.renewed else { return Lost::NotRenewed };
            let deadline = renewed + self.times.renew_deadline;
            let next = (Instant::now() + self.times.retry).min(deadline);
            tokio::time::sleep_until(next).await;
            let before = Instant::now();
            if before >= deadline {
                return Lost::NotRenewed;
            }
            match tokio::time::timeout_at(deadline, self.attempt()).await {
                Ok(Tried::Held) => self.renewed = Some(before),
                Ok(Tried::Other(holder)) => return Lost::Taken(holder),
                Ok(Tried::NotHeld) => {}
                Err(_) => return Lost::NotRenewed,
            }
        }
    }

    /// Gives the lease up, so that the next one need not wait. Call it after the last act.
    pub async fn release(&mut self) {
        self.renewed = None;
        let given_up = async {
            let mut lease = self.api.get(&self.name).await?;
            if Record::of(&lease).holder != self.identity {
                return Ok(());
            }
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
            }
            self.api.replace(&self.name, &PostParams::default(), &lease).await.map(|_| ())
        };
        match tokio::time::timeout(self.times.renew_deadline / 2, given_up).await {
            Ok(Ok(())) => {}
            Ok(Err::<(), kube::Error>(error)) => tracing::warn!(%error, "unable to release the lease"),
            Err(_) => tracing::warn!("no answer while releasing the lease"),
        }
    }

    /// Takes or renews the lease, if that is allowed now.
    async fn attempt(&mut self) -> Tried {
        match self.write().await {
            Ok(tried) => tried,
            Err(error) => {
                // Conflicts are how candidates meet; everything else is worth a line.
                let conflict = matches!(&error, kube::Error::Api(status) if status.code == 409);
                if !conflict {
                    tracing::warn!(%error, "unable to take or renew the lease");
                }
                Tried::NotHeld
            }
        }
    }

    async fn write(&mut self) -> kube::Result<Tried> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let made = self.api.create(&PostParams::default(), &self.fresh()).await?;
            self.see(&made);
            return Ok(Tried::Held);
        };
        self.see(&lease);
        let record = Record::of(&lease);
        let ours = record.holder == self.identity;
        if !ours && !record.holder.is_empty() && !self.is_expired() {
            return Ok(Tried::Other(record.holder));
        }
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if !ours {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(self.seconds());
        spec.renew_time = Some(now);
        // Carries the resource version that was read: the second writer is refused.
        let written = self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        self.see(&written);
        Ok(Tried::Held)
    }

    fn see(&mut self, lease: &Lease) {
        let record = Record::of(lease);
        if self.seen.as_ref().is_none_or(|(known, _)| *known != record) {
            self.seen = Some((record, Instant::now()));
        }
    }

    /// Whether the record stood unchanged for the whole duration, by our own clock.
    fn is_expired(&self) -> bool {
        self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() >= self.times.duration)
    }

    fn fresh(&self) -> Lease {
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(self.seconds()),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        }
    }

    fn seconds(&self) -> i32 {
        i32::try_from(self.times.duration.as_secs().max(1)).unwrap_or(i32::MAX)
    }
}
