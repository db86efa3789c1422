//! Other ways to the same transcription: a body that is the file, paths of other servers.

use serde_json::Value;

use crate::gateway::tests::stack::{Stack, envelope, form, wav};

#[tokio::test]
async fn a_file_comes_alone_with_its_fields_in_the_url() {
    let stack = Stack::start().await;
    let path =
        "/v1/audio/transcriptions?model=whisper-1&response_format=verbose_json&language=en%2DUS&prompt=so+it";
    let send =
        |kind: &'static str, body: Vec<u8>| stack.post(path).header("content-type", kind).body(body).send();
    for kind in ["audio/wav", "Application/Octet-Stream"] {
        let body: Value = send(kind, wav(48_000)).await.unwrap().json().await.unwrap();
        assert_eq!(
            (&body["task"], &body["text"]),
            (&"transcribe".into(), &"So it is. Yes.".into()),
            "{body}"
        );
    }
    let seen = stack.engines[0].seen.lock()[0].clone();
    assert_eq!(seen.field("language").as_deref(), Some("en-US"));
    assert_eq!(seen.headers["x-speechstack-audio-seconds"], "1.500");
    // Long enough to be read while it is sent on, and not to be split.
    let long: Value = send("audio/wav", wav(3_600_000)).await.unwrap().json().await.unwrap();
    assert_eq!(long["text"], "So it is. Yes.");
    envelope(send("audio/wav", Vec::new()).await.unwrap(), 400, Some("file")).await;
    envelope(send("audio/wav", b"no audio".to_vec()).await.unwrap(), 400, Some("file")).await;
    envelope(send("text/plain", wav(100)).await.unwrap(), 400, None).await;
    let bad =
        stack.post("/v1/audio/transcriptions?prompt=%ff").header("content-type", "audio/wav").body(wav(100));
    envelope(bad.send().await.unwrap(), 400, None).await;
    assert_eq!(stack.engines[0].seen.lock().len(), 3, "nothing bad reaches an engine");
}

#[tokio::test]
async fn azures_and_whisper_cpps_paths_work() {
    let stack = Stack::start().await;
    let deployed = "/openai/deployments/whisper-1/audio/transcriptions?api-version=2025-03-01-preview";
    for path in [deployed, "/openai/v1/audio/transcriptions?api-version=preview", "/inference"] {
        let fields = [("temperature", "0.0"), ("response_format", "json")];
        let body: Value = stack
            .post(path)
            .multipart(form(&fields, wav(32_000)))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(body["text"], "So it is. Yes.", "{path}");
    }
    let unknown =
        stack.post("/openai/deployments/mine/audio/transcriptions").multipart(form(&[], wav(32_000)));
    envelope(unknown.send().await.unwrap(), 404, Some("model")).await;
    let translated = stack.post("/inference").multipart(form(&[("translate", "true")], wav(32_000)));
    envelope(translated.send().await.unwrap(), 400, Some("translate")).await;
}

#[tokio::test]
async fn azures_sdk_names_the_model_by_its_deployment_and_its_key_in_api_key() {
    let stack = Stack::start().await;
    let speech = serde_json::json!({"model": "tts-1", "input": "Hi.", "voice": "alloy"});
    let spoken = stack
        .post("/openai/deployments/tts-1/audio/speech?api-version=2025-04-01-preview")
        .header("api-key", "0123456789abcdef0123456789abcdef")
        .json(&speech)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (spoken.status().as_u16(), &spoken.headers()["content-type"]),
        (200, &"audio/mpeg".parse().unwrap())
    );
    assert!(!stack.engines[1].seen.lock()[0].headers.contains_key("api-key"), "the engine gets no key");
    let without = serde_json::json!({"input": "Hi."});
    let spoken = stack.post("/openai/deployments/tts-1/audio/speech").json(&without).send().await.unwrap();
    assert_eq!(
        spoken.headers()["content-type"],
        "audio/mpeg",
        "the deployment is a model: OpenAI's default format"
    );
    let able = Stack::with(&[contract::Capability::Stt], |config| {
        config.engines[0].protocols = crate::protocol::Protocol::named("openai").into_iter().collect();
    })
    .await;
    let translate = |deployment: &str| {
        let path =
            format!("/openai/deployments/{deployment}/audio/translations?api-version=2025-04-01-preview");
        able.post(&path).multipart(form(&[], wav(32_000))).send()
    };
    assert_eq!(
        translate("whisper-1").await.unwrap().json::<Value>().await.unwrap()["text"],
        "So it is. Yes."
    );
    envelope(translate("mine").await.unwrap(), 404, Some("model")).await;
    assert_eq!(able.engines[0].complete(), 1);
}

#[tokio::test]
async fn whisper_cpps_server_is_stood_in_for_in_every_format() {
    let stack = Stack::start().await;
    // As whisper.cpp's examples and their users call it; what tunes its decoder means nothing to engines here.
    let ask = |format: &'static str| {
        let fields = [
            ("temperature", "0.0"),
            ("temperature_inc", "0.2"),
            ("response_format", format),
            ("no_timestamps", "false"),
            ("beam_size", "5"),
            ("translate", "false"),
            ("language", "auto"),
        ];
        stack.post("/inference").multipart(form(&fields, wav(32_000))).send()
    };
    for (format, kind, part) in [
        ("json", "application/json", r#""text":"So it is. Yes.""#),
        ("text", "text/plain; charset=utf-8", "So it is. Yes."),
        ("srt", "text/plain; charset=utf-8", "00:00:00,100 --> "),
        ("verbose_json", "application/json", r#""segments":[{"#),
        ("vtt", "text/vtt; charset=utf-8", "WEBVTT"),
    ] {
        let response = ask(format).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &kind.parse().unwrap())
        );
        let body = response.text().await.unwrap();
        assert!(body.contains(part), "{format}: {body}");
    }
}

#[tokio::test]
async fn parakeet_fastapis_parameters_work_on_openais_paths() {
    let stack = Stack::start().await;
    for path in ["/audio/transcriptions", "/v1/audio/transcriptions"] {
        let ask = |fields: &[(&'static str, &'static str)]| {
            stack.post(path).multipart(form(fields, wav(32_000))).send()
        };
        let timed = ask(&[("include_timestamps", "true"), ("should_chunk", "true")]).await.unwrap();
        let timed: Value = timed.json().await.unwrap();
        let times = &timed["timestamps"];
        assert_eq!(timed["text"], "So it is. Yes.");
        assert_eq!(times["word"][0], serde_json::json!({"word": "So", "start": 0.1, "end": 0.4}), "{path}");
        assert_eq!((&times["words"], &times["segments"]), (&times["word"], &times["segment"]));
        assert_eq!(times["segment"][1]["segment"], "Yes.");
        let plain: Value = ask(&[("should_chunk", "false")]).await.unwrap().json().await.unwrap();
        assert!(plain.get("timestamps").is_none(), "{plain}");
        envelope(ask(&[("include_timestamps", "perhaps")]).await.unwrap(), 400, Some("include_timestamps"))
            .await;
    }
}

#[tokio::test]
async fn parakeet_fastapi_tells_a_wrong_type_from_audio_that_cannot_be_transcribed() {
    let stack = Stack::start().await;
    let send = |file: Vec<u8>, name: &'static str| {
        let part = reqwest::multipart::Part::bytes(file).file_name(name);
        stack.post("/transcribe").multipart(reqwest::multipart::Form::new().part("file", part)).send()
    };
    let wrong = send(b"hello".to_vec(), "a.txt").await.unwrap();
    assert_eq!(wrong.status(), 415);
    stack.engines[0].answer(400, &[], r#"{"detail": "could not decode the file"}"#);
    let failed = send(wav(32_000), "a.wav").await.unwrap();
    assert_eq!(failed.status(), 422);
    assert_eq!(failed.json::<Value>().await.unwrap()["detail"], "could not decode the file");
    assert_eq!(
        stack.get("/healthz").await.json::<Value>().await.unwrap(),
        serde_json::json!({"status": "ok"})
    );
}

#[tokio::test]
async fn tldws_paths_work() {
    let stack = Stack::start().await;
    let heard =
        stack.post("/api/v1/audio/transcriptions").multipart(form(&[], wav(32_000))).send().await.unwrap();
    assert_eq!(heard.json::<Value>().await.unwrap()["text"], "So it is. Yes.");
    let speech = serde_json::json!({"model": "tts-1", "input": "Hi.", "voice": "alloy"});
    let spoken = stack.post("/api/v1/audio/speech").json(&speech).send().await.unwrap();
    assert_eq!(spoken.headers()["content-type"], "audio/mpeg");
}
