//! Clients that leave while the store works.

use std::time::Duration;

use futures::poll;

use super::{Jobs, Metrics, Record, Status};
use crate::config::{Config, Current};

async fn until(what: impl Fn() -> bool) {
    let reached = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap();
}

#[tokio::test]
async fn what_was_asked_for_is_done_though_the_client_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.gateway.jobs.dir = Some(dir.path().to_owned());
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let jobs = Jobs::open(&Current::new(config), metrics).unwrap().unwrap();
    let status = || jobs.known("a", "owner").ok().map(|job| job.status);
    let asked = poll!(Box::pin(jobs.submit(Record::example("a"))));
    assert!(asked.is_pending() && status().is_none(), "the store takes its time");
    until(|| status() == Some(Status::Queued)).await;
    assert!(poll!(Box::pin(jobs.cancel("a", "owner"))).is_pending());
    until(|| status() == Some(Status::Canceled)).await;
    assert!(poll!(Box::pin(jobs.remove("a", "owner"))).is_pending());
    until(|| status().is_none()).await;
}
