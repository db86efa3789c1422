//! `spec.deepProbe`: real inference with known content.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Span, schema};

/// Golden probes: real inferences whose content is checked.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("duration(self.timeoutMin) <= duration(self.timeoutMax)",
     "deepProbe.timeoutMin is longer than deepProbe.timeoutMax: raise timeoutMax or lower timeoutMin"),
])))]
pub struct DeepProbe {
    /// Period while the engine is idle. Real traffic that succeeds counts as proof and spares the probe.
    pub interval: Span,
    /// Period of the content check under traffic.
    pub content_interval: Span,
    /// Least time a probe is given.
    pub timeout_min: Span,
    /// Most time a probe is given when nothing is queued ahead of it.
    pub timeout_max: Span,
    /// Failing probes in a row that prove a wedge when no request showed anything.
    #[schemars(range(min = 1, max = 10))]
    pub failure_threshold: u32,
    /// Largest accepted word error in percent.
    #[schemars(range(min = 1, max = 100))]
    pub max_word_error_percent: u32,
    /// Service time beyond so many percent of its own baseline counts as degraded; slowness never restarts.
    #[schemars(range(min = 110, max = 10000))]
    pub degraded_latency_percent: u32,
}

impl Default for DeepProbe {
    fn default() -> Self {
        Self {
            interval: Span::seconds(30),
            content_interval: Span::minutes(5),
            timeout_min: Span::seconds(2),
            timeout_max: Span::seconds(10),
            failure_threshold: 3,
            max_word_error_percent: 34,
            degraded_latency_percent: 250,
        }
    }
}
