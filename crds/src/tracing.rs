//! `spec.gateway.tracing`: where the spans of requests and repairs go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Export of traces, of the gateway and of every guard, to a collector that takes OTLP over HTTP.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    (r"self.endpoint.matches('^https?://[^\\s/?#@]+(/[^\\s?#]*)?$')",
     "gateway.tracing.endpoint must be the URL of a collector for OTLP over HTTP, such as http://collector.observability:4318"),
])))]
pub struct Tracing {
    /// The collector's URL, such as `http://collector.observability:4318`; `/v1/traces` is added. A change reaches running pods
    /// without a restart.
    #[schemars(length(min = 1, max = 512))]
    pub endpoint: String,
    /// Share of the requests without a `traceparent` of their own whose traces are recorded, 0 to 1. Those that come with one are
    /// recorded as it says; repairs always are.
    #[serde(default = "all")]
    #[schemars(range(min = 0, max = 1))]
    pub sample_ratio: f64,
}

fn all() -> f64 {
    1.0
}
