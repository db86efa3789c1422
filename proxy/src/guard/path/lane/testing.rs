//! Lanes as pure rules see them, for tests.

use std::time::Instant;

use crate::guard::path::lane::{Claim, Job, LaneView, Permit, Priority};
use crate::protocol::Task;

/// What asks for a transcription of `predicted` seconds of work.
pub fn claim(predicted: f64, priority: Priority) -> Claim {
    Claim { task: Some(Task::Transcribe), protocol: 0, predicted, priority, tenant: None }
}

/// A transcription of `predicted` seconds of work that the engine has.
pub fn job(predicted: f64, started: Instant) -> Job {
    Job {
        id: 0,
        claim: claim(predicted, Priority::Short),
        permit: Permit::Job,
        started,
        deadline: None,
        progress: started,
        input: None,
        lost: false,
        awaits_client: false,
        overtaken: 0,
    }
}

/// A serial lane in which these run.
pub fn running(jobs: impl IntoIterator<Item = Job>) -> LaneView {
    LaneView { running: jobs.into_iter().collect(), serial: true, ..LaneView::default() }
}
