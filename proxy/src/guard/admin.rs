//! The guard's admin port: readiness, state, its stream, metrics.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures::stream::{self, Stream};
use prometheus::Registry;
use tokio::sync::{broadcast, watch};

use super::board::Board;
use super::health::Reset;
use crate::admin;
use crate::drain::Drain;
use crate::report::{EngineReport, Incident};

/// Least time between two reports of a stream: queues change with every request.
const STREAM_SPACING: Duration = Duration::from_millis(10);

/// What the routes need.
#[derive(Clone)]
pub struct Admin {
    pub board: Arc<Board>,
    pub registry: Registry,
    pub reset: Reset,
    pub drain: Drain,
}

pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/readyz", get(ready))
        .route("/state", get(|State(admin): State<Admin>| async move { Json(admin.board.full_report()) }))
        .route("/state/stream", get(stream_state))
        .route("/reset", post(reset))
        .merge(admin::router(admin.registry.clone()))
        .with_state(admin)
}

async fn ready(State(admin): State<Admin>) -> Response {
    let standing = admin.board.standing().borrow().clone();
    let ready = standing.serves() && !admin.drain.has_begun();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, standing.state.as_str()).into_response()
}

async fn reset(State(admin): State<Admin>) -> StatusCode {
    admin.reset.reset();
    StatusCode::ACCEPTED
}

/// All incidents so far, then every report and incident as it comes, until the guard stops.
async fn stream_state(State(admin): State<Admin>) -> impl IntoResponse {
    let (past, news) = admin.board.incidents();
    let mut reports = admin.board.reports();
    reports.mark_changed();
    let first = past.into_iter().map(|incident| incident_event(&incident)).collect::<Vec<_>>();
    let later = follow(reports, news, admin.drain.clone());
    let events = stream::StreamExt::chain(stream::iter(first.into_iter().map(Ok::<_, Infallible>)), later);
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(5)))
}

fn follow(
    reports: watch::Receiver<EngineReport>,
    news: broadcast::Receiver<Incident>,
    drain: Drain,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((reports, news, drain), |(mut reports, mut news, drain)| async move {
        let event = tokio::select! {
            biased;
            () = drain.begun() => return None,
            incident = news.recv() => match incident {
                Ok(incident) => incident_event(&incident),
                // A reader this slow has missed incidents: let it reconnect and get them all.
                Err(_) => return None,
            },
            changed = reports.changed() => {
                changed.ok()?;
                tokio::time::sleep(STREAM_SPACING).await;
                let report = reports.borrow_and_update().clone();
                Event::default().event("report").data(serde_json::to_string(&report).unwrap_or_default())
            }
        };
        Some((Ok(event), (reports, news, drain)))
    })
}

fn incident_event(incident: &Incident) -> Event {
    Event::default().event("incident").data(serde_json::to_string(incident).unwrap_or_default())
}
