//! Quotas of keys: what is refused, the replies, and what is counted.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::Limits;
use crate::gateway::tests::keys::Keyed;
use crate::gateway::tests::sessions::Client;
use crate::gateway::tests::stack::{envelope, form, wav};
use crate::keys::testing::add;

const DEADLINE: Duration = Duration::from_secs(60);

/// A stack with a key of bob, who has these limits.
async fn limited(limits: Limits) -> (Keyed, String) {
    let (keyed, _) = Keyed::start().await;
    let bob = add(&keyed.path, "bob", |record| record.limits = limits);
    keyed.until(&bob, 200).await;
    (keyed, bob)
}

async fn speak(keyed: &Keyed, key: &str, input: &str) -> reqwest::Response {
    let body = json!({"input": input, "voice": "alloy", "response_format": "wav"});
    keyed.stack.post("/v1/audio/speech").bearer_auth(key).json(&body).send().await.unwrap()
}

async fn today(keyed: &Keyed, key: &str) -> Value {
    let usage: Value = keyed.get("/v1/usage", key).await.json().await.unwrap();
    usage["usage"]["days"][0].clone()
}

fn header(response: &reqwest::Response, name: &str) -> String {
    response.headers()[name].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn requests_beyond_those_of_a_minute_are_refused_until_it_is_refilled() {
    let (keyed, bob) = limited(Limits { requests_per_minute: Some(2), ..Limits::default() }).await;
    let first = keyed.transcribe(&bob, &[]).await;
    assert_eq!((first.status().as_u16(), header(&first, "x-ratelimit-limit-requests")), (200, "2".into()));
    assert_eq!(header(&first, "x-ratelimit-remaining-requests"), "1");
    assert_eq!(header(&first, "x-ratelimit-reset-requests"), "30s");
    assert_eq!(keyed.transcribe(&bob, &[]).await.status(), 200);
    let refused = keyed.transcribe(&bob, &[]).await;
    let after: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((1..=30).contains(&after), "{after}");
    assert_eq!(header(&refused, "x-should-retry"), "true");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(
        (&body["error"]["type"], &body["error"]["code"]),
        (&json!("rate_limit_error"), &json!("rate_limit_exceeded"))
    );
    assert_eq!(keyed.get("/v1/models", &bob).await.status(), 200, "lists cost nothing");
    let carol = add(&keyed.path, "carol", |_| {});
    keyed.until(&carol, 200).await;
    assert_eq!(keyed.transcribe(&carol, &[]).await.status(), 200, "another name has its own");
    assert_eq!(keyed.stack.counted("speechstack_gateway_quota_refusals_total", "requests_per_minute"), 1.0);
}

#[tokio::test]
async fn so_many_requests_run_at_a_time() {
    let (keyed, bob) = limited(Limits { jobs: Some(1), ..Limits::default() }).await;
    *keyed.stack.engines[0].pace.lock() = Duration::from_secs(60);
    let request = keyed.stack.post("/v1/audio/transcriptions").bearer_auth(&bob);
    let first = tokio::spawn(request.multipart(form(&[], wav(100))).send());
    let deadline = Instant::now() + DEADLINE;
    while keyed.stack.complete() == 0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    envelope(keyed.transcribe(&bob, &[]).await, 429, None).await;
    first.abort();
    *keyed.stack.engines[0].pace.lock() = Duration::ZERO;
    while keyed.transcribe(&bob, &[]).await.status() != 200 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn one_name_leaves_places_for_others() {
    let (keyed, bob) = limited(Limits::default()).await;
    let mut config = (*keyed.stack.config.get()).clone();
    (config.gateway.max_in_flight, config.gateway.sessions.max) = (4, 1);
    keyed.stack.config.replace(config);
    *keyed.stack.engines[0].pace.lock() = Duration::from_secs(60);
    let send = || {
        let request = keyed.stack.post("/v1/audio/transcriptions").bearer_auth(&bob);
        tokio::spawn(request.multipart(form(&[], wav(100))).send())
    };
    let held = [send(), send(), send()];
    let deadline = Instant::now() + DEADLINE;
    while keyed.stack.counted("speechstack_gateway_key_requests_total", "bob") < 3.0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let body: Value = keyed.transcribe(&bob, &[]).await.json().await.unwrap();
    assert!(body["error"]["message"].as_str().unwrap().starts_with("3 requests of this API key"), "{body}");
    let carol = add(&keyed.path, "carol", |_| {});
    keyed.until(&carol, 200).await;
    assert_eq!(speak(&keyed, &carol, "So it is.").await.status(), 200, "the fourth place");
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn audio_is_charged_before_and_given_back_when_an_engine_refuses_it() {
    let (keyed, bob) = limited(Limits { audio_minutes_per_day: Some(0.05), ..Limits::default() }).await;
    keyed.stack.engines[0].answer(422, &[], r#"{"detail": "no speech"}"#);
    assert!(keyed.transcribe(&bob, &[]).await.status().is_client_error());
    assert_eq!(today(&keyed, &bob).await["audio_seconds"], 0.0);
    for _ in 0..3 {
        assert_eq!(keyed.transcribe(&bob, &[]).await.status(), 200);
    }
    let before = keyed.stack.complete();
    let refused = keyed.transcribe(&bob, &[]).await;
    let after: u64 = header(&refused, "retry-after").parse().unwrap();
    let second = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() % 86_400;
    assert!(after.abs_diff(86_400 - second) <= 60, "until the day of UTC ends: {after}");
    assert_eq!(header(&refused, "x-should-retry"), "false");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "insufficient_quota");
    assert_eq!(keyed.stack.complete(), before, "no engine is asked");
    let day = today(&keyed, &bob).await;
    assert_eq!((&day["audio_seconds"], &day["requests"]), (&json!(3.0), &json!(5)));
    assert_eq!(speak(&keyed, &bob, "So it is.").await.status(), 200, "speech has a quota of its own");
}

#[tokio::test]
async fn characters_are_charged_once_there_is_something_to_hear() {
    let (keyed, bob) = limited(Limits { characters_per_day: Some(20), ..Limits::default() }).await;
    for _ in 0..2 {
        let response = speak(&keyed, &bob, "So it is.").await;
        assert_eq!(response.status(), 200);
        assert!(!response.bytes().await.unwrap().is_empty());
    }
    assert_eq!(today(&keyed, &bob).await["characters"], 18.0);
    let message = envelope(speak(&keyed, &bob, "So it is.").await, 429, None).await;
    assert!(message.contains("20 characters a day"), "{message}");
    assert_eq!(speak(&keyed, &bob, "Hm").await.status(), 200, "what still fits");
}

#[tokio::test]
async fn usage_is_told_to_its_owner_and_written_down_without_what_was_said() {
    let (keyed, bob) = limited(Limits { jobs: Some(7), ..Limits::default() }).await;
    let root = add(&keyed.path, "root", |record| record.scopes.admin = true);
    keyed.until(&root, 200).await;
    let file = keyed.path.with_file_name("usage.jsonl");
    let mut config = (*keyed.stack.config.get()).clone();
    config.gateway.usage.file = Some(file.clone());
    keyed.stack.config.replace(config);
    assert_eq!(keyed.transcribe(&bob, &[]).await.status(), 200);
    speak(&keyed, &bob, "So it is.").await.bytes().await.unwrap();
    let usage: Value = keyed.get("/v1/usage", &bob).await.json().await.unwrap();
    assert_eq!((&usage["key"], &usage["usage"]["limits"]["jobs"]), (&json!("bob"), &json!(7)), "{usage}");
    envelope(keyed.get("/v1/usage?all=true", &bob).await, 403, None).await;
    let all: Value = keyed.get("/v1/usage?all=true", &root).await.json().await.unwrap();
    let found = all["data"].as_array().unwrap().iter().find(|one| one["key"] == "bob").unwrap();
    assert_eq!(found["usage"]["days"][0]["audio_seconds"], 1.0);
    let deadline = Instant::now() + DEADLINE;
    let lines = loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.lines().count() == 2 {
            break text;
        }
        assert!(Instant::now() < deadline, "{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["key"], &lines[0]["audio_seconds"]), (&json!("bob"), &json!(1.0)));
    assert_eq!((&lines[1]["characters"], lines[1].as_object().unwrap().len()), (&json!(9.0), 5), "{lines:?}");
    assert!(lines[0]["request_id"].as_str().unwrap().starts_with("req_"));
    assert_eq!(keyed.stack.counted("speechstack_gateway_key_audio_seconds_total", "bob"), 1.0);
}

#[tokio::test]
async fn sessions_count_and_are_cut_when_the_days_audio_is_used_up() {
    let limits = Limits { streams: Some(1), audio_minutes_per_day: Some(0.05), ..Limits::default() };
    let (keyed, bob) = limited(limits).await;
    let headers = [("authorization", format!("Bearer {bob}"))];
    let path = "/api/v1/audio/stream/transcribe";
    let mut first = Client::open(&keyed.stack, path, &headers).await.ok().unwrap();
    let mut second = Client::open(&keyed.stack, path, &headers).await.ok().unwrap();
    let refused = second.until("type", "error").await.unwrap();
    assert_eq!(
        (&refused["code"], &refused["data"]["quota"]),
        (&json!("quota_exceeded"), &json!("concurrent_streams"))
    );
    assert_eq!(second.next().await, Err((4003, "quota_exceeded".into())));
    assert_eq!(Client::open(&keyed.stack, "/v1/listen", &headers).await.err(), Some(429));
    let limits: Value = keyed.get("/api/v1/audio/stream/limits", &bob).await.json().await.unwrap();
    assert_eq!(
        (&limits["active_streams"], &limits["can_start_stream"]),
        (&json!(1), &json!(false)),
        "{limits}"
    );
    // Four seconds in one message: more than the day has.
    let audio = crate::api::live::to_base64(&vec![0; 4 * 16_000 * 4]);
    first.send(json!({"type": "audio", "data": audio})).await;
    let cut = first.until("type", "error").await.unwrap();
    assert_eq!((&cut["code"], &cut["data"]["quota"]), (&json!("quota_exceeded"), &json!("daily_minutes")));
    assert_eq!(first.next().await, Err((4003, "quota_exceeded".into())));
    assert_eq!(today(&keyed, &bob).await["audio_seconds"], 4.0);
    let mut again = Client::open(&keyed.stack, path, &headers).await.ok().unwrap();
    assert_eq!(again.until("type", "error").await.unwrap()["data"]["quota"], "daily_minutes");
}
