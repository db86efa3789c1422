//! Faults of engines that hear speech as it comes, under a load of sessions: garbage, hangs, breaks in mid-sentence, slow starts.
//!
//! Golden probes by the clock are rare here: what sessions show has to be enough.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use speechstack_e2e::fault::{Case, Stimulus, play_all};
use speechstack_e2e::load::{Ask, Load};
use speechstack_e2e::session;
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions};

use super::{ANY, harmless, merge, short_clip, tolerant, turn_alone, unseen, wedge};

const SAID: &str = "Good morning.";
/// Sessions begin this often; each lasts about two seconds.
const PERIOD: Duration = Duration::from_millis(1_000);

/// Plays cases on two engines that speak nothing but this protocol.
async fn play(name: &str, protocols: &'static [&'static str], cases: Vec<Case>) -> Result<()> {
    let _turn = turn_alone().await?;
    let engines = ["parakeet-0", "parakeet-1"]
        .map(|name| EngineOptions { protocols, ..EngineOptions::new(name, "stt") })
        .to_vec();
    let mut options = StackOptions { engines, ..StackOptions::new(name) };
    let rare =
        json!({"probe": {"idle_period": "30s", "content_period": "120s"}, "hang": {"deadline_floor": "10s"}});
    merge(&mut options.guard, rare);
    let stack = Stack::start(options).await?;
    let samples = session::samples(&short_clip()?)?;
    let load = Load::start(stack.client.clone(), Ask::Converse(samples.into(), SAID), PERIOD);
    let result = play_all(&stack, &load, cases).await;
    drop(load);
    result?;
    stack.stop().await
}

/// A hang shows as late probes too.
const HANG: &[&str] = &["H", "P"];

/// What every protocol of streams can show.
fn wedges() -> Vec<Case> {
    vec![
        unseen(wedge("F1", json!({"mode": "F1"}), &["A"])),
        unseen(wedge("F7", json!({"mode": "F7"}), HANG)),
        unseen(wedge("F40", json!({"mode": "F40"}), HANG)),
        wedge("F14 empty", json!({"mode": "F14", "variant": "empty"}), &["Q"]),
    ]
}

#[tokio::test]
async fn a_nim_that_streams_is_found_by_what_its_sessions_show() -> Result<()> {
    let mut cases = wedges();
    cases.extend([
        wedge("F14 constant", json!({"mode": "F14", "variant": "constant"}), &["Q"]),
        unseen(wedge("F13 reset", json!({"mode": "F13", "rst_after_bytes": 10}), &["R"])),
        unseen(Case { stimulus: Stimulus::Kill, ..wedge("kill -9", Value::Null, &["R"]) }),
        unseen(Case {
            stimulus: Stimulus::Kill,
            ..wedge("F27", json!({"mode": "F27", "seconds": 8}), &["R"])
        }),
    ]);
    play("faults-nim", &["nim_realtime"], cases).await
}

#[tokio::test]
async fn an_engine_of_nemo_speech_is_found_by_what_its_sessions_show() -> Result<()> {
    play("faults-nemo-speech", &["nemo_speech_streaming"], wedges()).await
}

#[tokio::test]
async fn a_riva_that_streams_is_found_by_what_its_sessions_show() -> Result<()> {
    play("faults-riva", &["riva_streaming"], wedges()).await
}

/// Clients that leave in mid-sentence, one fault in many sessions, and an engine that is slow.
#[tokio::test]
async fn what_sessions_show_of_a_healthy_engine_restarts_nothing() -> Result<()> {
    let seconds = Duration::from_secs;
    let said = session::samples(&short_clip()?)?.repeat(4);
    let cases = vec![
        unseen(Case {
            stimulus: Stimulus::Abandoned(said, 12),
            ..tolerant(harmless("left", Value::Null, ANY, seconds(20)))
        }),
        unseen(tolerant(harmless("F3", json!({"mode": "F3"}), ANY, seconds(12)))),
        unseen(tolerant(harmless("F34", json!({"mode": "F34", "seconds": 1.5}), ANY, seconds(25)))),
    ];
    play("faults-sessions", &["nim_realtime"], cases).await
}
