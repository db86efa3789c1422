//! What requests and probes showed of an engine, and how the data path tells it to the health loop.

use std::time::{Duration, Instant};

use contract::{Class, State};

/// One thing seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// A request showed a fault.
    Hint(Hint),
    /// A request, not a probe, was answered completely and validly.
    Success(Success),
    /// A conversation ended well, and words were heard in it. How long it took tells nothing.
    Conversed(Served),
    /// One request passed its deadline while the engine may still serve others.
    Loss {
        /// When it was sent to the engine.
        started: Instant,
        /// When its deadline passed.
        seen: Instant,
    },
    /// Successful answers look odd together, or the engine says nothing while audio is streamed to it. A sick engine does so,
    /// and a healthy one whose callers are silent.
    Odd {
        /// What is odd.
        what: &'static str,
        /// When.
        seen: Instant,
    },
    /// A client has left a conversation in which the engine owed it an answer, or the engine has lost it.
    Owed {
        /// When the engine had last said something there, or the conversation began.
        since: Instant,
        /// When it was left.
        seen: Instant,
    },
    /// The engine itself said that it is busy (429, or 503 without a fault's signature).
    Busy {
        /// When.
        seen: Instant,
    },
}

/// A fault that a request showed.
#[derive(Clone, Debug, PartialEq)]
pub struct Hint {
    /// Class by signature, status or transport error.
    pub class: Class,
    /// Which signature matched.
    pub signature: Option<String>,
    /// The engine's status, if it answered.
    pub status: Option<u16>,
    /// The error body, redacted, at most 4 KiB.
    pub body: Option<String>,
    /// Hash of the request's input, hex.
    pub request_hash: Option<String>,
    /// When the request was sent to the engine.
    pub started: Instant,
    /// When the fault was seen.
    pub seen: Instant,
}

/// When the engine served something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Served {
    /// When it was begun.
    pub started: Instant,
    /// When its last byte arrived.
    pub ended: Instant,
}

/// A request that the engine served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Success {
    /// When it was sent to the engine.
    pub started: Instant,
    /// When its last byte arrived.
    pub ended: Instant,
    /// Seconds of audio in or out.
    pub audio: f64,
    /// Service time of such a request when the engine was healthy, seconds.
    pub predicted: f64,
    /// From grant of the lane to the last byte.
    pub service: Duration,
}

/// What the health loop last concluded, for the data path to act on.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Lifecycle state.
    pub state: State,
    /// Class of the fault behind it.
    pub class: Option<Class>,
    /// Share of traffic, 0 (ejected) to 1.
    pub weight: f64,
    /// Expected time until it serves again, when it does not.
    pub recovery: Option<Duration>,
}

impl Standing {
    /// Before the first conclusion.
    pub fn starting() -> Self {
        Self { state: State::Starting, class: None, weight: 0.0, recovery: None }
    }

    /// Whether requests may be sent to the engine.
    pub fn serves(&self) -> bool {
        self.weight > 0.0
    }
}
