//! What every request passes: ids, envelopes, CORS, limits, readiness, metrics.

use std::time::Duration;

use prometheus::TextEncoder;
use serde_json::Value;

use super::stack::{Stack, envelope, form, wav};
use crate::config::Engine;
use crate::report::Kind;

#[tokio::test]
async fn every_reply_has_an_id_and_keeps_the_clients() {
    let stack = Stack::start().await;
    let response = stack.get("/v1/models").await;
    assert!(response.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
    let request = stack
        .post("/v1/audio/transcriptions")
        .header("x-request-id", "mine-1")
        .multipart(form(&[], wav(100)));
    assert_eq!(request.send().await.unwrap().headers()["x-request-id"], "mine-1");
    assert_eq!(stack.engines[0].seen.lock()[0].headers["x-request-id"], "mine-1");
}

#[tokio::test]
async fn unknown_paths_and_methods_answer_in_the_envelope() {
    let stack = Stack::start().await;
    for path in ["/v1/nothing", "/", "/v1/readyz", "/v1", "/v2/models"] {
        envelope(stack.get(path).await, 404, None).await;
    }
    let response = stack.get("/v1/audio/transcriptions").await;
    let allowed: Vec<_> = response.headers().get_all("allow").iter().collect();
    assert_eq!(allowed, ["POST"]);
    envelope(response, 405, None).await;
    let response = stack.post("/v1/models").send().await.unwrap();
    assert_eq!(response.headers()["allow"], "GET, HEAD");
    envelope(response, 405, None).await;
}

#[tokio::test]
async fn browsers_may_call() {
    let stack = Stack::start().await;
    let response = stack
        .client
        .request(reqwest::Method::OPTIONS, format!("{}/v1/audio/speech", stack.url))
        .header("origin", "https://example.org")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,x-stainless-os")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 204);
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    assert_eq!(response.headers()["access-control-allow-headers"], "authorization,x-stainless-os");
    let response = stack.get("/v1/models").await;
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"));
    let head = stack.client.head(format!("{}/health", stack.url)).send().await.unwrap();
    assert_eq!(head.status(), 200);
}

#[tokio::test]
async fn beyond_the_limit_requests_are_refused_unread_and_lists_are_not() {
    let stack = Stack::with(&[Kind::Parakeet], |config| config.gateway.max_in_flight = 1).await;
    *stack.engines[0].pace.lock() = Duration::from_secs(60);
    let first = tokio::spawn(stack.post("/v1/audio/transcriptions").multipart(form(&[], wav(100))).send());
    while stack.complete() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let response = stack.transcribe(&[]).await;
    assert_eq!(response.headers()["x-should-retry"], "true");
    envelope(response, 429, None).await;
    assert_eq!(stack.get("/v1/models").await.status(), 200);
    // The place is free again when its client leaves.
    first.abort();
    *stack.engines[0].pace.lock() = Duration::ZERO;
    while stack.transcribe(&[]).await.status() != 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn ready_means_an_engine_of_each_configured_kind() {
    let stack = Stack::start().await;
    assert_eq!(stack.get("/readyz").await.status(), 200);
    let lacking = Stack::with(&[Kind::Parakeet], |config| {
        let unreachable = Engine {
            name: "magpie-9".into(),
            kind: Kind::Magpie,
            guard: ([127, 0, 0, 1], 1).into(),
            guard_admin: ([127, 0, 0, 1], 1).into(),
            ..config.engines[0].clone()
        };
        config.engines.push(unreachable);
    })
    .await;
    let message = envelope(lacking.get("/readyz").await, 503, None).await;
    assert!(message.contains("magpie"), "{message}");
    let health: Value = lacking.get("/health").await.json().await.unwrap();
    assert_eq!(health["status"], "ok");
    assert_eq!(lacking.get("/v1/health").await.status(), 200);
}

#[tokio::test]
async fn the_admin_port_tells_the_state_of_engines() {
    let stack = Stack::start().await;
    let response = stack.client.get(format!("{}/state", stack.admin)).send().await.unwrap();
    let state: Value = response.json().await.unwrap();
    assert_eq!(state["engines"][0]["name"], "parakeet-0");
    assert_eq!(state["engines"][1]["state"], "healthy");
}

#[tokio::test]
async fn requests_are_counted_when_they_end() {
    let stack = Stack::start().await;
    stack.transcribe(&[]).await.bytes().await.unwrap();
    stack.transcribe(&[("model", "gpt-5")]).await.bytes().await.unwrap();
    let text = loop {
        let text = TextEncoder::new().encode_to_string(&stack.registry.gather()).unwrap();
        if text
            .contains(r#"speechstack_gateway_requests_total{route="/audio/transcriptions",status="4xx"} 1"#)
        {
            break text;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    for line in [
        r#"speechstack_gateway_requests_total{route="/audio/transcriptions",status="2xx"} 1"#,
        r#"speechstack_gateway_audio_seconds_total{kind="parakeet"} 1"#,
        "speechstack_gateway_in_flight 0",
        r#"speechstack_gateway_request_seconds_count{route="/audio/transcriptions"} 2"#,
        r#"speechstack_gateway_body_bytes_total{direction="in"} 6"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}
