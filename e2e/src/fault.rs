//! One row of the fault matrix: arm a fault on a live stack, let clients run into it, judge what the stack did.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use crate::client::Client;
use crate::load::{Ask, Counts, Load};
use crate::report::{event_at, is_healthy};
use crate::session::Session;
use crate::slow;
use crate::stack::Stack;
use crate::watch::{Sample, Watch};
use contract::{EngineReport, Incident};

/// How long a case may take to end; an order of magnitude more than it needs.
const LIMIT: Duration = Duration::from_secs(90);
/// Ceiling on the time from the first bad byte to the verdict.
const DETECTION_CEILING_MS: u64 = 60_000;

/// Verdicts from best to worst.
const VERDICTS: [&str; 7] =
    ["serving", "pending", "degraded", "suspect", "undecided", "wedged", "unstartable"];

/// A fault and what must come of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// Row of the fault table, and its variant.
    pub mode: &'static str,
    /// The engine that has the fault.
    pub target: &'static str,
    /// Body of `POST /_engine/fault`; null arms nothing.
    pub arm: Value,
    /// Whether every engine of the target's kind gets it.
    pub arm_all: bool,
    /// What clients do beside the steady load.
    pub stimulus: Stimulus,
    /// When the case is over.
    pub ending: Ending,
    /// What must have happened by then.
    pub expect: Expect,
}

/// What happens after arming, beside the steady load.
#[derive(Clone, Debug)]
pub enum Stimulus {
    /// Nothing.
    Steady,
    /// The engine's process is killed.
    Kill,
    /// This file is transcribed so many times, one after the other.
    Transcribe(Bytes, u32),
    /// This text is spoken so many times, one after the other.
    Speak(String, u32),
    /// This file is transcribed with speakers so many times at once.
    WithSpeakers(Bytes, u32),
    /// So many clients upload this file and go away before the answer.
    Cancelled(Bytes, u32),
    /// So many uploads that are no audio at all.
    Malformed(u32),
    /// The proxy with its guards is stopped (SIGSTOP) for this time.
    Stopped(Duration),
    /// So many clients that send their files a little at a time and never end.
    SlowUploads(usize),
    /// So many sessions at once in which half of these samples is said, before their clients leave.
    Abandoned(Vec<i16>, usize),
    /// A second load beside the first, at this period and for this time.
    Overload(Ask, Duration, Duration),
}

/// When a case is over.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// The target was restarted and is healthy again.
    Restarted,
    /// The target is in this state.
    State(&'static str),
    /// This time has passed; used where nothing should happen.
    After(Duration),
}

/// What must have happened.
#[derive(Clone, Debug)]
pub struct Expect {
    /// One of these classes was reported; empty: none was; `None`: a doubt may or may not arise.
    pub classes: Option<&'static [&'static str]>,
    /// The gravest verdict was one of these.
    pub verdicts: &'static [&'static str],
    /// The incident's last rung; `None` where no restart is due.
    pub remediation: Option<&'static str>,
    /// Restarts of the target.
    pub restarts: RangeInclusive<u64>,
    /// Most errors that clients of the steady load may have seen; `None` where they are only counted.
    pub client_errors: Option<u64>,
}

/// What happened in a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Row of the fault table.
    pub mode: &'static str,
    /// Classes reported.
    pub classes: BTreeSet<String>,
    /// The gravest verdict.
    pub verdict: String,
    /// Last rung of the last incident.
    pub remediation: Option<String>,
    /// Restarts of the target.
    pub restarts: u64,
    /// The steady load.
    pub load: Counts,
    /// Milliseconds from the first bad byte to the ejection, the verdict, the restart and health.
    pub eject_ms: Option<u64>,
    /// See `eject_ms`.
    pub detection_ms: Option<u64>,
    /// See `eject_ms`.
    pub restart_ms: Option<u64>,
    /// See `eject_ms`.
    pub recovery_ms: Option<u64>,
    /// What was expected and did not happen.
    pub faults: Vec<String>,
}

/// Plays cases one after the other, healing the stack between them, and prints the table. All are played, whatever fails.
///
/// # Errors
/// When an expectation was not met or the stack did not heal between two cases; the message lists all of them.
pub async fn play_all(stack: &Stack, load: &Load, cases: Vec<Case>) -> Result<()> {
    let watch = Watch::start(stack.admin.clone());
    let mut outcomes = Vec::new();
    let mut failures = Vec::new();
    let count = cases.len();
    for (nth, case) in cases.into_iter().enumerate() {
        match play(stack, load, &watch, &case).await {
            Ok(outcome) => {
                failures.extend(outcome.faults.iter().map(|fault| format!("{}: {fault}", case.mode)));
                outcomes.push(outcome);
            }
            Err(error) => failures.push(format!("{}: {error:#}", case.mode)),
        }
        if nth + 1 == count {
            break;
        }
        heal(stack, &case).await;
        if let Err(error) = stack.healthy().await {
            failures.push(format!("{}: not healed: {error:#}", case.mode));
            break;
        }
    }
    print(&table(&outcomes));
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}

/// Past the test harness, which keeps what a passing test prints to itself.
fn print(table: &str) {
    use std::io::Write;
    // A stream without a reader is no reason to fail.
    let _ = writeln!(std::io::stderr().lock(), "\n{table}\n");
}

/// Plays one case and judges it.
///
/// # Errors
/// When it cannot be played, or does not come to its end in time.
pub async fn play(stack: &Stack, load: &Load, watch: &Watch, case: &Case) -> Result<Outcome> {
    let before = stack.engine(case.target).await?;
    let mark = load.mark();
    let began = Instant::now();
    if !case.arm.is_null() {
        for name in armed(stack, case).await? {
            stack.arm(&name, &case.arm).await?;
        }
    }
    stimulate(stack, case).await?;
    wait_for_end(stack, case, &before, began).await?;
    let counts = load.since(&mark).await?;
    let after = stack.engine(case.target).await?;
    let known: BTreeSet<&str> = before.incidents.iter().map(|incident| incident.id.as_str()).collect();
    let incidents = after.incidents.iter().filter(|incident| !known.contains(incident.id.as_str()));
    let incidents: Vec<Incident> = incidents.cloned().collect();
    let restarts = after.restarts - before.restarts;
    let mut seen = watch.since(case.target, began);
    // The end may have come after the last look.
    seen.push(Sample::of(after));
    Ok(judge(case, &seen, &incidents, restarts, counts))
}

/// The engines that get the fault.
async fn armed(stack: &Stack, case: &Case) -> Result<Vec<String>> {
    if !case.arm_all {
        return Ok(vec![case.target.to_owned()]);
    }
    let engines = stack.state().await?.engines;
    let capability = engines.iter().find(|engine| engine.name == case.target).map(|engine| engine.capability);
    Ok(engines
        .into_iter()
        .filter(|engine| Some(engine.capability) == capability)
        .map(|engine| engine.name)
        .collect())
}

async fn stimulate(stack: &Stack, case: &Case) -> Result<()> {
    match &case.stimulus {
        Stimulus::Steady => {}
        Stimulus::Kill => stack.kill_engine(case.target)?,
        Stimulus::Transcribe(clip, times) => {
            for _ in 0..*times {
                // Its outcome is seen in the stack's own report.
                let _ = stack.client.transcribe("extra.wav", clip.clone(), "json").await;
            }
        }
        Stimulus::Speak(text, times) => {
            for _ in 0..*times {
                let _ = stack.client.speak("alloy", text, "wav").await;
            }
        }
        Stimulus::WithSpeakers(clip, times) => {
            let calls = (0..*times).map(|_| stack.client.transcribe_with_speakers("extra.wav", clip.clone()));
            for reply in futures::future::join_all(calls).await {
                reply?.json()?;
            }
        }
        Stimulus::Cancelled(clip, times) => {
            let hasty = Client::new(&stack.url, Duration::from_millis(150))?;
            for _ in 0..*times {
                let _ = hasty.transcribe("cancelled.wav", clip.clone(), "json").await;
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        }
        Stimulus::Malformed(times) => {
            for _ in 0..*times {
                let noise = Bytes::from_static(b"this is no audio, whatever its name says");
                let reply = stack.client.transcribe("noise.wav", noise, "json").await?;
                if !(400..500).contains(&reply.status) {
                    bail!("a malformed file got {} {}", reply.status, reply.text());
                }
            }
        }
        Stimulus::Stopped(time) => {
            stack.pause();
            tokio::time::sleep(*time).await;
            stack.resume();
        }
        Stimulus::SlowUploads(clients) => {
            let clients = (0..*clients).map(|_| slow::upload(&stack.url, 10));
            futures::future::join_all(clients).await.into_iter().collect::<Result<()>>()?;
        }
        Stimulus::Abandoned(samples, clients) => {
            let abandon = async || {
                let session = Session::open(&stack.url).await?;
                session.leave(samples, Duration::from_secs(2)).await
            };
            let clients = (0..*clients).map(|_| abandon());
            futures::future::join_all(clients).await.into_iter().collect::<Result<()>>()?;
        }
        Stimulus::Overload(ask, period, time) => {
            let overload = Load::start(stack.client.clone(), ask.clone(), *period);
            tokio::time::sleep(*time).await;
            drop(overload);
        }
    }
    Ok(())
}

async fn wait_for_end(stack: &Stack, case: &Case, before: &EngineReport, began: Instant) -> Result<()> {
    if let Ending::After(time) = case.ending {
        tokio::time::sleep_until(began + time).await;
        return Ok(());
    }
    loop {
        let now = stack.engine(case.target).await?;
        let over = match case.ending {
            Ending::Restarted => now.restarts > before.restarts && is_healthy(&now) && closed(&now),
            Ending::State(state) => now.state.as_str() == state,
            Ending::After(_) => true,
        };
        if over {
            return Ok(());
        }
        if began.elapsed() > LIMIT {
            bail!(
                "no end after {LIMIT:?}: state {}, verdict {}, class {:?}, {} restarts; expected {:?}",
                now.state,
                now.verdict,
                now.class,
                now.restarts - before.restarts,
                case.ending
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether the last incident is over.
fn closed(engine: &EngineReport) -> bool {
    engine.incidents.last().is_none_or(|incident| incident.healthy_after_ms.is_some())
}

/// Takes the fault back wherever it may be armed. An engine that is down has nothing to take back.
async fn heal(stack: &Stack, case: &Case) {
    let Ok(names) = armed(stack, case).await else { return };
    for name in names {
        let deadline = Instant::now() + LIMIT;
        while stack.disarm(&name).await.is_err() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Compares what was seen with what was expected.
fn judge(case: &Case, seen: &[Sample], incidents: &[Incident], restarts: u64, load: Counts) -> Outcome {
    let classes: BTreeSet<String> = incidents
        .iter()
        .map(|incident| incident.class.to_string())
        .chain(seen.iter().skip(1).filter_map(|sample| sample.class.clone()))
        .collect();
    let gravity = |verdict: &str| VERDICTS.iter().position(|known| *known == verdict);
    // A wedge may be shorter than the time between two looks; its incident is not.
    let wedged =
        incidents.iter().any(|incident| event_at(incident, &["wedged"]).is_some()).then_some("wedged");
    let verdicts = seen.iter().map(|sample| sample.verdict.as_str()).chain(wedged);
    let verdict = verdicts.max_by_key(|verdict| gravity(verdict)).unwrap_or("serving").to_owned();
    let last = incidents.last();
    let first = incidents.first();
    let remediation = last.and_then(|incident| incident.remediation.clone());
    let detection_ms = first.and_then(|incident| event_at(incident, &["wedged"]));
    let expect = &case.expect;
    let mut faults = Vec::new();
    let class_fits = expect.classes.is_none_or(|expected| match expected {
        [] => classes.is_empty(),
        _ => expected.iter().any(|class| classes.contains(*class)),
    });
    if !class_fits {
        faults.push(format!("class {classes:?}, expected one of {:?}", expect.classes));
    }
    if !expect.verdicts.contains(&verdict.as_str()) {
        faults.push(format!("verdict {verdict}, expected one of {:?}", expect.verdicts));
    }
    if let Some(rung) = expect.remediation
        && remediation.as_deref() != Some(rung)
    {
        faults.push(format!("remediation {remediation:?}, expected {rung}"));
    }
    if !expect.restarts.contains(&restarts) {
        faults.push(format!("{restarts} restarts, expected {:?}", expect.restarts));
    }
    if let Some(most) = expect.client_errors
        && load.errors > most
    {
        faults.push(format!("{} client errors, at most {most} expected: {:?}", load.errors, load.failures));
    }
    if detection_ms.is_some_and(|ms| ms > DETECTION_CEILING_MS) {
        faults.push(format!("detected after {detection_ms:?} ms"));
    }
    if load.ok == 0 {
        faults.push("the steady load got not one answer".to_owned());
    }
    Outcome {
        mode: case.mode,
        classes,
        verdict,
        remediation,
        restarts,
        load,
        eject_ms: first.and_then(|incident| event_at(incident, &["ejected", "wedged", "restarting"])),
        detection_ms,
        restart_ms: first.and_then(|incident| event_at(incident, &["restart"])),
        recovery_ms: last.and_then(|incident| incident.healthy_after_ms),
        faults,
    }
}

const HEAD: &str = "mode            class    verdict     remediation   restarts  client ok/err  eject ms  detect ms  restart ms  recover ms  holds";

/// The fault matrix as it is printed and published.
pub fn table(outcomes: &[Outcome]) -> String {
    let lines = outcomes.iter().map(line);
    std::iter::once(HEAD.to_owned()).chain(lines).collect::<Vec<_>>().join("\n")
}

fn line(outcome: &Outcome) -> String {
    let ms = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |ms| ms.to_string());
    let classes = outcome.classes.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    format!(
        "{:<15} {:<8} {:<11} {:<13} {:>8} {:>14} {:>9} {:>10} {:>11} {:>11}  {}",
        outcome.mode,
        if classes.is_empty() { "-" } else { &classes },
        outcome.verdict,
        outcome.remediation.as_deref().unwrap_or("-"),
        outcome.restarts,
        format!("{}/{}", outcome.load.ok, outcome.load.errors),
        ms(outcome.eject_ms),
        ms(outcome.detection_ms),
        ms(outcome.restart_ms),
        ms(outcome.recovery_ms),
        if outcome.faults.is_empty() { "yes" } else { "NO" },
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn case(expect: Expect) -> Case {
        Case {
            mode: "F1",
            target: "parakeet-0",
            arm: Value::Null,
            arm_all: false,
            stimulus: Stimulus::Steady,
            ending: Ending::Restarted,
            expect,
        }
    }

    fn wedge() -> Expect {
        Expect {
            classes: Some(&["A"]),
            verdicts: &["wedged"],
            remediation: Some("restart"),
            restarts: 1..=1,
            client_errors: Some(0),
        }
    }

    fn incident() -> Incident {
        serde_json::from_value(json!({
            "id": "1", "engine": "a", "instance": "i", "started_unix_ms": 0, "class": "A", "probes": [], "restarts": 1, "remediation": "restart", "healthy_after_ms": 900,
            "timeline": [{"at_ms": 2, "event": "ejected"}, {"at_ms": 80, "event": "wedged"}],
        }))
        .unwrap()
    }

    #[test]
    fn a_wedge_too_short_to_be_seen_is_known_from_its_incident() {
        let counts = Counts { ok: 9, ..Counts::default() };
        let outcome = judge(&case(wedge()), &[], &[incident()], 1, counts);
        assert_eq!(outcome.faults, Vec::<String>::new());
        assert_eq!(
            (outcome.eject_ms, outcome.detection_ms, outcome.recovery_ms),
            (Some(2), Some(80), Some(900))
        );
    }

    #[test]
    fn every_expectation_can_fail() {
        let counts = Counts { errors: 1, ..Counts::default() };
        let outcome = judge(&case(wedge()), &[], &[], 2, counts);
        assert_eq!(outcome.faults.len(), 6, "{:?}", outcome.faults);
    }

    #[test]
    fn a_class_where_none_is_expected_is_a_failure() {
        let expect = Expect { classes: Some(&[]), remediation: None, client_errors: None, ..wedge() };
        let counts = Counts { ok: 9, ..Counts::default() };
        let outcome = judge(&case(expect), &[], &[incident()], 1, counts);
        assert_eq!(outcome.faults.len(), 1, "{:?}", outcome.faults);
    }
}
