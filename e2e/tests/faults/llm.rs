//! Faults of language models: what keeps them from answering is found by the golden question as by clients, and cured.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use speechstack_e2e::fault::{Case, Stimulus, play_all};
use speechstack_e2e::load::{Ask, Load};
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions};

use super::{ANY, harmless, tolerant, turn, unseen, wedge};

/// What clients ask.
const ASKED: &str = "What is the time?";

fn on_words(case: Case) -> Case {
    Case { target: "words-0", ..unseen(case) }
}

/// Clients ask one after the other while one of two engines fails; the other is never restarted.
async fn play_on_answers(name: &str, cases: Vec<Case>) -> Result<()> {
    let _turn = turn().await?;
    let engines = ["words-0", "words-1"].map(|name| EngineOptions::new(name, "llm"));
    let stack = Stack::start(StackOptions { engines: engines.to_vec(), ..StackOptions::new(name) }).await?;
    let load = Load::start(stack.client.clone(), Ask::Chat(ASKED.into()), Duration::from_millis(600));
    let result = play_all(&stack, &load, cases).await;
    drop(load);
    result?;
    let healthy = stack.measured("words-1", "speechstack_restarts_total", &[]).await?;
    ensure!(healthy == 0.0, "the healthy engine was restarted {healthy} times");
    stack.stop().await
}

#[tokio::test]
async fn a_language_model_that_fails_or_hangs_is_restarted_and_no_client_notices() -> Result<()> {
    let cases = vec![
        on_words(wedge("llm F1", json!({"mode": "F1"}), &["A"])),
        on_words(wedge("llm F2", json!({"mode": "F2"}), &["B"])),
        on_words(wedge("llm F7", json!({"mode": "F7"}), &["H", "P"])),
        on_words(wedge("llm F12", json!({"mode": "F12"}), &["A", "B", "R", "H", "P"])),
        on_words(wedge("llm F13 reset", json!({"mode": "F13", "rst_after_bytes": 10}), &["R"])),
        // A start that takes long is not cut short.
        Case {
            stimulus: Stimulus::Kill,
            ..on_words(wedge("llm F27", json!({"mode": "F27", "seconds": 12}), &["R"]))
        },
    ];
    play_on_answers("faults-llm", cases).await
}

/// A client gets its 200 all the same.
#[tokio::test]
async fn a_language_model_that_answers_nothing_of_use_is_found_by_the_golden_question() -> Result<()> {
    let garbage = |mode, variant| on_words(wedge(mode, json!({"mode": "F14", "variant": variant}), &["Q"]));
    let cases = vec![garbage("llm F14 empty", "empty"), garbage("llm F14 punct", "punct")];
    play_on_answers("faults-llm-garbage", cases).await
}

#[tokio::test]
async fn a_language_model_with_a_passing_error_is_left_alone() -> Result<()> {
    let once = |mode, arm: Value| tolerant(on_words(harmless(mode, arm, ANY, Duration::from_secs(10))));
    let asked = format!("{:016x}", twox_hash::XxHash3_64::oneshot(ASKED.as_bytes()));
    let cases = vec![
        once("llm F3", json!({"mode": "F3"})),
        once("llm F9", json!({"mode": "F9"})),
        // Refusals are the client's: they are passed on. A model that refuses the golden question too would be sick.
        Case {
            target: "words-0",
            ..tolerant(harmless(
                "llm F5",
                json!({"mode": "F5", "trigger": {"on_input_hash": asked}}),
                ANY,
                Duration::from_secs(10),
            ))
        },
    ];
    play_on_answers("faults-llm-harmless", cases).await
}
