//! Admission: what every inference passes before it may queue for the lane.

use std::time::Instant;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use crate::app::Core;
use crate::fault::wire::ResetAfter;
use crate::fault::{Fate, Plan};
use crate::health::Readiness;
use crate::lane::{CAPACITY, Place};

/// An admitted inference.
#[derive(Debug)]
pub struct Ticket {
    /// Its place in the lane.
    pub place: Place,
    /// What the armed faults do to it.
    pub plan: Plan,
}

/// Admits an inference whose body has arrived; `input` is what a fault's trigger is compared with.
///
/// # Errors
/// The response to send instead: not ready, queue full, or an armed fault. Under a hang it never returns.
pub async fn admit(core: &Core, input: &[u8]) -> Result<Ticket, Response> {
    match core.readiness(Instant::now()) {
        Readiness::Ready | Readiness::Draining => {}
        other => return Err(other.into_response()),
    }
    let queue_full = || detail(StatusCode::SERVICE_UNAVAILABLE, "queue full");
    let place = core.gate.enter(CAPACITY).ok_or_else(queue_full)?;
    let plan = core
        .faults
        .as_ref()
        .map(|faults| faults.infer(xxh3_64(input), place.ahead, Instant::now()))
        .unwrap_or_default();
    match &plan.fate {
        Fate::Serve => {}
        Fate::Fail(failure) => return Err(failure.clone().into_response()),
        Fate::Hang => std::future::pending().await,
    }
    if let Some((limit, status)) = plan.queue.filter(|(limit, _)| place.ahead > *limit) {
        tracing::debug!(limit, "queue full");
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        return Err(detail(status, "queue full"));
    }
    Ok(Ticket { place, plan })
}

/// Marks a response that a fault is to cut off.
#[must_use]
pub fn finish(mut response: Response, reset_after: Option<u64>) -> Response {
    if let Some(bytes) = reset_after {
        response.extensions_mut().insert(ResetAfter(bytes));
    }
    response
}

/// An error in FastAPI's form: `{"detail": …}`.
#[must_use]
pub fn detail(status: StatusCode, text: impl Into<String>) -> Response {
    (status, axum::Json(json!({ "detail": text.into() }))).into_response()
}
