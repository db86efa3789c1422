//! A collector of spans in this process: takes OTLP over HTTP as OpenTelemetry's own messages define it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Ceiling on a wait for spans.
const LIMIT: Duration = Duration::from_secs(90);

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    /// Its base URL.
    pub url: String,
    spans: Arc<Mutex<Vec<Taken>>>,
    task: JoinHandle<()>,
}

/// A span that was exported. Ids are in hexadecimal.
#[derive(Clone, Debug)]
pub struct Taken {
    /// `service.name`.
    pub service: String,
    /// Its trace.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// The id of its parent, or empty.
    pub parent: String,
    /// What it is.
    pub name: String,
    /// 1 internal, 2 server, 3 client.
    pub kind: i32,
    /// Nanoseconds of Unix time, beginning and end.
    pub times: [u64; 2],
    /// What is known of it.
    pub attributes: BTreeMap<String, String>,
    /// Whether it counts as failed.
    pub failed: bool,
}

impl Collector {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// There is none.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let spans = Arc::<Mutex<Vec<Taken>>>::default();
        let taken = Arc::clone(&spans);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let taken = Arc::clone(&taken);
                let service = service_fn(move |request| take(Arc::clone(&taken), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    // A client that leaves in the middle took what it wanted.
                    let _ = connection.await;
                });
            }
        });
        Ok(Self { url, spans, task })
    }

    /// What it got so far.
    pub fn spans(&self) -> Vec<Taken> {
        self.spans.lock().clone()
    }

    /// Waits until it has what fits.
    ///
    /// # Errors
    /// When that takes too long; the message has the names of what it got.
    pub async fn until(&self, what: &str, fits: impl Fn(&[Taken]) -> bool) -> Result<Vec<Taken>> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let spans = self.spans();
            if fits(&spans) {
                return Ok(spans);
            }
            if Instant::now() > deadline {
                let names: Vec<_> = spans.iter().map(|span| (&span.trace, &span.name)).collect();
                bail!("waited {LIMIT:?} until {what}: {names:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(
    taken: Arc<Mutex<Vec<Taken>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_export = request.method() == Method::POST && request.uri().path() == "/v1/traces";
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let exported = body.ok().and_then(|body| ExportTraceServiceRequest::decode(body).ok());
    let mut response = Response::new(Full::default());
    match exported.filter(|_| is_export) {
        Some(exported) => taken.lock().extend(spans(exported)),
        None => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

fn spans(exported: ExportTraceServiceRequest) -> Vec<Taken> {
    let mut spans = Vec::new();
    for of in exported.resource_spans {
        let resource = attributes(of.resource.map(|resource| resource.attributes).unwrap_or_default());
        let service = resource.get("service.name").cloned().unwrap_or_default();
        spans
            .extend(of.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| one(&service, span)));
    }
    spans
}

fn one(service: &str, span: Span) -> Taken {
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect();
    Taken {
        service: service.to_owned(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name,
        kind: span.kind,
        times: [span.start_time_unix_nano, span.end_time_unix_nano],
        attributes: attributes(span.attributes),
        failed: span.status.is_some_and(|status| status.code == 2),
    }
}

fn attributes(all: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Value| match value {
        Value::StringValue(text) => text,
        Value::BoolValue(flag) => flag.to_string(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |one: KeyValue| Some((one.key, text(one.value?.value?)));
    all.into_iter().filter_map(pair).collect()
}
