//! Faults of one kind of engine or of one protocol: batches, gRPC, streams, and replies that only look like faults.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use speechstack_e2e::fault::{Case, Expect, Stimulus, play_all};
use speechstack_e2e::load::{Ask, Load};
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions};

use super::{ANY, NONE, harmless, merge, steady, tolerant, turn, unseen, wedge};

fn engine(name: &str, kind: &'static str, protocols: &'static [&'static str]) -> EngineOptions {
    EngineOptions { protocols, ..EngineOptions::new(name, kind) }
}

async fn start(name: &str, engines: Vec<EngineOptions>, guard: Value) -> Result<Stack> {
    let mut options = StackOptions { engines, ..StackOptions::new(name) };
    merge(&mut options.guard, guard);
    Stack::start(options).await
}

/// Plays cases under a load of speech.
async fn play_on_voices(name: &str, engines: Vec<EngineOptions>, cases: Vec<Case>) -> Result<()> {
    let _turn = turn().await?;
    let stack = start(name, engines, Value::Null).await?;
    let load =
        Load::start(stack.client.clone(), Ask::Speak("good morning".to_owned()), Duration::from_millis(800));
    let result = play_all(&stack, &load, cases).await;
    drop(load);
    result?;
    stack.stop().await
}

/// One member of a batch never ends: its client is served elsewhere, its permit comes back, and the others go on.
#[tokio::test]
async fn a_stuck_member_of_a_batch_is_given_up_and_the_others_go_on() -> Result<()> {
    let _turn = turn().await?;
    let engines =
        ["parakeet-0", "parakeet-1"].map(|name| EngineOptions { jobs: 4, ..EngineOptions::new(name, "stt") });
    let stack = start("faults-batch", engines.to_vec(), json!({"lane": {"jobs": 4}})).await?;
    let load = steady(&stack)?;
    let case = tolerant(harmless("F38", json!({"mode": "F38"}), ANY, Duration::from_secs(25)));
    let result = play_all(&stack, &load, vec![unseen(case)]).await;
    drop(load);
    result?;
    stack.idle().await?;
    let lost = stack.measured("parakeet-0", "speechstack_guard_requests_total", &["\"deadline\""]).await?;
    ensure!(lost > 0.0, "the stuck job was never given up");
    stack.stop().await
}

#[tokio::test]
async fn a_status_without_a_body_is_classified_as_a_body_is() -> Result<()> {
    let _turn = turn().await?;
    let engines = ["parakeet-0", "parakeet-1"].map(|name| engine(name, "stt", &["riva"]));
    let stack = start("faults-grpc", engines.to_vec(), Value::Null).await?;
    let load = steady(&stack)?;
    let case = unseen(wedge("F39", json!({"mode": "F39"}), &["A"]));
    let result = play_all(&stack, &load, vec![case]).await;
    drop(load);
    result?;
    stack.stop().await
}

#[tokio::test]
async fn a_stream_that_goes_silent_is_found() -> Result<()> {
    let engines = ["magpie-0", "magpie-1"].map(|name| EngineOptions::new(name, "tts"));
    let case = Case { target: "magpie-0", ..wedge("F40", json!({"mode": "F40"}), &["H", "P"]) };
    play_on_voices("faults-stream", engines.to_vec(), vec![case]).await
}

#[tokio::test]
async fn an_echo_and_a_streams_header_are_no_faults() -> Result<()> {
    let voice = |mode, arm| Case { target: "magpie-0", ..harmless(mode, arm, NONE, Duration::from_secs(10)) };
    let text = "CUDA error: an illegal memory access was encountered.";
    let hash = format!("{:016x}", twox_hash::XxHash3_64::oneshot(text.as_bytes()));
    let echo = |mode, status: u16| Case {
        stimulus: Stimulus::Speak(text.to_owned(), 5),
        ..voice(mode, json!({"mode": "F42", "status": status, "trigger": {"on_input_hash": hash}}))
    };
    let cases = vec![
        unseen(echo("F42 422", 422)),
        // A 500 may be a fault whatever it says, so probes look.
        Case {
            expect: Expect { classes: Some(&["B"]), ..harmless("", Value::Null, ANY, Duration::ZERO).expect },
            ..echo("F42 500", 500)
        },
    ];
    play_on_voices("faults-echo", vec![EngineOptions::new("magpie-0", "tts")], cases).await?;
    let cases = vec![
        unseen(voice("F43 max", json!({"mode": "F43", "variant": "max"}))),
        unseen(voice("F43 zero", json!({"mode": "F43", "variant": "zero"}))),
    ];
    play_on_voices("faults-header", vec![engine("magpie-0", "tts", &["openai"])], cases).await
}
