//! Faults that belong to the start of a process, armed and observed from outside.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use speechstack_engine::app::Config;
use speechstack_engine::ffi::Voice;
use speechstack_engine::kind::Kind;
use speechstack_engine::lane::Pace;
use support::{Engine, StateDir, TEST_TIMEOUT, config, speech};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const SAID: &str = "good morning";

async fn start(state: &StateDir) -> Engine {
    let engine = Engine::start_with(Kind::Stt, Some(state), Pace::default()).await;
    engine.become_ready().await;
    engine
}

#[tokio::test]
async fn f32_makes_the_first_inference_of_every_process_late_and_no_other() {
    let state = StateDir::new();
    let file = speech(Voice::Slt, SAID);
    for round in 0..2 {
        let engine = start(&state).await;
        if round == 0 {
            engine.arm(json!({"mode": "F32", "seconds": 1.5})).await;
        }
        let began = Instant::now();
        let (first, health) = tokio::join!(engine.transcribe(&file), engine.get("/health"));
        assert!(began.elapsed() >= Duration::from_millis(1_500), "round {round}");
        assert_eq!((first.0, health.status()), (StatusCode::OK, StatusCode::OK));
        assert_eq!(engine.transcribe(&file).await.0, StatusCode::OK);
        let report = engine.json("/_engine/fault").await;
        let fault = &report["armed"][0];
        assert_eq!((&fault["fired"], &fault["state"]), (&json!(1), &json!("over")), "round {round}");
        engine.stop().await;
    }
}

#[tokio::test]
async fn f32_makes_all_inferences_late_that_begin_before_the_first_has_ended() {
    let engine = Engine::with(Config { jobs: 2, ..config(Kind::Stt, &["parakeet"]) }).await;
    let file = speech(Voice::Slt, SAID);
    engine.arm(json!({"mode": "F32", "seconds": 2, "clear": "process"})).await;
    let began = Instant::now();
    let (first, second) = tokio::join!(engine.transcribe(&file), engine.transcribe(&file));
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!((first.0, second.0), (StatusCode::OK, StatusCode::OK));
    assert_eq!(engine.transcribe(&file).await.0, StatusCode::OK);
    assert_eq!(engine.json("/_engine/fault").await["armed"][0]["fired"], 2);
    engine.stop().await;
}

#[tokio::test]
async fn f33_refuses_inference_after_the_arming_and_after_each_start_while_health_is_green() {
    let state = StateDir::new();
    let file = speech(Voice::Slt, SAID);
    for round in 0..2 {
        let engine = start(&state).await;
        if round == 0 {
            engine.arm(json!({"mode": "F33", "seconds": 3600})).await;
        }
        let (status, body) = engine.transcribe(&file).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "round {round}");
        assert_eq!(body["detail"], "model is loading");
        assert_eq!(engine.get("/health").await.status(), StatusCode::OK);
        engine.stop().await;
    }
    let engine = start(&state).await;
    engine.arm(json!({"mode": "F33", "seconds": 3600, "status": 429})).await;
    assert_eq!(engine.transcribe(&file).await.0, StatusCode::TOO_MANY_REQUESTS);
    engine.arm(json!({"mode": "F33", "seconds": 0.2})).await;
    engine.until(|report| report["armed"][0]["state"] == "over").await;
    assert_eq!(engine.transcribe(&file).await.0, StatusCode::OK);
    engine.stop().await;
}

#[tokio::test]
async fn f41_from_the_state_file_is_a_load_that_lasts_until_the_end() {
    let state = StateDir::new();
    let engine = start(&state).await;
    engine.arm(json!({"mode": "F41", "delay_s": 3600, "clear": "never"})).await;
    let file = speech(Voice::Slt, SAID);
    assert_eq!(engine.transcribe(&file).await.0, StatusCode::OK, "it serves until it ends");
    engine.stop().await;
    let engine = Engine::start_with(Kind::Stt, Some(&state), Pace::default()).await;
    let health = engine.get("/health").await;
    assert_eq!(health.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health.json::<Value>().await.unwrap()["status"], "loading");
    engine.disarm().await;
    engine.become_ready().await;
    engine.stop().await;
}

/// The engine's own process with a switchboard.
fn process(state: &StateDir) -> Child {
    Command::new(env!("CARGO_BIN_EXE_speechstack-engine"))
        .args(["--kind", "tts", "--listen", "127.0.0.1:0", "--faults", "--state-dir"])
        .arg(&state.0)
        .env("RUST_LOG", "info")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Where a process listens, read from its log.
async fn address(process: &mut Child) -> String {
    let mut lines = BufReader::new(process.stderr.as_mut().unwrap()).lines();
    let found = async {
        loop {
            let line = lines.next_line().await.unwrap().unwrap();
            if let Some((_, rest)) = line.split_once("address=") {
                return rest.split_whitespace().next().unwrap().to_owned();
            }
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, found).await.unwrap()
}

/// The exit code of a process and what it wrote to stderr since it was last read.
async fn ended(process: Child) -> (Option<i32>, String) {
    let output = tokio::time::timeout(TEST_TIMEOUT, process.wait_with_output()).await.unwrap().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn f41_ends_the_process_when_armed_and_at_the_start_from_the_state_file() {
    const TEXT: &str = "CUDA driver version is insufficient";
    let state = StateDir::new();
    let mut armed = process(&state);
    let url = format!("http://{}/_engine/fault", address(&mut armed).await);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let arming = json!({"mode": "F41", "clear": {"state_file": true, "restarts": 1}});
    let _may_be_cut = client.post(url).json(&arming).send().await;
    let (code, text) = ended(armed).await;
    assert!(code == Some(1) && text.contains(TEXT), "{code:?} {text}");
    let (code, text) = ended(process(&state)).await;
    assert!(code == Some(1) && text.contains(TEXT), "{code:?} {text}");
    let mut cured = process(&state);
    let report = client.get(format!("http://{}/_engine/fault", address(&mut cured).await));
    let report: Value = report.send().await.unwrap().json().await.unwrap();
    assert_eq!(report["armed"], json!([]));
    cured.kill().await.unwrap();
}

#[tokio::test]
async fn modes_of_the_start_take_no_trigger() {
    let engine = Engine::start(Kind::Tts).await;
    for mode in ["F32", "F33"] {
        let reason = engine.refused(json!({"mode": mode, "trigger": {"after_n": 2}})).await;
        assert!(reason.contains(mode) && reason.contains("no trigger"), "{reason}");
    }
    engine.stop().await;
}
