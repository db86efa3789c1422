//! Speech: formats, voices, bytes as they are made, and what is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::gateway::tests::stack::{SYNTHESIZE, Stack, envelope, samples};

#[tokio::test]
async fn every_format_comes_in_its_own_type() {
    let stack = Stack::start().await;
    let formats: [(&str, &str, &[u8]); 5] = [
        ("mp3", "audio/mpeg", b"\xff"),
        ("opus", "audio/opus", b"OggS"),
        ("flac", "audio/flac", b"fLaC"),
        ("wav", "audio/wav", b"RIFF"),
        ("pcm", "audio/pcm", &samples()[..4]),
    ];
    for (format, content_type, magic) in formats {
        let response = stack
            .speak(json!({"model": "tts-1", "input": "Hi.", "voice": "alloy", "response_format": format}))
            .await;
        assert_eq!(response.status(), 200, "{format}");
        assert_eq!(response.headers()["content-type"], content_type);
        let audio = response.bytes().await.unwrap();
        assert!(audio.starts_with(magic), "{format}: {:?}", &audio[..4]);
    }
}

#[tokio::test]
async fn pcm_is_what_the_engine_spoke_and_wav_the_same_with_a_header() {
    let stack = Stack::start().await;
    let request =
        |format: &str| json!({"model": "tts-1", "input": "Hi.", "voice": "alloy", "response_format": format});
    assert_eq!(stack.speak(request("pcm")).await.bytes().await.unwrap(), samples());
    assert!(stack.speak(request("wav")).await.bytes().await.unwrap().ends_with(&samples()));
    let seen = stack.engines[1].seen.lock()[0].clone();
    assert_eq!(seen.path, SYNTHESIZE);
    assert_eq!(seen.field("text").as_deref(), Some("Hi."));
    assert_eq!(seen.field("voice").as_deref(), Some("Magpie-Multilingual.EN-US.Sofia"));
    assert_eq!(seen.field("language").as_deref(), Some("en-US"));
    assert_eq!(seen.field("sample_rate_hz").as_deref(), Some("24000"));
    assert_eq!(seen.field("encoding").as_deref(), Some("LINEAR_PCM"));
}

#[tokio::test]
async fn speed_changes_the_length() {
    let stack = Stack::start().await;
    for speed in [json!(2.0), json!("0.5"), json!(1)] {
        let request = json!({"model": "tts-1", "input": "Hi.", "response_format": "pcm", "speed": speed});
        let audio = stack.speak(request).await.bytes().await.unwrap();
        let factor = speed.as_str().map_or_else(|| speed.as_f64().unwrap(), |text| text.parse().unwrap());
        assert_eq!(audio.len(), (samples().len() as f64 / factor) as usize, "{speed}");
    }
}

#[tokio::test]
async fn events_hold_the_audio_and_end_with_usage() {
    let stack = Stack::start().await;
    let request =
        json!({"model": "gpt-4o-mini-tts", "input": "Hi.", "response_format": "pcm", "stream_format": "sse"});
    let response = stack.speak(request).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let events = response.text().await.unwrap();
    let data: Vec<Value> = events
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|data| serde_json::from_str(data).ok())
        .collect();
    let audio: Vec<u8> = data
        .iter()
        .filter_map(|event| event["audio"].as_str())
        .flat_map(|audio| STANDARD.decode(audio).unwrap())
        .collect();
    assert_eq!(audio, samples());
    let done = data.last().unwrap();
    assert_eq!(done["type"], "speech.audio.done");
    let tokens = |name: &str| done["usage"][name].as_u64().unwrap();
    assert_eq!(tokens("total_tokens"), tokens("input_tokens") + tokens("output_tokens"));
    assert!(events.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn the_default_format_follows_the_dialect() {
    let stack = Stack::start().await;
    let openai = stack.speak(json!({"model": "tts-1", "input": "Hi.", "voice": "alloy"})).await;
    assert_eq!(openai.headers()["content-type"], "audio/mpeg");
    let spark = stack.speak(json!({"input": "Hi.", "sample_rate_hz": 22050, "language": "en-US"})).await;
    assert_eq!(spark.headers()["content-type"], "audio/wav");
    let seen = stack.engines[1].seen.lock()[1].clone();
    assert_eq!(seen.field("voice").as_deref(), Some("Magpie-Multilingual.EN-US.Mia"));
    assert_eq!(seen.field("sample_rate_hz").as_deref(), Some("22050"));
}

#[tokio::test]
async fn voices_are_known_by_every_name() {
    let stack = Stack::start().await;
    let voices = [
        (json!("alloy"), "Magpie-Multilingual.EN-US.Sofia"),
        (json!({"id": "Alloy"}), "Magpie-Multilingual.EN-US.Sofia"),
        (json!("Magpie-Multilingual.EN-US.Mia.Angry"), "Magpie-Multilingual.EN-US.Mia.Angry"),
        (json!("magpie-multilingual.es-us.diego"), "Magpie-Multilingual.ES-US.Diego"),
    ];
    for (at, (voice, expected)) in voices.into_iter().enumerate() {
        let response = stack.speak(json!({"model": "tts-1", "input": "Hi.", "voice": voice})).await;
        assert_eq!(response.status(), 200);
        assert_eq!(stack.engines[1].seen.lock()[at].field("voice").as_deref(), Some(expected));
    }
    let seen = stack.engines[1].seen.lock()[3].clone();
    assert_eq!(seen.field("language").as_deref(), Some("es-US"));
    let model = "Magpie-Multilingual.ES-US.Diego";
    let response = stack.speak(json!({"model": model, "input": "Hola."})).await;
    assert_eq!(response.status(), 200);
    assert_eq!(stack.engines[1].seen.lock()[4].field("voice").as_deref(), Some(model));
}

#[tokio::test]
async fn every_voice_of_openai_is_spoken_by_a_speaker_that_the_engine_has() {
    let stack = Stack::start().await;
    let all = [
        "alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse",
        "marin", "cedar",
    ];
    // The list of voices is known from the first call of it on.
    stack.get("/v1/audio/voices").await;
    for voice in all {
        let response = stack.speak(json!({"model": "tts-1", "input": "Hi.", "voice": voice})).await;
        assert_eq!(response.status(), 200, "{voice}");
    }
    for seen in stack.engines[1].seen.lock().iter() {
        let voice = seen.field("voice").unwrap();
        assert!(
            ["Magpie-Multilingual.EN-US.Mia", "Magpie-Multilingual.EN-US.Sofia"].contains(&&*voice),
            "{voice}"
        );
    }
}

#[tokio::test]
async fn names_of_other_servers_for_rate_and_language_are_taken() {
    let stack = Stack::start().await;
    for (format, rate) in [("pcm", 16_000), ("mp3", 22_050), ("opus", 48_000), ("wav", 44_100)] {
        let request = json!({
            "model": "tts-1", "input": "Hi.", "response_format": format, "sample_rate": rate,
            "lang_code": "es-US",
        });
        assert_eq!(stack.speak(request).await.status(), 200, "{format}");
        let seen = stack.engines[1].seen.lock().last().unwrap().clone();
        assert_eq!(seen.field("sample_rate_hz"), Some(rate.to_string()), "{format}");
        assert_eq!(seen.field("language").as_deref(), Some("es-US"), "{format}");
    }
    let unknown = json!({"model": "tts-1", "input": "Hi.", "voice": "alloy", "lang_code": "a"});
    assert_eq!(stack.speak(unknown).await.status(), 200);
    let seen = stack.engines[1].seen.lock().last().unwrap().clone();
    assert_eq!(seen.field("language").as_deref(), Some("en-US"), "that of the voice");
}

#[tokio::test]
async fn the_first_bytes_leave_before_the_engine_is_done() {
    let stack = Stack::start().await;
    let engine = stack.engines[1].stream();
    let speaking = tokio::spawn(
        stack.post("/v1/audio/speech").json(&json!({"input": "Hi.", "response_format": "pcm"})).send(),
    );
    engine.send(Ok(samples().into())).await.unwrap();
    let mut audio = speaking.await.unwrap().unwrap().bytes_stream();
    assert_eq!(audio.next().await.unwrap().unwrap(), samples());
    // Half a sample waits for its other half.
    engine.send(Ok(vec![1, 2, 3].into())).await.unwrap();
    assert_eq!(audio.next().await.unwrap().unwrap(), vec![1, 2]);
    engine.send(Ok(vec![4].into())).await.unwrap();
    assert_eq!(audio.next().await.unwrap().unwrap(), vec![3, 4]);
    drop(engine);
    assert!(audio.next().await.is_none());
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_engine() {
    let stack = Stack::start().await;
    let engine = stack.engines[1].stream();
    let speaking = tokio::spawn(
        stack.post("/v1/audio/speech").json(&json!({"input": "Hi.", "response_format": "pcm"})).send(),
    );
    engine.send(Ok(samples().into())).await.unwrap();
    drop(speaking.await.unwrap().unwrap());
    tokio::time::timeout(std::time::Duration::from_secs(20), engine.closed()).await.unwrap();
}

#[tokio::test]
async fn long_text_is_spoken_piece_by_piece() {
    let stack = Stack::start().await;
    let text = "This is a sentence of some length, and there are many like it. ".repeat(60);
    let response = stack.speak(json!({"input": text, "response_format": "pcm"})).await;
    let audio = response.bytes().await.unwrap();
    let seen = stack.engines[1].seen.lock().clone();
    assert!(seen.len() > 2);
    assert_eq!(audio, samples().repeat(seen.len()));
    let pieces: Vec<String> = seen.iter().map(|seen| seen.field("text").unwrap()).collect();
    assert_eq!(pieces.join(" "), text.trim());
    assert!(pieces[0].len() < pieces[1].len());
}

#[tokio::test]
async fn speech_that_fails_before_its_first_byte_is_a_clean_error() {
    let stack = Stack::start().await;
    stack.engines[1].answer(200, &[], "");
    assert_eq!(stack.speak(json!({"input": "Hi."})).await.status(), 200);
    stack.engines[1].answer(200, &[], "");
    stack.engines[1].answer(200, &[], "");
    envelope(stack.speak(json!({"input": "Hi."})).await, 503, None).await;
    stack.engines[1].answer(400, &[], r#"{"detail":"text too long"}"#);
    assert_eq!(
        envelope(stack.speak(json!({"input": "Hi."})).await, 400, Some("input")).await,
        "text too long"
    );
}

#[tokio::test]
async fn speech_that_fails_later_is_cut_and_not_ended() {
    let stack = Stack::start().await;
    let engine = stack.engines[1].stream();
    let speaking = tokio::spawn(
        stack.post("/v1/audio/speech").json(&json!({"input": "Hi.", "response_format": "pcm"})).send(),
    );
    engine.send(Ok(samples().into())).await.unwrap();
    let response = speaking.await.unwrap().unwrap();
    engine.send(Err(std::io::ErrorKind::BrokenPipe.into())).await.unwrap();
    assert!(response.bytes().await.is_err());
}

#[tokio::test]
async fn bad_requests_reach_no_engine() {
    let stack = Stack::start().await;
    let cases = [
        (json!({"model": "tts-1"}), 400, Some("input")),
        (json!({"input": "  "}), 400, Some("input")),
        (json!({"input": 5}), 400, Some("input")),
        (json!({"input": "é".repeat(4097)}), 400, Some("input")),
        (json!({"input": "Hi.", "model": "gpt-5"}), 404, Some("model")),
        (json!({"input": "Hi.", "model": "whisper-1"}), 400, Some("model")),
        (json!({"input": "Hi.", "voice": "nobody"}), 400, Some("voice")),
        (json!({"input": "Hi.", "voice": "Magpie-Multilingual.EN-US.Nobody"}), 400, Some("voice")),
        (json!({"input": "Hi.", "voice": {"name": "x"}}), 400, Some("voice")),
        (json!({"input": "Hi.", "response_format": "midi"}), 400, Some("response_format")),
        (json!({"input": "Hi.", "speed": 4.5}), 400, Some("speed")),
        (json!({"input": "Hi.", "speed": "fast"}), 400, Some("speed")),
        (json!({"input": "Hi.", "stream_format": "ogg"}), 400, Some("stream_format")),
        (json!({"input": "Hi.", "sample_rate_hz": 4}), 400, Some("sample_rate_hz")),
        (
            json!({"input": "Hi.", "sample_rate_hz": 22050, "response_format": "opus"}),
            400,
            Some("sample_rate_hz"),
        ),
        (json!({"input": "Hi.", "sample_rate": 100, "response_format": "pcm"}), 400, Some("sample_rate")),
        (json!({"input": "Hi.", "encoding": "OGGOPUS"}), 400, Some("encoding")),
        (json!({"input": "Hi.", "language": "??"}), 400, Some("language")),
        (json!(["Hi."]), 400, None),
    ];
    for (request, status, param) in cases {
        envelope(stack.speak(request).await, status, param).await;
    }
    let response = stack.post("/v1/audio/speech").body("{\"input\": ").send().await.unwrap();
    envelope(response, 400, None).await;
    let response = stack.post("/v1/audio/speech").body(vec![b' '; 300_000]).send().await.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(stack.engines[1].begun(), 0);
    assert_eq!(stack.speak(json!({"input": "é".repeat(4096)})).await.status(), 200);
}
