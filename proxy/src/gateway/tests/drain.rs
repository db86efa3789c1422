//! A stop: not ready, no newcomers, bodies in flight survive.

use std::time::Duration;

use futures::StreamExt;
use serde_json::json;

use crate::gateway::tests::stack::{SYNTHESIZE, Stack, samples};
use crate::gateway::tests::stack::{form, wav};

#[tokio::test]
async fn a_stop_waits_for_speech_that_is_being_made_and_accepts_no_more() {
    let stack = Stack::start().await;
    let engine = stack.engines[1].stream();
    let request = stack.post("/v1/audio/speech").json(&json!({"input": "Hi.", "response_format": "pcm"}));
    let speaking = tokio::spawn(request.send());
    engine.send(Ok(samples().into())).await.unwrap();
    let response = speaking.await.unwrap().unwrap();
    assert_eq!(stack.client.get(format!("{}/readyz", stack.admin)).send().await.unwrap().status(), 200);

    let drain = stack.drain.clone();
    let stopping = tokio::spawn(async move { drain.finish(Duration::from_secs(20)).await });
    stack.drain.begun().await;
    let ready = stack.client.get(format!("{}/readyz", stack.admin)).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    let newcomer = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut refused = false;
    for _ in 0..200 {
        refused |= newcomer.get(format!("{}/health", stack.url)).send().await.is_err();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(refused);

    engine.send(Ok(samples().into())).await.unwrap();
    drop(engine);
    let audio = response.bytes().await.unwrap();
    assert_eq!(audio, samples().repeat(2), "the body in flight is whole");
    assert_eq!(stopping.await.unwrap(), 0, "nothing had to be cut");
}

#[tokio::test]
async fn an_upload_in_flight_survives_a_stop() {
    let stack = Stack::start().await;
    *stack.engines[0].pace.lock() = Duration::from_millis(300);
    let request = stack.post("/v1/audio/transcriptions").multipart(form(&[], wav(64_000)));
    let asked = tokio::spawn(request.send());
    while stack.engines[0].begun() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(stack.drain.finish(Duration::from_secs(20)).await, 0);
    assert_eq!(asked.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_stop_gives_up_at_its_deadline() {
    let stack = Stack::start().await;
    let engine = stack.engines[1].stream();
    let request = stack.post("/v1/audio/speech").json(&json!({"input": "Hi.", "response_format": "pcm"}));
    let speaking = tokio::spawn(request.send());
    engine.send(Ok(samples().into())).await.unwrap();
    let mut body = speaking.await.unwrap().unwrap().bytes_stream();
    assert!(body.next().await.unwrap().is_ok());
    assert!(stack.drain.finish(Duration::from_millis(200)).await > 0);
    assert!(body.next().await.unwrap().is_err(), "cut, not ended");
    assert_eq!(stack.engines[1].begun(), 1, "{}", SYNTHESIZE);
}
