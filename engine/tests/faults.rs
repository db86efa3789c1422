//! Every mode of the switchboard, armed and observed from outside.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use speechstack_engine::app::{Config, build};
use speechstack_engine::ffi::Voice;
use speechstack_engine::kind::Kind;
use speechstack_engine::lane::Pace;
use support::{Engine, StateDir, config, level, mode, samples, speech, upload};
use twox_hash::XxHash3_64;

const SAID: &str = "good morning";

async fn parakeet() -> (Engine, Vec<u8>) {
    (Engine::start(Kind::Stt).await, speech(Voice::Slt, SAID))
}

fn fault<'a>(report: &'a Value, id: &str) -> &'a Value {
    report["armed"].as_array().unwrap().iter().find(|fault| fault["mode"] == id).unwrap()
}

/// Whether a transcription is still unanswered after a moment in which a healthy engine would have answered.
async fn hangs(engine: &Engine, file: &[u8]) -> bool {
    tokio::time::timeout(Duration::from_millis(300), engine.transcribe(file)).await.is_err()
}

#[tokio::test]
async fn sticky_errors_fail_every_inference_while_health_stays_green() {
    let (engine, file) = parakeet().await;
    for (arming, status, text) in [
        (mode("F1"), 500, "an illegal memory access was encountered"),
        (json!({"mode": "F1", "signature": "device_assert"}), 500, "device-side assert"),
        (json!({"mode": "F1", "signature": "launch_failure"}), 500, "unspecified launch failure"),
        (
            json!({"mode": "F1", "signature": "capture"}),
            500,
            "operation not permitted when stream is capturing",
        ),
        (json!({"mode": "F1", "signature": "ecc"}), 500, "uncorrectable ECC error"),
        (mode("F2"), 500, "CUBLAS_STATUS_EXECUTION_FAILED"),
        (mode("F4"), 422, "an illegal memory access was encountered"),
        (json!({"mode": "F6", "sticky": true}), 500, "CUDA out of memory"),
        (mode("F12"), 500, "engine process is not running"),
        (mode("F22"), 500, "an illegal memory access was encountered"),
    ] {
        engine.arm(arming.clone()).await;
        for _ in 0..2 {
            let (answered, body) = engine.transcribe(&file).await;
            assert_eq!(answered.as_u16(), status, "{arming}");
            assert!(body["detail"].as_str().unwrap().contains(text), "{arming}: {body}");
        }
        let diarized = engine.post("/v1/audio/diarize", upload(&file)).send().await.unwrap();
        assert_eq!(diarized.status().as_u16(), status, "{arming}");
        assert_eq!(engine.get("/health").await.status(), StatusCode::OK);
        let report = engine.json("/_engine/fault").await;
        assert_eq!(fault(&report, arming["mode"].as_str().unwrap())["fired"], 3);
        engine.disarm().await;
        assert_eq!(engine.transcribe(&file).await.0, StatusCode::OK);
    }
    engine.stop().await;
}

#[tokio::test]
async fn f3_and_f5_are_passing_errors_without_cuda_text() {
    let (engine, file) = parakeet().await;
    engine.arm(json!({"mode": "F3", "trigger": {"after_n": 1}})).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let (status, body) = engine.transcribe(&file).await;
        statuses.push(status.as_u16());
        assert!(!body.to_string().contains("CUDA"));
    }
    assert_eq!(statuses, [200, 500, 200]);
    engine.disarm().await;
    engine.arm(mode("F5")).await;
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(engine.transcribe(&file).await.0.as_u16());
    }
    for expected in [200, 400, 422] {
        assert!(statuses.contains(&expected), "{statuses:?}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn f6_strikes_once_or_by_length() {
    let (engine, file) = parakeet().await;
    engine.arm(mode("F6")).await;
    let (status, body) = engine.transcribe(&file).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(body["detail"].as_str().unwrap().contains("CUDA out of memory"));
    assert_eq!(engine.transcribe(&file).await.0, StatusCode::OK);
    engine.arm(json!({"mode": "F6", "oom_above_s": 3})).await;
    let long = speech(Voice::Slt, "we need to finish the report before the meeting starts");
    for _ in 0..2 {
        assert_eq!(engine.transcribe(&long).await.0, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(engine.transcribe(&file).await.0, StatusCode::OK);
    }
    engine.stop().await;
}

#[tokio::test]
async fn hangs_never_answer_and_show_their_utilisation() {
    let (engine, file) = parakeet().await;
    for (arming, util) in
        [(mode("F7"), Some(100)), (mode("F8"), Some(0)), (json!({"mode": "F12", "variant": "hang"}), None)]
    {
        let report = engine.arm(arming.clone()).await;
        if let Some(util) = util {
            assert_eq!(report["util"], util);
        }
        assert!(hangs(&engine, &file).await && hangs(&engine, &file).await, "{arming}");
        assert_eq!(engine.get("/health").await.status(), StatusCode::OK);
        engine.disarm().await;
        assert_eq!(engine.transcribe(&file).await.0, StatusCode::OK);
    }
    engine.stop().await;
}

#[tokio::test]
async fn f9_loses_one_answer_while_others_complete() {
    let (engine, file) = parakeet().await;
    engine.arm(mode("F9")).await;
    let lost = engine.transcribe(&file);
    let mut lost = Box::pin(lost);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut lost).await.is_err());
    assert_eq!(engine.transcribe(&file).await.0, StatusCode::OK);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut lost).await.is_err());
    drop(lost);
    engine.stop().await;
}

#[tokio::test]
async fn f10_blocks_every_endpoint_then_all_complete() {
    let (engine, file) = parakeet().await;
    let began = std::time::Instant::now();
    engine.arm(json!({"mode": "F10", "seconds": 1.0})).await;
    let (health, transcript) = tokio::join!(engine.get("/health"), engine.transcribe(&file));
    assert!(began.elapsed() >= Duration::from_secs(1), "answered during the blockade");
    assert_eq!((health.status(), transcript.0), (StatusCode::OK, StatusCode::OK));
    engine.stop().await;
}

#[tokio::test]
async fn f11_refuses_beyond_its_queue() {
    let pace = Pace { fixed_s: 1.0, per_audio_second: 0.0 };
    let engine = Engine::start_with(Kind::Stt, None, pace).await;
    engine.become_ready().await;
    let file = speech(Voice::Slt, SAID);
    engine.arm(json!({"mode": "F11", "limit": 1, "status": 429})).await;
    let answers = futures::future::join_all((0..4).map(|_| engine.transcribe(&file))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|(status, _)| status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 429, 429]);
    engine.stop().await;
}

#[tokio::test]
async fn f13_refuses_connections_until_it_is_over() {
    let (engine, file) = parakeet().await;
    engine.arm(json!({"mode": "F13", "clear": {"after_s": 2.0}})).await;
    let refused = async {
        while tokio::net::TcpStream::connect(engine.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(support::TEST_TIMEOUT, refused).await.unwrap();
    let accepted = async {
        while tokio::net::TcpStream::connect(engine.address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(support::TEST_TIMEOUT, accepted).await.unwrap();
    assert_eq!(engine.transcribe(&file).await.0, StatusCode::OK);
    engine.stop().await;
}

#[tokio::test]
async fn f13_resets_in_mid_body() {
    let (engine, file) = parakeet().await;
    engine.arm(json!({"mode": "F13", "rst_after_bytes": 10})).await;
    let form = upload(&file).text("response_format", "verbose_json");
    let mut response = engine.post("/v1/audio/transcriptions", form).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut received = 0;
    let error = loop {
        match response.chunk().await {
            Ok(Some(piece)) => received += piece.len(),
            Ok(None) => panic!("the body ended well"),
            Err(error) => break error,
        }
    };
    assert!(received <= 10, "{received}");
    assert!(format!("{error:?}").contains("ConnectionReset"), "{error:?}");
    engine.stop().await;
}

#[tokio::test]
async fn f14_gives_worthless_transcripts_with_200() {
    let (engine, file) = parakeet().await;
    let other = speech(Voice::Rms, "can you tell me how to get to the city hospital");
    for (variant, text) in [("empty", ""), ("punct", ". . ."), ("constant", "thank you"), ("nan", "")] {
        engine.arm(json!({"mode": "F14", "variant": variant})).await;
        for file in [&file, &other] {
            let (status, body) = engine.transcribe(file).await;
            assert_eq!((status, body["text"].as_str().unwrap()), (StatusCode::OK, text));
            assert_eq!(body["words"][0]["start"].is_null(), variant == "nan" || variant == "empty");
        }
    }
    engine.stop().await;
}

#[tokio::test]
async fn f15_spoils_audio_with_200() {
    let engine = Engine::start(Kind::Tts).await;
    let speak = async |path: &str| engine.synthesize(path, SAID).send().await.unwrap().bytes().await.unwrap();
    let healthy = speak("/v1/audio/synthesize").await;
    for path in ["/v1/audio/synthesize", "/v1/audio/synthesize_online"] {
        let skip = if path.ends_with("online") { 0 } else { 44 };
        let spoilt = async |variant: &str| {
            engine.arm(json!({"mode": "F15", "variant": variant})).await;
            speak(path).await.slice(skip..)
        };
        let silence = spoilt("silence").await;
        assert_eq!((silence.len(), level(&samples(&silence))), (healthy.len() - 44, 0.0));
        let noise = samples(&spoilt("noise").await);
        let crossings = noise.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count();
        assert!(crossings * 3 > noise.len() && level(&noise) > 1000.0, "{crossings} of {}", noise.len());
        assert_eq!(spoilt("short").await.len(), 3_200);
    }
    engine.arm(json!({"mode": "F15", "variant": "bad_header"})).await;
    let lying = speak("/v1/audio/synthesize").await;
    assert_eq!(lying.len(), healthy.len());
    assert_ne!(lying[40..44], healthy[40..44]);
    assert_eq!(speak("/v1/audio/synthesize_online").await.len() % 2, 1);
    engine.stop().await;
}

#[tokio::test]
async fn f16_slows_and_f17_leaks() {
    let pace = Pace { fixed_s: 0.3, per_audio_second: 0.0 };
    let engine = Engine::start_with(Kind::Tts, None, pace).await;
    engine.become_ready().await;
    engine.arm(json!({"mode": "F16", "factor": 4})).await;
    let began = std::time::Instant::now();
    engine.synthesize("/v1/audio/synthesize", "hi").send().await.unwrap().bytes().await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1_200));
    engine.disarm().await;
    engine.arm(json!({"mode": "F17", "mb_per_req": 3})).await;
    for _ in 0..2 {
        engine.synthesize("/v1/audio/synthesize", "hi").send().await.unwrap().bytes().await.unwrap();
    }
    assert_eq!(engine.json("/_engine/fault").await["leaked_mb"], 6);
    engine.disarm().await;
    assert_eq!(engine.json("/_engine/fault").await["leaked_mb"], 0);
    engine.stop().await;
}

#[tokio::test]
async fn f18_unloads_at_once_and_after_restarts() {
    let state = StateDir::new();
    let file = speech(Voice::Slt, SAID);
    let first = Engine::start_with(Kind::Stt, Some(&state), Pace::default()).await;
    first.become_ready().await;
    first.arm(mode("F18")).await;
    for engine in [first, Engine::start_with(Kind::Stt, Some(&state), Pace::default()).await] {
        let health = engine.get("/health").await;
        assert_eq!(health.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(health.json::<Value>().await.unwrap()["status"], "loading");
        assert_eq!(engine.get("/v1/health/live").await.status(), StatusCode::OK);
        assert_eq!(engine.transcribe(&file).await.0, StatusCode::SERVICE_UNAVAILABLE);
        engine.arm(json!({"mode": "F18", "variant": "fail"})).await;
        let health: Value = engine.json("/v1/health/ready").await;
        assert!(health["detail"].as_str().unwrap().contains("CUDA driver version is insufficient"));
        engine.arm(json!({"mode": "F18", "variant": "slow", "seconds": 0.3})).await;
        engine.become_ready().await;
        engine.arm(mode("F18")).await;
        engine.stop().await;
    }
    let last = Engine::start_with(Kind::Stt, Some(&state), Pace::default()).await;
    last.disarm().await;
    last.become_ready().await;
    last.stop().await;
}

#[tokio::test]
async fn lasting_faults_survive_as_many_starts_as_told() {
    let state = StateDir::new();
    let file = speech(Voice::Slt, SAID);
    let start = || async {
        let engine = Engine::start_with(Kind::Stt, Some(&state), Pace::default()).await;
        engine.become_ready().await;
        engine
    };
    let engine = start().await;
    engine
        .arm(json!({"mode": "F1", "trigger": {"after_n": 1}, "clear": {"state_file": true, "restarts": 1}}))
        .await;
    engine.arm(mode("F2")).await;
    engine.disarm().await;
    engine
        .arm(json!({"mode": "F1", "trigger": {"after_n": 1}, "clear": {"state_file": true, "restarts": 1}}))
        .await;
    let healthy = engine.transcribe(&file).await.0;
    let wedged = engine.transcribe(&file).await.0;
    assert_eq!((healthy.as_u16(), wedged.as_u16()), (200, 500));
    engine.stop().await;
    let engine = start().await;
    assert_eq!(engine.transcribe(&file).await.0, 500, "a wedge that had set in is there again at once");
    engine.stop().await;
    let engine = start().await;
    assert_eq!(engine.transcribe(&file).await.0, StatusCode::OK);
    engine.arm(mode("F22")).await;
    engine.stop().await;
    for _ in 0..2 {
        let engine = start().await;
        assert_eq!(engine.transcribe(&file).await.0, 500);
        engine.stop().await;
    }
    let engine = start().await;
    engine.disarm().await;
    engine.stop().await;
    let engine = start().await;
    assert_eq!(engine.json("/_engine/fault").await["armed"], json!([]));
    engine.stop().await;
}

#[tokio::test]
async fn f23_poison_wedges_until_restart_and_stays_poison() {
    let state = StateDir::new();
    let (good, poison) = (speech(Voice::Slt, SAID), speech(Voice::Rms, "see you tomorrow"));
    let hash = format!("{:016x}", XxHash3_64::oneshot(&poison));
    for round in 0..2 {
        let engine = Engine::start_with(Kind::Stt, Some(&state), Pace::default()).await;
        engine.become_ready().await;
        if round == 0 {
            engine.arm(json!({"mode": "F23", "trigger": {"on_input_hash": hash}})).await;
        }
        for (file, status) in [(&good, 200), (&poison, 500), (&good, 500)] {
            assert_eq!(engine.transcribe(file).await.0, status, "round {round}");
        }
        engine.stop().await;
    }
}

#[tokio::test]
async fn f27_makes_the_next_start_slow_and_only_that() {
    let state = StateDir::new();
    let engine = Engine::start_with(Kind::Tts, Some(&state), Pace::default()).await;
    engine.become_ready().await;
    engine.arm(json!({"mode": "F27", "seconds": 2.0})).await;
    assert_eq!(engine.get("/health").await.status(), StatusCode::OK);
    engine.stop().await;
    let engine = Engine::start_with(Kind::Tts, Some(&state), Pace::default()).await;
    assert_eq!(engine.get("/health").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    engine.become_ready().await;
    engine.stop().await;
    let engine = Engine::start_with(Kind::Tts, Some(&state), Pace::default()).await;
    assert_eq!(engine.json("/_engine/fault").await["armed"], json!([]));
    engine.stop().await;
}

#[tokio::test]
async fn f31_wedges_on_overlap_only() {
    let pace = Pace { fixed_s: 0.5, per_audio_second: 0.0 };
    let engine = Engine::start_with(Kind::Stt, None, pace).await;
    engine.become_ready().await;
    let file = speech(Voice::Slt, SAID);
    engine.arm(mode("F31")).await;
    for _ in 0..3 {
        assert_eq!(engine.transcribe(&file).await.0, StatusCode::OK);
    }
    assert_eq!(engine.json("/_engine/fault").await["counters"]["max_concurrent"], 1);
    futures::future::join_all((0..2).map(|_| engine.transcribe(&file))).await;
    let (status, body) = engine.transcribe(&file).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(body["detail"].as_str().unwrap().contains("capturing"));
    let counters = &engine.json("/_engine/fault").await["counters"];
    assert_eq!((&counters["max_concurrent"], &counters["inferences"]), (&json!(2), &json!(6)));
    engine.stop().await;
}

#[tokio::test]
async fn switchboard_refuses_what_it_does_not_know_and_is_absent_unless_asked_for() {
    let engine = Engine::start(Kind::Tts).await;
    let url = format!("{}/_engine/fault", engine.url);
    let refused = engine.client.post(&url).json(&json!({"mode": "F1", "colour": 1})).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(refused.text().await.unwrap().contains("colour"));
    engine.arm(mode("F1")).await;
    let report = engine.arm(mode("none")).await;
    assert_eq!(report["armed"], json!([]));
    engine.stop().await;
    let config = Config { faults: false, ..config(Kind::Tts, &["magpie"]) };
    let bound = build(config).await.unwrap();
    let url = format!("http://{}/_engine/fault", bound.address);
    let serving = tokio::spawn(bound.serve(std::future::pending()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for method in [reqwest::Method::GET, reqwest::Method::POST, reqwest::Method::DELETE] {
        let response = client.request(method, &url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }
    serving.abort();
}
