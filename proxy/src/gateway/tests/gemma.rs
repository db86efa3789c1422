//! GemmaVoice's routes: their replies, frames, errors and close codes.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::timeout;

use contract::Capability;

use crate::audio::signal::speech;
use crate::audio::{Encoder, OutputFormat, wav};
use crate::gateway::tests::keys::Keyed;
use crate::gateway::tests::sessions::{Client, bearer};
use crate::gateway::tests::stack::{Stack, form, samples, wav as wav_file};

const STREAM: &str = "/v1/speech-to-text/stream";
const FILES: &str = "/v1/speech-to-text/ws";
const SPEAK: &str = "/v1/text-to-speech/ws";
const HEARD: &str = "So it is. Yes.";

async fn open(stack: &Stack, path: &str) -> Client {
    Client::open(stack, path, &[]).await.ok().unwrap()
}

/// Something like speech between two silences.
fn spoken(format: OutputFormat) -> Vec<u8> {
    let mut encoder = Encoder::new(format, 16_000).unwrap();
    let samples = [vec![0; 8_000], speech(16_000, 3.0), vec![0; 16_000]].concat();
    let mut file = encoder.encode(&samples).unwrap().to_vec();
    file.extend(encoder.finish().unwrap());
    file
}

/// Asserts a flat error and gives its message.
async fn flat(response: reqwest::Response, status: u16, code: &str) -> String {
    assert_eq!(response.status(), status);
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["error"], &body["detail"]), (&json!(code), &body["message"]), "{body}");
    body["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_upload_comes_back_as_text_and_segments() {
    let stack = Stack::start().await;
    let fields = [("language", "en"), ("prompt", "So"), ("response_format", "json"), ("temperature", "0.2")];
    let response = stack.post("/v1/speech-to-text").multipart(form(&fields, wav_file(32_000))).send().await;
    let reply: Value = response.unwrap().json().await.unwrap();
    assert_eq!((&reply["text"], &reply["language"]), (&json!(HEARD), &json!("en")), "{reply}");
    let segments = reply["segments"].as_array().unwrap();
    assert!(!segments.is_empty());
    for (at, segment) in segments.iter().enumerate() {
        let keys: Vec<&str> = segment.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!((keys, &segment["id"]), (vec!["end", "id", "start", "text"], &json!(at)));
        assert!(segment["start"].as_f64() <= segment["end"].as_f64(), "{segment}");
    }
    let seen = stack.engines[0].seen.lock()[0].clone();
    assert_eq!(seen.field("prompt").as_deref(), Some("So"));
    for (fields, file, param) in [
        (&[("language", "klingon")][..], wav_file(100), "language"),
        (&[("temperature", "hot")], wav_file(100), "temperature"),
    ] {
        let response = stack.post("/speech-to-text").multipart(form(fields, file)).send().await.unwrap();
        let message = flat(response, 400, "INVALID_VALUE").await;
        assert!(message.contains(param), "{message}");
    }
    let empty = stack.post("/v1/speech-to-text").multipart(form(&[], Vec::new())).send().await.unwrap();
    assert_eq!(empty.status(), 400);
}

#[tokio::test]
async fn a_text_comes_back_as_json_or_audio_or_events() {
    let stack = Stack::start().await;
    let post = |body: Value| stack.post("/v1/text-to-speech").json(&body);
    let response =
        post(json!({"text": "Hi there.", "format": "wav", "reference_id": "default"})).send().await.unwrap();
    assert_eq!(response.headers()["x-sample-rate"], "24000");
    let reply: Value = response.json().await.unwrap();
    let file = STANDARD.decode(reply["audio_base64"].as_str().unwrap()).unwrap();
    assert!(wav::parse(&file).unwrap().data(&file) == samples());
    assert_eq!(
        wav::parse(&file).unwrap().data_len,
        Some(samples().len() as u64),
        "a whole file has its sizes"
    );
    for (name, value) in [
        ("response_format", json!("wav")),
        ("media_type", json!("audio/wav")),
        ("sample_rate", json!(24_000)),
    ] {
        assert_eq!(reply[name], value, "{reply}");
    }
    assert_eq!(reply["reference_id"], "default");

    let raw = post(
        json!({"input": "Hi.", "response_format": "pcm", "reference_id": "Magpie-Multilingual.EN-US.Sofia"}),
    );
    let raw = raw.header("accept", "audio/*").send().await.unwrap();
    assert_eq!(raw.headers()["x-audio-format"], "pcm");
    assert_eq!(raw.headers()["x-reference-id"], "Magpie-Multilingual.EN-US.Sofia");
    assert!(raw.bytes().await.unwrap() == samples());
    let seen = stack.engines[1].seen.lock().last().unwrap().clone();
    assert_eq!(seen.field("voice").as_deref(), Some("Magpie-Multilingual.EN-US.Sofia"));

    let events = post(json!({"text": "Hi.", "format": "pcm", "stream": true})).send().await.unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let events = events.text().await.unwrap();
    let data = |name: &str| -> Vec<Value> {
        let blocks =
            events.split("\n\n").filter_map(|block| block.strip_prefix(&format!("event: {name}\ndata: ")));
        blocks.map(|data| serde_json::from_str(data).unwrap()).collect()
    };
    let audio: Vec<Vec<u8>> =
        data("audio_chunk").iter().map(|data| STANDARD.decode(data.as_str().unwrap()).unwrap()).collect();
    assert!(audio.concat() == samples());
    assert_eq!(data("done"), [json!({"status": "complete"})]);
}

#[tokio::test]
async fn what_is_wrong_with_a_text_is_told_by_name() {
    let stack = Stack::start().await;
    for (body, param) in [
        (json!({}), "text"),
        (json!({"text": 7}), "text"),
        (json!({"text": "Hi.", "format": "midi"}), "format"),
        (json!({"text": "Hi.", "sample_rate": 1}), "sample_rate"),
        (json!({"text": "Hi.", "format": "opus", "sample_rate": 44_100}), "sample_rate"),
        (json!({"text": "Hi.", "speed": 9}), "speed"),
        (json!({"text": "Hi.", "volume": 3}), "volume"),
        (json!({"text": "Hi.", "references": ["AAAA"]}), "references"),
        (json!({"text": "Hi.", "reference_id": "no-such-voice"}), "reference_id"),
        (json!({"text": "Hi.", "stream": "yes"}), "stream"),
    ] {
        let response = stack.post("/v1/text-to-speech").json(&body).send().await.unwrap();
        let reply: Value = response.json().await.unwrap();
        assert_eq!(
            (&reply["error"], &reply["details"]["param"]),
            (&json!("INVALID_VALUE"), &json!(param)),
            "{body}"
        );
    }
    let response = stack.post("/v1/text-to-speech").body("[").send().await.unwrap();
    flat(response, 400, "INVALID_JSON").await;
    assert_eq!(stack.complete(), 0);
}

#[tokio::test]
async fn a_recording_is_heard_while_it_grows() {
    let stack = Stack::start().await;
    for (format, piece) in [(OutputFormat::Opus, 700), (OutputFormat::Wav, 7_001)] {
        let mut client = open(&stack, STREAM).await;
        assert_eq!(client.next().await.unwrap()["event"], "ready");
        client.send(json!({"event": "config", "language": "en", "response_format": "json"})).await;
        let configured = client.next().await.unwrap();
        assert_eq!(
            (&configured["event"], &configured["data"]["language"]),
            (&json!("configured"), &json!("en"))
        );
        for piece in spoken(format).chunks(piece) {
            client.send_binary(piece).await;
        }
        let interim = client.until("event", "interim").await.unwrap();
        assert_eq!(interim["data"]["is_final"], false, "{interim}");
        client.send(json!({"event": "stop"})).await;
        let last = client.until("event", "final").await.unwrap();
        assert_eq!(
            (&last["data"]["is_final"], &last["data"]["language"]),
            (&json!(true), &json!("en")),
            "{last}"
        );
        let segments = last["data"]["segments"].as_array().unwrap();
        let texts: Vec<&str> = segments.iter().map(|segment| segment["text"].as_str().unwrap()).collect();
        assert!(texts.iter().all(|text| *text == HEARD) && !texts.is_empty(), "{last}");
        assert_eq!(last["data"]["text"], texts.join(" "));
        assert_eq!(client.next().await, Err((1000, String::new())));
    }
}

#[tokio::test]
async fn another_file_is_heard_whole_at_its_end() {
    let stack = Stack::start().await;
    let mut client = open(&stack, STREAM).await;
    let file = spoken(OutputFormat::Flac);
    for piece in file.chunks(5_000) {
        client.send_binary(piece).await;
    }
    client.send(json!({"event": "stop"})).await;
    let last = client.until("event", "final").await.unwrap();
    assert_eq!((&last["data"]["text"], &last["data"]["is_final"]), (&json!(HEARD), &json!(true)));
    assert_eq!(client.next().await, Err((1000, String::new())));
    assert!(stack.engines[0].seen.lock()[0].file() == file);
}

#[tokio::test]
async fn a_recording_is_cleared_and_what_is_wrong_is_told() {
    let stack = Stack::start().await;
    let mut client = open(&stack, STREAM).await;
    client.next().await.unwrap();
    for wrong in ["{", "[]", "{}", r#"{"event": "sing"}"#, r#"{"event": "config", "language": []}"#] {
        client.send_text(wrong).await;
        let error = client.next().await.unwrap();
        assert!(error["event"] == "error" && error["detail"].is_string(), "{wrong}: {error}");
    }
    let file = spoken(OutputFormat::Opus);
    client.send_binary(&file).await;
    client.until("event", "interim").await.unwrap();
    client.send(json!({"event": "clear"})).await;
    client.until("event", "cleared").await.unwrap();
    client.send(json!({"event": "stop"})).await;
    let last = client.until("event", "final").await.unwrap();
    assert_eq!((&last["data"]["text"], &last["data"]["segments"]), (&json!(""), &json!([])), "{last}");
    let mut client = open(&stack, STREAM).await;
    client.next().await.unwrap();
    client.send_binary(&[7; 100]).await;
    let error = client.next().await.unwrap();
    assert!(error["detail"].as_str().unwrap().contains("WebM"), "{error}");
    // The session goes on, and ends as any other.
    client.send(json!({"event": "stop"})).await;
    assert_eq!(client.next().await.unwrap()["event"], "final");
}

#[tokio::test]
async fn files_are_committed_or_come_in_base64() {
    let stack = Stack::start().await;
    let mut client = open(&stack, FILES).await;
    client.send(json!({"event": "commit"})).await;
    assert_eq!(client.next().await.unwrap(), json!({"event": "warning", "detail": "No audio to transcribe"}));
    let file = wav_file(32_000);
    for piece in file.chunks(10_000) {
        client.send_binary(piece).await;
        assert_eq!(client.next().await.unwrap(), json!({"event": "received", "bytes": piece.len()}));
    }
    client.send(json!({"event": "commit", "language": "en"})).await;
    let transcript = client.next().await.unwrap();
    assert_eq!((&transcript["event"], &transcript["data"]["text"]), (&json!("transcript"), &json!(HEARD)));
    // The header of a file that states no length is completed.
    assert!(stack.engines[0].seen.lock()[0].file().ends_with(&file[44..]));
    client.send_binary(&[1, 2, 3]).await;
    client.next().await.unwrap();
    client.send(json!({"event": "clear"})).await;
    assert_eq!(client.next().await.unwrap()["event"], "cleared");
    client
        .send(
            json!({"audio_base64": STANDARD.encode(&file), "filename": "a.wav", "content_type": "audio/wav"}),
        )
        .await;
    assert_eq!(client.next().await.unwrap()["data"]["text"], HEARD);
    for wrong in [
        json!({"audio_base64": "*"}),
        json!({"audio_base64": 7}),
        json!({"audio_base64": "AAAA"}),
        json!({"audio_base64": STANDARD.encode(&file), "language": "klingon"}),
        json!({"event": 1}),
        json!([]),
    ] {
        client.send(wrong.clone()).await;
        assert_eq!(client.next().await.unwrap()["event"], "error", "{wrong}");
    }
    let too_much = vec![0; 5 << 20];
    client.send_binary(&too_much).await;
    assert_eq!(client.next().await.unwrap()["event"], "received");
    client.send_binary(&too_much).await;
    assert_eq!(client.next().await.unwrap()["event"], "error");
}

#[tokio::test]
async fn texts_are_spoken_in_order_and_a_cancel_frees_the_engine() {
    let stack = Stack::start().await;
    let mut client = open(&stack, SPEAK).await;
    client.send(json!({"text": "Hi.", "format": "pcm"})).await;
    client.send(json!({"input": "Hi.", "response_format": "wav", "stream": false})).await;
    let metadata = client.next().await.unwrap();
    assert_eq!(
        metadata["data"],
        json!({"response_format": "pcm", "media_type": "audio/pcm", "sample_rate": 24_000})
    );
    let mut audio = Vec::new();
    loop {
        let frame = client.next().await.unwrap();
        match frame["event"].as_str().unwrap() {
            "audio_chunk" => {
                audio.extend(STANDARD.decode(frame["data"]["audio_base64"].as_str().unwrap()).unwrap())
            }
            other => break assert_eq!(other, "done"),
        }
    }
    assert!(audio == samples());
    let synthesis = client.next().await.unwrap();
    assert_eq!(
        (&synthesis["event"], &synthesis["data"]["response_format"]),
        (&json!("synthesis"), &json!("wav"))
    );
    for wrong in [json!({}), json!({"text": ""}), json!({"text": "Hi.", "volume": 2}), json!("Hi.")] {
        client.send(wrong.clone()).await;
        assert_eq!(client.next().await.unwrap()["event"], "error", "{wrong}");
    }
    let engine = stack.engines[1].stream();
    client.send(json!({"text": "A long text.", "format": "pcm"})).await;
    engine.send(Ok(samples().into())).await.unwrap();
    client.until("event", "audio_chunk").await.unwrap();
    client.send(json!({"event": "cancel"})).await;
    assert_eq!(client.until("event", "cancelled").await.unwrap(), json!({"event": "cancelled"}));
    timeout(Duration::from_secs(5), engine.closed()).await.expect("the engine still speaks");
    client.send(json!({"text": "Hi.", "format": "pcm"})).await;
    assert_eq!(client.next().await.unwrap()["event"], "metadata");
    client.until("event", "done").await.unwrap();
}

#[tokio::test]
async fn callers_are_refused_by_codes_of_its_own() {
    let (keyed, alice) = Keyed::start().await;
    for path in [STREAM, FILES, SPEAK] {
        let mut client = Client::open(&keyed.stack, path, &[]).await.ok().unwrap();
        assert_eq!(client.next().await.unwrap()["event"], "error", "{path}");
        assert_eq!(client.next().await, Err((4401, "missing_api_key".into())), "{path}");
        let mut client = Client::open(&keyed.stack, path, &bearer("sk-wrong")).await.ok().unwrap();
        client.next().await.unwrap();
        assert_eq!(client.next().await, Err((4403, "invalid_api_key".into())), "{path}");
        assert!(Client::open(&keyed.stack, path, &bearer(&alice)).await.is_ok(), "{path}");
    }
    let body = json!({"text": "Hi."});
    let refused = keyed.stack.post("/v1/text-to-speech").json(&body).send().await.unwrap();
    flat(refused, 401, "MISSING_API_KEY").await;
    let speechless = Stack::with(&[Capability::Stt], |_| {}).await;
    let mut client = open(&speechless, SPEAK).await;
    assert_eq!(client.next().await.unwrap()["event"], "error");
    assert_eq!(client.next().await.unwrap_err().0, 1013);
}
