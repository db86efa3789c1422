//! What clients of OpenAI's API stumble over at other servers, over the wire.

use bytes::Bytes;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use contract::Capability;

use crate::audio::signal::speech;
use crate::audio::{Encoder, OutputFormat};
use crate::gateway::tests::stack::{Stack, TRANSCRIBE, envelope, form, samples, wav};
use crate::protocol::Protocol;

/// A stack whose engine takes few formats and no name of a model.
async fn nim() -> Stack {
    Stack::with(&[Capability::Stt], |config| {
        config.engines[0].protocols = Protocol::named("nim_http").into_iter().collect();
    })
    .await
}

#[tokio::test]
async fn arrays_come_in_every_spelling() {
    let stack = Stack::start().await;
    for fields in [
        &[("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")][..],
        &[("timestamp_granularities", "word"), ("timestamp_granularities", "segment")],
        &[("timestamp_granularities", "word, segment")],
        &[("timestamp_granularities", r#"["word", "segment"]"#)],
        &[("timestamp_granularities[0]", "word"), ("timestamp_granularities[1]", "segment")],
    ] {
        let others = [("response_format", "verbose_json"), ("chunking_strategy[type]", "server_vad")];
        let body: Value = stack.transcribe(&[fields, &others].concat()).await.json().await.unwrap();
        assert!(body["words"].is_array() && body["segments"].is_array(), "{fields:?}: {body}");
    }
    for strategy in ["auto", r#"{"type": "server_vad", "threshold": 0.6}"#] {
        assert_eq!(stack.transcribe(&[("chunking_strategy", strategy)]).await.status(), 200, "{strategy}");
    }
}

#[tokio::test]
async fn vocabulary_and_languages_reach_the_engine_in_every_spelling() {
    let stack = Stack::start().await;
    let last = |name: &str| stack.engines[0].seen.lock().last().unwrap().field(name);
    for fields in [
        &[("keywords[]", "Ada"), ("keywords[]", "Grace")][..],
        &[("keywords", "Ada, Grace")],
        &[("keywords", r#"["Ada", "Grace"]"#)],
        &[("keywords[0]", "Ada"), ("keywords[1]", "Grace")],
        &[("hotwords", "Ada,Grace")],
    ] {
        assert_eq!(stack.transcribe(fields).await.status(), 200, "{fields:?}");
        assert_eq!(last("prompt").as_deref(), Some("Ada, Grace"), "{fields:?}");
    }
    for (fields, language) in [
        (&[("languages[]", "de")][..], Some("de")),
        (&[("languages", r#"["de"]"#)], Some("de")),
        (&[("languages[]", "de"), ("languages[]", "fr")], None),
    ] {
        assert_eq!(stack.transcribe(fields).await.status(), 200, "{fields:?}");
        assert_eq!(last("language").as_deref(), language, "{fields:?}");
    }
    for keyword in ["<b>", "two\nlines"] {
        envelope(stack.transcribe(&[("keywords[]", keyword)]).await, 400, Some("keywords")).await;
    }
    let both = [("language", "en"), ("languages[]", "de")];
    envelope(stack.transcribe(&both).await, 400, Some("languages")).await;
    // The reply says what was heard, as LiveKit reads it.
    for stream in ["false", "true"] {
        stack.engines[0].answer(200, &[], r#"{"text": "Guten Tag.", "language": "German"}"#);
        let text =
            stack.transcribe(&[("model", "gpt-transcribe"), ("stream", stream)]).await.text().await.unwrap();
        assert!(text.contains(r#""languages":[{"code":"de"}]"#), "{text}");
    }
}

#[tokio::test]
async fn a_language_is_taken_in_every_spelling_and_told_by_its_english_name() {
    let stack = Stack::start().await;
    for language in ["en", "EN", "en-US", "en_us", "english", "English", "", "auto", "None", "null"] {
        let response = stack.transcribe(&[("language", language), ("response_format", "verbose_json")]).await;
        assert_eq!(response.status(), 200, "{language}");
        assert_eq!(response.json::<Value>().await.unwrap()["language"], "english", "{language}");
    }
    envelope(stack.transcribe(&[("language", "klingon")]).await, 400, Some("language")).await;
}

#[tokio::test]
async fn no_name_of_a_model_reaches_an_engine_that_would_take_it_for_its_own() {
    let stack = nim().await;
    for model in
        ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe-2025-12-15", "parakeet-tdt-0.6b-v3"]
    {
        assert_eq!(stack.transcribe(&[("model", model), ("language", "en")]).await.status(), 200, "{model}");
    }
    for seen in stack.engines[0].seen.lock().iter() {
        assert_eq!((seen.field("model"), seen.field("language").as_deref()), (None, Some("en-US")));
    }
}

#[tokio::test]
async fn a_file_is_judged_by_its_bytes_and_not_by_its_name_or_type() {
    let stack = Stack::start().await;
    for headers in [
        "filename=\"blob\"",
        "filename=\"speech\"\r\nContent-Type: application/octet-stream",
        "filename=\"speech.mp3\"\r\nContent-Type: audio/mpeg",
        "filename=\"speech.bin\"\r\nContent-Type: text/plain",
        "filename=\"\"",
    ] {
        let mut body =
            format!("--x\r\nContent-Disposition: form-data; name=\"file\"; {headers}\r\n\r\n").into_bytes();
        body.extend(wav(32_000));
        body.extend(b"\r\n--x--\r\n");
        let request = stack.post(TRANSCRIBE).header("content-type", "multipart/form-data; boundary=x");
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{headers}");
    }
}

#[tokio::test]
async fn an_engine_of_few_formats_gets_one_of_them_whatever_comes() {
    let stack = nim().await;
    for format in [OutputFormat::Mp3, OutputFormat::Webm, OutputFormat::Opus, OutputFormat::Flac] {
        let mut encoder = Encoder::new(format, 48_000).unwrap();
        let mut file = encoder.encode(&speech(48_000, 0.5)).unwrap().to_vec();
        file.extend(encoder.finish().unwrap());
        let part = Part::bytes(Bytes::from(file).to_vec()).file_name("recording");
        let response = stack.post(TRANSCRIBE).multipart(Form::new().part("file", part)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{}", format.name());
        let got = stack.engines[0].seen.lock().last().unwrap().file();
        assert!(
            [&b"RIFF"[..], b"fLaC", b"OggS"].iter().any(|magic| got.starts_with(magic)),
            "{}",
            format.name()
        );
    }
}

#[tokio::test]
async fn each_dialect_names_speakers_in_its_own_way() {
    let stack = Stack::start().await;
    let ask = |path: &'static str, fields: &[(&'static str, &'static str)]| {
        let request = stack.post(path).multipart(form(fields, wav(32_000)));
        async { request.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    let openai = ask(TRANSCRIBE, &[("response_format", "diarized_json")]).await;
    assert_eq!(
        (&openai["segments"][0]["speaker"], &openai["segments"][1]["speaker"]),
        (&json!("A"), &json!("B"))
    );
    let spark = ask("/api/audio/transcribe-with-speakers", &[]).await;
    assert_eq!(spark["speakers_detected"], json!(["Speaker_0", "Speaker_1"]));
    let turns = ask("/v1/audio/diarizations", &[]).await;
    assert_eq!(turns["segments"][0]["speaker"], "SPEAKER_00");
}

#[tokio::test]
async fn what_the_input_is_to_blame_for_is_not_tried_again_and_the_rest_soon() {
    let stack = Stack::start().await;
    stack.engines[0].answer(400, &[], r#"{"detail": "audio too long"}"#);
    let refused = stack.transcribe(&[]).await;
    assert_eq!(refused.headers()["x-should-retry"], "false");
    assert!(!refused.headers().contains_key("retry-after"));
    envelope(refused, 400, Some("file")).await;
    let without = Stack::with(&[Capability::Stt], |config| {
        config.gateway.wait.max_wait = std::time::Duration::ZERO;
    })
    .await;
    without.engines[0].shows(contract::State::Ejected, 0.0);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let away = loop {
        let response = without.transcribe(&[]).await;
        if response.status() == 503 {
            break response;
        }
        assert!(tokio::time::Instant::now() < deadline, "the engine still serves");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    // SDKs give up where they would wait for longer: older ones at 60 s.
    let after: u64 = away.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");
    assert_eq!(away.headers()["x-should-retry"], "true");
}

#[tokio::test]
async fn events_are_not_kept_back_on_their_way() {
    let stack = Stack::start().await;
    let transcript = stack.transcribe(&[("model", "gpt-4o-transcribe"), ("stream", "on")]).await;
    let speech =
        json!({"model": "gpt-4o-mini-tts", "input": "Hi.", "response_format": "pcm", "stream_format": "sse"});
    for response in [transcript, stack.speak(speech).await] {
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        assert_eq!(response.headers()["cache-control"], "no-cache");
        assert!(response.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    }
}

#[tokio::test]
async fn a_wav_begins_with_its_header_and_sound_in_one_chunk() {
    let stack = Stack::start().await;
    let mut response = stack.speak(json!({"model": "tts-1", "input": "Hi.", "response_format": "wav"})).await;
    let first = response.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"RIFF") && first.len() > 44, "{} bytes", first.len());
    let size = |at: usize| u32::from_le_bytes(first[at..at + 4].try_into().unwrap());
    assert_eq!(size(24), 24_000, "the rate");
    // How long it will be is not known yet; players take the largest sizes for that.
    assert!(size(40) >= 0x7FFF_0000 || size(40) as usize == samples().len(), "{:#x}", size(40));
}

#[tokio::test]
async fn sdks_that_accept_any_bytes_get_the_type_of_the_format() {
    let stack = Stack::start().await;
    let ask = |accept: &'static str| {
        let body =
            json!({"model": "tts-1", "input": "Hi.", "voice": {"id": "alloy"}, "instructions": "None"});
        stack.post("/v1/audio/speech").header("accept", accept).json(&body).send()
    };
    for accept in ["application/octet-stream", "*/*", "application/json"] {
        let response = ask(accept).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"audio/mpeg".parse().unwrap()),
            "{accept}"
        );
    }
}

#[tokio::test]
async fn values_that_clients_mean_as_nothing_are_nothing() {
    let stack = Stack::start().await;
    for nothing in ["", "None", "null", "undefined"] {
        let fields = ["language", "prompt", "temperature", "response_format", "model", "stream", "include[]"];
        let fields: Vec<_> = fields.into_iter().map(|name| (name, nothing)).collect();
        let body: Value = stack.transcribe(&fields).await.json().await.unwrap();
        assert_eq!(body["text"], "So it is. Yes.", "{nothing:?}: {body}");
    }
    for seen in stack.engines[0].seen.lock().iter() {
        assert_eq!((seen.field("language"), seen.field("prompt")), (None, None));
    }
}

#[tokio::test]
async fn servers_that_clients_look_for_are_not_mistaken_for_this_one() {
    let stack = Stack::start().await;
    let health: Value = stack.get("/health").await.json().await.unwrap();
    assert_eq!(health["status"], "ok", "a text OK would be another server");
    assert_eq!(stack.get("/readyz").await.status(), 200);
    for other in ["/v1/readyz", "/v1/test", "/test"] {
        envelope(stack.get(other).await, 404, None).await;
    }
}
