//! What not every engine gives: how sure it is of its words, and translations.

use contract::Capability;
use serde_json::{Value, json};

use crate::gateway::tests::stack::{Stack, envelope, form, wav};

#[tokio::test]
async fn log_probabilities_come_from_engines_that_say_how_sure_they_are() {
    let stack = Stack::start().await;
    let response = stack.transcribe(&[("include[]", "logprobs")]).await;
    envelope(response, 400, Some("include")).await;
    assert_eq!(stack.engines[0].begun(), 0);
    let sure = Stack::with(&[Capability::Stt], |config| {
        config.engines[0].protocols = crate::protocol::Protocol::named("nemo_speech").into_iter().collect();
    })
    .await;
    let heard = json!({"text": "So it is.", "duration": 1.0, "words": [
        {"word": "So", "start": 0.1, "end": 0.3, "confidence": 1.0},
        {"word": "it", "start": 0.3, "end": 0.5, "confidence": 0.5},
        {"word": "is.", "start": 0.5, "end": 0.9, "confidence": 0.25},
    ]});
    for stream in ["false", "true"] {
        sure.engines[0].answer(200, &[], heard.to_string());
        let response = sure
            .transcribe(&[("model", "gpt-4o-transcribe"), ("include[]", "logprobs"), ("stream", stream)])
            .await;
        assert_eq!(response.status(), 200);
        let text = response.text().await.unwrap();
        let last = text.lines().rev().find_map(|line| line.strip_prefix("data: {"));
        let body = last.map_or_else(|| text.clone(), |last| format!("{{{last}"));
        let body: Value = serde_json::from_str(&body).unwrap();
        let logprobs = body["logprobs"].as_array().unwrap();
        let found: Vec<f64> = logprobs.iter().map(|found| found["logprob"].as_f64().unwrap()).collect();
        assert_eq!((found[0], found[1], found[2]), (0.0, 0.5_f64.ln(), 0.25_f64.ln()), "{body}");
        assert_eq!(logprobs[2]["token"].as_str().unwrap().trim(), "is.");
    }
}

#[tokio::test]
async fn translations_go_to_engines_that_translate() {
    let ask = async |stack: &Stack, fields: &[(&'static str, &'static str)]| {
        let form = form(fields, wav(32_000));
        stack.post("/v1/audio/translations").multipart(form).send().await.unwrap()
    };
    let stack = Stack::start().await;
    assert!(envelope(ask(&stack, &[]).await, 400, None).await.contains("translates"));
    let able = Stack::with(&[Capability::Stt], |config| {
        config.engines[0].protocols = crate::protocol::Protocol::named("openai").into_iter().collect();
    })
    .await;
    let reply = json!({"text": "Good morning.", "language": "german", "duration": 1.0});
    able.engines[0].answer(200, &[], reply.to_string());
    let response = ask(&able, &[("model", "whisper-1"), ("response_format", "verbose_json")]).await;
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["task"], &body["language"]), (&json!("translate"), &json!("english")));
    assert_eq!(
        (&body["text"], &body["segments"][0]["text"]),
        (&json!("Good morning."), &json!("Good morning."))
    );
    assert_eq!(able.engines[0].seen.lock()[0].path, "/v1/audio/translations");
    for (name, value) in [("stream", "true"), ("diarize", "true")] {
        envelope(ask(&able, &[(name, value)]).await, 400, Some(name)).await;
    }
}

#[tokio::test]
async fn where_no_engine_translates_a_language_model_does_and_times_are_kept() {
    let stack = Stack::with(&[Capability::Stt, Capability::Llm], |_| {}).await;
    let ask = async |path: &str, fields: &[(&'static str, &'static str)]| {
        stack.post(path).multipart(form(fields, wav(80_000))).send().await.unwrap()
    };
    let transcript: Value =
        ask("/v1/audio/transcriptions", &[("response_format", "verbose_json")]).await.json().await.unwrap();
    let translations = "/v1/audio/translations";
    let body: Value = ask(translations, &[("response_format", "verbose_json")]).await.json().await.unwrap();
    assert_eq!((&body["task"], &body["language"]), (&json!("translate"), &json!("english")), "{body}");
    let segments = |body: &Value, of: &str| -> Vec<Value> {
        body["segments"].as_array().unwrap().iter().map(|segment| segment[of].clone()).collect()
    };
    assert_eq!(segments(&body, "start"), segments(&transcript, "start"));
    assert_eq!(segments(&body, "end"), segments(&transcript, "end"));
    assert_ne!(body["text"], transcript["text"]);
    let into = |fields: &[(&'static str, &'static str)]| {
        let fields: Vec<_> = [("translate_to", "pt-BR")].into_iter().chain(fields.iter().copied()).collect();
        let request = stack.post("/v1/audio/transcriptions").multipart(form(&fields, wav(80_000)));
        async { request.send().await.unwrap() }
    };
    let verbose: Value = into(&[("response_format", "verbose_json")]).await.json().await.unwrap();
    assert_eq!(
        (&verbose["language"], &verbose["task"]),
        (&json!("portuguese"), &json!("translate")),
        "{verbose}"
    );
    let srt = into(&[("response_format", "srt")]).await.text().await.unwrap();
    assert!(srt.contains("-->") && srt.contains("<So it is.>"), "{srt}");
    let plain: Value = into(&[]).await.json().await.unwrap();
    assert_eq!(plain["text"], verbose["text"]);
    for (name, value) in [("stream", "true"), ("diarize", "true"), ("async", "true")] {
        let refused = into(&[(name, value)]).await;
        assert_eq!(refused.status(), 400, "{name}");
    }
    let unknown = ask("/v1/audio/transcriptions", &[("translate_to", "klingon")]).await;
    envelope(unknown, 400, Some("translate_to")).await;
    let speechless = Stack::start().await;
    let form = form(&[("translate_to", "fr")], wav(32_000));
    let response = speechless.post("/v1/audio/transcriptions").multipart(form).send().await.unwrap();
    assert!(envelope(response, 501, None).await.contains("capability llm"));
}
