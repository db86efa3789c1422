//! What clients speak: each dialect is a thin translation onto jobs.

use std::sync::Arc;

use axum::extract::Request;

use form::{Form, Opened};
pub use owner::{Owner, credential, owner, owner_by};

use contract::Capability;
use trace::Tracer;

use crate::clips::Clips;
use crate::config::{Config, Current};
use crate::edge::{Access, Charge, Metrics, RequestId};
use crate::error::Error;
use crate::job::work::{Need, Speakers, Work};
use crate::jobs::Jobs;
use crate::net::drain::Drain;
use crate::net::permits::Permits;
use crate::stream;
use crate::upstream::voices::Voices;
use crate::upstream::{Asker, Long, Outgoing, Route, Upstreams};

pub mod azure;
pub mod bridge;
pub mod catalog;
pub mod configuration;
pub mod diarization;
mod form;
pub mod gemma;
mod head;
pub mod keys;
pub mod live;
pub mod llm;
pub mod nim;
pub mod openai;
mod owner;
pub mod page;
pub mod parakeet_fastapi;
pub mod reference;
pub mod riva;
mod small;
pub mod spark;
mod speech;
mod sse;
pub mod usage;

/// What every dialect has at hand. Shared by all requests.
pub struct Context {
    /// The configuration.
    pub config: Current,
    /// Who is let in.
    pub access: Access,
    /// The way to the engines.
    pub upstreams: Upstreams,
    /// The voices that engines have.
    pub voices: Voices,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether the gateway is stopping.
    pub drain: Drain,
    /// The engines as sessions see them.
    pub engines: stream::Gateway,
    /// What sessions count.
    pub session_metrics: stream::Metrics,
    /// Jobs in the background, if this gateway keeps any.
    pub jobs: Option<Jobs>,
    /// Speakers and voices by name, if this gateway keeps any.
    pub clips: Option<Clips>,
    /// What was said in conversations.
    pub memory: llm::memory::Memory,
    /// Translations that were made.
    pub translations: llm::translate::Cache,
    /// Free permits for sessions.
    pub sessions: Permits,
    /// Permits for connections whose clients have not proven who they are.
    pub unproven: Permits,
    /// Begins the traces of jobs in the background.
    pub tracer: Tracer,
    /// Unix time of the start, seconds: when models count as created.
    pub started_unix: u64,
}

impl Context {
    /// Reads an upload until enough is known to pick an engine.
    async fn open(&self, request: Request) -> Result<Form, Error> {
        match self.opened(request).await? {
            Opened::Form(form) => Ok(form),
            Opened::Fields(_) => {
                Err(Error::param("file", "file is missing; upload_id is not supported here"))
            }
        }
    }

    /// As [`Context::open`], and the file may be an upload of that owner.
    async fn open_or_find(&self, request: Request, owner: Owner<'_>) -> Result<Form, Error> {
        match self.opened(request).await? {
            Opened::Form(form) => Ok(form),
            Opened::Fields(fields) => openai::uploads::find(self, fields, owner).await,
        }
    }

    async fn opened(&self, request: Request) -> Result<Opened, Error> {
        let limit = self.config.get().gateway.body_limit.as_u64();
        Form::open(request, limit, self.upstreams.budget()).await
    }

    /// Why the gateway is not ready: a capability that is configured has no engine that is proven to serve, or the gateway stops.
    pub fn unready(&self) -> Option<Error> {
        let config = self.config.get();
        // What a language model adds is missing without it; speech is served all the same.
        for capability in [Capability::Stt, Capability::Tts] {
            let configured = config.has(capability);
            let reason = match self.upstreams.ready(capability) {
                _ if !configured => continue,
                _ if self.drain.is_announced() => "the gateway is stopping",
                true => continue,
                false => "none is proven to serve yet",
            };
            return Some(Error::NoEngine { capability, reason, retry_after: config.gateway.retry_after.min });
        }
        None
    }

    /// The engines of a request for that capability, by the model it names; those of the first one when it names none.
    ///
    /// # Errors
    /// There is no such model, it is for something else, or the caller may not use it.
    fn route(
        &self,
        request_id: &RequestId,
        name: Option<&str>,
        capability: Capability,
    ) -> Result<Route, Error> {
        let (config, caller) = (self.config.get(), request_id.caller());
        if name.is_none() && caller.is_none() {
            return Ok(catalog::default_route(&config, capability).with_hosted(true));
        }
        let voices = self.voices.known();
        let known = catalog::known_for(&config, &voices, name, capability)?;
        let hosted = caller.as_ref().is_none_or(|caller| caller.may_use_hosted());
        if let Some(caller) = caller {
            caller.may_use(&known.id, name)?;
        }
        Ok(known.route.with_hosted(hosted))
    }

    /// Notes that an engine, which may have been asked as the second one, heard an upload of so many seconds.
    fn served(
        &self,
        form: &Form,
        request_id: &RequestId,
        (engine, hedged): (&Arc<str>, bool),
        charge: Option<Charge>,
        seconds: f64,
    ) {
        request_id.served_by(engine, hedged);
        if let Some(input) = form.input() {
            self.upstreams.served(input);
        }
        self.metrics.audio_seconds(Capability::Stt).inc_by(seconds);
        if let Some(charge) = charge {
            charge.settle(seconds);
        }
    }
}

/// Whether a job on a body of so many bytes may wait for an engine: it is short, and there are such engines at all.
fn may_wait(config: &Config, capability: Capability, bytes: Option<u64>) -> bool {
    let max = config.gateway.wait.max_body.as_u64();
    bytes.is_some_and(|bytes| bytes <= max) && config.has(capability)
}

/// A request as engines are told of it.
fn asker(request_id: &RequestId) -> Asker {
    Asker {
        request_id: request_id.value.clone(),
        tenant: request_id.tenant(),
        trace: request_id.trace.clone(),
    }
}

/// A job for engines of that route.
fn outgoing(route: Route, work: Work, seconds: f64, request_id: &RequestId) -> Outgoing {
    Outgoing {
        route,
        work,
        file: None,
        audio_seconds: seconds,
        asker: asker(request_id),
        may_wait: false,
        continues: false,
        background: false,
        long: Long::default(),
        avoid: None,
        prefer: None,
    }
}

/// Renders what engines made. Long replies are rendered away from the threads that move bytes.
async fn rendered<T: Send + 'static>(
    weight: usize,
    render: impl FnOnce() -> T + Send + 'static,
    failed: impl FnOnce() -> Error,
) -> Result<T, Error> {
    /// Words of some minutes of speech.
    const INLINE: usize = 1_000;
    if weight <= INLINE {
        return Ok(render());
    }
    tokio::task::spawn_blocking(render).await.map_err(|_| failed())
}

/// Refuses what no engine of the route gives, by the parameter that asks for it.
fn check_offers(upstreams: &Upstreams, route: &Route, work: &Work) -> Result<(), Error> {
    let Work::Transcribe(wanted) = work else { return Ok(()) };
    let offers = upstreams.offers(route);
    if wanted.words == Need::Required && !offers.words {
        return Err(Error::param("timestamp_granularities", "the engine gives no word times"));
    }
    if wanted.speakers && offers.speakers == Speakers::No {
        return Err(Error::param("speakers", "the engine tells no speakers apart"));
    }
    Ok(())
}
