//! The admin port: /livez, /readyz that names what is pending, /metrics.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::metrics::Stacks;

/// What must happen before this replica is ready. Waiting for the lease is not part of it: a standby is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    names: Arc<Mutex<BTreeSet<&'static str>>>,
    dead: Arc<Mutex<Option<String>>>,
    changed: Arc<Notify>,
}

impl Readiness {
    /// Not ready until the returned value is dropped.
    #[must_use]
    pub fn pending(&self, what: &'static str) -> Pending {
        self.names.lock().insert(what);
        Pending { readiness: self.clone(), what }
    }

    /// Not ready any more: a task died at that place of the source.
    pub fn died(&self, place: &str) {
        *self.dead.lock() = Some(place.to_owned());
    }

    /// What is pending, by name.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.names.lock().iter().copied().collect()
    }

    /// Waits until nothing is pending.
    pub async fn ready(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable(); // before the look, or a change in between is missed
            if self.names().is_empty() {
                return;
            }
            changed.await;
        }
    }
}

/// Something that is pending until this is dropped.
#[derive(Debug)]
pub struct Pending {
    readiness: Readiness,
    what: &'static str,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.readiness.names.lock().remove(self.what);
        self.readiness.changed.notify_waiters();
    }
}

/// The routes. Liveness says only that the process answers.
pub fn router(readiness: Readiness, registry: Registry, stacks: Stacks) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(move || std::future::ready(readyz(&readiness))))
        .route("/metrics", get(move || std::future::ready(metrics(&registry, &stacks))))
}

fn readyz(readiness: &Readiness) -> Response {
    if let Some(place) = &*readiness.dead.lock() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("a task panicked at {place}")).into_response();
    }
    match readiness.names().as_slice() {
        [] => "ok".into_response(),
        names => {
            let text = format!("pending: {}", names.join(", "));
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

fn metrics(registry: &Registry, stacks: &Stacks) -> Response {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text(registry, stacks)).into_response()
}

/// All metrics, in Prometheus' text format.
pub fn text(registry: &Registry, stacks: &Stacks) -> String {
    let mut families = registry.gather();
    families.extend(prometheus::gather());
    let mut text = TextEncoder::new().encode_to_string(&families).unwrap_or_default();
    stacks.write(&mut text);
    text
}

/// Serves the routes until cancelled; returns the address once it listens.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn start(
    address: SocketAddr,
    routes: Router,
    cancel: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let listener = listen(address).await.with_context(|| format!("failed to listen on {address}"))?;
    let address = listener.local_addr().context("failed to read the admin address")?;
    tokio::spawn(async move {
        let served = axum::serve(listener, routes).with_graceful_shutdown(cancel.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "admin port ended");
        }
    });
    Ok(address)
}

/// `[::]` takes IPv4 as well, and IPv4 alone where the kernel has no IPv6.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error)
            if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != std::io::ErrorKind::AddrInUse =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_what_is_pending() {
        let readiness = Readiness::default();
        let pods = readiness.pending("watch of pods");
        let stacks = readiness.pending("watch of stacks");
        assert_eq!(readyz(&readiness).status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(pods);
        assert_eq!(readiness.names(), ["watch of stacks"]);
        drop(stacks);
        assert_eq!(readyz(&readiness).status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_task_that_died_is_named_and_never_ready() {
        let readiness = Readiness::default();
        readiness.died("src/watch.rs:7:1");
        let response = readyz(&readiness);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(body, "a task panicked at src/watch.rs:7:1");
    }
}
