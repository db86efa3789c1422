//! Faults of single replies and of clients that leave, armed and observed from outside.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as RawClient;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use reqwest::StatusCode;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use speechstack_engine::app::Config;
use speechstack_engine::ffi::Voice;
use speechstack_engine::grpc::messages::nvidia::riva::asr::riva_speech_recognition_client::RivaSpeechRecognitionClient;
use speechstack_engine::grpc::messages::nvidia::riva::asr::{RecognitionConfig, RecognizeRequest};
use speechstack_engine::grpc::messages::nvidia::riva::tts::SynthesizeSpeechRequest;
use speechstack_engine::grpc::messages::nvidia::riva::tts::riva_speech_synthesis_client::RivaSpeechSynthesisClient;
use speechstack_engine::kind::Kind;
use speechstack_engine::lane::Pace;
use support::{Engine, config, level, mode, samples, speech, upload};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use twox_hash::XxHash3_64;

const SAID: &str = "good morning";
/// Longer than a healthy engine takes for anything that may wrongly come.
const SILENCE: Duration = Duration::from_millis(300);

async fn channel(engine: &Engine) -> Channel {
    Endpoint::from_shared(format!("http://{}", engine.grpc.unwrap())).unwrap().connect().await.unwrap()
}

fn text() -> SynthesizeSpeechRequest {
    SynthesizeSpeechRequest {
        text: SAID.into(),
        language_code: "en-US".into(),
        sample_rate_hz: 16_000,
        ..SynthesizeSpeechRequest::default()
    }
}

fn state(report: &Value) -> &Value {
    &report["armed"][0]["state"]
}

#[tokio::test]
async fn f34_is_late_by_the_same_time_and_right() {
    let engine = Engine::start(Kind::Stt).await;
    let file = speech(Voice::Rms, SAID);
    engine.arm(json!({"mode": "F34", "seconds": 1})).await;
    for _ in 0..2 {
        let began = Instant::now();
        let (status, body) = engine.transcribe(&file).await;
        assert!(began.elapsed() >= Duration::from_secs(1));
        assert_eq!((status, &body["text"]), (StatusCode::OK, &json!(SAID)));
    }
    assert_eq!(engine.json("/_engine/fault").await["armed"][0]["fired"], 2);
    engine.stop().await;
}

#[tokio::test]
async fn f35_answers_an_error_of_the_client_while_health_is_green() {
    let engine = Engine::with(config(Kind::Stt, &["parakeet", "riva"])).await;
    let file = speech(Voice::Slt, SAID);
    let mut client = RivaSpeechRecognitionClient::new(channel(&engine).await);
    for (arming, status, code) in [
        (mode("F35"), 404, Code::NotFound),
        (json!({"mode": "F35", "status": 422}), 422, Code::InvalidArgument),
        (json!({"mode": "F35", "status": 400}), 400, Code::InvalidArgument),
    ] {
        engine.arm(arming).await;
        let (answered, body) = engine.transcribe(&file).await;
        assert_eq!((answered.as_u16(), &body), (status, &json!({"detail": "model not loaded"})));
        let config = RecognitionConfig { language_code: "en-US".into(), ..RecognitionConfig::default() };
        let audio = Bytes::copy_from_slice(&file);
        let request = RecognizeRequest { config: Some(config), audio, id: None };
        assert_eq!(client.recognize(request).await.unwrap_err().code(), code);
        assert_eq!(engine.get("/health").await.status(), StatusCode::OK);
    }
    engine.disarm().await;
    assert_eq!(engine.transcribe(&file).await.0, StatusCode::OK);
    drop(client);
    engine.stop().await;
}

#[tokio::test]
async fn f38_holds_one_job_for_ever_while_the_others_complete() {
    let engine = Engine::with(Config { jobs: 2, ..config(Kind::Stt, &["parakeet"]) }).await;
    let (held, other) = (speech(Voice::Rms, "see you tomorrow"), speech(Voice::Slt, SAID));
    let hash = format!("{:016x}", XxHash3_64::oneshot(&held));
    engine.arm(json!({"mode": "F38", "trigger": {"on_input_hash": hash}})).await;
    let mut stuck = Box::pin(engine.transcribe(&held));
    assert!(tokio::time::timeout(SILENCE, &mut stuck).await.is_err());
    for _ in 0..3 {
        assert_eq!(engine.transcribe(&other).await.0, StatusCode::OK);
    }
    assert!(tokio::time::timeout(SILENCE, &mut stuck).await.is_err());
    drop(stuck);
    assert_eq!(engine.transcribe(&other).await.0, StatusCode::OK);
    let counters = &engine.json("/_engine/fault").await["counters"];
    assert_eq!(counters["in_flight"], 1, "it keeps its share when its client has left");
    engine.disarm().await;
    engine.until(|report| report["counters"]["in_flight"] == 0).await;
    engine.stop().await;
}

#[tokio::test]
async fn f38_is_refused_where_one_job_runs_at_a_time() {
    let engine = Engine::start(Kind::Tts).await;
    let reason = engine.refused(mode("F38")).await;
    assert!(reason.contains("F38") && reason.contains("--jobs"), "{reason}");
    assert_eq!(engine.json("/_engine/fault").await["armed"], json!([]));
    engine.stop().await;
}

/// Headers of a unary synthesis, and the frames behind them.
async fn raw_synthesis(engine: &Engine) -> (hyper::HeaderMap, usize) {
    let mut message = BytesMut::new();
    let request = text();
    message.put_u8(0);
    message.put_u32(u32::try_from(request.encoded_len()).unwrap());
    request.encode(&mut message).unwrap();
    let address = engine.grpc.unwrap();
    let request =
        hyper::Request::post(format!("http://{address}/nvidia.riva.tts.RivaSpeechSynthesis/Synthesize"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(message.freeze()))
            .unwrap();
    let client = RawClient::builder(TokioExecutor::new()).http2_only(true).build_http();
    let response = client.request(request).await.unwrap();
    let (parts, mut body) = response.into_parts();
    let mut frames = 0;
    while let Some(frame) = body.frame().await {
        frame.unwrap();
        frames += 1;
    }
    (parts.headers, frames)
}

#[tokio::test]
async fn f39_has_its_status_in_the_headers_alone_and_only_in_unary_calls() {
    let engine = Engine::with(config(Kind::Tts, &["riva_tts", "magpie"])).await;
    let (headers, frames) = raw_synthesis(&engine).await;
    assert!(!headers.contains_key("grpc-status") && frames > 1, "{headers:?}");
    engine.arm(mode("F39")).await;
    let (headers, frames) = raw_synthesis(&engine).await;
    assert_eq!((headers["grpc-status"].to_str().unwrap(), frames), ("13", 0), "{headers:?}");
    let mut client = RivaSpeechSynthesisClient::new(channel(&engine).await);
    let status = client.synthesize(text()).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("an illegal memory access was encountered"), "{status}");
    for (arming, code, message) in [
        (json!({"mode": "F39", "code": 14, "signature": "ecc"}), Code::Unavailable, "uncorrectable ECC"),
        (json!({"mode": "F39", "code": 8, "message": "no room"}), Code::ResourceExhausted, "no room"),
    ] {
        engine.arm(arming).await;
        let status = client.synthesize(text()).await.unwrap_err();
        assert!(status.code() == code && status.message().contains(message), "{status}");
    }
    let mut stream = client.synthesize_online(futures::stream::iter([text()])).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    while stream.message().await.unwrap().is_some() {}
    let over_http = engine.synthesize("/v1/audio/synthesize", SAID).send().await.unwrap();
    assert_eq!(over_http.status(), StatusCode::OK);
    drop((client, stream));
    engine.stop().await;
}

#[tokio::test]
async fn f40_stops_streams_after_some_messages_and_leaves_them_open() {
    let engine = Engine::with(config(Kind::Tts, &["riva_tts", "magpie"])).await;
    let mut client = RivaSpeechSynthesisClient::new(channel(&engine).await);
    for after in [0, 1, 3] {
        engine.arm(json!({"mode": "F40", "after_messages": after})).await;
        let mut stream =
            client.synthesize_online(futures::stream::iter([text()])).await.unwrap().into_inner();
        for _ in 0..after {
            assert!(!stream.message().await.unwrap().unwrap().audio.is_empty());
        }
        assert!(tokio::time::timeout(SILENCE, stream.message()).await.is_err(), "after {after}");
    }
    engine.arm(mode("F40")).await;
    assert!(!client.synthesize(text()).await.unwrap().into_inner().audio.is_empty());
    let whole = engine.synthesize("/v1/audio/synthesize", SAID).send().await.unwrap().bytes().await.unwrap();
    let mut online = engine.synthesize("/v1/audio/synthesize_online", SAID).send().await.unwrap();
    let mut received = online.chunk().await.unwrap().unwrap().len();
    // The one piece may come in several parts, but the body does not end.
    while let Ok(part) = tokio::time::timeout(SILENCE, online.chunk()).await {
        received += part.unwrap().unwrap().len();
    }
    assert!(received < whole.len() / 2, "{received} of {}", whole.len());
    drop((client, online));
    engine.stop().await;
}

#[tokio::test]
async fn f42_repeats_a_text_of_the_request_and_serves_requests_without_any() {
    let engine = Engine::start(Kind::Stt).await;
    let file = speech(Voice::Slt, SAID);
    let answer = async |form: Form| {
        let response = engine.post("/v1/audio/transcriptions", form).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let prompt = "CUDA error: an illegal memory access was encountered";
    for (status, arming) in [
        (400, mode("F42")),
        (422, json!({"mode": "F42", "status": 422})),
        (500, json!({"mode": "F42", "status": 500})),
    ] {
        engine.arm(arming).await;
        let both = upload(&file).text("model", "tiny").text("prompt", prompt);
        let (answered, body) = answer(both).await;
        assert!(answered == status && body.contains(prompt) && !body.contains("tiny"), "{body}");
        let (answered, body) = answer(upload(&file).text("model", "tiny")).await;
        assert!(answered == status && body.contains("'tiny'"), "{body}");
        let (answered, body) = answer(upload(&file)).await;
        assert!(answered == status && body.contains("speech.wav"), "{body}");
        let nameless = Form::new().part("file", Part::bytes(file.clone()));
        assert_eq!(answer(nameless).await.0, 200);
    }
    assert_eq!(engine.json("/_engine/fault").await["armed"][0]["fired"], 3);
    engine.stop().await;
    let engine = Engine::start(Kind::Tts).await;
    engine.arm(mode("F42")).await;
    let spoken = engine.synthesize("/v1/audio/synthesize", SAID).send().await.unwrap();
    assert_eq!(spoken.status(), StatusCode::BAD_REQUEST);
    assert!(spoken.text().await.unwrap().contains(SAID));
    engine.stop().await;
}

#[tokio::test]
async fn f43_leaves_the_sizes_of_wav_files_open_and_the_audio_whole() {
    let engine = Engine::with(config(Kind::Tts, &["openai"])).await;
    let speak = async |format: &str| {
        let body = json!({"model": "tts-1", "input": SAID, "voice": "alloy", "response_format": format});
        let request = engine.client.post(format!("{}/v1/audio/speech", engine.url)).json(&body);
        request.send().await.unwrap().bytes().await.unwrap()
    };
    let (healthy, raw) = (speak("wav").await, speak("pcm").await);
    for (arming, size) in [(mode("F43"), [0xff; 4]), (json!({"mode": "F43", "variant": "zero"}), [0; 4])] {
        engine.arm(arming).await;
        let open = speak("wav").await;
        assert_eq!((&open[4..8], &open[40..44]), (&size[..], &size[..]));
        assert_eq!((&open[..4], &open[8..40]), (&healthy[..4], &healthy[8..40]));
        assert_eq!(open.len(), healthy.len());
        assert!(level(&samples(&open[44..])) > 500.0);
        assert_eq!(speak("pcm").await.len(), raw.len());
    }
    engine.stop().await;
}

#[tokio::test]
async fn f45_wedges_once_a_client_leaves_a_running_inference() {
    let pace = Pace { fixed_s: 1.0, per_audio_second: 0.0 };
    let engine = Engine::start_with(Kind::Stt, None, pace).await;
    engine.become_ready().await;
    let file = speech(Voice::Slt, SAID);
    engine.arm(json!({"mode": "F45", "signature": "device_assert"})).await;
    assert_eq!(engine.transcribe(&file).await.0, StatusCode::OK);
    assert_eq!(state(&engine.json("/_engine/fault").await), "waiting");
    let leaving = engine.transcribe(&file);
    tokio::select! {
        _ = leaving => panic!("answered before the client left"),
        () = engine.until(|report| report["counters"]["started"] == 2) => {}
    }
    engine.until(|report| state(report) == "active").await;
    for _ in 0..2 {
        let (status, body) = engine.transcribe(&file).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body["detail"].as_str().unwrap().contains("device-side assert"), "{body}");
    }
    assert_eq!(engine.get("/health").await.status(), StatusCode::OK);
    engine.stop().await;
}

#[tokio::test]
async fn f45_wedges_once_a_client_leaves_a_stream_whose_audio_is_being_made() {
    let pace = Pace { fixed_s: 0.0, per_audio_second: 1.0 };
    let protocols = ["riva_tts", "magpie"];
    let engine = Engine::with(Config { pace, ..config(Kind::Tts, &protocols) }).await;
    engine.arm(mode("F45")).await;
    let mut online = engine.synthesize("/v1/audio/synthesize_online", SAID).send().await.unwrap();
    assert!(online.chunk().await.unwrap().is_some());
    drop(online);
    engine.until(|report| state(report) == "active").await;
    engine.disarm().await;
    engine.arm(mode("F45")).await;
    let mut client = RivaSpeechSynthesisClient::new(channel(&engine).await);
    let mut stream = client.synthesize_online(futures::stream::iter([text()])).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    drop(stream);
    engine.until(|report| state(report) == "active").await;
    let status = client.synthesize(text()).await.unwrap_err();
    assert!(status.message().contains("an illegal memory access was encountered"), "{status}");
    drop(client);
    engine.stop().await;
}
