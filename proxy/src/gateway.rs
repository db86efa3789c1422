//! The gateway: routes of the public port and of the admin port, and the edge that all requests pass.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::handler::Handler;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Json, Router, middleware};
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tower::ServiceExt;
use trace::Tracer;

pub use crate::edge::Metrics;

use crate::api::live::tldw::status;
use crate::api::llm::memory::Memory;
use crate::api::llm::translate::Cache;
use crate::api::openai::realtime::{self, secrets};
use crate::api::openai::{
    chat, clips as clips_api, consents, jobs as transcription_jobs, models, speech, transcription, uploads,
    voices,
};
use crate::api::{
    self, Context, azure, bridge, configuration, diarization, gemma, live, nim, page, parakeet_fastapi,
    reference, riva, spark, usage,
};
use crate::clips::{self, Clips};
use crate::config::Current;
use crate::edge::{self, Access, Edge, Passage, Peer, RequestId};
use crate::error::Error;
use crate::jobs::{self, Jobs};
use crate::keys;
use crate::net::drain::Drain;
use crate::net::permits::Permits;
use crate::rng::Rng;
use crate::stream;
use crate::upstream::Upstreams;
use crate::upstream::voices::Voices;

/// What serves the public port: calls of gRPC and audio go straight to their handlers, everything else through the router.
#[derive(Clone)]
pub struct Service {
    context: Arc<Context>,
    edge: Arc<Edge>,
    router: Router,
    /// At the other end of the connection that it serves.
    peer: Peer,
}

impl Service {
    /// What serves a connection from that address.
    pub fn for_peer(&self, address: SocketAddr) -> Self {
        Self { peer: Peer(address.ip()), ..self.clone() }
    }
}

impl hyper::service::Service<hyper::Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        if let Some(call) = riva::Call::of(&request) {
            let (context, edge, peer) = (Arc::clone(&self.context), Arc::clone(&self.edge), self.peer);
            let serve = move |request, id| call.serve(context, id, request);
            return async move { Ok(edge::pass(&edge, call.passage(), request, peer, serve).await) }.boxed();
        }
        let mut request = without_slash(request);
        let Some(call) = Call::of(&request) else {
            request.extensions_mut().insert(self.peer);
            return self.router.clone().oneshot(request).boxed();
        };
        let (context, edge, peer) = (Arc::clone(&self.context), Arc::clone(&self.edge), self.peer);
        async move {
            let passage = Passage::http(call.pattern(), request.method());
            let serve = |request, id| call.serve(context, id, request);
            Ok(edge::pass(&edge, passage, request, peer, serve).await)
        }
        .boxed()
    }
}

/// The calls that carry audio: too many to look for their routes.
#[derive(Clone, Copy)]
enum Call {
    Transcription,
    Speech,
}

impl Call {
    fn of<B>(request: &hyper::Request<B>) -> Option<Self> {
        if request.method() != Method::POST {
            return None;
        }
        let path = request.uri().path();
        match path.strip_prefix("/v1").unwrap_or(path) {
            TRANSCRIPTIONS => Some(Self::Transcription),
            SPEECH => Some(Self::Speech),
            _ => None,
        }
    }

    fn pattern(self) -> &'static str {
        match self {
            Self::Transcription => TRANSCRIPTIONS,
            Self::Speech => SPEECH,
        }
    }

    async fn serve(self, context: Arc<Context>, id: RequestId, request: Request) -> Response {
        match self {
            Self::Transcription => transcription::create(State(context), Extension(id), request).await,
            Self::Speech => speech::create(State(context), Extension(id), request).await,
        }
        .into_response()
    }
}

const TRANSCRIPTIONS: &str = "/audio/transcriptions";
const SPEECH: &str = "/audio/speech";

/// Why a gateway cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its metrics are registered already.
    #[error("unable to register metrics")]
    Metrics(#[from] prometheus::Error),
    /// The recordings of voices that it is to keep.
    #[error("unable to keep recordings of voices (gateway.clips.dir)")]
    Clips(#[from] clips::Error),
    /// The jobs that it is to keep.
    #[error("unable to keep jobs")]
    Jobs(#[from] jobs::OpenError),
}

/// The public side of a stack.
pub struct Gateway {
    context: Arc<Context>,
    edge: Arc<Edge>,
}

impl Gateway {
    /// A gateway in front of `upstreams` that lets in whom `keys` know, with its spans to `tracer` and its metrics in `registry`.
    ///
    /// # Errors
    /// When its metrics are registered already, or the jobs that it keeps cannot be.
    pub fn new(
        config: Current,
        upstreams: Upstreams,
        keys: keys::Store,
        drain: Drain,
        tracer: Tracer,
        registry: &prometheus::Registry,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::register(registry)?;
        let access = Access::new(keys, config.clone(), registry)?;
        let edge = Edge {
            access: access.clone(),
            metrics: metrics.clone(),
            drain: drain.clone(),
            permits: Permits::default(),
            config: config.clone(),
            rng: Rng::random(),
            tracer: tracer.clone(),
        };
        let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let voices = Voices::new(upstreams.clone());
        let session_metrics = stream::Metrics::register(registry)?;
        let engines = stream::Gateway::new(upstreams.clone(), session_metrics.clone());
        let sessions = Permits::default();
        let jobs = Jobs::open(&config, jobs::Metrics::register(registry)?)?;
        let kept = &config.get().gateway.clips;
        let clips = kept.dir.as_deref().map(|dir| Clips::open(dir, kept.max)).transpose()?;
        let context = Context {
            config,
            access,
            upstreams,
            voices,
            metrics,
            drain,
            engines,
            session_metrics,
            jobs,
            clips,
            memory: Memory::default(),
            translations: Cache::default(),
            sessions,
            unproven: Permits::default(),
            tracer,
            started_unix,
        };
        let context = Arc::new(context);
        tokio::spawn(live::tldw::kept::keep_tidy(context.config.clone()));
        if let Some(jobs) = &context.jobs {
            let worker = Arc::new(transcription_jobs::Transcriber { context: Arc::clone(&context) });
            // A stop waits until what runs is back in the queue.
            context.drain.spawn(jobs.clone().run(worker, context.drain.clone()));
        }
        Ok(Self { context, edge: Arc::new(edge) })
    }

    /// Routes of the public port.
    pub fn router(&self) -> Router {
        let api = Router::new()
            .route("/models", gets(models::list))
            .route("/models/{*id}", gets(models::one))
            .route("/audio/models", gets(models::speaking))
            .route("/audio/voices", get(voices::list).post(clips_api::imitate).fallback(get_or_post))
            .route("/audio/voices/{id}", delete(clips_api::forget_voice).fallback(only_delete))
            .route("/audio/voice_consents", get(consents::list).post(consents::create).fallback(get_or_post))
            .route(
                "/audio/voice_consents/{id}",
                get(consents::one)
                    .post(consents::change)
                    .delete(consents::forget)
                    .fallback(get_post_or_delete),
            )
            .route("/audio/speakers", get(clips_api::list).post(clips_api::enrol).fallback(get_or_post))
            .route("/audio/speakers/{id}", delete(clips_api::forget_speaker).fallback(only_delete))
            .route("/audio/list_voices", gets(nim::list_voices))
            .route("/audio/synthesize", posts(nim::synthesize))
            .route("/audio/synthesize_online", posts(nim::synthesize_online))
            .route("/metadata", gets(nim::metadata))
            .route("/version", gets(nim::version))
            .route("/usage", gets(usage::usage))
            .route("/keys", gets(api::keys::list).post(api::keys::create))
            .route("/keys/{key}", delete(api::keys::revoke).fallback(only_delete))
            .route("/audio/diarizations", posts(diarization::create))
            .route("/audio/diarization", posts(diarization::create))
            .route("/audio/diarize", posts(diarization::create_for_spark))
            .route(SPEECH, posts(speech::create))
            .route(TRANSCRIPTIONS, posts(transcription::create))
            .route("/audio/translations", posts(transcription::translate))
            .route("/audio/jobs", gets(transcription_jobs::list))
            .route("/audio/jobs/{id}", gets(transcription_jobs::one).delete(transcription_jobs::remove))
            .route("/audio/jobs/{id}/cancel", posts(transcription_jobs::cancel))
            .route("/audio/jobs/{id}/events", gets(transcription_jobs::events))
            .route("/audio/jobs/{id}/result", gets(transcription_jobs::result))
            .route(edge::UPLOADS, get(uploads::list).post(uploads::create).fallback(get_or_post))
            .route(
                edge::UPLOAD,
                get(uploads::one)
                    .head(uploads::head)
                    .patch(uploads::append)
                    .delete(uploads::remove)
                    .post(uploads::overridden)
                    .fallback(uploads::unknown_method),
            )
            .route("/realtime/client_secrets", posts(secrets::create))
            .route("/realtime/sessions", posts(secrets::sessions))
            .route("/realtime/transcription_sessions", posts(secrets::transcription_sessions))
            .route("/realtime/calls", posts(realtime::calls))
            .route("/realtime/calls/{*call}", posts(realtime::calls))
            .route("/upload", posts(bridge::upload))
            .route("/tts-proxy", posts(bridge::speak))
            .route("/inference", posts(transcription::create))
            .route("/transcribe", posts(parakeet_fastapi::transcribe))
            .route("/speech-to-text", posts(gemma::transcribe))
            .route("/text-to-speech", posts(gemma::speak))
            .route("/encode-reference", posts(gemma::reference::create))
            .route("/conversation/dialogue", posts(gemma::dialogue::create))
            .route("/dialogue", posts(gemma::dialogue::create))
            .route("/generate", posts(gemma::generate::whole))
            .route("/generate_stream", posts(gemma::generate::events))
            .route("/chat/completions", posts(chat::create))
            .route("/health/stt", gets(gemma::health::stt))
            .route("/health/tts", gets(gemma::health::tts))
            .route("/health/llm", gets(gemma::health::llm))
            .route("/api/v1/audio/transcriptions", posts(transcription::create))
            .route("/api/v1/audio/speech", posts(speech::create))
            .route("/api/v1/audio/stream/status", gets(status::status))
            .route("/api/v1/audio/stream/limits", gets(status::limits))
            .merge(live::routes())
            .route("/health", gets(components))
            .route("/health/live", gets(health))
            .route("/health/ready", gets(readyz))
            .route("/api/audio/transcribe-with-speakers", posts(spark::transcribe_with_speakers));
        let azure = Router::new()
            .route("/audio/transcriptions", posts(azure::transcribe))
            .route("/audio/translations", posts(azure::translate))
            .route("/audio/speech", posts(azure::speak));
        // Each path also without its prefix: clients differ in what they call the base URL.
        Router::new()
            .nest("/v1", api.clone())
            .nest("/openai/v1", api.clone())
            .nest("/openai/deployments/{deployment}", azure)
            .merge(api)
            .route("/", gets(page::index))
            .route("/docs", gets(page::reference))
            .route("/openapi.json", gets(reference::document))
            .route("/page/stack", gets(page::stack))
            .route("/page/{name}", gets(page::file))
            .route("/healthz", gets(health))
            .route("/debug/cfg", gets(configuration::show))
            .route("/readyz", gets(readyz))
            .merge(bridge::socket_io::routes(Arc::clone(&self.context)))
            .fallback(unknown_path)
            .layer(middleware::from_fn_with_state(self.edge.clone(), edge::layer))
            .with_state(self.context.clone())
    }

    /// What serves the public port, with and without a slash at the end of a path.
    pub fn service(&self) -> Service {
        let (context, edge) = (Arc::clone(&self.context), Arc::clone(&self.edge));
        Service { context, edge, router: self.router(), peer: Peer::default() }
    }

    /// Routes of the admin port.
    pub fn admin_router(&self) -> Router {
        Router::new()
            .route("/state", get(state))
            .route("/readyz", get(readyz))
            .route("/startz", get(startz))
            .with_state(self.context.clone())
    }
}

/// The request without a slash at the end of its path.
fn without_slash<B>(mut request: hyper::Request<B>) -> hyper::Request<B> {
    let path = request.uri().path();
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() == path.len() || trimmed.is_empty() {
        return request;
    }
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = format!("{trimmed}{query}").parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

fn gets<H: Handler<T, Arc<Context>>, T: 'static>(handler: H) -> MethodRouter<Arc<Context>> {
    get(handler).fallback(|| async { Error::MethodNotAllowed { allowed: "GET, HEAD" } })
}

fn posts<H: Handler<T, Arc<Context>>, T: 'static>(handler: H) -> MethodRouter<Arc<Context>> {
    post(handler).fallback(|| async { Error::MethodNotAllowed { allowed: "POST" } })
}

async fn get_or_post() -> Error {
    Error::MethodNotAllowed { allowed: "GET, HEAD, POST" }
}

async fn get_post_or_delete() -> Error {
    Error::MethodNotAllowed { allowed: "GET, HEAD, POST, DELETE" }
}

async fn only_delete() -> Error {
    Error::MethodNotAllowed { allowed: "DELETE" }
}

async fn unknown_path(request: Request) -> Error {
    Error::NotFound { path: request.uri().path().chars().take(256).collect() }
}

async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// As [`health`], with what each part of the stack can do.
async fn components(State(context): State<Arc<Context>>) -> Json<Value> {
    Json(json!({"status": "ok", "components": gemma::health::components(&context)}))
}

/// 200 once each capability that is configured has an engine that is proven to serve, until the gateway stops.
async fn readyz(State(context): State<Arc<Context>>) -> Result<Json<Value>, Error> {
    context.unready().map_or_else(|| Ok(Json(json!({"status": "ready"}))), Err)
}

/// 200 once it is known which engines there are, until the gateway stops: from then on every answer is a true one.
async fn startz(State(context): State<Arc<Context>>) -> (StatusCode, &'static str) {
    if context.drain.is_announced() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if context.upstreams.is_synced() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "looking for engines")
    }
}

async fn state(State(context): State<Arc<Context>>) -> Json<Value> {
    Json(json!({"engines": context.upstreams.reports(), "unused": context.upstreams.unused()}))
}

#[cfg(test)]
mod tests;
