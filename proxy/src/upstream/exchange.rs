//! One attempt: prepare the file, encode the job, send it, and read the reply.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, header as names};
use axum::body::Body;
use tokio::time::{Instant, sleep, sleep_until};
use trace::{Kind, Span, Trace};

use contract::header;

use super::Upstreams;
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::framed::{Framed, Refused};
use super::hedge::{self, Alarm, Forecast};
use super::metrics::Outcome;
use super::outgoing::Outgoing;
use super::reply::{Reply, ReplyBody};
use super::send::Picked;
use crate::config::Config;
use crate::error::Error;
use crate::grpc;
use crate::net;
use crate::protocol::{self, Encoded, File, Transport};

/// The attribute that says what became of an attempt.
const OUTCOME: &str = "speechstack.outcome";

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The engine failed; another one may do it.
    Failed(Failure),
    /// The client gets this.
    Final(Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Final(error)
    }
}

impl Upstreams {
    /// One attempt, counted. The alarm rings when its answer is overdue.
    pub(super) async fn attempt<T, R, F>(
        &self,
        picked: &Picked,
        outgoing: &Outgoing,
        read: &R,
        alarm: &Alarm,
        mut span: Span,
    ) -> Result<T, Stop>
    where
        R: Fn(Reply) -> F,
        F: Future<Output = Result<T, Stop>>,
    {
        let trace = span.trace().clone();
        let mut count = |outcome: Outcome| {
            self.inner.metrics.attempt(outgoing.route.capability, outcome);
            span.set(OUTCOME, outcome.as_str());
            if let Outcome::Failed(_) = outcome {
                span.set("error.type", outcome.as_str());
                span.fail(outcome.as_str());
            }
        };
        let refused = Refused::default();
        let outcome = match self.send(picked, outgoing, &trace, &refused, alarm).await {
            Ok(reply) if outgoing.is_live() && alarm.is_armed() => {
                Box::pin(self.read_live(&picked.endpoint, outgoing, alarm, read(reply))).await
            }
            Ok(reply) => read(reply).await,
            Err(stop) => Err(stop),
        };
        // A failure of the client's upload, or of its form, shows as a broken exchange: the engine is not to blame.
        if let Some(error) = refused.lock().take().or_else(|| outgoing.upload_failure()) {
            count(Outcome::ClientGone);
            return Err(Stop::Final(error));
        }
        count(match &outcome {
            Ok(_) => Outcome::Served,
            Err(Stop::Final(_)) => Outcome::Rejected,
            Err(Stop::Failed(failure)) => Outcome::Failed(*failure),
        });
        outcome
    }

    /// The span of an attempt, of which so many came before.
    pub(super) fn span(&self, picked: &Picked, outgoing: &Outgoing, before: usize, hedges: bool) -> Span {
        let mut span = outgoing.asker.trace.span("engine attempt", Kind::Client);
        if span.is_recorded() {
            span.set("speechstack.engine", picked.endpoint.name.to_string());
            span.set("speechstack.protocol", picked.protocol.name());
            span.set("speechstack.hedge", hedges);
            span.set("http.request.method", "POST");
            span.set("server.address", picked.endpoint.guard.ip().to_string());
            span.set("server.port", picked.endpoint.guard.port());
            if before > 0 {
                span.set("http.request.resend_count", before as u64);
            }
            // Until it is known better: it may be dropped.
            span.set(OUTCOME, "cancelled");
        }
        span
    }

    /// Sends the job and waits for the head of a good reply.
    async fn send(
        &self,
        picked: &Picked,
        outgoing: &Outgoing,
        trace: &Trace,
        refused: &Refused,
        alarm: &Alarm,
    ) -> Result<Reply, Stop> {
        let Picked { endpoint, protocol, .. } = picked;
        let mut request = self.request(picked, outgoing, refused).await?;
        trace.inject(request.headers_mut());
        let now = Instant::now();
        let forecast = endpoint.forecast(outgoing.audio_seconds, now);
        let (timeout, overdue) = self.silences(forecast);
        let in_flight = endpoint.dispatch(forecast.work, now);
        let silence = async {
            // An upload may take as long as it takes; only then is an answer due.
            outgoing.arrived().await;
            let due = Instant::now();
            if let Some(overdue) = overdue.filter(|_| alarm.is_armed()) {
                ring_when_overdue(endpoint, alarm, due, [overdue, timeout]).await;
            }
            sleep(timeout.saturating_sub(due.elapsed())).await;
        };
        let response = self.exchange(endpoint, protocol.transport(), request, silence).await?;
        let reply = Reply {
            response: response.map(|incoming| ReplyBody::new(incoming, in_flight)),
            engine: Arc::clone(&endpoint.name),
            capability: outgoing.route.capability,
            protocol: *protocol,
            idle: timeout,
            ended: false,
        };
        reply.accepted().await
    }

    /// Reads a reply that began while the client spoke. The engine hears what comes, so that its text is due when all has come
    /// and the engine has had the time that this much work takes.
    async fn read_live<T>(
        &self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
        alarm: &Alarm,
        reading: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, Stop> {
        let began = Instant::now();
        let rings = async {
            outgoing.arrived().await;
            let now = Instant::now();
            let work = endpoint.forecast(outgoing.live_seconds(), now).work;
            let due = (began + Duration::try_from_secs_f64(work).unwrap_or_default()).max(now);
            let fixed = Forecast { wait: 0.0, work: endpoint.forecast(0.0, now).work };
            let (timeout, overdue) = self.silences(fixed);
            if let Some(overdue) = overdue {
                ring_when_overdue(endpoint, alarm, due, [overdue, timeout]).await;
            }
        };
        let mut reading = pin!(reading);
        let outcome = tokio::select! {
            biased;
            outcome = &mut reading => outcome,
            () = rings => reading.await,
        };
        if outcome.is_ok() {
            endpoint.answered(Instant::now());
        }
        outcome
    }

    /// How long an engine may be silent before the attempt fails, and before its answer is overdue.
    fn silences(&self, forecast: Forecast) -> (Duration, Option<Duration>) {
        let config = self.inner.config.get();
        (answer_timeout(&config, forecast.work), hedge::overdue_after(forecast, &config.gateway.hedge))
    }

    async fn request(
        &self,
        picked: &Picked,
        outgoing: &Outgoing,
        refused: &Refused,
    ) -> Result<Request<Body>, Stop> {
        let Picked { endpoint, protocol, .. } = picked;
        let whole = protocol.transport() == Transport::Grpc;
        let encode = |file: Option<&File<'_>>| {
            protocol.encode(&outgoing.work, file, &endpoint.settings).map_err(|error| unencodable(&error))
        };
        let (encoded, header, bytes) = match &outgoing.file {
            None => (encode(None)?, Default::default(), None),
            Some(file) => {
                let form = protocol.intake(&file.audio);
                let prepared = self.prepare(file, form, whole).await?;
                let sent = File { audio: &file.audio, form, len: prepared.len };
                let bytes = (prepared.bytes.reader_from(prepared.skip), Arc::clone(&file.gate));
                (encode(Some(&sent))?, prepared.header, Some(bytes))
            }
        };
        let Encoded { path, content_type, before, pieces, after } = encoded;
        let body = Framed::new([before, header], bytes, pieces, after, Arc::clone(refused));
        let mut request = Request::new(Body::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = endpoint.uri(path).map_err(|error| unbuildable(&error))?;
        // Room for all of them at once: a map that grows is built anew each time.
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(names::CONTENT_TYPE, content_type);
        headers.insert(header::REQUEST_ID, outgoing.asker.request_id.clone());
        headers.insert(header::AUDIO_SECONDS, seconds(outgoing.audio_seconds));
        match protocol.transport() {
            Transport::Http => headers.insert(names::HOST, endpoint.host()),
            Transport::Grpc => headers.insert(names::TE, HeaderValue::from_static("trailers")),
            Transport::WebSocket => None,
        };
        if let Some(input) = outgoing.file.as_ref().and_then(|file| file.gate.input()) {
            headers.insert(header::INPUT, input.header());
        }
        if let Some(tenant) = &outgoing.asker.tenant {
            headers.insert(header::TENANT, tenant.clone());
        }
        if outgoing.continues {
            headers.insert(header::CONTINUES, HeaderValue::from_static("1"));
        }
        if outgoing.background {
            headers.insert(header::PRIORITY, HeaderValue::from_static("long"));
        }
        *request.headers_mut() = headers;
        if protocol.transport() == Transport::WebSocket {
            request.extensions_mut().insert(protocol.rules().vouched());
        }
        Ok(request)
    }

    /// Sends and waits for the reply's head, for `silence` to resolve, or for the endpoint to die.
    pub(super) async fn exchange(
        &self,
        endpoint: &Endpoint,
        transport: Transport,
        request: Request<Body>,
        silence: impl Future<Output = ()>,
    ) -> Result<Response<net::Reply>, Failure> {
        let calls = async {
            match transport {
                Transport::Http => endpoint.calls.http(request).await,
                Transport::Grpc => endpoint.calls.grpc(request).await,
                Transport::WebSocket => endpoint.calls.websocket(request).await,
            }
        };
        let sent = tokio::select! {
            biased;
            sent = calls => sent,
            () = silence => return Err(Failure::Silent),
            () = endpoint.death() => return Err(Failure::Reset),
        };
        let now = Instant::now();
        let response = match sent {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                endpoint.refuse(now);
                return Err(Failure::Refused);
            }
            Err(error) => {
                tracing::debug!(engine = %endpoint.name, %error, "exchange broke");
                return Err(Failure::Reset);
            }
        };
        let ended = grpc::Status::read(response.headers()).filter(|_| transport == Transport::Grpc);
        let status = ended.map_or_else(|| response.status(), |ended| ended.http());
        let failure = Failure::of_reply(status, response.headers());
        endpoint.observe(response.headers(), failure, now);
        failure.map_or(Ok(response), Err)
    }
}

/// Well beyond the guard's own limits: its queue, then its deadline for the job.
fn answer_timeout(config: &Config, predicted: f64) -> Duration {
    /// Beyond what the guard's own deadlines allow.
    const MARGIN: Duration = Duration::from_secs(10);
    let (lane, hang) = (&config.guard.lane, &config.guard.hang);
    let queue = Duration::try_from_secs_f64(lane.max_wait_seconds).unwrap_or_default();
    let job = Duration::try_from_secs_f64(hang.deadline_factor * predicted).unwrap_or_default();
    queue.saturating_add(job.max(hang.deadline_floor)).saturating_mul(2).saturating_add(MARGIN)
}

/// From `overdue` after `due` on rings again and again, each time with a charge on the endpoint, until `timeout` after it.
async fn ring_when_overdue(
    endpoint: &Endpoint,
    alarm: &Alarm,
    due: Instant,
    [overdue, timeout]: [Duration; 2],
) {
    let mut after = overdue;
    while after < timeout {
        sleep_until(due + after).await;
        endpoint.overdue(due, Instant::now());
        alarm.ring();
        after += hedge::RECHECK;
    }
}

/// Resolves never: for exchanges that need no time limit of their own.
pub(super) fn forever() -> impl Future<Output = ()> {
    pending()
}

fn seconds(seconds: f64) -> HeaderValue {
    let millis = (seconds * 1000.0).round() as u64;
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0"))
}

fn unencodable(error: &protocol::Error) -> Stop {
    match error {
        protocol::Error::Unsupported { param, .. } => Stop::Final(Error::param(param, error.to_string())),
        protocol::Error::Form(_) | protocol::Error::Frame(_) => {
            Stop::Final(Error::param("file", error.to_string()))
        }
        protocol::Error::Shape { .. }
        | protocol::Error::Message { .. }
        | protocol::Error::Cut { .. }
        | protocol::Error::UnknownLength => {
            tracing::error!(%error, "unable to encode the job");
            Stop::Failed(Failure::Internal)
        }
    }
}

fn unbuildable(error: &::http::Error) -> Stop {
    tracing::error!(%error, "unable to build the request");
    Stop::Failed(Failure::Internal)
}
