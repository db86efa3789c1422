//! A guard's report of its engine.

use serde::{Deserialize, Serialize};

use crate::{Capability, Class, Incident, ModelCache, RepairRequest, State, VerdictName, class};

/// A guard's report of its engine. Sent whole on every change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineReport {
    /// The engine's name, unique in a stack.
    pub name: String,
    /// What it is for.
    pub capability: Capability,
    /// The engine's own base URL.
    pub url: String,
    /// The running instance: a new process has a new key.
    pub instance: String,
    /// Lifecycle state.
    pub state: State,
    /// What is concluded.
    pub verdict: VerdictName,
    /// Class of the fault behind the verdict.
    #[serde(default, deserialize_with = "class::lenient")]
    pub class: Option<Class>,
    /// Why it does not serve, in words: the engine's own, redacted, or the GPU driver's wish; at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// The model that it serves, as it says itself; at most 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The profile of its container that was chosen, as it says itself; at most 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Its model files, while it is not proven and they can be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_cache: Option<ModelCache>,
    /// Share of traffic it should get, 0 (ejected) to 1.
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
    pub fn unknown(name: &str, capability: Capability, url: &str, predictor: Predictor) -> Self {
        Self {
            name: name.to_owned(),
            capability,
            url: url.to_owned(),
            instance: String::new(),
            state: State::Starting,
            verdict: VerdictName::Pending,
            class: None,
            says: None,
            model: None,
            profile: None,
            model_cache: None,
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
