//! What clients speak: each dialect is a thin translation onto the calls that engines understand.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};

use contract::Capability;

use crate::api::form::{Opened, Purpose};
use crate::config::Current;
use crate::error::Error;
use crate::gateway::Metrics;
use crate::net::drain::Drain;
use crate::protocol;
use crate::upstream::spool::Replay;
use crate::upstream::voices::Voices;
use crate::upstream::{Outgoing, Reply, Route, Upstreams};

mod form;
pub mod openai;
pub mod spark;

/// Longest reply of JSON that is read from an engine: the words of more than a day.
const REPLY_BYTES: usize = 64 * 1024 * 1024;
/// What is read of an engine's refusal.
const REFUSAL_BYTES: usize = 64 * 1024;
/// Longer replies are parsed and rendered away from the threads that move bytes.
const INLINE_BYTES: usize = 128 * 1024;

/// What every dialect has at hand. Shared by all requests.
pub struct Context {
    /// The configuration.
    pub config: Current,
    /// The way to the engines.
    pub upstreams: Upstreams,
    /// The voices that engines have.
    pub voices: Voices,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether the gateway is stopping.
    pub drain: Drain,
    /// Unix time of the start, seconds: when models count as created.
    pub started_unix: u64,
}

/// The id that a request carries from end to end: visible ASCII.
#[derive(Clone, Debug)]
pub struct RequestId(pub HeaderValue);

/// What is sent to an engine.
#[derive(Clone)]
struct Form {
    content_type: HeaderValue,
    body: Replay,
    /// Seconds of audio in it, or expected out of it.
    audio_seconds: f64,
    /// Short enough to wait for an engine to come back.
    short: bool,
}

impl Context {
    /// Largest body of a request.
    fn body_limit(&self) -> u64 {
        self.config.get().gateway.body_limit.as_u64()
    }

    /// An upload on its way to an engine.
    fn form<P: Purpose>(&self, opened: Opened<P>) -> Form {
        let Opened { upload, content_type, len, announced, playing, .. } = opened;
        let short =
            len.or(announced).is_some_and(|bytes| bytes <= self.config.get().gateway.park.max_body.as_u64());
        let body = Replay::new(upload, len, self.upstreams.budget());
        Form { content_type, body, audio_seconds: playing.seconds, short }
    }

    /// A request to an engine of that route.
    fn outgoing(&self, route: Route, path: &'static str, form: Form, request_id: &RequestId) -> Outgoing {
        let Form { content_type, body, audio_seconds, short } = form;
        // An engine that does not exist is not worth waiting for.
        let park = short && self.config.get().has(route.capability);
        let request_id = request_id.0.clone();
        Outgoing {
            route,
            path,
            content_type,
            body,
            audio_seconds,
            request_id,
            park,
            avoid: None,
            prefer: None,
        }
    }

    /// Sends a request and takes the engine's reply if it is a good one.
    ///
    /// # Errors
    /// What is wrong with the upload, if it was found to be bad while it was sent; else what is wrong with the engines, or
    /// what the engine has against the input.
    async fn send(&self, outgoing: &Outgoing) -> Result<Reply, Error> {
        let reply = self.upstreams.send(outgoing).await?;
        tracing::Span::current().record("engine", &*reply.engine);
        let status = reply.response.status();
        if status.is_success() {
            return Ok(reply);
        }
        match status {
            StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN => {
                tracing::error!(%status, path = outgoing.path, "the engine does not serve its own dialect");
                Err(self.engine_failed(outgoing.route.capability, "it does not know the request"))
            }
            _ if status.is_client_error() => {
                let body = Limited::new(reply.response.into_body(), REFUSAL_BYTES).collect().await;
                let message = protocol::refusal(&body.map(|body| body.to_bytes()).unwrap_or_default());
                Err(Error::EngineRefused { status, message })
            }
            _ => Err(self.engine_failed(outgoing.route.capability, "it answered with an unexpected status")),
        }
    }

    /// Sends a request and reads the whole reply, with the name of the engine. A reply that breaks off is asked for once
    /// more, of another engine if there is one.
    async fn ask(&self, outgoing: &Outgoing) -> Result<(Bytes, Arc<str>), Error> {
        let Reply { response, engine } = self.send(outgoing).await?;
        match Limited::new(response.into_body(), REPLY_BYTES).collect().await {
            Ok(read) => return Ok((read.to_bytes(), engine)),
            Err(error) => tracing::warn!(error, "reply of the engine broke off"),
        }
        let elsewhere = Outgoing { avoid: Some(engine), prefer: None, ..outgoing.clone() };
        let Reply { response, engine } = self.send(&elsewhere).await?;
        match Limited::new(response.into_body(), REPLY_BYTES).collect().await {
            Ok(read) => Ok((read.to_bytes(), engine)),
            Err(error) => {
                tracing::warn!(error, "reply of the engine broke off again");
                Err(self.engine_failed(outgoing.route.capability, "its reply broke off"))
            }
        }
    }

    /// Makes something of an engine's reply.
    async fn digest<T: Send + 'static>(
        &self,
        reply_bytes: usize,
        work: impl FnOnce() -> Result<T, protocol::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let made =
            if reply_bytes <= INLINE_BYTES { Ok(work()) } else { tokio::task::spawn_blocking(work).await };
        match made {
            Ok(Ok(made)) => Ok(made),
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "unable to read the engine's reply");
                Err(self.engine_failed(Capability::Stt, "its reply is malformed"))
            }
            Err(_) => Err(self.engine_failed(Capability::Stt, "its reply could not be read")),
        }
    }

    /// Notes that engines made something of the upload of that hash.
    fn served(&self, hash: &OnceLock<String>) {
        if let Some(input) = hash.get().and_then(|hash| hash.parse().ok()) {
            self.upstreams.served(input);
        }
    }

    /// The error for an engine whose reply is of no use.
    fn engine_failed(&self, capability: Capability, reason: &'static str) -> Error {
        Error::EngineFailed { capability, reason, retry_after: self.config.get().gateway.retry_after.min }
    }
}
