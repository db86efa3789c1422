//! The one configuration file of gateway, guard and standalone: typed, defaulted, unknown fields refused.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};

use contract::Capability;

use crate::protocol::{self, Protocol};

mod auth;
mod check;
mod clips;
mod connections;
mod conversation;
mod current;
mod grpc;
mod hedge;
mod hosted;
mod jobs;
mod kubernetes;
mod load;
mod long;
mod page;
mod policy;
mod protocols;
mod recordings;
mod redis;
pub mod reload;
mod sessions;
mod shown;
mod supervisors;
mod tls;
mod tracing;

pub use auth::{Auth, AuthMode, Jwt, Limits, Quotas, Usage};
pub use clips::Clips;
pub use connections::Connections;
pub use conversation::Conversation;
pub use current::Current;
pub use grpc::Grpc;
pub use hedge::Hedge;
pub use hosted::Hosted;
pub use jobs::{Jobs, Uploads, Webhooks};
pub use kubernetes::{Discovery, Kubelet, Operator, Pool};
pub use load::Error;
pub use long::Long;
pub use page::Page;
pub use policy::{
    Alone, Confirm, ConfirmRules, Hang, Lane, Policy, Probe, Quorum, Repair, RetryAfter, SignatureRule,
    Startup, Trend,
};
pub use recordings::Recordings;
pub use redis::Redis;
pub use sessions::Sessions;
pub use shown::shown;
pub use supervisors::{Container, ContainerEngine, Published, Unit};
pub use tls::Tls;
pub use tracing::{Otlp, Tracing};

/// The whole file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The public side.
    pub gateway: Gateway,
    /// How guards judge and repair; one policy for all engines.
    pub guard: Policy,
    /// The engines and where their guards listen.
    pub engines: Vec<Engine>,
    /// Traces of requests and repairs.
    pub tracing: Tracing,
}

/// One engine, its guard's addresses and, if it is ours to run, its command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// Unique name.
    pub name: String,
    /// What it does.
    pub capability: Capability,
    /// The engine's base URL, `http://host:port` or `https://host`, without the paths of its protocol such as `/v1`.
    pub url: String,
    /// The base URL of its gRPC side, `http://host:port` or `https://host`; needed by protocols over gRPC.
    #[serde(default)]
    pub grpc: Option<String>,
    /// How it is spoken to, in order of preference; see [`Engine::spoken`].
    #[serde(default)]
    pub protocols: Vec<Protocol>,
    /// Language of speech for which a client names none, BCP-47; of golden probes as well.
    #[serde(default)]
    pub language: Option<String>,
    /// Model name to send to it, where its protocol sends one.
    #[serde(default)]
    pub model: Option<String>,
    /// Voice that it speaks with whatever clients ask for, where its protocol is `openai` and it knows others than the gateway.
    #[serde(default)]
    pub voice: Option<String>,
    /// Jobs that it does at a time, in place of `guard.lane.jobs`; 16 for language models, which batch by themselves.
    #[serde(default)]
    pub jobs: Option<usize>,
    /// File with the API key that it asks for, which is sent as a bearer token.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Where its guard takes traffic.
    pub guard: SocketAddr,
    /// Where its guard serves `/readyz`, `/state`, `/state/stream` and `/metrics`.
    pub guard_admin: SocketAddr,
    /// Program and arguments; when set the guard runs and restarts the engine as a child process.
    #[serde(default)]
    pub command: Vec<String>,
    /// Extra environment of the command.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// When set a container engine runs the engine, and the guard restarts it through the container engine's socket.
    #[serde(default)]
    pub container: Option<Container>,
    /// When set systemd runs the engine, and the guard restarts it through systemd.
    #[serde(default)]
    pub unit: Option<Unit>,
    /// Whether it stands in for the other engines of its capability: it is probed as they are, and gets requests only while
    /// none of them serves with its full weight.
    #[serde(default)]
    pub standby: bool,
    /// When set it belongs to others: it is used where engines of one's own are missing or busy, within a budget, for keys that
    /// allow it.
    #[serde(default)]
    pub hosted: Option<Hosted>,
    /// Whether it is sent the `traceparent` and `tracestate` of a request; see [`Engine::joins_traces`].
    #[serde(default)]
    pub trace_context: Option<bool>,
    /// The folder of its model files, where the guard can read it: its size tells how far a first start is.
    #[serde(default)]
    pub model_cache: Option<PathBuf>,
    /// When set the kubelet restarts the engine's container on the guard's word.
    #[serde(default)]
    pub kubelet: Option<Kubelet>,
    /// Whose orders the guard obeys; it restarts on its own when unset.
    #[serde(default)]
    pub operator: Option<Operator>,
}

/// Jobs of a language model at a time where none are configured.
const LLM_JOBS: usize = 16;

impl Engine {
    /// Its protocols in order of preference: those configured, or the default of its capability.
    pub fn spoken(&self) -> Vec<Protocol> {
        match self.protocols.is_empty() {
            true => vec![Protocol::default_of(self.capability)],
            false => self.protocols.clone(),
        }
    }

    /// One that nothing here can restart.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self {
            name: "engine-0".into(),
            capability: Capability::Stt,
            url: "http://127.0.0.1:1".into(),
            grpc: None,
            protocols: Vec::new(),
            language: None,
            model: None,
            voice: None,
            jobs: None,
            key_file: None,
            guard: ([127, 0, 0, 1], 0).into(),
            guard_admin: ([127, 0, 0, 1], 0).into(),
            command: Vec::new(),
            env: BTreeMap::new(),
            container: None,
            unit: None,
            standby: false,
            hosted: None,
            trace_context: None,
            model_cache: None,
            kubelet: None,
            operator: None,
        }
    }

    /// Whether it is sent the trace of a request. Where nothing is said, a server of others is not: one that is `hosted`, or that
    /// is reached over HTTPS.
    pub fn joins_traces(&self) -> bool {
        let urls = || std::iter::once(&self.url).chain(&self.grpc);
        let of_others = || self.hosted.is_some() || urls().any(|url| url.starts_with("https:"));
        self.trace_context.unwrap_or_else(|| !of_others())
    }

    /// The policy of its guard: that of all guards, with its own number of jobs at a time.
    pub fn ruled(&self, policy: &Policy) -> Policy {
        let mut policy = policy.clone();
        policy.lane.jobs = match (self.jobs, self.capability) {
            (Some(jobs), _) => jobs,
            (None, Capability::Llm) => LLM_JOBS,
            (None, Capability::Stt | Capability::Tts) => policy.lane.jobs,
        };
        policy
    }

    /// What its protocols need of this configuration.
    pub fn settings(&self) -> protocol::Settings {
        protocol::Settings {
            language: self.language.clone(),
            model: self.model.clone(),
            voice: self.voice.clone(),
        }
    }
}

/// The gateway's settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where `/state`, `/readyz`, `/livez` and `/metrics` are served.
    pub admin: SocketAddr,
    /// Clients of gRPC.
    pub grpc: Grpc,
    /// HTTPS; plain HTTP alone when unset.
    pub tls: Option<Tls>,
    /// Largest request body; beyond it 413.
    pub body_limit: ByteSize,
    /// Requests in flight; beyond it 429.
    pub max_in_flight: usize,
    /// Limits of the public listener.
    pub connections: Connections,
    /// How long a stop waits for work in flight.
    #[serde(with = "duration")]
    pub drain: Duration,
    /// How long a stop goes on accepting requests while it is not ready any more, so that those who send here learn it.
    #[serde(with = "duration")]
    pub drain_delay: Duration,
    /// Finds engines by itself; the list `engines` is used when unset.
    pub discovery: Option<Discovery>,
    /// Replay of uploads on another engine.
    pub spool: Spool,
    /// Short requests that may wait for an engine.
    pub wait: Wait,
    /// Limits of retries.
    pub retry: Retry,
    /// Jobs that also go to a second engine.
    pub hedge: Hedge,
    /// How long files are split.
    pub long: Long,
    /// Jobs that run in the background.
    pub jobs: Jobs,
    /// Speakers and voices that are kept by name.
    pub clips: Clips,
    /// Audio of sessions that is kept.
    pub recordings: Recordings,
    /// The program ffmpeg, for formats that have no codec here: `auto` looks on PATH, `off` does without, else its path.
    pub ffmpeg: String,
    /// Bounds of the Retry-After header.
    pub retry_after: RetryAfter,
    /// Who may call.
    pub auth: Auth,
    /// How much of it.
    pub quotas: Quotas,
    /// What is kept of it.
    pub usage: Usage,
    /// The page for people at `/`.
    pub page: Page,
    /// Limits of streaming sessions.
    pub sessions: Sessions,
    /// Conversations with a language model.
    pub conversation: Conversation,
    /// Models that clients may name.
    pub models: Vec<Model>,
    /// Client voice names onto engine voice names.
    pub voices: BTreeMap<String, String>,
    /// The engine voice when the client names none.
    pub default_voice: String,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin: SocketAddr::from(([127, 0, 0, 1], 9090)),
            grpc: Grpc::default(),
            tls: None,
            body_limit: ByteSize::gib(2),
            max_in_flight: 1024,
            connections: Connections::default(),
            drain: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
            discovery: None,
            spool: Spool::default(),
            wait: Wait::default(),
            retry: Retry::default(),
            hedge: Hedge::default(),
            long: Long::default(),
            jobs: Jobs::default(),
            clips: Clips::default(),
            recordings: Recordings::default(),
            ffmpeg: "auto".into(),
            retry_after: RetryAfter::default(),
            auth: Auth::default(),
            quotas: Quotas::default(),
            usage: Usage::default(),
            page: Page::default(),
            sessions: Sessions::default(),
            conversation: Conversation::default(),
            models: Model::defaults(),
            voices: default_voices(),
            default_voice: "Magpie-Multilingual.EN-US.Mia".into(),
        }
    }
}

/// What is kept of uploads so that they can be sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spool {
    /// Bytes of one request kept in memory before it moves to a file.
    pub memory_per_request: ByteSize,
    /// Bytes of all requests on disk together; beyond it uploads are not replayable.
    pub disk: ByteSize,
    /// Folder of the unlinked files; the system's temporary folder when unset.
    pub dir: Option<PathBuf>,
}

impl Default for Spool {
    fn default() -> Self {
        Self { memory_per_request: ByteSize::kib(64), disk: ByteSize::gib(4), dir: None }
    }
}

/// Waiting for an engine to come back instead of failing at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wait {
    /// Longest wait; zero lets no request wait.
    #[serde(with = "duration")]
    pub max_wait: Duration,
    /// Largest body that may wait.
    pub max_body: ByteSize,
    /// Requests that may wait at the same time.
    pub max_requests: usize,
}

impl Default for Wait {
    fn default() -> Self {
        Self { max_wait: Duration::from_secs(20), max_body: ByteSize::mib(25), max_requests: 256 }
    }
}

/// The retry budget: `ratio` of the requests plus `min_per_second`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Retries per request on average.
    pub ratio: f32,
    /// Retries a second that are always allowed.
    pub min_per_second: u32,
    /// Sends of one request, the first included.
    pub attempts: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { ratio: 0.2, min_per_second: 10, attempts: 3 }
    }
}

/// A model that clients may name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its id in `/v1/models`.
    pub id: String,
    /// Which engines serve it.
    pub capability: Capability,
    /// Of these, only those of this pool; all of the capability when unset.
    #[serde(default)]
    pub pool: Option<String>,
    /// Other names for it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Tags of the languages that it knows, for lists; those of its voices when empty.
    #[serde(default)]
    pub languages: Vec<String>,
}

impl Model {
    /// NVIDIA's models under their own names and OpenAI's.
    pub fn defaults() -> Vec<Model> {
        let model = |id: &str, capability, aliases: &[&str]| Model {
            id: id.into(),
            capability,
            pool: None,
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            languages: Vec::new(),
        };
        vec![
            model(
                "parakeet-tdt-0.6b-v3",
                Capability::Stt,
                &[
                    "parakeet",
                    "parakeet-tdt-0.6b-v2",
                    "whisper-1",
                    "gpt-transcribe",
                    "gpt-4o-transcribe",
                    "gpt-4o-mini-transcribe",
                ],
            ),
            model(
                "magpie-tts-multilingual",
                Capability::Tts,
                &["magpie", "tts-1", "tts-1-hd", "gpt-4o-mini-tts"],
            ),
        ]
    }
}

/// OpenAI's voices onto Magpie's English speakers of the same character.
fn default_voices() -> BTreeMap<String, String> {
    [
        ("alloy", "Sofia"),
        ("ash", "Jason"),
        ("ballad", "Leo"),
        ("cedar", "Ray"),
        ("coral", "Mia"),
        ("echo", "Jason"),
        ("fable", "Leo"),
        ("marin", "Aria"),
        ("nova", "Aria"),
        ("onyx", "Ray"),
        ("sage", "Sofia"),
        ("shimmer", "Louise"),
        ("verse", "Leo"),
    ]
    .into_iter()
    .map(|(voice, speaker)| (voice.to_owned(), format!("Magpie-Multilingual.EN-US.{speaker}")))
    .collect()
}

impl Config {
    /// The engine of that name, or the only one when no name is given.
    pub fn engine(&self, name: Option<&str>) -> Result<&Engine, Error> {
        match name {
            Some(name) => self.engines.iter().find(|engine| engine.name == name).ok_or_else(|| {
                Error::Invalid { field: "engines", reason: format!("has no engine named {name:?}") }
            }),
            None => match self.engines.as_slice() {
                [engine] => Ok(engine),
                engines => Err(Error::Invalid {
                    field: "engines",
                    reason: format!("has {} entries; name one with --engine", engines.len()),
                }),
            },
        }
    }

    /// Whether engines of that capability are configured, or looked for.
    pub fn has(&self, capability: Capability) -> bool {
        match &self.gateway.discovery {
            Some(discovery) => discovery.pools.iter().any(|pool| pool.capability == capability),
            None => self.engines.iter().any(|engine| engine.capability == capability),
        }
    }
}

/// Reads and checks a file, with `--set path=value` overrides applied on top.
pub fn from_file(path: &Path, overrides: &[String]) -> Result<Config, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
    from_text(path, &text, overrides)
}

/// Reads and checks the text of the file `path`.
pub fn from_text(path: &Path, text: &str, overrides: &[String]) -> Result<Config, Error> {
    let mut config = load::parse(path, text, overrides)?;
    config.tracing.complete(|name| std::env::var(name).ok())?;
    config.check()?;
    Ok(config)
}

#[cfg(test)]
mod tests;
