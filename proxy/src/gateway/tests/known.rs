//! Known speakers: recordings in the request, speakers that were enrolled, and what is wrong with either.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contract::Capability;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::audio::wav::HEADER_LEN;
use crate::gateway::tests::stack::{DIARIZE, Stack, envelope, verbose_json, wav};

/// Bytes of a second, 16 kHz.
const SECOND: usize = 32_000;

fn url(seconds: usize) -> String {
    format!("data:audio/wav;base64,{}", STANDARD.encode(wav(seconds * SECOND)))
}

fn file(seconds: usize) -> Part {
    Part::bytes(wav(seconds * SECOND)).file_name("speech.wav")
}

fn diarized() -> Form {
    Form::new().text("response_format", "diarized_json")
}

/// Has the engine hear words, and then turns in a joint file whose references take `lead` seconds.
fn hear(stack: &Stack, lead: f64) {
    let turns = json!({
        "segments": [
            {"start_s": 0.1, "end_s": 2.9, "speaker": "x"},
            {"start_s": lead, "end_s": lead + 1.3, "speaker": "y"},
            {"start_s": lead + 1.3, "end_s": lead + 2.4, "speaker": "x"},
        ],
        "speakers_detected": ["x", "y"], "duration": lead + 2.5, "model": "m",
    });
    let json: &[(&str, &str)] = &[("content-type", "application/json")];
    stack.engines[0].answer(200, json, verbose_json().to_string());
    stack.engines[0].answer(200, json, turns.to_string());
}

async fn speakers(response: reqwest::Response) -> Vec<(String, String)> {
    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.unwrap();
    let segments = body["segments"].as_array().unwrap().iter();
    let text = |segment: &Value, name: &str| segment[name].as_str().unwrap().to_owned();
    segments.map(|segment| (text(segment, "speaker"), text(segment, "text"))).collect()
}

#[tokio::test]
async fn a_reference_names_its_speaker_and_others_have_letters() {
    let stack = Stack::start().await;
    hear(&stack, 3.8);
    let form = diarized()
        .text("known_speaker_names[]", "Ada")
        .text("known_speaker_references[]", url(3))
        .part("file", file(2));
    let response = stack.post("/v1/audio/transcriptions").multipart(form).send().await.unwrap();
    let expected = [("A", "So it is."), ("Ada", "Yes.")].map(|(who, what)| (who.to_owned(), what.to_owned()));
    assert_eq!(speakers(response).await, expected);
    let seen = stack.engines[0].seen.lock().clone();
    assert_eq!(seen[0].file().len(), HEADER_LEN + 2 * SECOND, "words are heard in the audio alone");
    assert_eq!(seen[1].path, DIARIZE);
    let joint = HEADER_LEN + 5 * SECOND + SECOND * 8 / 10;
    assert!(seen[1].file().len().abs_diff(joint) <= 2, "{}", seen[1].file().len());
    assert_eq!(seen[1].headers["x-speechstack-audio-seconds"], "5.800");
}

#[tokio::test]
async fn an_enrolled_speaker_is_known_by_name_to_who_enrolled_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_owned();
    let stack = Stack::with(&[Capability::Stt], move |config| config.gateway.clips.dir = Some(folder)).await;
    let enrol = |name: &'static str, seconds, key: &'static str| {
        let form = Form::new().text("name", name).part("file", file(seconds));
        stack.post("/v1/audio/speakers").header("x-api-key", key).multipart(form).send()
    };
    let ada: Value = enrol("Ada", 3, "one").await.unwrap().json().await.unwrap();
    assert_eq!(
        (&ada["object"], &ada["name"], &ada["duration"]),
        (&json!("audio.speaker"), &json!("Ada"), &json!(3.0))
    );
    envelope(enrol("Ada", 3, "one").await.unwrap(), 400, Some("name")).await;
    for seconds in [1, 12] {
        envelope(enrol("Ben", seconds, "one").await.unwrap(), 400, Some("file")).await;
    }
    let ask = |key: &'static str| {
        let form = diarized().text("known_speaker_names[]", "Ada").part("file", file(2));
        stack.post("/v1/audio/transcriptions").header("x-api-key", key).multipart(form).send()
    };
    envelope(ask("other").await.unwrap(), 400, Some("known_speaker_names")).await;
    assert_eq!(stack.engines[0].begun(), 0);
    hear(&stack, 3.8);
    assert_eq!(speakers(ask("one").await.unwrap()).await[1].0, "Ada");
    let list = |key: &'static str| {
        stack.client.get(format!("{}/v1/audio/speakers", stack.url)).header("x-api-key", key).send()
    };
    let listed: Value = list("one").await.unwrap().json().await.unwrap();
    assert_eq!(listed["data"], json!([ada]));
    let listed: Value = list("other").await.unwrap().json().await.unwrap();
    assert_eq!(listed["data"], json!([]));
    let remove = |key: &'static str| {
        stack.client.delete(format!("{}/v1/audio/speakers/Ada", stack.url)).header("x-api-key", key).send()
    };
    envelope(remove("other").await.unwrap(), 404, None).await;
    let removed: Value = remove("one").await.unwrap().json().await.unwrap();
    assert_eq!(removed, json!({"id": ada["id"], "object": "audio.speaker", "deleted": true}));
    envelope(ask("one").await.unwrap(), 400, Some("known_speaker_names")).await;
}

#[tokio::test]
async fn a_bad_reference_is_a_400_that_names_it_and_reaches_no_engine() {
    let stack = Stack::start().await;
    let text = format!("data:text/plain;base64,{}", STANDARD.encode("hello"));
    for reference in [
        url(1),
        url(12),
        text,
        "data:audio/wav,abc".into(),
        "http://x/y.wav".into(),
        "data:audio/wav;base64,%%".into(),
    ] {
        let form = diarized()
            .text("known_speaker_names[]", "Ada")
            .text("known_speaker_references[]", reference)
            .part("file", file(2));
        let response = stack.post("/v1/audio/transcriptions").multipart(form).send().await.unwrap();
        envelope(response, 400, Some("known_speaker_references")).await;
    }
    let long = "x".repeat(5 << 20);
    let form = diarized()
        .text("known_speaker_names[]", "Ada")
        .text("known_speaker_references[]", long)
        .part("file", file(2));
    let response = stack.post("/v1/audio/transcriptions").multipart(form).send().await.unwrap();
    assert!(envelope(response, 400, None).await.contains("known_speaker_references[]"));
    let mut form = diarized();
    for _ in 0..5 {
        form = form.text("known_speaker_references[]", url(3));
    }
    let response =
        stack.post("/v1/audio/transcriptions").multipart(form.part("file", file(2))).send().await.unwrap();
    envelope(response, 400, None).await;
    let form = Form::new().text("name", "Ada").part("file", file(3));
    let response = stack.post("/v1/audio/speakers").multipart(form).send().await.unwrap();
    assert!(envelope(response, 400, None).await.contains("gateway.clips.dir"));
    assert_eq!(stack.engines[0].begun(), 0);
}

#[tokio::test]
async fn a_consent_is_recorded_as_openais_sdk_does_and_its_id_lets_a_voice_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_owned();
    let stack = Stack::with(&[Capability::Tts], move |config| config.gateway.clips.dir = Some(folder)).await;
    let path = "/v1/audio/voice_consents";
    let record = |name: &'static str, language: &'static str, seconds| {
        let form = Form::new().text("name", name).text("language", language).part("recording", file(seconds));
        stack.post(path).bearer_auth("one").multipart(form).send()
    };
    let made: Value = record("John Doe", "en-US", 4).await.unwrap().json().await.unwrap();
    let id = made["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("cons_"), "{made}");
    let expected = json!({
        "object": "audio.voice_consent", "id": id, "name": "John Doe", "language": "en-US", "created_at": made["created_at"],
    });
    assert!(made == expected && made["created_at"].as_u64().unwrap() > 1_700_000_000, "{made}");
    envelope(record("Jane", "??", 4).await.unwrap(), 400, Some("language")).await;
    envelope(record("Jane", "en", 0).await.unwrap(), 400, Some("file")).await;
    envelope(record("John Doe", "en", 4).await.unwrap(), 400, Some("name")).await;
    let without = Form::new().text("name", "Jane").part("recording", file(4));
    envelope(stack.post(path).multipart(without).send().await.unwrap(), 400, Some("language")).await;
    let second: Value = record("Jane", "de", 4).await.unwrap().json().await.unwrap();

    let get = |path: String, key: &'static str| {
        stack.client.get(format!("{}{path}", stack.url)).bearer_auth(key).send()
    };
    let list: Value = get(format!("{path}?limit=1"), "one").await.unwrap().json().await.unwrap();
    assert_eq!(
        (&list["object"], &list["data"], &list["has_more"]),
        (&json!("list"), &json!([second]), &json!(true))
    );
    assert_eq!((&list["first_id"], &list["last_id"]), (&second["id"], &second["id"]));
    let after = format!("{path}?after={}", second["id"].as_str().unwrap());
    let rest: Value = get(after, "one").await.unwrap().json().await.unwrap();
    assert_eq!((&rest["data"], &rest["has_more"]), (&json!([made]), &json!(false)));
    envelope(get(format!("{path}?limit=0"), "one").await.unwrap(), 400, Some("limit")).await;
    let none: Value = get(path.into(), "other").await.unwrap().json().await.unwrap();
    assert_eq!((&none["data"], &none["first_id"]), (&json!([]), &Value::Null));

    let one = format!("{path}/{id}");
    assert_eq!(get(one.clone(), "one").await.unwrap().json::<Value>().await.unwrap(), made);
    envelope(get(one.clone(), "other").await.unwrap(), 404, None).await;
    let rename = |name: Value| stack.post(&one).bearer_auth("one").json(&json!({"name": name})).send();
    let renamed: Value = rename(json!("John")).await.unwrap().json().await.unwrap();
    assert_eq!((&renamed["id"], &renamed["name"]), (&made["id"], &json!("John")));
    for wrong in [json!("Jane"), json!(""), json!(5)] {
        envelope(rename(wrong).await.unwrap(), 400, Some("name")).await;
    }

    let voice = |name: &'static str, consent: String| {
        let form = Form::new().text("name", name).text("consent", consent).part("audio_sample", file(4));
        stack.post("/v1/audio/voices").bearer_auth("one").multipart(form).send()
    };
    let made: Value = voice("mine", id.clone()).await.unwrap().json().await.unwrap();
    assert_eq!((&made["object"], &made["name"]), (&json!("audio.voice"), &json!("mine")));
    let unknown = voice("yours", "cons_0199".into()).await.unwrap();
    assert!(envelope(unknown, 400, Some("consent")).await.contains("voice_consents"));
    let removed = stack.client.delete(format!("{}{one}", stack.url)).bearer_auth("one").send().await.unwrap();
    let expected = json!({"id": id, "object": "audio.voice_consent", "deleted": true});
    assert_eq!(removed.json::<Value>().await.unwrap(), expected);
    envelope(voice("yours", id).await.unwrap(), 400, Some("consent")).await;
}

#[tokio::test]
async fn a_voice_needs_consent_and_is_listed_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_owned();
    let stack = Stack::with(&[Capability::Tts], move |config| config.gateway.clips.dir = Some(folder)).await;
    let send =
        |form: Form| stack.post("/v1/audio/voices").multipart(form.part("audio_sample", file(4))).send();
    envelope(send(Form::new().text("name", "My voice")).await.unwrap(), 400, Some("consent")).await;
    let form = Form::new().text("name", "My voice").text("consent", "Ada, 2026-11-26: for this service");
    let made: Value = send(form).await.unwrap().json().await.unwrap();
    assert_eq!(made["object"], "audio.voice");
    let listed: Value = stack.get("/v1/audio/speakers").await.json().await.unwrap();
    assert_eq!(listed["data"], json!([]));
    let url = format!("{}/v1/audio/voices/{}", stack.url, made["id"].as_str().unwrap());
    assert_eq!(stack.client.delete(&url).send().await.unwrap().status(), 200);
    assert_eq!(stack.client.delete(&url).send().await.unwrap().status(), 404);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
