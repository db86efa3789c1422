//! Work beyond what the engines can do: it is turned away or waits, and no engine is taken for wedged.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use speechstack_e2e::client::Client;
use speechstack_e2e::cluster::scenario::restarts;
use speechstack_e2e::deployed;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::fixture::Fixture;
use super::healing::{START, clip, small, total};

/// How long the storm lasts.
const STORM: Duration = Duration::from_secs(180);
/// What a job takes at least, so that two engines do one a second whatever the machine.
const JOB_SECONDS: f64 = 2.0;
/// Three times that.
const PERIOD: Duration = Duration::from_millis(333);
/// For clients that wait; longer than any queue.
const TEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Of ten clients so many go away before their answer.
const IMPATIENT: u64 = 3;

/// Of so many answers one may be another.
const MOST_LOST: u64 = 200;

/// Three times the work the engines can do, and three clients of ten that do not wait for it, for five minutes: no
/// engine is restarted, no answer is another than speech or a plain refusal, and afterwards all is as before.
pub async fn a_storm_of_work_restarts_nothing(fixture: &Fixture) -> Result<()> {
    let stack = fixture
        .stack(&json!({
            "stt": [{
                "name": "parakeet", "preset": "reference", "replicas": 2, "resources": small(),
                "args": ["--pace", format!("{JOB_SECONDS},0")],
            }],
            "deepProbe": {"interval": "5s", "contentInterval": "15s"},
            "gateway": {"replicas": 1},
        }))
        .await?;
    stack.ready(START).await?;
    let gateway = stack.gateway().await?.patient(TEST_TIMEOUT)?;
    let answers = storm(&gateway).await?;
    eprintln!("storm of {} s at 3 times the capacity: {answers:?}", STORM.as_secs());
    let of = |status: &str| answers.get(status).copied().unwrap_or_default();
    ensure!(of("200") > 40, "too few were served: {answers:?}");
    ensure!(of("429") + of("503") > 0, "nobody was refused, so this was no overload: {answers:?}");
    ensure!(of("gone") > 100, "too few clients went away: {answers:?}");
    let expected = ["200", "429", "503", "gone"];
    let others = |(told, count): (&String, &u64)| (!expected.contains(&told.as_str())).then_some(*count);
    let (others, all) = (answers.iter().filter_map(others).sum::<u64>(), answers.values().sum::<u64>());
    // The cluster's network address translation now and then loses a connection while its rules are renewed.
    ensure!(others * MOST_LOST <= all, "other answers: {answers:?}");

    let status = stack.ready(START).await?;
    ensure!(total(&status) == 0, "{} repairs on record: {:?}", total(&status), status.repair);
    for pod in stack.pods("parakeet").await? {
        for container in ["engine", "guard"] {
            let count = restarts(&pod, container);
            ensure!(count == 0, "{container} of {} was restarted {count} times", deployed::name(&pod));
        }
    }
    let events = stack.events().await?;
    ensure!(!events.iter().any(|reason| reason == "InferenceWedged"), "taken for wedged: {events:?}");
    let reply = gateway.transcribe("clip.wav", clip()?, "json").await?;
    ensure!(reply.status == 200, "after the storm: {} {}", reply.status, reply.text());
    Ok(())
}

/// How many clients got which answer; `gone` are those who did not wait for one.
async fn storm(gateway: &Client) -> Result<BTreeMap<String, u64>> {
    let clip = clip()?;
    let mut answers = BTreeMap::new();
    let mut clients = JoinSet::new();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    let mut nth = 0;
    while began.elapsed() < STORM {
        ticks.tick().await;
        let (gateway, clip) = (gateway.clone(), clip.clone());
        // Some go while they wait, some while the engine works for them.
        let patience = (nth % 10 < IMPATIENT).then(|| Duration::from_millis(300 + nth % 7 * 400));
        nth += 1;
        clients.spawn(async move {
            let asked = gateway.transcribe("clip.wav", clip, "json");
            match patience {
                Some(patience) => timeout(patience, asked).await.ok(),
                None => Some(asked.await),
            }
        });
        while let Some(ended) = clients.try_join_next() {
            count(&mut answers, ended?);
        }
    }
    while let Some(ended) = clients.join_next().await {
        count(&mut answers, ended.context("a client died")?);
    }
    Ok(answers)
}

fn count(answers: &mut BTreeMap<String, u64>, answer: Option<Result<speechstack_e2e::client::Reply>>) {
    let told = match answer {
        None => "gone".to_owned(),
        Some(Ok(reply)) => reply.status.to_string(),
        Some(Err(error)) => format!("{error:#}"),
    };
    *answers.entry(told).or_default() += 1;
}
