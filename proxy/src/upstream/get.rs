//! Small questions that any engine of a capability can answer, such as which voices it has.

use std::time::Duration;

use ::http::{Request, Response, header as names};
use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use tokio::time::{Instant, timeout};

use contract::Capability;

use crate::error::Error;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::failure::Failure;
use crate::upstream::send::{Tried, Wish};
use crate::upstream::{Route, Upstreams};

/// Largest answer.
const ANSWER_BYTES: usize = 4 << 20;

impl Upstreams {
    /// GETs a path from some engine of the capability: its reply, 2xx or 4xx, with the whole body of at most 4 MiB.
    ///
    /// # Errors
    /// [`Error::Deadline`] when there is no answer within `limit`; else as [`Upstreams::send`].
    pub async fn get(
        &self,
        capability: Capability,
        path: &'static str,
        limit: Duration,
    ) -> Result<Response<Bytes>, Error> {
        timeout(limit, self.ask(capability, path)).await.unwrap_or(Err(Error::Deadline { capability }))
    }

    async fn ask(&self, capability: Capability, path: &'static str) -> Result<Response<Bytes>, Error> {
        let budget = self.retry_budget();
        budget.deposit();
        let (attempts, route) = (self.attempts(), Route::from(capability));
        let mut tried = Tried::default();
        while tried.failures.len() < attempts
            && let Some((endpoint, epoch)) = self.pick(&route, Wish::default(), &tried)
            && (tried.failures.is_empty() || budget.withdraw())
        {
            match self.ask_one(&endpoint, path).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => tried.fail(&endpoint, epoch, failure),
            }
        }
        Err(self.give_up(&route, &tried))
    }

    async fn ask_one(
        &self,
        endpoint: &std::sync::Arc<Endpoint>,
        path: &'static str,
    ) -> Result<Response<Bytes>, Failure> {
        let _in_flight = endpoint.dispatch(0.0, Instant::now());
        let request = endpoint
            .uri(path)
            .and_then(|uri| Request::get(uri).header(names::HOST, endpoint.host()).body(Body::empty()))
            .map_err(|_| Failure::Internal)?;
        let (head, body) = self.exchange(endpoint, request, std::future::pending()).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(|_| Failure::Reset)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}
