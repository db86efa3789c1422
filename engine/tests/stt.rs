//! Every HTTP protocol of recognition: its replies, its refusals, and how faults show in it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use speechstack_engine::ffi::Voice;
use speechstack_engine::kind::Kind;
use speechstack_engine::wav;
use support::{Engine, dialogue, mode, speech};

const SAID: &str = "good morning";
const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const TURNS: [&str; 2] =
    ["please call me back tomorrow morning at nine", "the government will announce the new budget next week"];

/// A request: the file's name and bytes, and the other fields.
async fn ask(
    engine: &Engine,
    path: &str,
    (name, file): (&str, &[u8]),
    fields: &[(&str, &str)],
) -> (u16, String) {
    let mut form = Form::new().part("file", Part::bytes(file.to_vec()).file_name(name.to_owned()));
    for (name, value) in fields {
        form = form.text((*name).to_owned(), (*value).to_owned());
    }
    let response = engine.post(path, form).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn ok(engine: &Engine, path: &str, file: &[u8], fields: &[(&str, &str)]) -> Value {
    let (status, body) = ask(engine, path, ("speech.wav", file), fields).await;
    assert_eq!(status, 200, "{path} {fields:?}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// The faults that strike any protocol; `fields` make a request for JSON that is served, `wedged` is its status under F1.
async fn faults_strike(engine: &Engine, path: &str, fields: &[(&str, &str)], wedged: u16) {
    let file = speech(Voice::Rms, SAID);
    let upload = ("speech.wav", file.as_slice());
    engine.arm(mode("F1")).await;
    for _ in 0..2 {
        let (status, body) = ask(engine, path, upload, fields).await;
        assert_eq!(status, wedged, "{body}");
        assert!(body.contains("an illegal memory access was encountered"), "{body}");
    }
    engine.become_ready().await;
    engine.disarm().await;
    engine.arm(mode("F7")).await;
    let hung = tokio::time::timeout(Duration::from_millis(300), ask(engine, path, upload, fields)).await;
    assert!(hung.is_err(), "F7 answered {hung:?}");
    engine.disarm().await;
    engine.arm(json!({"mode": "F13", "rst_after_bytes": 5})).await;
    let mut form = Form::new().part("file", Part::bytes(file.clone()).file_name("speech.wav"));
    for (name, value) in fields {
        form = form.text((*name).to_owned(), (*value).to_owned());
    }
    let reset = engine.post(path, form).send().await.unwrap().bytes().await.unwrap_err();
    assert!(format!("{reset:?}").contains("ConnectionReset"), "{reset:?}");
    engine.disarm().await;
    for (variant, text) in [("constant", "thank you"), ("empty", ""), ("punct", ". . .")] {
        engine.arm(json!({"mode": "F14", "variant": variant})).await;
        assert_eq!(ok(engine, path, &file, fields).await["text"], text, "{variant}");
    }
    engine.disarm().await;
    assert_eq!(ok(engine, path, &file, fields).await["text"], SAID);
}

#[tokio::test]
async fn parakeet_fastapi_serves_one_route_under_three_paths() {
    let engine = Engine::speaking(Kind::Stt, &["parakeet_fastapi"], None).await;
    let file = speech(Voice::Rms, SAID);
    for path in ["/transcribe", "/audio/transcriptions", TRANSCRIPTIONS] {
        let body = ok(&engine, path, &file, &[]).await;
        assert_eq!(body, json!({ "text": SAID, "timestamps": null }), "{path}");
    }
    let body = ok(&engine, "/transcribe", &file, &[("include_timestamps", "true")]).await;
    let times = &body["timestamps"];
    assert_eq!((times["word"].as_array().unwrap().len(), &times["word"][1]["word"]), (2, &json!("morning")));
    assert_eq!(times["segment"][0]["segment"], SAID);
    assert_eq!(times["char"].as_array().unwrap().len(), SAID.len() - 1);
    assert!(times["word"][0]["end"].as_f64().unwrap() > times["word"][0]["start"].as_f64().unwrap());
    for (name, file, fields, status) in [
        ("speech.webm", file.as_slice(), &[][..], 415),
        ("speech", &file, &[], 415),
        ("speech.wav", b"no audio at all", &[], 422),
        ("speech.wav", b"", &[], 422),
        ("speech.wav", &file, &[("include_timestamps", "sometimes")], 400),
    ] {
        let (answered, body) = ask(&engine, "/transcribe", (name, file), fields).await;
        assert_eq!(answered, status, "{name}: {body}");
        assert!(serde_json::from_str::<Value>(&body).unwrap()["detail"].is_string(), "{body}");
    }
    assert_eq!(engine.json("/healthz").await, json!({ "status": "ok" }));
    for path in ["/health", "/v1/health/ready", "/v1/models"] {
        assert_eq!(engine.get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    faults_strike(&engine, "/transcribe", &[], 422).await;
    engine.stop().await;
}

#[tokio::test]
async fn nim_http_serves_text_in_a_language_that_has_to_be_named() {
    let engine = Engine::speaking(Kind::Stt, &["nim_http"], None).await;
    let file = speech(Voice::Rms, SAID);
    let seconds = (file.len() - 44) as f64 / 32_000.0;
    for fields in [
        &[("language", "en-US")][..],
        &[("language", "multi"), ("temperature", "0"), ("unheard_of", "1")],
        &[("model", "reference-pocketsphinx"), ("language", "xx")],
    ] {
        let body = ok(&engine, TRANSCRIPTIONS, &file, fields).await;
        assert_eq!((&body["text"], &body["usage"]["type"]), (&json!(SAID), &json!("duration")));
        assert!((body["usage"]["seconds"].as_f64().unwrap() - seconds).abs() < 0.01, "{body}");
        assert!(body.get("words").is_none());
    }
    let as_text = [("language", "en-US"), ("response_format", "text")];
    assert_eq!(ask(&engine, TRANSCRIPTIONS, ("a.wav", &file), &as_text).await, (200, SAID.into()));
    let mut stereo = wav::encode(&[500; 32_000], 16_000).to_vec();
    (stereo[22], stereo[32]) = (2, 4);
    let huge = [b"RIFF\0\0\0\0WAVE".as_slice(), &vec![0; 25 << 20]].concat();
    let us = ("language", "en-US");
    for (file, fields, status, named) in [
        (file.as_slice(), &[][..], 400, "language"),
        (&file, &[("language", "en")], 400, "'en'"),
        (&file, &[("language", "de-DE")], 400, "de-DE"),
        (&file, &[("model", "whisper-1")], 404, "whisper-1"),
        (&file, &[us, ("response_format", "verbose_json")], 400, "verbose_json"),
        (b"ID3 is no container of a NIM", &[us], 400, "WAV, OPUS or FLAC"),
        (b"", &[us], 400, "empty"),
        (&stereo, &[us], 400, "mono"),
        (&huge, &[us], 400, "400 Bad Request: audio too long"),
    ] {
        let (answered, body) = ask(&engine, TRANSCRIPTIONS, ("speech.wav", file), fields).await;
        assert_eq!(answered, status, "{body}");
        let detail = serde_json::from_str::<Value>(&body).unwrap()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(named), "{named}: {detail}");
    }
    let ready = engine.json("/v1/health/ready").await;
    assert_eq!((&ready["ready"], &ready["status"]), (&json!(true), &json!("ready")));
    for path in ["/v1/health/live", "/v1/models", "/v1/metadata", "/v1/version", "/v1/license"] {
        assert_eq!(engine.get(path).await.status(), StatusCode::OK, "{path}");
    }
    faults_strike(&engine, TRANSCRIPTIONS, &[us], 500).await;
    engine.arm(mode("F18")).await;
    let loading = engine.get("/v1/health/ready").await;
    assert_eq!(loading.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(&engine, TRANSCRIPTIONS, ("speech.wav", &file), &[us]).await.0, 503);
    engine.disarm().await;
    engine.stop().await;
}

#[tokio::test]
async fn nemo_speech_serves_words_with_speakers_and_turns() {
    let engine = Engine::speaking(Kind::Stt, &["nemo_speech"], None).await;
    let (file, turns) = (speech(Voice::Rms, SAID), dialogue(&TURNS));
    assert_eq!(ok(&engine, TRANSCRIPTIONS, &file, &[]).await, json!({ "text": SAID }));
    let verbose = ("response_format", "verbose_json");
    let body = ok(&engine, TRANSCRIPTIONS, &file, &[verbose]).await;
    assert_eq!((&body["task"], &body["words"][1]["word"]), (&json!("transcribe"), &json!("morning")));
    let confidence = body["words"][1]["confidence"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&confidence), "{confidence}");
    assert!(body.get("segments").is_none() && body["words"][0].get("speaker").is_none(), "{body}");
    let body = ok(&engine, TRANSCRIPTIONS, &turns, &[verbose, ("diarization", "true")]).await;
    let mut speakers: Vec<u64> =
        body["words"].as_array().unwrap().iter().map(|word| word["speaker"].as_u64().unwrap()).collect();
    speakers.dedup();
    assert_eq!(speakers, [1, 2]);
    let body = ok(&engine, "/v1/audio/diarizations", &turns, &[("mode", "offline")]).await;
    let speakers: Vec<&Value> =
        body["segments"].as_array().unwrap().iter().map(|segment| &segment["speaker"]).collect();
    assert!(speakers.first() == Some(&&json!(1)) && speakers.last() == Some(&&json!(2)), "{body}");
    for (path, file, fields, named) in [
        (TRANSCRIPTIONS, file.as_slice(), &[("diarization", "true")][..], "diarization"),
        (TRANSCRIPTIONS, &file, &[("response_format", "srt")], "srt"),
        (TRANSCRIPTIONS, b"fLaC is not taken here", &[], "WAV"),
        (TRANSCRIPTIONS, b"", &[], "empty"),
        ("/v1/audio/diarizations", &file, &[("mode", "both")], "mode"),
    ] {
        let (status, body) = ask(&engine, path, ("speech.wav", file), fields).await;
        let error: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &error["error"]["type"]), (400, &json!("invalid_request_error")), "{body}");
        assert!(error["error"]["message"].as_str().unwrap().contains(named), "{body}");
    }
    faults_strike(&engine, TRANSCRIPTIONS, &[verbose], 500).await;
    engine.arm(mode("F18")).await;
    assert_eq!(engine.get("/ready").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(engine.get("/health").await.status(), StatusCode::OK);
    engine.disarm().await;
    engine.stop().await;
}

#[tokio::test]
async fn openai_serves_every_response_format() {
    let engine = Engine::speaking(Kind::Stt, &["openai"], None).await;
    let (file, turns) = (speech(Voice::Rms, SAID), dialogue(&TURNS));
    let model = ("model", "whisper-1");
    let format = |name| ("response_format", name);
    let body = ok(&engine, TRANSCRIPTIONS, &file, &[model]).await;
    assert_eq!((&body["text"], &body["usage"]["type"]), (&json!(SAID), &json!("duration")));
    let body = ok(&engine, TRANSCRIPTIONS, &file, &[model, format("verbose_json")]).await;
    assert_eq!(body["segments"][0].as_object().unwrap().len(), 10);
    assert!(body.get("words").is_none() && body["language"] == "english", "{body}");
    let granularity = ("timestamp_granularities[]", "word");
    let body = ok(&engine, TRANSCRIPTIONS, &file, &[model, format("verbose_json"), granularity]).await;
    assert!(body.get("segments").is_none() && body["words"][1]["word"] == "morning", "{body}");
    let body = ok(&engine, TRANSCRIPTIONS, &turns, &[model, format("diarized_json")]).await;
    let segments = body["segments"].as_array().unwrap();
    let speakers: Vec<&Value> = segments.iter().map(|segment| &segment["speaker"]).collect();
    assert_eq!(speakers, ["A", "B"], "{body}");
    for (name, begins) in [("text", SAID), ("srt", "1\n00:00:0"), ("vtt", "WEBVTT\n\n00:00:0")] {
        let (status, body) = ask(&engine, TRANSCRIPTIONS, ("a.wav", &file), &[model, format(name)]).await;
        assert!(status == 200 && body.starts_with(begins), "{name}: {body}");
    }
    for (name, file, fields, param) in [
        ("a.wav", file.as_slice(), &[][..], "model"),
        ("a.bin", &file, &[model], "file"),
        ("a.wav", b"no audio", &[model], "file"),
        ("a.wav", &file, &[model, format("xml")], "response_format"),
        ("a.wav", &file, &[model, granularity], "timestamp_granularities[]"),
    ] {
        let (status, body) = ask(&engine, TRANSCRIPTIONS, (name, file), fields).await;
        let error: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)), "{body}");
        assert_eq!(error["error"].as_object().unwrap().len(), 4);
    }
    let models = engine.json("/v1/models").await;
    assert_eq!(models["data"][0]["id"], "reference-pocketsphinx");
    assert_eq!(engine.get("/v1/models/reference-pocketsphinx").await.status(), StatusCode::OK);
    assert_eq!(engine.json("/v1/models/a/b").await["error"]["code"], "model_not_found");
    faults_strike(&engine, TRANSCRIPTIONS, &[model], 500).await;
    engine.stop().await;
}

#[tokio::test]
async fn openai_asks_for_its_key_and_tells_its_health_without() {
    let engine = Engine::speaking(Kind::Stt, &["openai"], Some("secret")).await;
    let models = |key: Option<&str>| {
        let request = engine.client.get(format!("{}/v1/models", engine.url));
        match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
        .send()
    };
    assert_eq!(models(Some("secret")).await.unwrap().status(), StatusCode::OK);
    for key in [None, Some("guess")] {
        let refused = models(key).await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "invalid_api_key");
    }
    engine.stop().await;
}

#[tokio::test]
async fn parakeet_shows_faults_in_json() {
    let engine = Engine::speaking(Kind::Stt, &["parakeet"], None).await;
    faults_strike(&engine, TRANSCRIPTIONS, &[("response_format", "verbose_json")], 500).await;
    engine.stop().await;
}
