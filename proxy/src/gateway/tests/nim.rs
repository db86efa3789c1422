//! The HTTP routes of NVIDIA's text-to-speech NIM.

use futures::StreamExt;
use reqwest::multipart::{Form, Part};
use serde_json::Value;

use contract::Capability;

use crate::audio::wav;
use crate::gateway::tests::stack::{Stack, envelope, samples};

const SYNTHESIZE: &str = "/v1/audio/synthesize";
const SYNTHESIZE_ONLINE: &str = "/v1/audio/synthesize_online";

fn form(fields: &[(&'static str, &'static str)]) -> Form {
    fields.iter().fold(Form::new(), |form, (name, value)| form.text(*name, *value))
}

async fn speak(stack: &Stack, path: &str, fields: &[(&'static str, &'static str)]) -> reqwest::Response {
    stack.post(path).multipart(form(fields)).send().await.unwrap()
}

#[tokio::test]
async fn voices_are_listed_under_their_locales() {
    let stack = Stack::start().await;
    let listed: Value = stack.get("/v1/audio/list_voices").await.json().await.unwrap();
    let voices = listed["en-US,es-US"]["voices"].as_array().unwrap();
    assert_eq!((voices.len(), voices[0].as_str()), (4, Some("Magpie-Multilingual.EN-US.Mia")));
    let without = Stack::with(&[Capability::Stt], |_| {}).await;
    envelope(without.get("/v1/audio/list_voices").await, 503, None).await;
}

#[tokio::test]
async fn a_whole_file_states_its_length() {
    let stack = Stack::start().await;
    let fields = [
        ("text", "Hi there."),
        ("language", "en-US"),
        ("voice", "Magpie-Multilingual.EN-US.Sofia"),
        ("sample_rate_hz", "24000"),
        ("encoding", "LINEAR_PCM"),
        ("custom_dictionary", "Hi  haɪ"),
    ];
    let response = speak(&stack, SYNTHESIZE, &fields).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"audio/wav".parse().unwrap())
    );
    let file = response.bytes().await.unwrap();
    let header = wav::parse(&file).unwrap();
    assert_eq!((header.rate, header.data_len), (24_000, Some(samples().len() as u64)));
    assert!(header.data(&file) == samples());
    let seen = stack.engines[1].seen.lock()[0].clone();
    for (name, value) in fields {
        assert_eq!(seen.field(name).as_deref(), Some(value), "{name}");
    }
    let opus = speak(&stack, SYNTHESIZE, &[("text", "Hi."), ("encoding", "OGGOPUS")]).await;
    assert_eq!(opus.headers()["content-type"], "audio/ogg");
    assert!(opus.bytes().await.unwrap().starts_with(b"OggS"));
}

#[tokio::test]
async fn samples_leave_as_they_are_made() {
    let stack = Stack::start().await;
    let engine = stack.engines[1].stream();
    let asked =
        stack.post(SYNTHESIZE_ONLINE).multipart(form(&[("text", "Hi."), ("sample_rate_hz", "24000")])).send();
    let asked = tokio::spawn(asked);
    engine.send(Ok(samples().into())).await.unwrap();
    let response = asked.await.unwrap().unwrap();
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    let mut audio = response.bytes_stream();
    assert!(audio.next().await.unwrap().unwrap() == samples());
    drop(engine);
    assert!(audio.next().await.is_none());
    // The rates that a NIM has for those who name none.
    for (path, rate) in [(SYNTHESIZE, "22050"), (SYNTHESIZE_ONLINE, "44100")] {
        assert_eq!(speak(&stack, path, &[("text", "Hi.")]).await.status(), 200);
        let seen = stack.engines[1].seen.lock().last().unwrap().clone();
        assert_eq!(seen.field("sample_rate_hz").as_deref(), Some(rate));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_form_is_told_by_name() {
    let stack = Stack::start().await;
    for (fields, param) in [
        (&[("language", "en-US")][..], "text"),
        (&[("text", "Hi."), ("voice", "Unknown")], "voice"),
        (&[("text", "Hi."), ("language", "fr-FR")], "language"),
        (&[("text", "Hi."), ("sample_rate_hz", "many")], "sample_rate_hz"),
        (&[("text", "Hi."), ("sample_rate_hz", "7000")], "sample_rate_hz"),
        (&[("text", "Hi."), ("encoding", "MULAW")], "encoding"),
    ] {
        for path in [SYNTHESIZE, SYNTHESIZE_ONLINE] {
            envelope(speak(&stack, path, fields).await, 400, Some(param)).await;
        }
    }
    let prompt = form(&[("text", "Hi.")]).part("audio_prompt", Part::bytes(vec![1]).file_name("me.wav"));
    let refused = stack.post(SYNTHESIZE).multipart(prompt).send().await.unwrap();
    assert!(envelope(refused, 400, None).await.contains("audio_prompt"));
    let json = stack.post(SYNTHESIZE).json(&serde_json::json!({"text": "Hi."})).send().await.unwrap();
    assert!(envelope(json, 400, None).await.contains("multipart/form-data"));
    let large = stack.post(SYNTHESIZE).multipart(Form::new().text("text", "a".repeat(300_000)));
    envelope(large.send().await.unwrap(), 413, Some("file")).await;
    assert_eq!(stack.complete(), 0);
    let plain = stack.post(SYNTHESIZE).header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(plain.body("text=Hi+there.&language=en-US").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_nim_says_what_it_is() {
    let stack = Stack::start().await;
    let version: Value = stack.get("/v1/version").await.json().await.unwrap();
    assert_eq!(version["release"], env!("CARGO_PKG_VERSION"));
    let metadata: Value = stack.get("/v1/metadata").await.json().await.unwrap();
    assert_eq!(metadata["modelInfo"].as_array().unwrap().len(), 2);
    assert_eq!(metadata["modelInfo"][0]["shortName"], "parakeet-tdt-0.6b-v3");
    for path in ["/v1/health/live", "/v1/health/ready"] {
        assert_eq!(stack.get(path).await.status(), 200, "{path}");
    }
    stack.drain.announce();
    assert_eq!(stack.get("/v1/health/live").await.status(), 200, "it still answers");
    envelope(stack.get("/v1/health/ready").await, 503, None).await;
}
