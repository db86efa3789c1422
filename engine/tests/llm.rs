//! The chat API: whole replies, events, refusals, and how faults show in it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use speechstack_engine::kind::Kind;
use support::{Engine, mode};

const PATH: &str = "/v1/chat/completions";

async fn post(engine: &Engine, body: Value) -> (u16, String) {
    let response = engine.client.post(format!("{}{PATH}", engine.url)).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

fn ask(text: &str) -> Value {
    json!({"model": "reference-template", "messages": [{"role": "user", "content": text}]})
}

/// The chunks of events, whose last is `[DONE]`.
fn chunks(events: &str) -> Vec<Value> {
    let mut data: Vec<&str> = events.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
    assert_eq!(data.pop(), Some("[DONE]"), "{events}");
    data.into_iter().map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[tokio::test]
async fn an_answer_comes_whole_or_as_events() {
    let engine = Engine::speaking(Kind::Llm, &["openai"], None).await;
    let (status, whole) = post(&engine, ask("Hello")).await;
    let whole: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(status, 200, "{whole}");
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.starts_with("You said: Hello."), "{text}");
    assert_eq!(whole["usage"]["prompt_tokens"], 1);

    let mut streamed = ask("Hello");
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let (_, events) = post(&engine, streamed).await;
    let chunks = chunks(&events);
    let deltas: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(deltas, text);
    assert!(chunks.iter().any(|chunk| chunk["choices"][0]["finish_reason"] == "stop"));
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
}

#[tokio::test]
async fn a_function_is_called_when_the_caller_insists() {
    let engine = Engine::speaking(Kind::Llm, &["openai"], None).await;
    let mut body = ask("What is the weather?");
    body["tools"] = json!([{"type": "function", "function": {"name": "weather"}}]);
    let (_, plain) = post(&engine, body.clone()).await;
    assert!(!plain.contains("tool_calls"), "{plain}");
    body["tool_choice"] = json!("required");
    body["stream"] = json!(true);
    let (_, events) = post(&engine, body).await;
    let chunks = chunks(&events);
    assert_eq!(chunks[0]["choices"][0]["delta"]["tool_calls"][0]["function"]["name"], "weather");
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn what_is_wrong_is_told_in_openais_envelope_and_faults_strike() {
    let engine = Engine::speaking(Kind::Llm, &["openai"], Some("k-1")).await;
    let (status, _) = post(&engine, ask("Hello")).await;
    assert_eq!(status, 401);
    let engine = Engine::speaking(Kind::Llm, &["openai"], None).await;
    let mut other = ask("Hello");
    other["model"] = json!("gpt-5");
    for (body, wanted, code) in [
        (json!({"messages": []}), 400, "missing_required_parameter"),
        (json!({"model": "reference-template"}), 400, "missing_required_parameter"),
        (other, 404, "model_not_found"),
    ] {
        let (status, text) = post(&engine, body).await;
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &error["error"]["code"]), (wanted, &json!(code)), "{text}");
    }
    engine.arm(mode("F1")).await;
    let (status, body) = post(&engine, ask("Hello")).await;
    assert!(status == 500 && body.contains("illegal memory access"), "{status} {body}");
    engine.disarm().await;
    engine.arm(json!({"mode": "F14", "variant": "empty"})).await;
    let (_, body) = post(&engine, ask("Hello")).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "");
}
