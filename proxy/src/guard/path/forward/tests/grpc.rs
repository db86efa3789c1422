//! gRPC calls: over HTTP/2 with their trailers, judged by their status.

use http_body::Frame;
use http_body_util::StreamBody;

use crate::guard::path::forward::tests::engine::framed;
use crate::guard::path::forward::tests::*;

const RECOGNIZE: &str = "/plain/transcribe";
const CONVERSE: &str = "/plain/converse";
const SYNTHESIZE: &str = "/plain/speak";

struct Called {
    headers: HeaderMap,
    trailers: HeaderMap,
    body: Bytes,
}

impl Called {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn trailer(&self, name: &str) -> &str {
        self.trailers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Stack {
    fn call_request(&self, path: &str, body: Body) -> Request<Body> {
        let mut request = self.request(path, body);
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        *request.version_mut() = http::Version::HTTP_2;
        request
    }

    async fn call(&self, path: &str, message: &[u8]) -> Called {
        let mut request = self.call_request(path, Body::from(framed(message)));
        request.headers_mut().insert("traceparent", HeaderValue::from_static(TRACE));
        let response = crate::net::Clients::new().grpc.request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        let collected = response.into_body().collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        Called { headers, trailers, body: collected.to_bytes() }
    }
}

#[tokio::test]
async fn a_grpc_job_goes_over_http_2_with_its_trailers() {
    let mut stack = Stack::grpc(|_| {}).await;
    *stack.engine.reply.lock() = Reply::Grpc(Some(b"good morning"), "0", "");
    let called = stack.call(RECOGNIZE, b"audio").await;
    assert_eq!(
        (called.body, called.trailers["grpc-status"].to_str().unwrap()),
        (framed(b"good morning"), "0")
    );
    assert_eq!(called.headers["x-speechstack-engine"], "parakeet-0");
    let (version, head) = stack.engine.head.lock().clone().unwrap();
    assert_eq!((version, &head["te"]), (http::Version::HTTP_2, &HeaderValue::from_static("trailers")));
    assert_eq!(head["traceparent"], TRACE);
    assert!(matches!(stack.observed().await, Observation::Success(_)));
    eventually("the lane is free", || stack.lane.view().running.is_empty()).await;
    let http = stack.post(TRANSCRIBE, b"audio").await;
    assert_eq!((http.status(), http.version()), (StatusCode::OK, http::Version::HTTP_11));
    assert_eq!(stack.engine.head.lock().clone().unwrap().0, http::Version::HTTP_11);
}

#[tokio::test]
async fn a_request_with_trailers_keeps_them() {
    let stack = Stack::grpc(|_| {}).await;
    *stack.engine.reply.lock() = Reply::Grpc(Some(b"so"), "0", "");
    let trailers = HeaderMap::from_iter([("x-end".parse().unwrap(), HeaderValue::from_static("1"))]);
    let frames = [Frame::data(framed(b"audio")), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
    let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
    let response =
        crate::net::Clients::new().grpc.request(stack.call_request(RECOGNIZE, body)).await.unwrap();
    assert_eq!(response.status(), 200);
    eventually("the engine has the trailers", || stack.engine.trailers.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn what_is_no_job_passes_to_the_grpc_side() {
    let stack = Stack::grpc(|_| {}).await;
    *stack.engine.reply.lock() = Reply::Grpc(None, "12", "no such method");
    let called = stack.call("/grpc.health.v1.Health/Check", b"").await;
    assert_eq!((called.header("grpc-status"), called.header("grpc-message")), ("12", "no such method"));
    assert_eq!(stack.engine.head.lock().clone().unwrap().0, http::Version::HTTP_2);
}

#[tokio::test]
async fn a_dead_context_in_a_status_ejects_at_once() {
    for message in [None, Some(&b""[..])] {
        let mut stack = Stack::grpc(|_| {}).await;
        let text = "CUDA error%3A an illegal memory access was encountered";
        *stack.engine.reply.lock() = Reply::Grpc(message, "2", text);
        let called = stack.call(RECOGNIZE, b"audio").await;
        let told = |name| if message.is_none() { called.header(name) } else { called.trailer(name) };
        assert_eq!((told("grpc-status"), told("grpc-message")), ("2", text));
        assert_eq!((told("x-speechstack-class"), told("x-speechstack-retry")), ("A", "elsewhere"));
        assert!(stack.lane.is_ejected());
        let hint = stack.hinted().await;
        assert_eq!((hint.class, hint.status), (Class::Sticky, Some(500)));
        assert_eq!(hint.signature.as_deref(), Some("illegal_address"));
        stack.nothing_observed();
    }
}

#[tokio::test]
async fn the_clients_own_mistakes_and_a_busy_engine_are_no_faults() {
    let mut stack = Stack::grpc(|_| {}).await;
    *stack.engine.reply.lock() = Reply::Grpc(None, "3", "unavailable model");
    let called = stack.call(RECOGNIZE, b"audio").await;
    assert_eq!((called.header("grpc-status"), called.header("x-speechstack-retry")), ("3", ""));
    stack.nothing_observed();
    *stack.engine.reply.lock() = Reply::Grpc(None, "14", "loading");
    let called = stack.call(RECOGNIZE, b"audio").await;
    assert_eq!(called.header("x-speechstack-retry"), "elsewhere");
    assert!(matches!(stack.observed().await, Observation::Busy { .. }));
}

#[tokio::test]
async fn refusals_are_grpc_statuses() {
    let stack = Stack::grpc(|_| {}).await;
    stack.lane.eject();
    for path in [RECOGNIZE, CONVERSE] {
        let called = stack.call(path, b"audio").await;
        assert_eq!(called.header("grpc-status"), "14");
        assert_eq!(called.header("x-speechstack-retry"), "elsewhere");
        assert_eq!(called.header("x-speechstack-state"), "healthy");
        assert!(!called.header("grpc-message").is_empty() && called.body.is_empty());
    }
    let plain = Stack::start().await;
    let called = plain.call("/nvidia.riva.asr.RivaSpeechRecognition/Recognize", b"").await;
    assert_eq!(called.header("grpc-status"), "12");
}

#[tokio::test]
async fn empty_transcripts_in_a_row_are_odd_over_grpc_too() {
    let mut stack = Stack::grpc(|_| {}).await;
    *stack.engine.reply.lock() = Reply::Grpc(Some(b" . "), "0", "");
    for _ in 0..5 {
        stack.call(RECOGNIZE, &[0; 96_000]).await;
    }
    for _ in 0..4 {
        assert!(matches!(stack.observed().await, Observation::Success(_)));
    }
    assert!(matches!(stack.observed().await, Observation::Odd { what: "empty_transcripts", .. }));
    assert!(matches!(stack.observed().await, Observation::Success(_)));
}

#[tokio::test]
async fn an_answer_without_a_status_is_broken() {
    let mut stack = Stack::grpc(|_| {}).await;
    *stack.engine.reply.lock() = Reply::Body(StatusCode::OK, "application/grpc", framed(b"so"));
    let request = stack.call_request(RECOGNIZE, Body::from(framed(b"audio")));
    // The cut may overtake the head.
    if let Ok(response) = crate::net::Clients::new().grpc.request(request).await {
        assert!(response.into_body().collect().await.is_err());
    }
    assert_eq!(stack.hinted().await.class, Class::Refused);
}

#[tokio::test]
async fn a_grpc_upload_waits_for_the_lane_too() {
    let stack = Stack::grpc(|_| {}).await;
    let first = occupied(&stack).await;
    *stack.engine.reply.lock() = Reply::Grpc(Some(b"so"), "0", "");
    for path in [RECOGNIZE, SYNTHESIZE] {
        let complete = stack.engine.complete.load(SeqCst);
        let request = stack.call_request(path, Body::from(framed(&[7; 4096])));
        let calling = tokio::spawn(crate::net::Clients::new().grpc.request(request));
        eventually("the call waits", || stack.lane.view().waiting == 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(stack.engine.complete.load(SeqCst), complete);
        calling.abort();
        eventually("its place is free", || stack.lane.view().waiting == 0).await;
    }
    stack.engine.gate.add_permits(10);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(stack.call(SYNTHESIZE, b"text").await.trailer("grpc-status"), "0");
}

#[tokio::test]
async fn a_conversation_goes_beside_the_lane_and_its_end_by_the_client_is_no_fault() {
    let mut stack = Stack::grpc(impatient).await;
    let (sender, body) = upload();
    let calling = tokio::spawn(crate::net::Clients::new().grpc.request(stack.call_request(CONVERSE, body)));
    sender.send(framed(b"one")).await.unwrap();
    eventually("the engine hears", || stack.engine.received.load(SeqCst) == 8).await;
    assert!(stack.lane.view().jobs().next().is_none());
    // Longer than the engine may be silent on a job.
    tokio::time::sleep(Duration::from_millis(400)).await;
    sender.send(framed(b"two")).await.unwrap();
    eventually("the engine hears on", || stack.engine.received.load(SeqCst) == 16).await;
    calling.abort();
    drop(sender);
    eventually("the engine's call is cut", || stack.engine.broken.load(SeqCst) == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    stack.nothing_observed();
}

#[tokio::test]
async fn an_engine_that_hears_and_says_nothing_is_looked_at() {
    let mut stack = Stack::grpc(impatient).await;
    let (sender, body) = upload();
    let calling = tokio::spawn(crate::net::Clients::new().grpc.request(stack.call_request(CONVERSE, body)));
    for _ in 0..2 {
        sender.send(framed(&[7; 40_000])).await.unwrap();
        let seen = stack.observed().await;
        assert!(matches!(seen, Observation::Odd { what: "silent_conversation", .. }), "{seen:?}");
        // Nothing new was said to it.
        tokio::time::sleep(Duration::from_millis(300)).await;
        stack.nothing_observed();
    }
    calling.abort();
}

#[tokio::test]
async fn conversations_beyond_the_limit_are_refused_until_one_ends() {
    let stack = Stack::grpc(|policy| policy.lane.max_streams = 1).await;
    let (sender, body) = upload();
    let first = tokio::spawn(crate::net::Clients::new().grpc.request(stack.call_request(CONVERSE, body)));
    sender.send(framed(b"one")).await.unwrap();
    eventually("the engine hears", || stack.engine.received.load(SeqCst) == 8).await;
    let called = stack.call(CONVERSE, b"two").await;
    assert_eq!((called.header("grpc-status"), called.header("x-speechstack-retry")), ("8", "elsewhere"));
    assert_eq!(stack.engine.received.load(SeqCst), 8);
    first.abort();
    drop(sender);
    eventually("the engine's call is cut", || stack.engine.broken.load(SeqCst) == 1).await;
    *stack.engine.reply.lock() = Reply::Grpc(Some(b"so"), "0", "");
    assert_eq!(stack.call(CONVERSE, b"three").await.trailer("grpc-status"), "0");
}
