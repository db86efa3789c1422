//! The guard's admin port: readiness, state, its stream, metrics, and the operator's orders.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures::stream::{self, Stream};
use prometheus::Registry;
use serde_json::json;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use contract::{EngineReport, Incident, RepairOrder};

use crate::admin;
use crate::guard::heal::contact::{Contact, OpenStream};
use crate::guard::heal::control::Orders;
use crate::guard::heal::identity::{Identity, Refused, Verified};
use crate::guard::heal::snapshot::Snapshot;
use crate::guard::judge::operator::Reply;
use crate::net::drain::Drain;

/// Least time between two reports of a stream: queues change with every request.
const STREAM_SPACING: Duration = Duration::from_millis(10);

/// What the routes need.
#[derive(Clone)]
pub struct Admin {
    pub snapshot: Arc<Snapshot>,
    pub registry: Registry,
    pub orders: Orders,
    /// Whose orders are obeyed; without it anybody who reaches the port may reset budgets.
    pub operator: Option<Operator>,
    pub drain: Drain,
}

/// How the operator is known, and where it is noted that it listens.
#[derive(Clone)]
pub struct Operator {
    pub identity: Arc<Identity>,
    pub contact: Contact,
}

/// Why a caller is turned away.
enum Denied {
    Refused(Refused),
    /// No orders are obeyed here.
    NoOperator,
}

pub fn router(admin: Admin) -> Router {
    let orders = match admin.operator {
        Some(_) => Router::new().route("/repair", post(repair)),
        None => Router::new().route("/reset", post(reset)),
    };
    orders
        .route("/readyz", get(ready))
        // It listens, so the helper is where the engine's container looks for it.
        .route("/startz", get(|| async { "ok" }))
        .route("/state", get(|State(admin): State<Admin>| async move { Json(admin.snapshot.full_report()) }))
        .route("/state/stream", get(stream_state))
        .route("/livez", get(live))
        .merge(admin::metrics(admin.registry.clone()))
        .with_state(admin)
}

async fn ready(State(admin): State<Admin>) -> Response {
    let standing = admin.snapshot.standing().borrow().clone();
    let ready = standing.serves() && !admin.drain.is_announced();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, standing.state.as_str()).into_response()
}

/// Fails when the health loop has ended or stalls: the guard is then of no use.
async fn live(State(admin): State<Admin>) -> Response {
    match admin.snapshot.beats(Instant::now()) {
        true => "ok".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the health loop does not run").into_response(),
    }
}

async fn reset(State(admin): State<Admin>) -> StatusCode {
    admin.orders.reset();
    StatusCode::ACCEPTED
}

/// An order of the operator.
async fn repair(
    State(admin): State<Admin>,
    headers: HeaderMap,
    order: Result<Json<RepairOrder>, JsonRejection>,
) -> Result<Response, Denied> {
    admin.verify(&headers).await?;
    let order = match order {
        Ok(Json(order)) => order,
        Err(rejection) => {
            let body = Json(json!({"error": rejection.body_text()}));
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response());
        }
    };
    Ok(match admin.orders.give(order).await {
        Some(Reply::Accepted(_)) => (StatusCode::ACCEPTED, Json(json!({}))).into_response(),
        Some(Reply::Conflict { instance, attempt }) => {
            let body = Json(json!({"instance": instance, "attempt": attempt}));
            (StatusCode::CONFLICT, body).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    })
}

impl Admin {
    /// Checks the caller's token.
    async fn verify(&self, headers: &HeaderMap) -> Result<Verified, Denied> {
        let operator = self.operator.as_ref().ok_or(Denied::NoOperator)?;
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        let token = token.ok_or(Denied::Refused(Refused::Invalid("a bearer token is needed")))?;
        operator.identity.verify(token.trim(), unix_now()).await.map_err(Denied::Refused)
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        match self {
            Denied::Refused(refused @ Refused::Invalid(_)) => {
                let body = Json(json!({"error": refused.to_string()}));
                (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response()
            }
            Denied::Refused(refused @ Refused::Forbidden(_)) => {
                (StatusCode::FORBIDDEN, Json(json!({"error": refused.to_string()}))).into_response()
            }
            Denied::NoOperator => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

fn unix_now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

/// All incidents so far, then every report and incident as it comes, until the guard stops. With a token it is the
/// operator's, and ends with the token, so that it comes back with a newer one.
async fn stream_state(State(admin): State<Admin>, headers: HeaderMap) -> Result<Response, Denied> {
    let mut listener = None;
    if let Some(operator) = &admin.operator
        && headers.contains_key(header::AUTHORIZATION)
    {
        let verified = admin.verify(&headers).await?;
        let left = Duration::from_secs(verified.expires.saturating_sub(unix_now()));
        listener = Some(Listener { ends: Instant::now() + left, _stream: operator.contact.open() });
    }
    let (past, news) = admin.snapshot.incidents();
    let mut reports = admin.snapshot.reports();
    reports.mark_changed();
    let first = past.into_iter().map(|incident| incident_event(&incident)).collect::<Vec<_>>();
    let later = follow(reports, news, admin.drain.clone(), listener);
    let events = stream::StreamExt::chain(stream::iter(first.into_iter().map(Ok::<_, Infallible>)), later);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(5))).into_response())
}

/// The operator behind a stream.
struct Listener {
    ends: Instant,
    _stream: OpenStream,
}

async fn expired(listener: Option<&Listener>) {
    match listener {
        Some(listener) => tokio::time::sleep_until(listener.ends).await,
        None => std::future::pending().await,
    }
}

fn follow(
    reports: watch::Receiver<EngineReport>,
    news: broadcast::Receiver<Incident>,
    drain: Drain,
    listener: Option<Listener>,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((reports, news, drain, listener), |(mut reports, mut news, drain, listener)| async move {
        let event = tokio::select! {
            biased;
            () = drain.begun() => return None,
            () = expired(listener.as_ref()) => return None,
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
        Some((Ok(event), (reports, news, drain, listener)))
    })
}

fn incident_event(incident: &Incident) -> Event {
    Event::default().event("incident").data(serde_json::to_string(incident).unwrap_or_default())
}
