//! The list of voices, from any engine that has one.

use std::time::Duration;

use ::http::{Request, header as names};
use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use tokio::time::{Instant, timeout};

use contract::Capability;

use super::exchange::forever;
use super::failure::Failure;
use super::send::{Picked, Tried, Wish};
use super::{Route, Upstreams};
use crate::protocol::{Protocol, Transport};

/// Largest list.
const MAX_LIST: usize = 4 << 20;

impl Upstreams {
    /// The voices of some engine that speaks: full names, sorted, each once. `None` when no engine tells within `limit`.
    pub async fn list_voices(&self, limit: Duration) -> Option<Vec<String>> {
        timeout(limit, self.ask_for_voices()).await.ok()?
    }

    async fn ask_for_voices(&self) -> Option<Vec<String>> {
        let budget = self.retry_budget();
        budget.deposit();
        let (attempts, route) = (self.attempts(), Route::from(Capability::Tts));
        let mut tried = Tried::default();
        while tried.failures.len() < attempts
            && let Some(picked) = self.pick(&route, None, Wish::default(), &tried)
            && (tried.failures.is_empty() || budget.withdraw())
        {
            match self.ask_one(&picked).await {
                Ok(voices) => return Some(voices),
                Err(failure) => tried.fail(&picked.endpoint, picked.epoch, failure),
            }
        }
        None
    }

    async fn ask_one(&self, picked: &Picked) -> Result<Vec<String>, Failure> {
        let endpoint = &picked.endpoint;
        let listing = |protocol: &Protocol| Some((*protocol, protocol.voices_path()?));
        let (protocol, path) = endpoint.protocols().iter().find_map(listing).ok_or(Failure::Unserved)?;
        let _in_flight = endpoint.dispatch(0.0, Instant::now());
        let request = endpoint
            .uri(path)
            .and_then(|uri| Request::get(uri).header(names::HOST, endpoint.host()).body(Body::empty()))
            .map_err(|_| Failure::Internal)?;
        let response = self.exchange(endpoint, Transport::Http, request, forever()).await?;
        if !response.status().is_success() {
            return Err(Failure::Unserved);
        }
        let list =
            Limited::new(response.into_body(), MAX_LIST).collect().await.map_err(|_| Failure::Reset)?;
        protocol.voices(&list.to_bytes()).map_err(|_| Failure::Malformed)
    }
}
