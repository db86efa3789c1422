//! Whom a guard sends the trace of a request.

use crate::config::Hosted;
use crate::guard::path::forward::tests::*;

/// The trace that an engine gets of a job, of a call over gRPC and of what is no job.
async fn sent(configured: impl FnOnce(config::Engine) -> config::Engine) -> [Option<String>; 3] {
    let (engine, server) = Engine::start().await;
    let url = format!("http://{}", engine.address);
    let configured = configured(config::Engine { grpc: Some(url.clone()), ..at(&url) });
    let protocols = crate::guard::protocols::tests::with_grpc();
    let stack = Stack::build(engine, server, configured, protocols, |_| {}).await;
    let traced = |mut request: Request<Body>| {
        request.headers_mut().insert("traceparent", HeaderValue::from_static(TRACE));
        request.headers_mut().insert("tracestate", HeaderValue::from_static("a=1"));
        request
    };
    let seen = || {
        let (_, headers) = stack.engine.head.lock().take().unwrap();
        let [parent, state] = ["traceparent", "tracestate"].map(|name| headers.get(name).cloned());
        assert_eq!(parent.is_some(), state.is_some(), "both or none");
        parent.map(|parent| parent.to_str().unwrap().to_owned())
    };
    let ask = async |request| {
        assert_eq!(stack.client.request(traced(request)).await.unwrap().status(), 200);
        seen()
    };
    let job = ask(stack.request(TRANSCRIBE, Body::from("audio"))).await;
    let passed = ask(stack.request("/v1/models", Body::empty())).await;
    *stack.engine.reply.lock() = Reply::Grpc(None, "0", "");
    let mut request = traced(stack.request("/grpc.health.v1.Health/Check", Body::empty()));
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    *request.version_mut() = http::Version::HTTP_2;
    let response = crate::net::Clients::new().grpc.request(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "0");
    [job, seen(), passed]
}

#[tokio::test]
async fn servers_of_others_get_no_trace_unless_it_is_wanted() {
    let of_the_stack = [(); 3].map(|()| Some(TRACE.to_owned()));
    assert_eq!(sent(|engine| engine).await, of_the_stack);
    let hosted = |engine| config::Engine { hosted: Some(Hosted::default()), ..engine };
    assert_eq!(sent(hosted).await, [None, None, None]);
    let wanted = |engine| config::Engine { trace_context: Some(true), ..hosted(engine) };
    assert_eq!(sent(wanted).await, of_the_stack);
    let unwanted = |engine| config::Engine { trace_context: Some(false), ..engine };
    assert_eq!(sent(unwanted).await, [None, None, None]);
}

#[test]
fn a_server_beyond_https_is_of_others() {
    let joins = |url: &str, grpc: Option<&str>| {
        config::Engine { grpc: grpc.map(str::to_owned), ..at(url) }.joins_traces()
    };
    assert!(joins("http://parakeet:9000", Some("http://parakeet:50051")));
    assert!(!joins("https://api.example.com", None));
    assert!(!joins("http://parakeet:9000", Some("https://grpc.example.com")));
}
