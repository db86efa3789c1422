//! How speech is asked for beyond its text: what is left out of it, emotions, loudness, containers, own voices.

use contract::Capability;
use serde_json::{Value, json};

use crate::gateway::tests::stack::{Stack, envelope, samples, wav};

/// What the engine was asked for last.
async fn asked(stack: &Stack, request: Value, field: &str) -> Option<String> {
    let response = stack.speak(request).await;
    assert_eq!(response.status(), 200);
    response.bytes().await.unwrap();
    stack.engines[1].seen.lock().last().unwrap().field(field)
}

#[tokio::test]
async fn marks_are_left_out_for_engines_that_stumble_unless_the_client_wants_them() {
    let stack = Stack::start().await;
    let input = "# Good **morning** 🎉\nSee [the plan](https://example.com/x).";
    let spoken = asked(&stack, json!({"input": input}), "text").await;
    assert_eq!(spoken.as_deref(), Some("Good morning.\nSee the plan."));
    let spoken = asked(&stack, json!({"input": input, "clean_text": false}), "text").await.unwrap();
    assert!(spoken.contains("https://example.com/x") && spoken.contains('#'), "{spoken}");
    let silent = stack.speak(json!({"input": "🎉", "response_format": "wav"})).await;
    assert_eq!(silent.status(), 200);
    envelope(stack.speak(json!({"input": "Hi.", "clean_text": "maybe"})).await, 400, Some("clean_text"))
        .await;
    let long = json!({"input": "*".repeat(4097)});
    envelope(stack.speak(long).await, 400, Some("input")).await;
}

#[tokio::test]
async fn ssml_is_spoken_as_its_text_where_the_engine_would_read_its_tags_aloud() {
    let stack = Stack::start().await;
    let input = r#"<speak>Good <prosody rate="slow">morning</prosody>.<break time="1s"/> See you.</speak>"#;
    let spoken = asked(&stack, json!({"input": input}), "text").await;
    assert_eq!(spoken.as_deref(), Some("Good morning. See you."));
    // A server of OpenAI's shape may take it: it gets the text as it is.
    let able = Stack::with(&[Capability::Tts], |config| {
        config.engines[0].protocols = crate::protocol::Protocol::named("openai").into_iter().collect();
    })
    .await;
    able.engines[0].answer(200, &[("content-type", "audio/pcm")], samples());
    let request = json!({"input": input, "voice": "alloy", "response_format": "pcm"});
    assert_eq!(able.speak(request).await.status(), 200);
    let body: Value = serde_json::from_slice(&able.engines[0].seen.lock()[0].body).unwrap();
    assert_eq!(body["input"], input);
}

#[tokio::test]
async fn an_emotion_is_one_of_the_voices_own() {
    let stack = Stack::start().await;
    let mia = "Magpie-Multilingual.EN-US.Mia";
    for (request, voice) in [
        (json!({"voice": mia, "instructions": "Sound angry, please."}), "Mia.Angry"),
        (json!({"voice": mia, "instructions": "Do not sound angry."}), "Mia"),
        (json!({"voice": mia, "instructions": "None"}), "Mia"),
        (json!({"voice": mia, "emotion": "angry"}), "Mia.Angry"),
        (json!({"voice": "coral.angry"}), "Mia.Angry"),
        (json!({"voice": "alloy", "instructions": "Be furious!"}), "Sofia"),
    ] {
        let mut with_input = request.clone();
        with_input["input"] = "Hi there.".into();
        let asked = asked(&stack, with_input, "voice").await.unwrap();
        assert_eq!(asked, format!("Magpie-Multilingual.EN-US.{voice}"), "{request}");
    }
    let request = json!({"input": "Hi.", "voice": mia, "emotion": "Sad"});
    envelope(stack.speak(request).await, 400, Some("emotion")).await;
    let request = json!({"input": "Hi.", "instructions": "x".repeat(4097)});
    envelope(stack.speak(request).await, 400, Some("instructions")).await;
}

#[tokio::test]
async fn loudness_is_a_factor_and_webm_is_a_container() {
    let stack = Stack::start().await;
    let request = json!({"input": "Hi there.", "model": "tts-1", "response_format": "pcm", "volume": 0.5});
    let soft = stack.speak(request).await.bytes().await.unwrap();
    let whole = samples();
    let of = |bytes: &[u8]| -> Vec<i16> {
        bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    };
    assert_eq!(soft.len(), whole.len());
    for (soft, whole) in of(&soft).into_iter().zip(of(&whole)) {
        assert!((f32::from(soft) - f32::from(whole) / 2.0).abs() <= 0.5);
    }
    for volume in [json!(-1), json!(5), json!("loud")] {
        let request = json!({"input": "Hi.", "volume": volume});
        envelope(stack.speak(request).await, 400, Some("volume")).await;
    }
    let webm = stack.speak(json!({"input": "Hi there.", "response_format": "webm"})).await;
    assert_eq!(webm.headers()["content-type"], "audio/webm");
    assert!(webm.bytes().await.unwrap().starts_with(&[0x1A, 0x45, 0xDF, 0xA3]));
}

#[tokio::test]
async fn an_own_voice_needs_an_engine_that_imitates() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_owned();
    let both = [Capability::Stt, Capability::Tts];
    let stack = Stack::with(&both, move |config| config.gateway.clips.dir = Some(folder)).await;
    let file = reqwest::multipart::Part::bytes(wav(4 * 32_000)).file_name("me.wav");
    let form = reqwest::multipart::Form::new()
        .text("name", "mine")
        .text("consent", "mine")
        .part("audio_sample", file);
    let made = stack.post("/v1/audio/voices").multipart(form).send().await.unwrap();
    assert_eq!(made.status(), 200);
    let listed = async |key: &str| {
        let request = stack.client.get(format!("{}/v1/audio/voices", stack.url)).header("x-api-key", key);
        let list: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
        list["voices"][0]["name"].as_str().unwrap().to_owned()
    };
    assert_ne!(listed("another's").await, "mine");
    let first = stack.get("/v1/audio/voices").await.json::<serde_json::Value>().await.unwrap();
    assert_eq!(first["voices"][0]["name"], "mine", "{first}");
    let message =
        envelope(stack.speak(json!({"input": "Hi.", "voice": "mine"})).await, 400, Some("voice")).await;
    assert!(message.contains("imitates"), "{message}");
    assert_eq!(stack.engines[1].begun(), 0);
}
