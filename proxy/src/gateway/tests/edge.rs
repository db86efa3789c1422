//! What every request passes: ids, envelopes, CORS, limits, readiness, metrics.

use std::time::Duration;

use prometheus::TextEncoder;
use serde_json::Value;

use contract::Capability;

use crate::config::{Discovery, Engine, Pool};
use crate::gateway::tests::stack::{Stack, envelope, form, wav};
use crate::upstream::Target;

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
    for path in ["/v1/nothing", "/page/nothing", "/v1/readyz", "/v1", "/v2/models"] {
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
async fn the_page_is_there_and_a_browser_keeps_it() {
    let stack = Stack::start().await;
    let response = stack.get("/").await;
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    let tag = response.headers()["etag"].clone();
    assert!(response.text().await.unwrap().contains("page/main.js"));
    let again =
        stack.client.get(format!("{}/", stack.url)).header("if-none-match", tag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    let response = stack.get("/page/main.js").await;
    assert_eq!(response.headers()["content-type"], "text/javascript; charset=utf-8");
    let shown: serde_json::Value = stack.get("/page/stack").await.json().await.unwrap();
    assert!(shown["engines"].as_array().is_some_and(|engines| !engines.is_empty()), "{shown}");
    assert!(!shown.to_string().contains("http://"), "no addresses: {shown}");
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
    let stack = Stack::with(&[Capability::Stt], |config| config.gateway.max_in_flight = 1).await;
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
    let lacking = Stack::with(&[Capability::Stt], |config| {
        let unreachable = Engine {
            name: "magpie-9".into(),
            capability: Capability::Tts,
            guard: ([127, 0, 0, 1], 1).into(),
            guard_admin: ([127, 0, 0, 1], 1).into(),
            ..config.engines[0].clone()
        };
        config.engines.push(unreachable);
    })
    .await;
    let message = envelope(lacking.get("/readyz").await, 503, None).await;
    assert!(message.contains("text-to-speech"), "{message}");
    let health: Value = lacking.get("/health").await.json().await.unwrap();
    assert_eq!(health["status"], "ok");
    assert_eq!(lacking.get("/v1/health").await.status(), 200);
}

#[tokio::test]
async fn the_admin_port_tells_the_state_of_engines() {
    let stack = Stack::start().await;
    let response = stack.client.get(format!("{}/state", stack.admin)).send().await.unwrap();
    let state: Value = response.json().await.unwrap();
    assert_eq!(state["engines"][0]["name"], "stt-0");
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
        r#"speechstack_gateway_audio_seconds_total{capability="stt"} 1"#,
        "speechstack_gateway_in_flight 0",
        r#"speechstack_gateway_request_seconds_count{route="/audio/transcriptions"} 2"#,
        r#"speechstack_gateway_body_bytes_total{direction="in"} 6"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[tokio::test]
async fn a_new_configuration_counts_for_the_next_request() {
    let stack = Stack::start().await;
    assert_eq!(stack.transcribe(&[("model", "ears")]).await.status(), 404);
    let mut config = (*stack.config.get()).clone();
    config.gateway.models[0].aliases.push("ears".into());
    config.gateway.max_in_flight = 0;
    stack.config.replace(config.clone());
    assert_eq!(stack.transcribe(&[("model", "ears")]).await.status(), 429);
    config.gateway.max_in_flight = 1;
    stack.config.replace(config);
    assert_eq!(stack.transcribe(&[("model", "ears")]).await.status(), 200);
}

#[tokio::test]
async fn started_means_that_engines_are_known_and_a_coming_stop_is_announced_first() {
    let stack = Stack::start().await;
    let ask = |path: &str| {
        let request = stack.client.get(format!("{}{path}", stack.admin)).send();
        async { request.await.unwrap().status().as_u16() }
    };
    assert_eq!((ask("/startz").await, ask("/readyz").await), (200, 200));
    let looking = Stack::with(&[], |config| {
        let pool = Pool {
            name: "ears".into(),
            capability: Capability::Stt,
            service: "s-ears".into(),
            protocols: Vec::new(),
            language: None,
            model: None,
            voice: None,
            standby: false,
            sleeps: false,
            hosted: None,
        };
        config.gateway.discovery = Some(Discovery { namespace: "ns".into(), pools: vec![pool] });
    })
    .await;
    let started = looking.client.get(format!("{}/startz", looking.admin)).send().await.unwrap();
    assert_eq!(started.status(), 503);
    let message = envelope(looking.transcribe(&[]).await, 503, None).await;
    assert!(message.contains("none is found yet"), "{message}");
    stack.drain.announce();
    assert_eq!((ask("/startz").await, ask("/readyz").await), (503, 503));
    assert_eq!(stack.transcribe(&[]).await.status(), 200, "a client that does not know yet is still served");
}

#[tokio::test]
async fn a_model_is_served_by_its_pool() {
    let stack = Stack::with(&[Capability::Stt, Capability::Stt], |_| {}).await;
    let mut config = (*stack.config.get()).clone();
    config.gateway.discovery = Some(Discovery { namespace: "ns".into(), pools: Vec::new() });
    (config.gateway.models[0].pool, config.gateway.models[1].capability) =
        (Some("first".into()), Capability::Stt);
    (config.gateway.models[1].pool, config.gateway.models[1].id) = (Some("second".into()), "other".into());
    let pooled = |(engine, pool): (&Engine, &str)| Target { pool: pool.into(), ..Target::of(engine) };
    stack.upstreams.apply(config.engines.iter().zip(["first", "second"]).map(pooled).collect());
    while stack.upstreams.free(Capability::Stt) < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stack.config.replace(config);
    for _ in 0..3 {
        assert_eq!(stack.transcribe(&[("model", "other")]).await.status(), 200);
    }
    assert_eq!((stack.engines[0].complete(), stack.engines[1].complete()), (0, 3));
    assert_eq!(stack.transcribe(&[]).await.status(), 200, "without a model: the first one's");
    assert_eq!((stack.engines[0].complete(), stack.engines[1].complete()), (1, 3));
    // Long files whose model comes last go to its engines all the same.
    for fields in [&[][..], &[("language", "en")]] {
        let late = form(fields, wav(300_000)).text("model", "other");
        let response = stack.post("/v1/audio/transcriptions").multipart(late).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!((stack.engines[0].complete(), stack.engines[1].complete()), (1, 5));
}

#[tokio::test]
async fn a_slash_at_the_end_of_a_path_is_no_other_path() {
    let stack = Stack::start().await;
    assert_eq!(stack.get("/v1/models/").await.status(), 200);
    assert_eq!(stack.get("/v1/audio/voices/?legacy=true").await.status(), 200);
    let head = stack.client.head(format!("{}/v1/models", stack.url)).send().await.unwrap();
    assert_eq!(head.status(), 200);
    let response =
        stack.post("/v1/audio/transcriptions/").multipart(form(&[], wav(100))).send().await.unwrap();
    assert_eq!(response.status(), 200);
}
