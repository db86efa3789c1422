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
    /// The Secret with headers that the collector asks for, such as a key. It is mounted into gateways and guards: setting it or
    /// taking it away replaces their pods, a change of the Secret does not. While it is missing pods run and their spans are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_secret_ref: Option<HeadersSecret>,
}

/// A key of a Secret in the stack's namespace that holds headers, one `NAME: VALUE` a line.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct HeadersSecret {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[serde(default = "headers")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn headers() -> String {
    "headers".into()
}

fn all() -> f64 {
    1.0
}
