//! Every HTTP protocol of synthesis: its replies, its refusals, and how faults show in it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use reqwest::multipart::Form;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use speechstack_engine::kind::Kind;
use support::{Engine, level, mode, samples};

const SAID: &str = "good morning";

async fn answer(request: RequestBuilder) -> (u16, Bytes) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.bytes().await.unwrap())
}

/// The faults that strike any protocol, on a request for WAV.
async fn faults_strike(engine: &Engine, request: &dyn Fn() -> RequestBuilder) {
    let (status, healthy) = answer(request()).await;
    assert!(status == 200 && level(&samples(&healthy[44..])) > 500.0);
    engine.arm(mode("F1")).await;
    for _ in 0..2 {
        let (status, body) = answer(request()).await;
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(status == 500 && body.contains("an illegal memory access"), "{status} {body}");
    }
    engine.become_ready().await;
    engine.disarm().await;
    engine.arm(mode("F7")).await;
    assert!(tokio::time::timeout(Duration::from_millis(300), request().send()).await.is_err(), "F7 answered");
    engine.disarm().await;
    engine.arm(json!({"mode": "F13", "rst_after_bytes": 100})).await;
    let reset = request().send().await.unwrap().bytes().await.unwrap_err();
    assert!(format!("{reset:?}").contains("ConnectionReset"), "{reset:?}");
    engine.disarm().await;
    engine.arm(json!({"mode": "F15", "variant": "silence"})).await;
    let (_, silence) = answer(request()).await;
    assert_eq!((silence.len(), level(&samples(&silence[44..]))), (healthy.len(), 0.0));
    engine.arm(json!({"mode": "F15", "variant": "bad_header"})).await;
    let (_, lying) = answer(request()).await;
    assert_ne!(lying[40..44], healthy[40..44]);
    engine.disarm().await;
}

#[tokio::test]
async fn magpie_has_the_limits_and_default_rates_of_a_nim() {
    let engine = Engine::speaking(Kind::Tts, &["magpie"], None).await;
    let speak = |path: &str, text: &str| {
        engine.post(&format!("/v1/audio/{path}"), Form::new().text("text", text.to_owned()))
    };
    let (_, file) = answer(speak("synthesize", SAID)).await;
    assert_eq!(file[24..28], 22_050_u32.to_le_bytes());
    let (_, online) = answer(speak("synthesize_online", SAID)).await;
    let ratio = online.len() as f64 / (file.len() - 44) as f64;
    assert!((ratio - 2.0).abs() < 0.01, "not 44.1 kHz: {ratio}");
    let long = "we need to finish the report before the meeting starts. ".repeat(12);
    let (_, file) = answer(speak("synthesize", &long)).await;
    assert_eq!(file.len(), 44 + 20 * 2 * 22_050, "cut at 20 s");
    let (status, body) = answer(speak("synthesize", &"a".repeat(2_001))).await;
    assert!(status == 400 && String::from_utf8_lossy(&body).contains("2000"));
    faults_strike(&engine, &|| speak("synthesize", SAID)).await;
    engine.stop().await;
}

#[tokio::test]
async fn openai_and_nemo_speech_take_json() {
    for (protocol, rate_hz) in [("openai", 24_000_u32), ("nemo_speech", 22_050)] {
        let engine = Engine::speaking(Kind::Tts, &[protocol], None).await;
        let url = format!("{}/v1/audio/speech", engine.url);
        let speak = |body: Value| engine.client.post(&url).json(&body);
        let asked = json!({"model": "tts-1", "input": SAID, "voice": "alloy", "response_format": "wav"});
        let with = |field: &str, value: Value| {
            let mut body = asked.clone();
            body[field] = value;
            speak(body)
        };
        let (status, file) = answer(speak(asked.clone())).await;
        assert_eq!((status, &file[24..28]), (200, rate_hz.to_le_bytes().as_slice()), "{protocol}");
        let (_, pcm) = answer(with("response_format", "pcm".into())).await;
        assert_eq!(pcm.len(), file.len() - 44, "{protocol}");
        for (field, value, named) in [
            ("response_format", json!("mp3"), "wav or pcm"),
            ("input", json!(" "), "characters"),
            ("input", Value::Null, "input"),
            ("voice", json!("unknown-voice"), "unknown-voice"),
            ("speed", json!(9), "speed"),
            ("speed", json!("fast"), "malformed"),
        ] {
            let (status, body) = answer(with(field, value)).await;
            let error: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(status, 400, "{protocol} {field}: {error}");
            assert!(error["error"]["message"].as_str().unwrap().contains(named), "{error}");
        }
        let (status, fast) = answer(with("speed", 2.0.into())).await;
        if protocol == "openai" {
            assert!(status == 200 && fast.len() * 3 < file.len() * 2, "twice as fast: {}", fast.len());
        } else {
            assert_eq!(status, 400, "NeMo-Speech.cpp has one speed");
        }
        assert_eq!(engine.json("/v1/models").await["data"][0]["id"], "reference-flite");
        faults_strike(&engine, &|| speak(asked.clone())).await;
        assert_eq!(engine.get("/v1/audio/transcriptions").await.status(), StatusCode::NOT_FOUND);
        engine.stop().await;
    }
}
