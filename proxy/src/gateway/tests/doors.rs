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
async fn tldws_paths_work() {
    let stack = Stack::start().await;
    let heard =
        stack.post("/api/v1/audio/transcriptions").multipart(form(&[], wav(32_000))).send().await.unwrap();
    assert_eq!(heard.json::<Value>().await.unwrap()["text"], "So it is. Yes.");
    let speech = serde_json::json!({"model": "tts-1", "input": "Hi.", "voice": "alloy"});
    let spoken = stack.post("/api/v1/audio/speech").json(&speech).send().await.unwrap();
    assert_eq!(spoken.headers()["content-type"], "audio/mpeg");
}
