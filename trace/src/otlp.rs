//! What is sent to a collector: the messages of `opentelemetry/proto/collector/trace/v1`, as far as they are used here. Pure.

use prost::Message;

use crate::record::{Ended, Kind, Value};

/// The name under which the spans are made.
const SCOPE: &str = "speechstack";

/// `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Response {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

/// What makes the spans: the process.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    /// The flags of the trace.
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 2, 3, 4")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Any {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Float(f64),
}

/// `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;

impl Resource {
    /// A process by what is known of it.
    pub(crate) fn new(attributes: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let attributes = attributes.into_iter().map(|(key, value)| attribute(key, Any::Text(value)));
        Self { attributes: attributes.collect() }
    }
}

impl Response {
    /// How many spans the collector did not want. What cannot be read rejects none.
    pub(crate) fn rejected(body: &[u8]) -> u64 {
        let partial = Self::decode(body).ok().and_then(|response| response.partial_success);
        partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
    }
}

/// The body of a request with these spans.
pub(crate) fn request(resource: &Resource, spans: &[Ended]) -> Vec<u8> {
    let scope = Some(Scope { name: SCOPE.into() });
    let scope_spans = vec![ScopeSpans { scope, spans: spans.iter().map(span).collect() }];
    let resource = Some(resource.clone());
    Request { resource_spans: vec![ResourceSpans { resource, scope_spans }] }.encode_to_vec()
}

fn span(ended: &Ended) -> Span {
    let nanos = |at: std::time::Duration| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    let state = ended.state.as_ref().and_then(|state| state.to_str().ok());
    Span {
        trace_id: ended.trace.0.get().to_be_bytes().into(),
        span_id: ended.id.0.get().to_be_bytes().into(),
        trace_state: state.unwrap_or_default().into(),
        parent_span_id: ended.parent.map(|parent| parent.0.get().to_be_bytes().into()).unwrap_or_default(),
        name: ended.name.clone().into_owned(),
        kind: match ended.kind {
            Kind::Internal => 1,
            Kind::Server => 2,
            Kind::Client => 3,
        },
        start_time_unix_nano: nanos(ended.started),
        end_time_unix_nano: nanos(ended.ended),
        attributes: ended.attributes.iter().map(|(key, value)| attribute(key, any(value))).collect(),
        status: ended.error.clone().map(|why| Status { message: why.into_owned(), code: ERROR }),
        flags: 1,
    }
}

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }) }
}

fn any(value: &Value) -> Any {
    match value {
        Value::Text(text) => Any::Text(text.clone().into_owned()),
        Value::Int(number) => Any::Int(*number),
        Value::Float(number) => Any::Float(*number),
        Value::Bool(flag) => Any::Bool(*flag),
    }
}
