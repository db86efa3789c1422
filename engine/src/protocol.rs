//! The server side of every engine protocol: one file each, registered by one line in `TABLE`.
//!
//! A protocol decodes requests, calls the shared `work` and encodes the replies; it knows no other protocol. Two share
//! OpenAI's forms: `envelope` has its errors, `speech_body` its speech request. Those that stream share `listening`, and over
//! WebSocket `realtime`; NIM's realtime stands in front of Riva and shares its configuration.

mod envelope;
mod listening;
mod magpie;
mod nemo_speech;
mod nim_http;
mod nim_realtime;
mod openai;
mod parakeet;
mod parakeet_fastapi;
mod realtime;
mod riva;
mod riva_tts;
mod speech_body;

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use tonic::service::RoutesBuilder;

use crate::kind::Kind;
use crate::work::{Synthesizer, Transcriber, Work, Writer};

/// All protocols.
static TABLE: [&Entry; 11] = [
    &parakeet::ENTRY,
    &parakeet_fastapi::ENTRY,
    &nim_http::ENTRY,
    &nim_realtime::ENTRY,
    &riva::ENTRY,
    &riva::STREAMING,
    &nemo_speech::ENTRY,
    &nemo_speech::STREAMING,
    &magpie::ENTRY,
    &riva_tts::ENTRY,
    &openai::ENTRY,
];

/// A line of the table.
struct Entry {
    name: &'static str,
    /// How it serves speech to text, if it does.
    stt: Option<Side<Transcriber>>,
    /// How it serves text to speech, if it does.
    tts: Option<Side<Synthesizer>>,
    /// How it serves conversations, if it does.
    llm: Option<Side<Writer>>,
}

/// How a protocol serves the work `W`.
enum Side<W> {
    /// Over HTTP, on these paths.
    Http { paths: &'static [&'static [&'static str]], router: fn(Arc<W>) -> Router },
    /// Over WebSocket, with what belongs to it, on these paths of HTTP.
    WebSocket { paths: &'static [&'static str], router: fn(Arc<W>) -> Router },
    /// Over gRPC, with this service.
    Grpc { service: &'static str, add: fn(Arc<W>, &mut RoutesBuilder) },
}

/// What a protocol adds to a listener.
pub enum Server {
    /// Routes of the HTTP listener.
    Http(Router),
    /// Routes of the HTTP listener, without any for health.
    WebSocket(Router),
    /// Adds services to the gRPC listener.
    Grpc(Box<dyn FnOnce(&mut RoutesBuilder)>),
}

/// An engine protocol, found by its name.
#[derive(Clone, Copy)]
pub struct Protocol(&'static Entry);

/// Why protocols cannot be served together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such name.
    #[error("protocol '{name}' is not known: use {known}", known = names())]
    Unknown {
        /// As it was given.
        name: String,
    },
    /// The protocol is for engines of the other kind.
    #[error("protocol {protocol} does not serve {kind}")]
    Kind {
        /// The protocol.
        protocol: &'static str,
        /// The kind.
        kind: &'static str,
    },
    /// A gRPC protocol without an address.
    #[error("protocol {0} needs --grpc ADDRESS")]
    NoGrpcAddress(&'static str),
    /// An address without a gRPC protocol.
    #[error("--grpc is given, but none of the protocols is served over gRPC")]
    NoGrpcProtocol,
    /// A protocol is named more than once.
    #[error("protocol {0} is named twice")]
    Twice(&'static str),
    /// Two protocols serve one path, or one gRPC service, in different ways.
    #[error("protocols {0} and {1} cannot be served by one process: both have {2}")]
    Clash(&'static str, &'static str, &'static str),
}

impl Protocol {
    /// The protocol of an engine that names none.
    #[must_use]
    pub fn default_of(kind: Kind) -> Self {
        match kind {
            Kind::Stt => Self(&parakeet::ENTRY),
            Kind::Tts => Self(&magpie::ENTRY),
            Kind::Llm => Self(&openai::ENTRY),
        }
    }

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Its server side in front of `work`; `None` when it does not serve that kind.
    #[must_use]
    pub fn server(self, work: &Work) -> Option<Server> {
        match work {
            Work::Stt(work) => self.0.stt.as_ref().map(|side| side.server(work.clone())),
            Work::Tts(work) => self.0.tts.as_ref().map(|side| side.server(work.clone())),
            Work::Llm(work) => self.0.llm.as_ref().map(|side| side.server(work.clone())),
        }
    }

    /// Its HTTP paths, or its gRPC service; `None` when it does not serve that kind.
    fn paths(self, kind: Kind) -> Option<Vec<&'static str>> {
        match kind {
            Kind::Stt => self.0.stt.as_ref().map(Side::paths),
            Kind::Tts => self.0.tts.as_ref().map(Side::paths),
            Kind::Llm => self.0.llm.as_ref().map(Side::paths),
        }
    }
}

impl<W: Send + Sync + 'static> Side<W> {
    fn server(&self, work: Arc<W>) -> Server {
        match self {
            Self::Http { router, .. } => Server::Http(router(work)),
            Self::WebSocket { router, .. } => Server::WebSocket(router(work)),
            Self::Grpc { add, .. } => {
                let add = *add;
                Server::Grpc(Box::new(move |routes| add(work, routes)))
            }
        }
    }

    fn paths(&self) -> Vec<&'static str> {
        match self {
            Self::Http { paths, .. } => paths.concat(),
            Self::WebSocket { paths, .. } => paths.to_vec(),
            Self::Grpc { service, .. } => vec![*service],
        }
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = TABLE.iter().find(|entry| entry.name == name);
        found.map(|entry| Self(entry)).ok_or_else(|| Error::Unknown { name: name.to_owned() })
    }
}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0.name)
    }
}

/// Checks that one process of a kind can serve all these protocols.
///
/// # Errors
/// Names the protocols that do not go together, or what is missing.
pub fn check(kind: Kind, protocols: &[Protocol], grpc: Option<SocketAddr>) -> Result<(), Error> {
    let mut served: Vec<(&'static str, &'static str)> = Vec::new();
    let mut grpc_served = false;
    for (index, protocol) in protocols.iter().enumerate() {
        let name = protocol.name();
        if protocols[..index].iter().any(|earlier| earlier.name() == name) {
            return Err(Error::Twice(name));
        }
        let unsuited = || Error::Kind { protocol: name, kind: kind.name() };
        let paths = protocol.paths(kind).ok_or_else(unsuited)?;
        let over_grpc = paths.iter().all(|path| !path.starts_with('/'));
        if over_grpc && grpc.is_none() {
            return Err(Error::NoGrpcAddress(name));
        }
        grpc_served |= over_grpc;
        for path in paths {
            if let Some((_, other)) = served.iter().find(|(known, _)| *known == path) {
                return Err(Error::Clash(other, name, path));
            }
            served.push((path, name));
        }
    }
    if grpc.is_some() && !grpc_served { Err(Error::NoGrpcProtocol) } else { Ok(()) }
}

/// Seconds rounded to milliseconds; JSON's null when they are no number.
fn ms(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn names() -> String {
    TABLE.map(|entry| entry.name).join(", ")
}

#[cfg(test)]
mod tests;
