//! What every request passes on its way in and out: its id, its caller, its place among those in flight, CORS, and the common headers.

mod access;
mod account;
mod charge;
mod credential;
mod inbound;
mod metrics;
mod need;
mod outbound;
mod principal;
mod quota;
mod shared;
pub mod timing;
mod tries;
mod usage;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use trace::{Kind, Span, Trace, Tracer};
use tracing::Instrument;
use twox_hash::XxHash3_64;
use uuid::Builder;

pub use access::{Access, Denied, EPHEMERAL, Peer};
pub use account::Place;
pub use charge::Charge;
pub use metrics::Metrics;
pub use principal::Principal;

use contract::Capability;
use contract::header::REQUEST_ID;
pub use inbound::Source;

use inbound::Inbound;
use need::Need;
use outbound::{InFlight, Outbound};
use quota::Rate;

use crate::config::{Config, Current};
use crate::error::{Error, Refused, Unit};
use crate::grpc;
use crate::net::body::Pace;
use crate::net::drain::Drain;
use crate::net::permits::Permits;
use crate::rng::Rng;

const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
/// The engine of others that served a request.
const HOSTED: HeaderName = HeaderName::from_static("x-speechstack-hosted");
const VERSION: HeaderName = HeaderName::from_static("openai-version");
/// The target of log lines that say who did what, and who was refused.
pub const AUDIT: &str = "audit";
/// Headers of replies that pages may read.
pub const EXPOSED: &str = "location, x-request-id, x-speechstack-hosted, retry-after, retry-after-ms, x-should-retry, \
    openai-processing-ms, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests";
/// Methods that pages may use.
const METHODS: &str = "GET, HEAD, POST, PATCH, DELETE, OPTIONS";
/// Where files come in parts.
pub const UPLOADS: &str = "/audio/uploads";
/// One of them.
pub const UPLOAD: &str = "/audio/uploads/{id}";
/// Longest request id taken over from a client.
const ID_BYTES: usize = 128;

/// A request by its id, and what is noted for its log line. Cloning shares it.
#[derive(Clone, Debug)]
pub struct RequestId {
    /// Carried from end to end: visible ASCII.
    pub value: HeaderValue,
    /// Where what is done for it is in its trace.
    pub trace: Trace,
    noted: Arc<Mutex<Noted>>,
}

/// Whose request it is, which engine served it, and whether it was the second one that was asked.
#[derive(Clone, Debug, Default)]
struct Noted {
    caller: Option<Arc<Principal>>,
    engine: Option<Arc<str>>,
    hedged: bool,
}

impl RequestId {
    /// One that no client's request has: that of work in the background.
    pub fn of(value: HeaderValue, trace: Trace) -> Self {
        Self { value, trace, noted: Arc::default() }
    }

    /// Notes which engine served it.
    pub fn served_by(&self, engine: &Arc<str>, hedged: bool) {
        let mut noted = self.noted.lock();
        (noted.engine, noted.hedged) = (Some(Arc::clone(engine)), hedged);
    }

    /// The engine of others that served it.
    fn hosted(&self, config: &Config) -> Option<HeaderValue> {
        let engine = self.noted.lock().engine.clone()?;
        let value = || HeaderValue::from_str(&engine).unwrap_or(HeaderValue::from_static("yes"));
        config.is_hosted(&engine).then(value)
    }

    /// Notes whose request it is.
    pub fn called_by(&self, caller: Arc<Principal>) {
        self.noted.lock().caller = Some(caller);
    }

    /// Whose request it is; `None` where no key is asked for.
    pub fn caller(&self) -> Option<Arc<Principal>> {
        self.noted.lock().caller.clone()
    }

    /// Sets an amount aside for work of its caller; `None` where no key is asked for.
    ///
    /// # Errors
    /// The caller's quota does not allow it.
    pub async fn charge(&self, unit: Unit, amount: f64) -> Result<Option<Charge>, Error> {
        let charge = self.charge_at_once(unit, amount)?;
        if let Some(charge) = &charge {
            charge.agreed().await?;
        }
        Ok(charge)
    }

    /// As [`RequestId::charge`], within a session: of what other gateways used counts what is known of it.
    ///
    /// # Errors
    /// The caller's quota does not allow it.
    pub fn charge_at_once(&self, unit: Unit, amount: f64) -> Result<Option<Charge>, Error> {
        let Some(caller) = self.caller() else { return Ok(None) };
        caller.reserve(unit, amount, unix_millis())?;
        Ok(Some(Charge::new(caller, self.clone(), unit, amount)))
    }

    /// Whom it is for, as engines' guards see it: a number that is the same for all keys of a name.
    pub fn tenant(&self) -> Option<HeaderValue> {
        let hash = XxHash3_64::oneshot(self.caller()?.name().as_bytes());
        HeaderValue::try_from(format!("{hash:016x}")).ok()
    }

    fn as_str(&self) -> &str {
        self.value.to_str().unwrap_or_default()
    }
}

/// What the edge needs.
pub struct Edge {
    /// What is counted.
    pub metrics: Metrics,
    /// Whether the gateway is stopping.
    pub drain: Drain,
    /// Free permits for requests that cost engine time.
    pub permits: Permits,
    /// How many permits there are, and the Retry-After of a refusal.
    pub config: Current,
    /// Who is let in.
    pub access: Access,
    /// For request ids: a call of the system for each costs more than the rest of an id.
    pub rng: Rng,
    /// Begins traces.
    pub tracer: Tracer,
}

/// How requests of a route pass the edge.
#[derive(Clone, Copy, Debug)]
pub struct Passage<'a> {
    /// The route's pattern: a label with few values.
    pub pattern: &'a str,
    /// Whether a request takes one of the permits for requests that cost engine time.
    pub takes_permit: bool,
    /// Whether its body must keep coming. What is spoken live has pauses.
    pub is_paced: bool,
    /// Whether its reply ends with a status of gRPC.
    pub is_grpc: bool,
    /// How it is said that a request is refused; as the route's dialect says it when `None`.
    pub refuse: Option<fn(Error) -> Response>,
}

impl<'a> Passage<'a> {
    /// That of a request over HTTP.
    pub fn http(pattern: &'a str, method: &Method) -> Self {
        let takes_permit = method == Method::POST;
        Self { pattern, takes_permit, is_paced: true, is_grpc: false, refuse: None }
    }

    fn refuse(&self, error: Error) -> Response {
        match self.refuse {
            Some(refuse) => refuse(error),
            None => need::of(self.pattern, !self.takes_permit).refuse()(error),
        }
    }
}

/// The layer around the router's routes.
pub async fn layer(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let pattern = pattern(&request).to_owned();
    let passage = Passage::http(&pattern, request.method());
    let serve = |mut request: Request, id| {
        request.extensions_mut().insert(id);
        next.run(request)
    };
    let peer = request.extensions().get().copied().unwrap_or_default();
    pass(&edge, passage, request, peer, serve).await
}

/// What is around every route. Nothing of a request's body is read here.
pub async fn pass<B, F>(
    edge: &Edge,
    passage: Passage<'_>,
    mut request: http::Request<B>,
    peer: Peer,
    serve: impl FnOnce(Request, RequestId) -> F,
) -> Response
where
    B: Source,
    F: Future<Output = Response>,
{
    let started = Instant::now();
    let mut id = request_id(request.headers(), &edge.rng);
    if request.method() == Method::OPTIONS {
        let mut response = preflight(request.headers());
        if passage.pattern.ends_with(UPLOADS) || passage.pattern.ends_with(UPLOAD) {
            offer_uploads(&edge.config.get(), response.headers_mut());
        }
        finish(response.headers_mut(), &id, started);
        return response;
    }
    let mut traced = edge.tracer.accept(request.headers()).span("request", Kind::Server);
    id.trace = traced.trace().clone();
    if traced.is_recorded() {
        begin(&mut traced, request.method(), passage.pattern, &id);
    }
    let config = edge.config.get();
    let (mut refused, mut rate, mut job) = (None, None, None);
    if config.gateway.auth.is_on() {
        match edge.admit(&config, passage.pattern, &mut request, peer, &id) {
            Ok(admitted) => (rate, job) = admitted,
            Err(error) => refused = Some(Error::from(error)),
        }
        if job.as_ref().is_some_and(Place::is_shared)
            && let Some(caller) = id.caller()
        {
            match Box::pin(caller.job_of_all()).await {
                Ok(of_all) => rate = of_all.or(rate),
                Err(error) => (refused, job) = (Some(Error::from(error)), None),
            }
        }
    }
    let route = edge.metrics.route(passage.pattern);
    // A span costs as much as all else of the edge. The log line has the same fields; where there is a trace, so do all lines.
    let span = match id.trace.id() {
        Some(trace) => {
            tracing::info_span!("request", trace_id = %trace, request_id = id.as_str(), route = route.pattern.as_str())
        }
        None => tracing::debug_span!("request", request_id = id.as_str(), route = route.pattern.as_str()),
    };
    let mut in_flight = InFlight::begin(edge.metrics.clone(), route, id.clone(), started);
    in_flight.traced = traced;
    in_flight.job = job;
    if passage.takes_permit && refused.is_none() {
        match edge.permits.take(config.gateway.max_in_flight) {
            Some(place) => in_flight.place = Some(place),
            None => refused = Some(overloaded(request.uri().path(), config.gateway.retry_after.min)),
        }
    }
    let request = edge.wrap(&config, request, passage.is_paced);
    let mut response = match refused {
        Some(error) => passage.refuse(error),
        None => serve(request, id.clone()).instrument(span).await,
    };
    finish(response.headers_mut(), &id, started);
    if config.has_hosted()
        && let Some(engine) = id.hosted(&config)
    {
        response.headers_mut().insert(HOSTED, engine);
    }
    if let Some(rate) = rate {
        show(response.headers_mut(), rate);
    }
    in_flight.status = match passage.is_grpc {
        true => outcome(response.status(), response.headers()).as_u16(),
        false => response.status().as_u16(),
    };
    response.map(|body| Body::new(Outbound::new(body, in_flight)))
}

impl Edge {
    /// Notes whose request it is, and counts it. Returns what is left of a minute's requests, and its place among those of its
    /// caller. One for a session goes on although it is refused: its dialect says so in its own way.
    fn admit<B>(
        &self,
        config: &Config,
        pattern: &str,
        request: &mut http::Request<B>,
        peer: Peer,
        id: &RequestId,
    ) -> Result<(Option<Rate>, Option<Place>), Refused> {
        let need = need::of(pattern, request.method() != Method::POST);
        let admitted = self.access.admit(config, need, request, peer, unix_seconds());
        // Clients of Socket.IO that poll send what they say, their key too, with POST.
        let polls = need == Need::Session("bridge");
        let is_session = matches!(need, Need::Session(_)) && (polls || request.method() == Method::GET);
        let admitted = admitted.and_then(|caller| {
            let Some(caller) = caller else { return Ok((None, None)) };
            id.called_by(Arc::clone(&caller));
            match request.method() {
                // A session counts once its dialect has opened it.
                &Method::POST if !polls => {
                    Ok((caller.request(unix_millis())?, Some(caller.job(config.gateway.max_in_flight)?)))
                }
                _ => Ok((None, None)),
            }
        });
        match admitted {
            Err(refused) if is_session => {
                request.extensions_mut().insert(Denied { refused, peer });
                Ok((None, None))
            }
            admitted => admitted,
        }
    }

    fn wrap<B: Source>(&self, config: &Config, request: http::Request<B>, is_paced: bool) -> Request {
        let awaits_continue = request.headers().contains_key(header::EXPECT);
        request.map(|body| {
            if body.is_end_stream() {
                return Body::empty();
            }
            let pace = if is_paced { config.gateway.connections.pace() } else { Pace::NONE };
            Body::new(Inbound::new(body, pace, awaits_continue, self.metrics.bytes_in(), self.drain.clone()))
        })
    }
}

/// What a span says of a request from its beginning on.
fn begin(traced: &mut Span, method: &Method, pattern: &str, id: &RequestId) {
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    // Clients may make up methods; names of spans are few.
    let method = if known.contains(method) { method.as_str() } else { "_OTHER" };
    traced.rename(|| format!("{method} {pattern}"));
    traced.set("http.request.method", method.to_owned());
    traced.set("http.route", pattern.to_owned());
    traced.set("speechstack.request_id", id.as_str().to_owned());
}

/// How a request ended, as far as headers or trailers say it: a call of gRPC has its own status.
fn outcome(status: StatusCode, headers: &HeaderMap) -> StatusCode {
    grpc::Status::read(headers).map_or(status, |ended| ended.http())
}

fn overloaded(path: &str, retry_after: Duration) -> Error {
    let speaks = ["/speech", "/Synthesize", "/SynthesizeOnline", "/synthesize", "/synthesize_online"];
    let capability =
        if speaks.iter().any(|end| path.ends_with(end)) { Capability::Tts } else { Capability::Stt };
    Error::Overloaded { capability, retry_after }
}

/// The client's id if it is one that logs and headers can carry, else a new one.
fn request_id(headers: &HeaderMap, rng: &Rng) -> RequestId {
    let valid = |id: &&HeaderValue| {
        (1..=ID_BYTES).contains(&id.len())
            && id.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte))
    };
    let id = match headers.get(REQUEST_ID).filter(valid) {
        Some(id) => id.clone(),
        None => new_id(rng),
    };
    RequestId::of(id, Trace::default())
}

/// A UUID of version 7 (RFC 9562), so that ids sort by time.
fn new_id(rng: &Rng) -> HeaderValue {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut random = [0; 10];
    random[..8].copy_from_slice(&rng.roll().to_be_bytes());
    random[8..].copy_from_slice(&rng.roll().to_be_bytes()[..2]);
    let uuid = Builder::from_unix_timestamp_millis(since.as_millis() as u64, &random).into_uuid();
    let mut id = *b"req_00000000000000000000000000000000";
    uuid.simple().encode_lower(&mut id[4..]);
    HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static("req_unknown"))
}

/// The route's pattern, the same with and without `/v1`: a label with few values.
fn pattern(request: &Request) -> &str {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    matched.map_or("unmatched", |path| path.strip_prefix("/v1").unwrap_or(path))
}

/// Answers a browser's question whether it may call: yes, with any header it names.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    let allowed = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or_else(|| {
        HeaderValue::from_static("authorization, content-type, x-api-key, x-request-id, openai-beta")
    });
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    headers.insert(header::ALLOW, HeaderValue::from_static(METHODS));
    response
}

/// Tells how files may come in parts: what tus has in the reply to `OPTIONS`.
fn offer_uploads(config: &Config, headers: &mut HeaderMap) {
    let jobs = &config.gateway.jobs;
    if jobs.dir.is_none() {
        return;
    }
    headers.insert("tus-resumable", HeaderValue::from_static("1.0.0"));
    headers.insert("tus-version", HeaderValue::from_static("1.0.0"));
    let extensions = HeaderValue::from_static("creation,creation-with-upload,termination,expiration");
    headers.insert("tus-extension", extensions);
    headers.insert("tus-max-size", HeaderValue::from(jobs.largest_upload()));
}

/// Tells what is left of a minute's requests, as OpenAI does.
fn show(headers: &mut HeaderMap, rate: Rate) {
    let seconds = rate.full_in.as_secs_f64().ceil() as u64;
    headers.insert("x-ratelimit-limit-requests", HeaderValue::from(rate.limit));
    headers.insert("x-ratelimit-remaining-requests", HeaderValue::from(rate.left));
    if let Ok(reset) = HeaderValue::try_from(format!("{seconds}s")) {
        headers.insert("x-ratelimit-reset-requests", reset);
    }
}

/// Unix time, milliseconds.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Unix time, seconds.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Sets the headers of every reply.
fn finish(headers: &mut HeaderMap, id: &RequestId, started: Instant) {
    headers.insert(REQUEST_ID, id.value.clone());
    headers.insert(PROCESSING_MS, HeaderValue::from(started.elapsed().as_millis() as u64));
    headers.insert(VERSION, HeaderValue::from_static("2020-10-01"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    // A dialect may have more of its own.
    headers.entry(header::ACCESS_CONTROL_EXPOSE_HEADERS).or_insert(HeaderValue::from_static(EXPOSED));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(sent: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(sent).unwrap());
        request_id(&headers, &Rng::new(1)).as_str().to_owned()
    }

    #[test]
    fn a_good_request_id_is_kept_and_any_other_replaced() {
        assert_eq!(id_of(b"abc-1.2:3"), "abc-1.2:3");
        for wrong in [&b""[..], b"a b", b"\"", b"caf\xc3\xa9", &[b'x'; 129]] {
            assert!(id_of(wrong).starts_with("req_"), "{wrong:?}");
        }
        let rng = Rng::random();
        assert_ne!(new_id(&rng), new_id(&rng));
    }
}
