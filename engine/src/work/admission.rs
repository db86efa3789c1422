//! Admission: what every inference passes before it may queue for the lane.

use std::sync::Arc;
use std::time::Instant;

use twox_hash::XxHash3_64;

use super::Refusal;
use super::run::{Client, Start, prepare};
use crate::core::Core;
use crate::fault::origin::Origin;
use crate::fault::{Fate, Inference, Plan, body};
use crate::health::Readiness;
use crate::lane::{MAX_WAITING, Place};

/// An admitted inference.
pub struct Ticket {
    /// Its place in the lane.
    pub place: Place,
    /// What the armed faults do to it.
    pub plan: Plan,
    /// Goes with the job.
    pub start: Start,
    /// Stays with the request until it is answered.
    pub client: Client,
}

/// Admits an inference whose input has arrived; `input` is what a fault's trigger is compared with, `origin` the request.
///
/// # Errors
/// Not ready, queue full, or an armed fault. Under a hang it never returns.
pub async fn admit(core: &Arc<Core>, input: &[u8], origin: &Origin) -> Result<Ticket, Refusal> {
    // A stream that was open before F10 set in is held here.
    if let Some(faults) = &core.faults {
        faults.pass_blockade().await;
    }
    match core.readiness(Instant::now()) {
        Readiness::Ready | Readiness::Draining => {}
        other => return Err(Refusal::NotReady(other)),
    }
    let place = core.gate.enter(core.gate.jobs + MAX_WAITING).ok_or(Refusal::QueueFull(503))?;
    let inference = Inference { hash: XxHash3_64::oneshot(input), ahead: place.ahead, origin };
    let plan =
        core.faults.as_ref().map(|faults| faults.infer(&inference, Instant::now())).unwrap_or_default();
    match &plan.fate {
        Fate::Serve => {}
        Fate::Fail(failure) => return Err(Refusal::Failed(failure.clone())),
        Fate::Hang => std::future::pending().await,
    }
    if let Some((limit, status)) =
        plan.queue.filter(|(limit, _)| place.ahead >= limit.saturating_add(core.gate.jobs))
    {
        tracing::debug!(limit, "queue full");
        return Err(Refusal::QueueFull(status));
    }
    let (start, client) = prepare(core, &plan);
    Ok(Ticket { place, plan, start, client })
}

/// Plays F6 on audio of a known duration in seconds.
///
/// # Errors
/// When the audio is longer than the armed limit; the strike is counted.
pub fn fits_memory(core: &Core, limit_s: Option<f64>, audio_s: f64) -> Result<(), Refusal> {
    if limit_s.is_none_or(|limit| audio_s <= limit) {
        return Ok(());
    }
    if let Some(faults) = &core.faults {
        faults.count_oom();
    }
    Err(Refusal::Failed(body::out_of_memory()))
}
