//! The export against a collector in this process, whose messages are those of OpenTelemetry's own crate.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Request, State};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use parking_lot::Mutex;
use prometheus::Registry;
use prost::Message;
use speechstack_trace::{HeadersFile, Kind, Settings, Tracer};

const LIMIT: Duration = Duration::from_secs(60);

/// What a collector was sent, and how it answers.
#[derive(Default)]
struct Collector {
    sent: Mutex<Vec<(http::HeaderMap, ExportTraceServiceRequest)>>,
    /// Statuses of the next answers; 200 once there are none.
    statuses: Mutex<Vec<u16>>,
    rejects: i64,
}

async fn take(State(collector): State<Arc<Collector>>, request: Request) -> (http::StatusCode, Vec<u8>) {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let spans = ExportTraceServiceRequest::decode(body).unwrap();
    collector.sent.lock().push((head.headers, spans));
    let status = collector.statuses.lock().pop().unwrap_or(200);
    let partial = ExportTracePartialSuccess { rejected_spans: collector.rejects, error_message: "x".into() };
    let partial_success = (collector.rejects > 0).then_some(partial);
    let answer = ExportTraceServiceResponse { partial_success };
    (http::StatusCode::from_u16(status).unwrap(), answer.encode_to_vec())
}

async fn serve(collector: Arc<Collector>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().route("/v1/traces", post(take)).with_state(collector);
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    format!("http://{address}")
}

fn start(url: &str, registry: &Registry) -> Tracer {
    start_with(url, None, registry)
}

fn settings(url: &str) -> Settings {
    Settings {
        endpoint: url.parse().unwrap(),
        headers: None,
        sample_ratio: 1.0,
        service: "tested".into(),
        version: "1.2.3",
        instance: Some("pod-0".into()),
    }
}

fn start_with(url: &str, headers: Option<HeadersFile>, registry: &Registry) -> Tracer {
    let settings = Settings { headers, ..settings(url) };
    let tracer = Tracer::new().unwrap();
    tracer.register(registry).unwrap();
    tracer.export(Some(settings)).unwrap();
    tracer
}

fn counted(registry: &Registry, outcome: &str) -> u64 {
    let families = registry.gather();
    let spans = families.iter().find(|family| family.name() == "speechstack_trace_spans_total").unwrap();
    let metric = spans.get_metric().iter().find(|metric| metric.get_label()[0].value() == outcome).unwrap();
    metric.get_counter().get_value() as u64
}

#[tokio::test]
async fn spans_arrive_as_they_were_made() {
    let collector = Arc::new(Collector::default());
    let registry = Registry::new();
    let dir = std::env::temp_dir().join(format!("speechstack-export-{}", std::process::id()));
    std::fs::write(&dir, "authorization: Bearer k\n").unwrap();
    let tracer = start_with(&serve(Arc::clone(&collector)).await, Some(HeadersFile(dir.clone())), &registry);
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut outer = tracer.begin().span("request", Kind::Server);
    outer.rename(|| "POST /audio".into());
    outer.set("http.response.status_code", 200_u16);
    outer.set("speechstack.engine", "stt-0");
    outer.set("speechstack.hedged", true);
    outer.set("seconds", 1.5);
    let mut inner = outer.trace().span("engine attempt", Kind::Client);
    inner.fail("refused");
    inner.fail("later");
    drop(inner);
    drop(outer);
    tracer.stop().await;
    std::fs::remove_file(dir).unwrap();

    let sent = std::mem::take(&mut *collector.sent.lock());
    let [(headers, request)] = sent.as_slice() else { panic!("{} requests", sent.len()) };
    assert_eq!(headers["authorization"], "Bearer k");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let [of] = request.resource_spans.as_slice() else { panic!() };
    let text = |key: &str| {
        let attributes = &of.resource.as_ref().unwrap().attributes;
        let found = attributes.iter().find(|attribute| attribute.key == key).unwrap();
        match found.value.clone().unwrap().value.unwrap() {
            Any::StringValue(text) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((text("service.name"), text("service.version")), ("tested".into(), "1.2.3".into()));
    assert_eq!(text("service.instance.id"), "pod-0");
    let [inner, outer] = of.scope_spans[0].spans.as_slice() else { panic!() };
    assert_eq!((outer.name.as_str(), outer.kind), ("POST /audio", 2));
    assert_eq!((inner.name.as_str(), inner.kind), ("engine attempt", 3));
    assert_eq!((outer.trace_id.len(), outer.span_id.len(), outer.parent_span_id.len()), (16, 8, 0));
    assert_eq!((&inner.trace_id, &inner.parent_span_id), (&outer.trace_id, &outer.span_id));
    assert!(before <= outer.start_time_unix_nano && outer.start_time_unix_nano <= outer.end_time_unix_nano);
    let value = |key: &str| {
        let found = outer.attributes.iter().find(|attribute| attribute.key == key).unwrap();
        found.value.clone().unwrap().value.unwrap()
    };
    assert_eq!(value("http.response.status_code"), Any::IntValue(200));
    assert_eq!(value("speechstack.engine"), Any::StringValue("stt-0".into()));
    assert_eq!(value("speechstack.hedged"), Any::BoolValue(true));
    assert_eq!(value("seconds"), Any::DoubleValue(1.5));
    let status = inner.status.clone().unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "refused"));
    assert!(outer.status.is_none());
    assert_eq!(counted(&registry, "exported"), 2);
}

#[tokio::test]
async fn an_export_begins_before_its_headers_are_there_and_uses_them_then() {
    let collector = Arc::new(Collector::default());
    let registry = Registry::new();
    let file = std::env::temp_dir().join(format!("speechstack-later-{}", std::process::id()));
    let tracer = start_with(&serve(Arc::clone(&collector)).await, Some(HeadersFile(file.clone())), &registry);
    drop(tracer.begin().span("one", Kind::Internal));
    std::fs::write(&file, "authorization: Bearer k\n").unwrap();
    tokio::time::timeout(LIMIT, async {
        while counted(&registry, "exported") == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(collector.sent.lock()[0].0["authorization"], "Bearer k");

    std::fs::write(&file, "hidden\n").unwrap();
    let headers = Some(HeadersFile(file.clone()));
    let wrong = Settings { headers, ..settings("http://collector:4318") };
    let error = Tracer::new().unwrap().export(Some(wrong)).unwrap_err().to_string();
    assert!(error.contains("line 1") && !error.contains("hidden\n"), "{error}");
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn what_is_not_taken_for_the_moment_is_sent_again_and_what_is_refused_is_not() {
    let collector = Arc::new(Collector { statuses: Mutex::new(vec![503]), ..Collector::default() });
    let registry = Registry::new();
    let tracer = start(&serve(Arc::clone(&collector)).await, &registry);
    drop(tracer.begin().span("one", Kind::Internal));
    tokio::time::timeout(LIMIT, async {
        while counted(&registry, "exported") == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    let first = std::mem::take(&mut *collector.sent.lock());
    assert!(first.len() == 2 && first[0].1 == first[1].1, "{} requests", first.len());

    collector.statuses.lock().push(400);
    let late = tracer.begin();
    drop(late.span("two", Kind::Internal));
    tracer.stop().await;
    assert_eq!((counted(&registry, "refused"), collector.sent.lock().len()), (1, 1));
    drop(late.span("late", Kind::Internal));
    assert_eq!(counted(&registry, "dropped"), 1, "after the stop none is taken");
    assert!(!tracer.is_on() && tracer.begin().id().is_none());
}

#[tokio::test]
async fn spans_that_a_collector_rejects_are_counted() {
    let collector = Arc::new(Collector { rejects: 1, ..Collector::default() });
    let registry = Registry::new();
    let tracer = start(&serve(collector).await, &registry);
    for _ in 0..3 {
        drop(tracer.begin().span("one", Kind::Internal));
    }
    tracer.stop().await;
    assert_eq!((counted(&registry, "exported"), counted(&registry, "refused")), (2, 1));
}

#[tokio::test]
async fn without_a_collector_spans_are_counted_and_the_stop_is_quick() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let registry = Registry::new();
    let tracer = start(&format!("http://{closed}"), &registry);
    for _ in 0..5_000 {
        drop(tracer.begin().span("one", Kind::Internal));
    }
    let dropped = counted(&registry, "dropped");
    assert!((5_000 - 2_048 - 512..5_000).contains(&dropped), "{dropped} did not fit into the queue");
    tracer.stop().await;
    assert_eq!(counted(&registry, "unreachable") + counted(&registry, "dropped"), 5_000);
}
