//! Real speech in and out.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use futures::StreamExt;
use reqwest::StatusCode;
use reqwest::multipart::Form;
use serde_json::Value;
use speechstack_engine::ffi::Voice;
use speechstack_engine::kind::Kind;
use speechstack_engine::lane::Pace;
use support::{Engine, level, samples, speech, upload};

const SENTENCES: [&str; 4] = [
    "please call me back tomorrow morning at nine",
    "we need to finish the report before the meeting starts",
    "can you tell me how to get to the city hospital",
    "the government will announce the new budget next week",
];

/// Words of `said` that have to be changed, left out or added to make `heard`.
fn word_errors(said: &str, heard: &str) -> usize {
    let heard: Vec<&str> = heard.split_whitespace().collect();
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (i, word) in said.split_whitespace().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in heard.iter().enumerate() {
            let changed = diagonal + usize::from(word != *other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[heard.len()]
}

#[tokio::test]
async fn sentences_of_every_voice_come_back_as_text() {
    let engine = Engine::start(Kind::Stt).await;
    for voice in Voice::ALL {
        let (mut wrong, mut all) = (0, 0);
        for sentence in SENTENCES {
            let (status, body) = engine.transcribe(&speech(voice, sentence)).await;
            assert_eq!(status, StatusCode::OK);
            wrong += word_errors(sentence, body["text"].as_str().unwrap());
            all += sentence.split_whitespace().count();
        }
        assert!(wrong * 5 <= all, "{voice:?}: {wrong} of {all} words");
    }
    engine.stop().await;
}

#[tokio::test]
async fn verbose_json_has_words_in_seconds_with_leading_spaces_and_is_repeatable() {
    let engine = Engine::start(Kind::Stt).await;
    let file = speech(Voice::Slt, SENTENCES[0]);
    let (_, body) = engine.transcribe(&file).await;
    let words = body["words"].as_array().unwrap();
    let text: String = words.iter().map(|word| word["text"].as_str().unwrap()).collect();
    assert_eq!(text.trim_start(), body["text"].as_str().unwrap());
    assert!(words.iter().all(|word| word["text"].as_str().unwrap().starts_with(' ')));
    let time = |value: &Value| value.as_f64().unwrap();
    assert!(words.iter().all(|word| time(&word["start"]) < time(&word["end"])));
    assert!(words.windows(2).all(|pair| time(&pair[0]["end"]) <= time(&pair[1]["start"])));
    assert!(time(&words.last().unwrap()["end"]) <= time(&body["duration"]));
    assert_eq!(body["segments"][0]["id"], 0);
    assert_eq!(body["language"], "en");
    engine.transcribe(&speech(Voice::Awb, SENTENCES[2])).await;
    assert_eq!(engine.transcribe(&file).await.1, body);
    engine.stop().await;
}

#[tokio::test]
async fn formats_and_refusals_are_fastapi_like() {
    let engine = Engine::start(Kind::Stt).await;
    let file = speech(Voice::Rms, "good morning");
    let ask = |format: &'static str| {
        engine.post("/v1/audio/transcriptions", upload(&file).text("response_format", format)).send()
    };
    let json: Value = ask("json").await.unwrap().json().await.unwrap();
    assert_eq!(json, serde_json::json!({ "text": "good morning" }));
    assert_eq!(ask("text").await.unwrap().text().await.unwrap(), "good morning");
    let refused = ask("srt").await.unwrap();
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(refused.json::<Value>().await.unwrap()["detail"].as_str().unwrap().contains("srt"));
    assert_eq!(engine.transcribe(b"").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(engine.transcribe(b"no audio in here").await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let fileless =
        engine.post("/v1/audio/transcriptions", Form::new().text("model", "x")).send().await.unwrap();
    assert_eq!(fileless.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(engine.get("/nowhere").await.status(), StatusCode::NOT_FOUND);
    let silence = speechstack_engine::wav::encode(&[0; 32_000], 16_000);
    let (status, body) = engine.transcribe(&silence).await;
    assert_eq!((status, &body["text"]), (StatusCode::OK, &Value::from("")));
    engine.stop().await;
}

#[tokio::test]
async fn dialogue_is_diarized_over_http() {
    let engine = Engine::start(Kind::Stt).await;
    let mut dialogue = Vec::new();
    for (turn, sentence) in SENTENCES.iter().enumerate() {
        let file = speech(if turn % 2 == 0 { Voice::Slt } else { Voice::Kal16 }, sentence);
        dialogue.extend(samples(&file[44..]));
        dialogue.resize(dialogue.len() + 6_400, 0);
    }
    let file = speechstack_engine::wav::encode(&dialogue, 16_000);
    let response = engine.post("/v1/audio/diarize", upload(&file)).send().await.unwrap();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["speakers_detected"], serde_json::json!(["Speaker_0", "Speaker_1"]));
    let turns: Vec<&str> =
        body["segments"].as_array().unwrap().iter().map(|turn| turn["speaker"].as_str().unwrap()).collect();
    let mut changes = turns.clone();
    changes.dedup();
    assert_eq!(changes, ["Speaker_0", "Speaker_1", "Speaker_0", "Speaker_1"]);
    assert_eq!(body["model"], "reference-pitch-spectrum");
    assert!((body["duration"].as_f64().unwrap() - dialogue.len() as f64 / 16_000.0).abs() < 0.01);
    engine.stop().await;
}

#[tokio::test]
async fn synthesis_has_the_rate_asked_for_in_every_voice() {
    let engine = Engine::start(Kind::Tts).await;
    let list = engine.json("/v1/audio/list_voices").await;
    let voices = list["en-US"]["voices"].as_array().unwrap();
    assert!(voices.contains(&"Magpie-Multilingual.EN-US.Aria".into()));
    let mut lengths = Vec::new();
    for rate in [8_000_u32, 22_050, 48_000] {
        let form = Form::new().text("text", "good morning").text("sample_rate_hz", rate.to_string());
        let file = engine.post("/v1/audio/synthesize", form).send().await.unwrap().bytes().await.unwrap();
        assert_eq!(file[24..28], rate.to_le_bytes());
        assert_eq!(file[40..44], u32::try_from(file.len() - 44).unwrap().to_le_bytes());
        assert!(level(&samples(&file[44..])) > 500.0);
        lengths.push((file.len() - 44) as f64 / 2.0 / f64::from(rate));
    }
    assert!(lengths.iter().all(|length| (length - lengths[0]).abs() < 0.001), "{lengths:?}");
    for voice in ["Magpie-Multilingual.EN-US.Jason", "Magpie-Multilingual.EN-US.Leo.Calm"] {
        let body = format!("text=good%20morning&voice={voice}&language=en-US&encoding=LINEAR_PCM");
        let url = format!("{}/v1/audio/synthesize", engine.url);
        let kind = "application/x-www-form-urlencoded";
        let response = engine.client.post(url).header("content-type", kind).body(body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{voice}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn synthesis_refusals_name_what_is_wrong() {
    let engine = Engine::start(Kind::Tts).await;
    let long = "a".repeat(2001);
    for (field, value, named) in [
        ("text", "  ", "text"),
        ("text", long.as_str(), "2000"),
        ("voice", "Nobody", "Nobody"),
        ("sample_rate_hz", "7999", "sample_rate_hz"),
        ("sample_rate_hz", "fast", "sample_rate_hz"),
        ("encoding", "OGGOPUS", "OGGOPUS"),
        ("language", "de-DE", "de-DE"),
    ] {
        let mut form = Form::new().text(field, value.to_owned());
        if field != "text" {
            form = form.text("text", "hello");
        }
        let response = engine.post("/v1/audio/synthesize", form).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{field}={value}");
        let body: Value = response.json().await.unwrap();
        assert!(body["detail"].as_str().unwrap().contains(named), "{body}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn stream_begins_before_the_speech_is_made_and_is_as_long_as_the_whole() {
    // At half of real time the rest of the text is not made when the first bytes are read.
    let pace = Pace { fixed_s: 0.0, per_audio_second: 0.5 };
    let engine = Engine::start_with(Kind::Tts, None, pace).await;
    engine.become_ready().await;
    let text = "good morning everyone. welcome to the meeting.";
    let mut stream =
        engine.synthesize("/v1/audio/synthesize_online", text).send().await.unwrap().bytes_stream();
    let mut raw = stream.next().await.unwrap().unwrap().to_vec();
    let report = engine.json("/_engine/fault").await;
    assert_eq!(report["counters"]["in_flight"], 1, "the job still runs");
    while let Some(piece) = stream.next().await {
        raw.extend_from_slice(&piece.unwrap());
    }
    let whole = engine.synthesize("/v1/audio/synthesize", text).send().await.unwrap().bytes().await.unwrap();
    // flite's noise differs from run to run, its timing does not.
    assert_eq!(raw.len(), whole.len() - 44);
    assert!(level(&samples(&raw)) > 500.0);
    engine.stop().await;
}

#[tokio::test]
async fn client_that_leaves_stops_the_synthesis() {
    // The whole text would take minutes.
    let pace = Pace { fixed_s: 0.0, per_audio_second: 5.0 };
    let engine = Engine::start_with(Kind::Tts, None, pace).await;
    engine.become_ready().await;
    let text = "we need to finish the report before the meeting starts. ".repeat(20);
    let mut stream =
        engine.synthesize("/v1/audio/synthesize_online", &text).send().await.unwrap().bytes_stream();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    let freed = async {
        while engine.json("/_engine/fault").await["counters"]["in_flight"] != 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(support::TEST_TIMEOUT, freed).await.unwrap();
    engine.stop().await;
}

#[tokio::test]
async fn engine_introduces_itself_as_a_reference() {
    let engine = Engine::start(Kind::Tts).await;
    assert!(engine.json("/v1/metadata").await["notice"].as_str().unwrap().contains("never for production"));
    assert_eq!(engine.json("/v1/models").await["data"][0]["id"], "reference-flite");
    assert_eq!(engine.get("/v1/health/live").await.status(), StatusCode::OK);
    assert_eq!(engine.get("/v1/health/ready").await.status(), StatusCode::OK);
    engine.stop().await;
}
