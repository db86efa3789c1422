//! The fault matrix: every failure mode is played on a live stack under load, and must be found, ejected and cured.
//!
//! Rows are named after the reference engine's switchboard. Few run at a time, each on a stack of its own, so that no row disturbs another.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use speechstack_e2e::client::say;
use speechstack_e2e::fault::{Case, Ending, Expect, Stimulus, play_all};
use speechstack_e2e::load::{Ask, Counts, Load};
use speechstack_e2e::stack::{EngineOptions, Stack, StackOptions};
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

#[path = "faults/kinds.rs"]
mod kinds;
#[path = "faults/llm.rs"]
mod llm;
#[path = "faults/standby.rs"]
mod standby;
#[path = "faults/streams.rs"]
mod streams;

/// Rows at a time: a stack under its load takes about half a core, and its guards wait for seconds until they are sure.
const ROWS: u32 = 2;
/// However many threads the tests have, so many of them have a stack.
static TURNS: Semaphore = Semaphore::const_new(ROWS as usize);

const TARGET: &str = "parakeet-0";
/// No class may be shown.
const NONE: Option<&[&str]> = Some(&[]);
/// A doubt may arise and be cleared.
const ANY: Option<&[&str]> = None;
/// Restarts that a row may take: some faults earn a drained recycle when they come often enough.
const AT_MOST_ONE: RangeInclusive<u64> = 0..=1;

/// Waits until a stack may be started.
async fn turn() -> Result<SemaphorePermit<'static>, AcquireError> {
    TURNS.acquire().await
}

/// Waits until no other stack of the matrix runs; for what compares times, or loads its engines with sessions.
async fn turn_alone() -> Result<SemaphorePermit<'static>, AcquireError> {
    TURNS.acquire_many(ROWS).await
}

/// A row that ends in one restart and health.
fn wedge(mode: &'static str, arm: Value, classes: &'static [&'static str]) -> Case {
    Case {
        mode,
        target: TARGET,
        arm,
        arm_all: false,
        stimulus: Stimulus::Steady,
        ending: Ending::Restarted,
        expect: Expect {
            classes: Some(classes),
            verdicts: &["wedged"],
            remediation: Some("restart"),
            restarts: 1..=1,
            client_errors: None,
        },
    }
}

/// A row in which nothing may be restarted.
fn harmless(
    mode: &'static str,
    arm: Value,
    classes: Option<&'static [&'static str]>,
    time: Duration,
) -> Case {
    Case {
        ending: Ending::After(time),
        expect: Expect {
            classes,
            verdicts: &["serving", "degraded", "suspect"],
            remediation: None,
            restarts: 0..=0,
            client_errors: None,
        },
        ..wedge(mode, arm, &[])
    }
}

/// The row's fault may cost clients nothing, since a second engine lives.
fn unseen(mut case: Case) -> Case {
    case.expect.client_errors = Some(0);
    case
}

fn short_clip() -> Result<Bytes> {
    say(&[("slt", "Good morning.")])
}

/// About 15 seconds of speech.
fn long_clip() -> Result<Bytes> {
    say(&long_lines())
}

/// About a minute of speech.
fn very_long_clip() -> Result<Bytes> {
    say(&long_lines().repeat(4))
}

fn long_lines() -> [(&'static str, &'static str); 3] {
    [
        ("slt", "We should meet at the station in the morning. The weather will be cold and windy tomorrow."),
        ("rms", "What do you think about the new plan for the city? I think it will cost a lot of money."),
        ("slt", "She told me that the train was late again. I have been here for more than seven years now."),
    ]
}

fn steady(stack: &Stack) -> Result<Load> {
    let ask = Ask::Transcribe(short_clip()?);
    Ok(Load::start(stack.client.clone(), ask, Duration::from_millis(600)))
}

async fn play_on_two_engines(name: &str, cases: Vec<Case>) -> Result<()> {
    let _turn = turn().await?;
    let stack = Stack::start(StackOptions::new(name)).await?;
    let load = steady(&stack)?;
    let result = play_all(&stack, &load, cases).await;
    drop(load);
    result?;
    stack.stop().await
}

#[tokio::test]
async fn a_dead_engine_is_restarted_and_no_client_notices() -> Result<()> {
    let cases = vec![
        unseen(wedge("F1", json!({"mode": "F1"}), &["A"])),
        unseen(wedge("F2", json!({"mode": "F2"}), &["B"])),
        unseen(wedge("F4", json!({"mode": "F4"}), &["A", "B"])),
        unseen(wedge("F12", json!({"mode": "F12"}), &["A", "B", "R", "H", "P"])),
        unseen(wedge("F12 hang", json!({"mode": "F12", "variant": "hang"}), &["H", "P"])),
        unseen(wedge("F13 close", json!({"mode": "F13"}), &["R"])),
        unseen(wedge("F13 reset", json!({"mode": "F13", "rst_after_bytes": 10}), &["R"])),
        unseen(Case { stimulus: Stimulus::Kill, ..wedge("kill -9", Value::Null, &["R"]) }),
    ];
    play_on_two_engines("faults-dead", cases).await
}

#[tokio::test]
async fn a_silent_or_slow_engine_is_distinguished_from_a_busy_one() -> Result<()> {
    let long = long_clip()?;
    let cases = vec![
        // A job of which a second engine was sooner hangs no more: then probes alone see it.
        unseen(wedge("F7", json!({"mode": "F7"}), &["H", "P"])),
        unseen(wedge("F8", json!({"mode": "F8"}), &["H", "P"])),
        harmless("F9", json!({"mode": "F9"}), ANY, Duration::from_secs(12)),
        Case {
            // A blockade within the time that the work ahead may take.
            stimulus: Stimulus::Transcribe(very_long_clip()?, 2),
            ..harmless("F10", json!({"mode": "F10", "seconds": 4}), ANY, Duration::from_secs(15))
        },
        harmless("F11", json!({"mode": "F11"}), ANY, Duration::from_secs(15)),
    ];
    let cases = cases.into_iter().map(|case| match case.mode {
        "F11" => {
            let (period, time) = (Duration::from_millis(150), Duration::from_secs(12));
            Case { stimulus: Stimulus::Overload(Ask::Transcribe(long.clone()), period, time), ..case }
        }
        "F9" | "F10" => tolerant(case),
        _ => case,
    });
    play_on_two_engines("faults-silent", cases.collect()).await
}

/// Suspicion is allowed here, and so its class may or may not be shown.
fn tolerant(mut case: Case) -> Case {
    case.expect.verdicts = &["serving", "degraded", "suspect", "undecided"];
    case
}

#[tokio::test]
async fn wrong_content_is_found_though_every_status_is_200() -> Result<()> {
    let garbage = |mode, variant| wedge(mode, json!({"mode": "F14", "variant": variant}), &["Q"]);
    let cases = vec![
        garbage("F14 empty", "empty"),
        garbage("F14 punct", "punct"),
        garbage("F14 constant", "constant"),
        garbage("F14 nan", "nan"),
    ];
    play_on_two_engines("faults-content", cases).await
}

#[tokio::test]
async fn wrong_sound_is_found_though_every_status_is_200() -> Result<()> {
    let _turn = turn().await?;
    let engines = vec![EngineOptions::new("magpie-0", "tts")];
    let stack = Stack::start(StackOptions { engines, ..StackOptions::new("faults-sound") }).await?;
    let ask = Ask::Speak("good morning".to_owned());
    let load = Load::start(stack.client.clone(), ask, Duration::from_secs(1));
    let garbage = |mode, variant| Case {
        target: "magpie-0",
        ..wedge(mode, json!({"mode": "F15", "variant": variant}), &["Q"])
    };
    let cases = vec![
        garbage("F15 silence", "silence"),
        garbage("F15 noise", "noise"),
        garbage("F15 short", "short"),
        garbage("F15 header", "bad_header"),
    ];
    let result = play_all(&stack, &load, cases).await;
    drop(load);
    result?;
    stack.stop().await
}

#[tokio::test]
async fn what_is_no_wedge_restarts_nothing() -> Result<()> {
    let short = short_clip()?;
    let long = long_clip()?;
    let refused = say(&[("rms", "This file is refused.")])?;
    let hash = format!("{:016x}", twox_hash::XxHash3_64::oneshot(&refused));
    let cases = vec![
        unseen(harmless("F3", json!({"mode": "F3"}), Some(&["A", "B"]), Duration::from_secs(12))),
        unseen(Case {
            stimulus: Stimulus::Malformed(20),
            ..harmless("F5 malformed", Value::Null, NONE, Duration::from_secs(8))
        }),
        // Refusals of one file; an engine that refuses golden clips too would be sick.
        unseen(Case {
            stimulus: Stimulus::Transcribe(refused, 10),
            ..harmless(
                "F5",
                json!({"mode": "F5", "trigger": {"on_input_hash": hash}}),
                NONE,
                Duration::from_secs(8),
            )
        }),
        Case {
            stimulus: Stimulus::Transcribe(long, 2),
            arm_all: true,
            // Three losses earn a drained recycle.
            expect: Expect {
                classes: Some(&["C"]),
                verdicts: &["serving", "degraded", "suspect"],
                remediation: None,
                restarts: AT_MOST_ONE,
                client_errors: None,
            },
            ..harmless("F6", json!({"mode": "F6", "oom_above_s": 6}), Some(&["C"]), Duration::from_secs(10))
        },
        unseen(Case {
            stimulus: Stimulus::Cancelled(short.clone(), 20),
            ..harmless("F30", Value::Null, NONE, Duration::from_secs(10))
        }),
        unseen(Case {
            stimulus: Stimulus::WithSpeakers(short, 6),
            arm_all: true,
            ..harmless("F31", json!({"mode": "F31"}), NONE, Duration::from_secs(10))
        }),
    ];
    play_on_two_engines("faults-harmless", cases).await
}

/// Faults that outlive the process, each on a stack of its own since some end where only a person goes on.
async fn play_alone(case: Case, guard: Value) -> Result<()> {
    let _turn = turn().await?;
    let mut options = StackOptions::new(&format!("faults-{}", case.mode.to_lowercase().replace(' ', "-")));
    merge(&mut options.guard, guard);
    options.engines.truncate(2);
    let stack = Stack::start(options).await?;
    let load = steady(&stack)?;
    let result = play_all(&stack, &load, vec![case]).await;
    drop(load);
    result?;
    stack.stop().await
}

fn merge(policy: &mut Value, over: Value) {
    for (section, fields) in over.as_object().into_iter().flatten() {
        for (field, value) in fields.as_object().into_iter().flatten() {
            policy[section][field] = value.clone();
        }
    }
}

#[tokio::test]
async fn an_engine_that_cannot_load_is_not_restarted_in_a_loop() -> Result<()> {
    let case = Case {
        stimulus: Stimulus::Kill,
        ending: Ending::State("config_error"),
        expect: Expect {
            classes: Some(&["D"]),
            verdicts: &["unstartable"],
            remediation: None,
            restarts: 1..=2,
            client_errors: None,
        },
        ..unseen(wedge("F18 fail", json!({"mode": "F18", "variant": "fail"}), &["D"]))
    };
    play_alone(case, Value::Null).await
}

#[tokio::test]
async fn a_wedge_that_returns_at_once_stops_at_the_futility_rule() -> Result<()> {
    let case = Case {
        ending: Ending::State("exhausted"),
        expect: Expect { restarts: 2..=8, ..wedge("F22", Value::Null, &["A"]).expect },
        ..unseen(wedge("F22", json!({"mode": "F22"}), &["A"]))
    };
    play_alone(case, json!({"repair": {"futility_of": 3, "futility_window": "5s"}})).await
}

/// Engines that are slow or busy, a guard that did not run, and clients that are slow.
#[tokio::test]
async fn what_only_looks_like_a_wedge_restarts_nothing() -> Result<()> {
    let seconds = Duration::from_secs;
    let cases = vec![
        tolerant(harmless(
            "F33",
            json!({"mode": "F33", "seconds": 12, "clear": "process"}),
            ANY,
            seconds(16),
        )),
        tolerant(harmless("F34", json!({"mode": "F34", "seconds": 4}), ANY, seconds(25))),
        Case {
            stimulus: Stimulus::Stopped(seconds(3)),
            ..tolerant(harmless("F37", Value::Null, ANY, seconds(12)))
        },
        // A cancelled job goes on in the engine, so that a cancel cannot wedge it.
        unseen(Case {
            stimulus: Stimulus::Cancelled(long_clip()?, 4),
            ..harmless("F45", json!({"mode": "F45"}), NONE, seconds(12))
        }),
        Case {
            stimulus: Stimulus::SlowUploads(64),
            ..unseen(harmless("F44", Value::Null, NONE, seconds(15)))
        },
    ];
    play_on_two_engines("faults-lookalikes", cases).await
}

/// Faults that a health check or a status alone does not show.
#[tokio::test]
async fn what_hides_behind_green_health_is_found() -> Result<()> {
    let cases = vec![unseen(wedge("F35", json!({"mode": "F35"}), &["B"]))];
    play_on_two_engines("faults-hidden", cases).await
}

#[tokio::test]
async fn a_first_inference_that_loads_is_waited_for() -> Result<()> {
    let case = Case {
        stimulus: Stimulus::Kill,
        ..unseen(wedge("F32", json!({"mode": "F32", "seconds": 12, "clear": {"state_file": true}}), &["R"]))
    };
    play_alone(case, Value::Null).await
}

#[tokio::test]
async fn an_engine_that_says_why_it_cannot_run_before_it_ends_is_not_restarted_in_a_loop() -> Result<()> {
    let case = Case {
        stimulus: Stimulus::Kill,
        ending: Ending::State("config_error"),
        expect: Expect {
            classes: Some(&["D", "R"]),
            verdicts: &["unstartable"],
            remediation: None,
            restarts: 1..=2,
            client_errors: None,
        },
        ..unseen(wedge("F41", json!({"mode": "F41", "clear": {"state_file": true}}), &["D"]))
    };
    play_alone(case, Value::Null).await
}

#[tokio::test]
async fn a_slow_start_is_waited_for() -> Result<()> {
    let case = Case {
        stimulus: Stimulus::Kill,
        expect: Expect { restarts: 1..=1, ..wedge("F27", Value::Null, &["R"]).expect },
        ..unseen(wedge("F27", json!({"mode": "F27", "seconds": 12}), &["R"]))
    };
    play_alone(case, Value::Null).await
}

/// With another engine beside it a slow one gets so little traffic that nothing is known of it.
#[tokio::test]
async fn an_engine_that_slows_down_is_degraded_and_not_taken_for_hung() -> Result<()> {
    let _turn = turn().await?;
    let mut options = StackOptions::new("faults-f16");
    options.engines.truncate(1);
    let stack = Stack::start(options).await?;
    let load = steady(&stack)?;
    // What is normal must be known first.
    while load.since(&Counts::default()).await?.ok < 40 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let case = Case {
        ending: Ending::State("degraded"),
        expect: Expect {
            classes: Some(&["T"]),
            verdicts: &["degraded", "suspect"],
            remediation: None,
            restarts: AT_MOST_ONE,
            client_errors: None,
        },
        ..wedge("F16", json!({"mode": "F16", "factor": 4}), &["T"])
    };
    let result = play_all(&stack, &load, vec![case]).await;
    drop(load);
    result?;
    stack.stop().await
}

#[tokio::test]
async fn a_poisonous_input_is_refused_after_two_engines_fell_to_it() -> Result<()> {
    let _turn = turn().await?;
    let mut options = StackOptions::new("faults-f23");
    options.engines.truncate(2);
    let stack = Stack::start(options).await?;
    let load = steady(&stack)?;
    let poison = say(&[("kal16", "This very sentence is poison.")])?;
    let hash = format!("{:016x}", twox_hash::XxHash3_64::oneshot(&poison));
    let arm = json!({"mode": "F23", "trigger": {"on_input_hash": hash}});
    for engine in ["parakeet-0", "parakeet-1"] {
        stack.arm(engine, &arm).await?;
    }
    let mark = load.mark();
    let mut refused = None;
    for _ in 0..6 {
        let reply = stack.client.transcribe("poison.wav", poison.clone(), "json").await?;
        if reply.status == 422 {
            refused = Some(reply.text());
            break;
        }
        stack.healthy().await?;
    }
    let refused = refused.context("the poison was never refused")?;
    ensure!(refused.contains("poison_input"), "{refused}");
    stack.healthy().await?;
    let restarts: u64 = stack.state().await?.engines.iter().map(|engine| engine.restarts).sum();
    ensure!((2..=4).contains(&restarts), "{restarts} restarts");
    // Others go on being served.
    let counts = load.since(&mark).await?;
    println!("F23: refused after {restarts} restarts; others: {} ok, {} errors", counts.ok, counts.errors);
    drop(load);
    stack.stop().await
}
