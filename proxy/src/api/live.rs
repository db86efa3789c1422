//! Streaming dialects: one loop moves messages between a client's WebSocket and its session, a dialect translates them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use contract::Capability;

use super::bridge::socket_io;
use super::openai::realtime;
use super::{Context, asker, gemma};
use crate::edge::{Denied, Peer, Place, RequestId, unix_millis};
use crate::error::{Error, Unit};
use crate::net::permits::Permit;
use crate::net::websocket::{Gone, Handshake, Message, Received};
use crate::stream::{Ask, Event, Input, Session, Settings};
use admission::Manner;
use connection::Connection;
use meter::Meter;

pub use ending::Ending;
pub use out::{Out, Reply, Work};
pub use text::{base64, query, to_base64};

mod admission;
mod connection;
mod deepgram;
mod ending;
pub mod meter;
pub mod nim;
mod out;
mod parakeet_fastapi;
pub mod say;
mod text;
pub mod tldw;
pub mod vllm;

/// A streaming dialect.
#[derive(Clone, Copy)]
struct Spoken {
    path: &'static str,
    /// In logs and metrics.
    name: &'static str,
    open: Open,
    manner: Manner,
}

/// The dialects that are spoken over WebSocket: adding one is a line here.
const DIALECTS: [Spoken; 10] = [
    spoken("/realtime", "openai_realtime", realtime::open, Manner::Realtime),
    spoken("/ws", "parakeet_fastapi", parakeet_fastapi::open, Manner::Handshake),
    spoken("/listen", "deepgram", deepgram::open, Manner::Handshake),
    spoken("/api/v1/audio/stream/transcribe", "tldw", tldw::open, Manner::Tldw),
    spoken("/core/parakeet/stream", "tldw_core", tldw::open_core, Manner::Tldw),
    spoken("/speech-to-text/stream", "gemma_stream", gemma::recording::open, Manner::Gemma),
    spoken("/speech-to-text/ws", "gemma_files", gemma::files::open, Manner::Gemma),
    spoken("/text-to-speech/ws", "gemma_speech", gemma::speaking::open, Manner::Gemma),
    spoken("/conversation/ws", "gemma_conversation", gemma::talk::open, Manner::Gemma),
    spoken("/generate_ws", "gemma_generate", gemma::generate::open, Manner::Gemma),
];

const fn spoken(path: &'static str, name: &'static str, open: Open, manner: Manner) -> Spoken {
    Spoken { path, name, open, manner }
}

/// How often a client that sends nothing is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long it may give none.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// Longest time for the last texts of a session when the gateway stops.
const GOODBYE: Duration = Duration::from_secs(10);

/// Begins a session of a dialect, or refuses its request. The last is the subprotocols that the client offers.
type Open = fn(&Arc<Context>, &RequestId, &Request, &[String]) -> Result<Opened, Error>;

/// A session that can begin.
pub struct Opened {
    /// Its dialect.
    pub dialect: Box<dyn Dialect>,
    /// What is set at first.
    pub settings: Settings,
    /// What engines are asked for at first.
    pub ask: Ask,
    /// The subprotocol that is spoken, one of those offered.
    pub protocol: Option<&'static str>,
}

/// Translates between a client and its session. One value serves one connection.
pub trait Dialect: Send {
    /// The connection is open.
    fn opened(&mut self, out: &mut Out);

    /// A text message came.
    fn text(&mut self, text: &str, session: &mut Session, out: &mut Out);

    /// A binary message came.
    fn binary(&mut self, bytes: Bytes, session: &mut Session, out: &mut Out);

    /// The session has something to say.
    fn event(&mut self, event: Event, session: &mut Session, out: &mut Out);

    /// The gateway ends the session: the last frames, and the close.
    fn ending(&mut self, ending: Ending, out: &mut Out);
}

/// The routes of all dialects.
pub fn routes() -> Router<Arc<Context>> {
    DIALECTS.into_iter().fold(Router::new(), |router, spoken| {
        let serve =
            move |State(context): State<Arc<Context>>,
                  Extension(id): Extension<RequestId>,
                  request: Request| async move { begin(context, id, request, spoken).await };
        let other = || async { Error::MethodNotAllowed { allowed: "GET" } };
        let methods = get(serve).fallback(other);
        // Where clients of WebRTC send their offer.
        let has_calls = spoken.manner == Manner::Realtime;
        let methods = if has_calls { methods.post(realtime::calls) } else { methods };
        router.route(spoken.path, methods)
    })
}

/// Answers the handshake; the session then runs in a task that a stop waits for.
async fn begin(
    context: Arc<Context>,
    request_id: RequestId,
    mut request: Request,
    spoken: Spoken,
) -> Result<Response, Error> {
    let denied = request.extensions_mut().remove::<Denied>();
    let handshake = match (Handshake::of(&mut request), &denied) {
        (Err(_), Some(denied)) => return Err(denied.refused.clone().into()),
        (handshake, _) => handshake?,
    };
    if let Some(denied) = denied {
        return deny(context, request_id, request, handshake, spoken, denied);
    }
    let place = seat(&context, &request_id).await;
    let admitted =
        place.and_then(|place| admit(&context, &request_id, &request, &handshake.offered, spoken, place));
    let admitted = match admitted {
        Err(Error::Refused(refused)) => {
            let denied = Denied { refused, peer: Peer::default() };
            return deny(context, request_id, request, handshake, spoken, denied);
        }
        Err(error) if spoken.manner == Manner::Gemma => {
            return turn_away(&context, handshake, spoken, error);
        }
        admitted => admitted?,
    };
    let response = handshake.response(admitted.protocol);
    let max_message = max_message(&context);
    let task_context = Arc::clone(&context);
    context.drain.spawn(
        async move {
            let Ok(socket) = handshake.connect(max_message).await else { return };
            run(task_context, request_id, Connection::WebSocket(Box::new(socket)), admitted, spoken.name)
                .await;
        }
        .in_current_span(),
    );
    Ok(response)
}

/// Answers the handshake of a caller who is not known: with a refusal, or with time to say who it is.
fn deny(
    context: Arc<Context>,
    request_id: RequestId,
    request: Request,
    handshake: Handshake,
    spoken: Spoken,
    denied: Denied,
) -> Result<Response, Error> {
    if spoken.manner == Manner::Handshake {
        return Err(denied.refused.into());
    }
    if !spoken.manner.asks_later(&denied.refused) {
        return turn_away(&context, handshake, spoken, denied.refused.into());
    }
    let retry_after = context.config.get().gateway.retry_after.min;
    let permit =
        context.unproven.take(admission::MAX_UNPROVEN).ok_or(Error::TooManySessions { retry_after })?;
    let offered = handshake.offered.clone();
    let response = handshake.response(None);
    let max_message = max_message(&context).min(admission::MAX_MESSAGE);
    let task_context = Arc::clone(&context);
    context.drain.spawn(
        async move {
            let context = task_context;
            let Ok(mut socket) = handshake.connect(max_message).await else { return };
            let proven = tokio::select! {
                proven = admission::first_message(&context, &request_id, &denied, &mut socket) => proven,
                () = context.drain.begun() => return,
            };
            let place = match proven {
                Ok(()) => seat(&context, &request_id).await,
                Err(error) => Err(error),
            };
            let admitted =
                place.and_then(|place| admit(&context, &request_id, &request, &offered, spoken, place));
            drop(permit);
            match admitted {
                Ok(admitted) => {
                    run(context, request_id, Connection::WebSocket(Box::new(socket)), admitted, spoken.name)
                        .await;
                }
                Err(error) => spoken.manner.refuse(socket, &error).await,
            }
        }
        .in_current_span(),
    );
    Ok(response)
}

/// Answers the handshake, and the connection with a refusal that the client can read.
fn turn_away(
    context: &Arc<Context>,
    handshake: Handshake,
    spoken: Spoken,
    error: Error,
) -> Result<Response, Error> {
    let retry_after = context.config.get().gateway.retry_after.min;
    let permit =
        context.unproven.take(admission::MAX_UNPROVEN).ok_or(Error::TooManySessions { retry_after })?;
    let offers = handshake.offered.iter().any(|offered| offered == "realtime");
    let response = handshake.response(offers.then_some("realtime"));
    context.drain.spawn(async move {
        if let Ok(socket) = handshake.connect(admission::MAX_MESSAGE).await {
            spoken.manner.refuse(socket, &error).await;
        }
        drop(permit);
    });
    Ok(response)
}

/// Runs a session of Socket.IO in a task that a stop waits for.
///
/// # Errors
/// There is no room for it.
pub async fn begin_events(
    context: &Arc<Context>,
    request_id: RequestId,
    connection: socket_io::Connection,
    name: &'static str,
    open: impl FnOnce() -> Result<Opened, Error>,
) -> Result<(), Error> {
    let place = seat(context, &request_id).await?;
    let admitted = seated(context, &request_id, open, place)?;
    let task_context = Arc::clone(context);
    let running = run(task_context, request_id, Connection::SocketIo(connection), admitted, name);
    context.drain.spawn(running.in_current_span());
    Ok(())
}

/// A session that may run, and what it holds meanwhile.
struct Admitted {
    session: Session,
    dialect: Box<dyn Dialect>,
    protocol: Option<&'static str>,
    _permit: Permit,
    /// Among the sessions of its caller.
    _place: Option<Place>,
}

/// Opens a session, if there is room for it.
fn admit(
    context: &Arc<Context>,
    request_id: &RequestId,
    request: &Request,
    offered: &[String],
    spoken: Spoken,
    place: Option<Place>,
) -> Result<Admitted, Error> {
    seated(context, request_id, || (spoken.open)(context, request_id, request, offered), place)
}

/// A place among the sessions of a caller that is known.
async fn seat(context: &Context, request_id: &RequestId) -> Result<Option<Place>, Error> {
    let Some(caller) = request_id.caller() else { return Ok(None) };
    caller.request(unix_millis())?;
    drop(request_id.charge(Unit::AudioSeconds, 0.0).await?);
    let place = caller.stream(context.config.get().gateway.sessions.max)?;
    caller.stream_of_all().await?;
    Ok(Some(place))
}

fn seated(
    context: &Arc<Context>,
    request_id: &RequestId,
    open: impl FnOnce() -> Result<Opened, Error>,
    place: Option<Place>,
) -> Result<Admitted, Error> {
    let config = context.config.get();
    let opened = open()?;
    let retry_after = config.gateway.retry_after.min;
    let permit =
        context.sessions.take(config.gateway.sessions.max).ok_or(Error::TooManySessions { retry_after })?;
    let engines = Arc::new(context.engines.of(asker(request_id)));
    let session = Session::new(opened.settings, opened.ask, engines)
        .map_err(|error| Error::param("sample_rate", error.to_string()))?;
    Ok(Admitted {
        session,
        dialect: opened.dialect,
        protocol: opened.protocol,
        _permit: permit,
        _place: place,
    })
}

fn max_message(context: &Context) -> usize {
    usize::try_from(context.config.get().gateway.sessions.max_message.as_u64()).unwrap_or(usize::MAX)
}

/// Runs a session to its end.
async fn run(
    context: Arc<Context>,
    request_id: RequestId,
    connection: Connection,
    admitted: Admitted,
    name: &'static str,
) {
    let Admitted { session, dialect, _permit, _place, .. } = admitted;
    let _counted = context.session_metrics.begin(name);
    let meter = Meter::of(&request_id);
    let live =
        Live { context, connection, session, dialect, meter: meter.clone(), draining: false, told: false };
    let seconds = live.run().await;
    if let Some(meter) = meter {
        // Beyond the quota it counts as well: the next session is refused.
        let _ = meter.settle(seconds);
    }
    let caller = request_id.caller();
    let key = caller.as_ref().map(|caller| tracing::field::display(caller.name()));
    tracing::info!(request_id = ?request_id.value, dialect = name, key, seconds, "session ended");
}

/// A session with its connection.
struct Live {
    context: Arc<Context>,
    connection: Connection,
    session: Session,
    dialect: Box<dyn Dialect>,
    meter: Option<Meter>,
    /// The gateway stops: nothing more is read.
    draining: bool,
    /// Then also: the session has told all.
    told: bool,
}

/// What the loop goes on with.
enum Step {
    Event(Box<Event>),
    Reply(Option<Reply>),
    Received(Received),
    Drain,
    Ping,
    Silent,
    Settle,
    Ending(Ending),
}

impl Live {
    /// Runs to the end. Returns the seconds of audio.
    async fn run(mut self) -> f64 {
        let mut out = Out::default();
        self.dialect.opened(&mut out);
        let limits = self.context.config.get().gateway.sessions;
        let drain = self.context.drain.clone();
        let began = Instant::now();
        let (mut heard, mut active, mut pinged) = (began, began, began);
        let mut too_long = began + limits.max_length;
        let mut settle_at = began + meter::EVERY;
        let mut told_last = false;
        loop {
            if self.flush(&mut out).await.is_err() {
                return self.session.seconds();
            }
            if let Some((code, reason)) = out.close.take() {
                let seconds = self.session.seconds();
                self.connection.close(code, &reason).await;
                return seconds;
            }
            if self.told && !out.works() {
                self.told = false;
                self.dialect.ending(Ending::Draining, &mut out);
                continue;
            }
            let works = out.works();
            let step = tokio::select! {
                biased;
                () = drain.begun(), if !self.draining => Step::Drain,
                step = self.exchange(told_last) => step,
                reply = out.reply(), if works => Step::Reply(reply),
                () = sleep_until(too_long) => Step::Ending(if self.draining { Ending::Draining } else { Ending::TooLong }),
                () = sleep_until(active + limits.idle_timeout), if !self.draining && !self.session.speaks() && !works => Step::Ending(Ending::Idle),
                () = sleep_until(heard + SILENT_FOR), if !self.draining && self.session.has_room() => Step::Silent,
                () = sleep_until(heard.max(pinged) + PING_EVERY) => Step::Ping,
                () = sleep_until(settle_at), if self.meter.is_some() && !self.draining => Step::Settle,
            };
            told_last = matches!(step, Step::Event(_));
            match step {
                Step::Event(event) => self.event(*event, &mut out),
                Step::Reply(Some(Reply::Json(value))) => out.json(&value),
                Step::Reply(Some(Reply::Close(code, reason))) => out.close(code, reason),
                Step::Reply(None) => active = Instant::now(),
                Step::Received(received) => {
                    heard = Instant::now();
                    match received {
                        Received::Text(text) => {
                            active = heard;
                            self.dialect.text(&text, &mut self.session, &mut out);
                        }
                        Received::Binary(bytes) => {
                            active = heard;
                            self.dialect.binary(bytes, &mut self.session, &mut out);
                        }
                        Received::Alive => {}
                        Received::Closed => return self.session.seconds(),
                        Received::Fault(code, reason) => out.close(code, reason),
                    }
                }
                Step::Drain => {
                    self.draining = true;
                    self.session.push(Input::End);
                    // The stop itself drops what is not over in time.
                    let drain = self.context.config.get().gateway.drain.mul_f64(0.75);
                    too_long = Instant::now() + drain.min(GOODBYE);
                }
                Step::Ping => {
                    pinged = Instant::now();
                    out.messages.push(Message::Ping);
                }
                Step::Silent => return self.session.seconds(),
                Step::Settle => {
                    settle_at = Instant::now() + meter::EVERY;
                    let seconds = self.session.seconds();
                    if self.meter.as_ref().is_some_and(|meter| meter.settle(seconds).is_err()) {
                        self.dialect.ending(Ending::Quota, &mut out);
                    }
                }
                Step::Ending(ending) => self.dialect.ending(ending, &mut out),
            }
        }
    }

    /// The next event of the session or message of the client. They take turns: a session that has much to say must not keep its
    /// client from stopping it. Nothing is lost when the future is dropped.
    async fn exchange(&mut self, told_last: bool) -> Step {
        let (tells, hears) = (!self.told, !self.draining && self.session.has_room());
        let (session, connection) = (&mut self.session, &mut self.connection);
        let event = async { Step::Event(Box::new(session.next().await)) };
        let received = async { Step::Received(connection.next().await) };
        if told_last {
            tokio::select! {
                biased;
                step = received, if hears => step,
                step = event, if tells => step,
                else => std::future::pending().await,
            }
        } else {
            tokio::select! {
                biased;
                step = event, if tells => step,
                step = received, if hears => step,
                else => std::future::pending().await,
            }
        }
    }

    fn event(&mut self, event: Event, out: &mut Out) {
        match &event {
            Event::Done if self.draining => {
                self.told = true;
                return;
            }
            Event::Broken => return self.dialect.ending(Ending::Broken, out),
            Event::Final(last) => {
                let seconds = crate::stream::seconds(last.span.end - last.span.start);
                self.context.metrics.audio_seconds(Capability::Stt).inc_by(seconds);
            }
            _ => {}
        }
        self.dialect.event(event, &mut self.session, out);
    }

    /// Sends what waits. A client that does not read for long is shed.
    async fn flush(&mut self, out: &mut Out) -> Result<(), Gone> {
        for message in out.messages.drain(..) {
            self.connection.send(message).await?;
        }
        Ok(())
    }
}
