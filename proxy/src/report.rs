//! What a guard reports of its engine: the wire contract between a guard and the gateways in front of it.

use serde::{Deserialize, Serialize};

/// Header names that guard and gateway exchange; all other clients may ignore them.
pub mod header {
    use http::HeaderName;

    /// Response: the engine's [`State`](super::State).
    pub const STATE: HeaderName = HeaderName::from_static("x-speechstack-state");
    /// Response: seconds of predicted work ahead in the lane, decimal.
    pub const QUEUE_SECONDS: HeaderName = HeaderName::from_static("x-speechstack-queue-seconds");
    /// Response: the fault [`Class`](super::Class) that this reply shows.
    pub const CLASS: HeaderName = HeaderName::from_static("x-speechstack-class");
    /// Response: `elsewhere` when the fault lies with the engine and another one may serve the same request.
    pub const RETRY: HeaderName = HeaderName::from_static("x-speechstack-retry");
    /// Response: the name of the engine that answered.
    pub const ENGINE: HeaderName = HeaderName::from_static("x-speechstack-engine");
    /// Request: seconds of audio in (or expected out of) the request, decimal.
    pub const AUDIO_SECONDS: HeaderName = HeaderName::from_static("x-speechstack-audio-seconds");
    /// Response: the input wedged engines before and is refused.
    pub const POISON: HeaderName = HeaderName::from_static("x-speechstack-poison");
    /// Both: the request's id from end to end.
    pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
}

/// What an engine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Speech to text: transcription and diarization.
    Parakeet,
    /// Text to speech.
    Magpie,
}

impl Kind {
    /// Both kinds, in the order they are shown.
    pub const ALL: [Kind; 2] = [Kind::Parakeet, Kind::Magpie];

    /// The name used in configuration, metrics and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Parakeet => "parakeet",
            Kind::Magpie => "magpie",
        }
    }
}

/// The class of a fault, by what cures it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Class {
    /// CUDA context dead: every later call fails until the process is replaced.
    #[serde(rename = "A")]
    Sticky,
    /// Stream capture poisoned; behaves like [`Class::Sticky`].
    #[serde(rename = "A'")]
    Capture,
    /// Uncorrectable memory error or device lost; may outlive the process.
    #[serde(rename = "A''")]
    DeviceLost,
    /// A library status that may or may not be sticky: a probe decides.
    #[serde(rename = "B")]
    Ambiguous,
    /// Out of GPU memory; the context survives.
    #[serde(rename = "C")]
    Memory,
    /// Driver or image does not fit: a restart cannot help.
    #[serde(rename = "D")]
    Environment,
    /// Connection refused or reset.
    #[serde(rename = "R")]
    Refused,
    /// An answer arrived and its content is wrong.
    #[serde(rename = "Q")]
    Quality,
    /// No answer and no progress within the predicted time.
    #[serde(rename = "H")]
    Hang,
    /// Probes of an idle engine fail though no request showed anything.
    #[serde(rename = "P")]
    Periodic,
    /// Service has become slow for the work it does.
    #[serde(rename = "T")]
    Trend,
}

impl Class {
    /// All classes, for metrics that must exist before the first event.
    pub const ALL: [Class; 11] = [
        Class::Sticky,
        Class::Capture,
        Class::DeviceLost,
        Class::Ambiguous,
        Class::Memory,
        Class::Environment,
        Class::Refused,
        Class::Quality,
        Class::Hang,
        Class::Periodic,
        Class::Trend,
    ];

    /// The short name on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Sticky => "A",
            Class::Capture => "A'",
            Class::DeviceLost => "A''",
            Class::Ambiguous => "B",
            Class::Memory => "C",
            Class::Environment => "D",
            Class::Refused => "R",
            Class::Quality => "Q",
            Class::Hang => "H",
            Class::Periodic => "P",
            Class::Trend => "T",
        }
    }

    /// The class of that short name.
    pub fn parse(name: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.as_str() == name)
    }

    /// Whether the process is known to be beyond saving (the A family).
    pub fn is_sticky(self) -> bool {
        matches!(self, Class::Sticky | Class::Capture | Class::DeviceLost)
    }
}

/// Where an engine instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Process started, shallow health not green yet.
    Starting,
    /// Shallow health green, golden probes not passed yet.
    Warming,
    /// Proven by inference.
    Healthy,
    /// Proven, and its queue is long.
    Saturated,
    /// Proven, but slow or repeatedly suspected: lower weight.
    Degraded,
    /// A request or probe failed; probes decide.
    Suspect,
    /// Suspect and undecided for too long: lower weight, no kill.
    Unknown,
    /// Proven unable to serve; a restart is due.
    Wedged,
    /// Wedged, and the restart is deferred.
    Fenced,
    /// Being restarted.
    Restarting,
    /// Restarted and passing probes, weight ramping up.
    Probation,
    /// The process does not die.
    KillStuck,
    /// Cannot start for a reason that a restart does not cure.
    ConfigError,
    /// Restarts did not help or are used up: no further act until a probe passes or a person resets.
    Exhausted,
}

impl State {
    /// All states, for metrics that must exist before the first event.
    pub const ALL: [State; 14] = [
        State::Starting,
        State::Warming,
        State::Healthy,
        State::Saturated,
        State::Degraded,
        State::Suspect,
        State::Unknown,
        State::Wedged,
        State::Fenced,
        State::Restarting,
        State::Probation,
        State::KillStuck,
        State::ConfigError,
        State::Exhausted,
    ];

    /// Whether an engine in it gets no traffic.
    pub fn is_out(self) -> bool {
        match self {
            State::Healthy
            | State::Saturated
            | State::Degraded
            | State::Suspect
            | State::Unknown
            | State::Probation => false,
            State::Starting
            | State::Warming
            | State::Wedged
            | State::Fenced
            | State::Restarting
            | State::KillStuck
            | State::ConfigError
            | State::Exhausted => true,
        }
    }

    /// The name on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Warming => "warming",
            State::Healthy => "healthy",
            State::Saturated => "saturated",
            State::Degraded => "degraded",
            State::Suspect => "suspect",
            State::Unknown => "unknown",
            State::Wedged => "wedged",
            State::Fenced => "fenced",
            State::Restarting => "restarting",
            State::Probation => "probation",
            State::KillStuck => "kill_stuck",
            State::ConfigError => "config_error",
            State::Exhausted => "exhausted",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// What is concluded about an engine instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictName {
    /// Nothing proven yet.
    #[default]
    Pending,
    /// It serves.
    Serving,
    /// It serves, slowly or doubtfully.
    Degraded,
    /// Under suspicion; probes are running.
    Suspect,
    /// Suspect, and the evidence stays contradictory.
    Undecided,
    /// It cannot serve.
    Wedged,
    /// It cannot start, and a restart would not change that.
    Unstartable,
}

/// A guard's report of its engine. Sent whole on every change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineReport {
    /// The engine's name, unique in a stack.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    /// The engine's own base URL.
    pub url: String,
    /// The running instance: a new process has a new key.
    pub instance: String,
    /// Lifecycle state.
    pub state: State,
    /// What is concluded.
    pub verdict: VerdictName,
    /// Class of the fault behind the verdict.
    pub class: Option<Class>,
    /// Share of traffic it should get, 0 (fenced) to 1.
    pub weight: f64,
    /// Predicted seconds until a request that arrives now would start.
    pub queue_seconds: f64,
    /// Seconds until it is expected back when it is out of rotation.
    pub recovery_seconds: Option<f64>,
    /// Learned service time: `fixed + per_audio_second * audio` seconds.
    pub predictor: Predictor,
    /// Restarts since the guard started.
    pub restarts: u64,
    /// The restart that waits for the operator's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<RepairRequest>,
    /// Why the operator has that restart wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deferred: Option<String>,
    /// Whether the engine is about to be stopped: it finishes what it has and takes nothing new.
    #[serde(default)]
    pub draining: bool,
    /// Incidents, oldest first; empty in stream events, which carry them one by one.
    #[serde(default)]
    pub incidents: Vec<Incident>,
}

impl EngineReport {
    /// The report of an engine of which nothing is known yet.
    pub fn unknown(name: &str, kind: Kind, url: &str, predictor: Predictor) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            url: url.to_owned(),
            instance: String::new(),
            state: State::Starting,
            verdict: VerdictName::Pending,
            class: None,
            weight: 0.0,
            queue_seconds: 0.0,
            recovery_seconds: None,
            predictor,
            restarts: 0,
            repair: None,
            deferred: None,
            draining: false,
            incidents: Vec::new(),
        }
    }
}

/// A restart that a guard wants and asks its operator for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairRequest {
    /// The instance to be replaced.
    pub instance: String,
    /// Number of the restart in its row, from 0.
    pub attempt: u32,
    /// Class of the fault.
    pub class: Option<Class>,
    /// What is wanted.
    pub act: Act,
    /// Unix time since which it is wanted, milliseconds.
    pub since_unix_ms: u64,
}

/// How an engine process is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// At once: it cannot serve.
    Restart,
    /// Once nothing runs on it: it serves, badly.
    Recycle,
}

/// What an operator tells a guard: the body of `POST /repair`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairOrder {
    /// What to do.
    pub order: Verb,
    /// The instance that is meant: an order that comes late hits nothing.
    #[serde(default)]
    pub instance: String,
    /// The attempt that is meant.
    #[serde(default)]
    pub attempt: u32,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
    /// How long a [`Verb::Defer`] lasts, seconds; at most 120.
    #[serde(default)]
    pub seconds: u64,
}

/// What an operator can tell a guard to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Do what you asked for.
    Grant,
    /// Do not do it for a while.
    Defer,
    /// Restart though you did not ask.
    Restart,
    /// Forget used-up budgets.
    Reset,
}

/// A linear service-time model, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predictor {
    /// Seconds that any job costs.
    pub fixed: f64,
    /// Seconds for each second of audio.
    pub per_audio_second: f64,
}

impl Predictor {
    /// Predicted service time in seconds of `audio` seconds.
    pub fn predict(&self, audio: f64) -> f64 {
        self.fixed + self.per_audio_second * audio.max(0.0)
    }
}

/// The record of one wedge, from the first bad byte to health. Holds no audio and no text of users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Unique id, ordered by time.
    pub id: String,
    /// The engine's name.
    pub engine: String,
    /// The instance that wedged.
    pub instance: String,
    /// Unix time of the first bad byte, milliseconds.
    pub started_unix_ms: u64,
    /// Class of the fault.
    pub class: Class,
    /// Which known signature was seen.
    pub signature: Option<String>,
    /// The engine's error body, redacted, at most 4 KiB.
    pub body: Option<String>,
    /// Hash of the request that showed it first, hex.
    pub request_hash: Option<String>,
    /// Probes sent meanwhile.
    pub probes: Vec<ProbeRecord>,
    /// What happened when, milliseconds since the start.
    pub timeline: Vec<Moment>,
    /// Rung of the repair ladder taken last.
    pub remediation: Option<String>,
    /// Restarts used.
    pub restarts: u32,
    /// Milliseconds from the first bad byte until the engine was verified again.
    pub healthy_after_ms: Option<u64>,
}

/// One golden probe within an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeRecord {
    /// When it ended, milliseconds since the incident's start.
    pub at_ms: u64,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// Which probe: `stt_a`, `stt_b`, `tts`.
    pub probe: String,
    /// `pass`, or why it failed.
    pub result: String,
}

/// One moment of an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds since the incident's start.
    pub at_ms: u64,
    /// What happened: `hint`, `fenced`, `wedged`, `restart`, `started`, `warming`, `probation`, `healthy`, ...
    pub event: String,
}
