//! Wedges on the cluster: the engine's container is restarted in place, and clients notice nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use speechstack_crds::{Outcome, RepairRecord, Rung, SpeechStackStatus};
use speechstack_e2e::client::{Client, say};
use speechstack_e2e::cluster::scenario::restarts;
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed::{self, Deployed};
use speechstack_e2e::load::{Ask, Load};

use super::fixture::Fixture;

/// Ceiling for a stack of reference engines to become Ready, image present.
pub const START: Duration = Duration::from_secs(180);
/// Ceiling for one repair, model load included.
pub const REPAIR: Duration = Duration::from_secs(120);

/// Two recognisers and a synthesiser, with a switchboard each, judged within seconds.
pub fn spec() -> Value {
    json!({
        "stt": [{"name": "parakeet", "preset": "reference", "replicas": 2, "args": ["--faults"], "resources": small()}],
        "tts": [{"name": "magpie", "preset": "reference", "replicas": 1, "args": ["--faults"], "resources": small()}],
        "deepProbe": {"interval": "3s", "contentInterval": "5s", "timeoutMin": "2s", "timeoutMax": "5s"},
        "repair": {"containerRestarts": {"burst": 10, "refill": "1m", "backoff": "1s"}},
        "gateway": {"replicas": 1},
    })
}

/// Requests that let many pods share two cores.
pub fn small() -> Value {
    json!({"requests": {"cpu": "20m", "memory": "64Mi"}})
}

/// Steady clients of a stack. They are few: with two cores for a whole cluster, one engine may be slower than they are.
pub async fn clients(stack: &Deployed) -> Result<Load> {
    let ask = Ask::Transcribe(clip()?);
    Ok(Load::bounded(stack.gateway().await?, ask, Duration::from_millis(1200), 4))
}

/// A short clip for steady clients.
pub fn clip() -> Result<Bytes> {
    say(&[("slt", "Good morning.")])
}

struct Wedge {
    what: &'static str,
    engine: &'static str,
    fault: Value,
    /// Classes that may be concluded.
    classes: &'static [&'static str],
    /// Whether another replica serves meanwhile.
    unseen: bool,
}

/// Class A, hang, dead child, silent garbage and silence: each is cured by one restart of the container.
pub async fn wedges_are_cured_in_place(fixture: &Fixture) -> Result<()> {
    let stack = fixture.stack(&spec()).await?;
    stack.ready(START).await?;
    let gateway = stack.gateway().await?;
    let load = clients(&stack).await?;
    let wedges = [
        Wedge {
            what: "dead CUDA context",
            engine: "parakeet",
            fault: json!({"mode": "F1"}),
            classes: &["A"],
            unseen: true,
        },
        Wedge {
            what: "hang",
            engine: "parakeet",
            fault: json!({"mode": "F7"}),
            // Whichever is first: the hang rule, or the idle probes of the engine that gets no traffic any more.
            classes: &["H", "P"],
            unseen: true,
        },
        Wedge {
            what: "dead child",
            engine: "parakeet",
            fault: json!({"mode": "F12"}),
            classes: &["A", "B", "R", "H", "P"],
            unseen: true,
        },
        Wedge {
            what: "silent garbage",
            engine: "parakeet",
            fault: json!({"mode": "F14", "variant": "empty"}),
            classes: &["Q", "P"],
            unseen: false,
        },
        Wedge {
            what: "silence",
            engine: "magpie",
            fault: json!({"mode": "F15", "variant": "silence"}),
            classes: &["Q", "P"],
            unseen: false,
        },
    ];
    eprintln!(
        "{:<20} {:<6} {:<9} {:>13} {:>10} {:>12}",
        "wedge", "class", "rung", "client ok/err", "restarts", "recovered ms"
    );
    let count = wedges.len();
    for wedge in wedges {
        cure(&stack, &gateway, &load, &wedge).await.with_context(|| wedge.what)?;
    }
    let events = stack.events().await?;
    for reason in ["InferenceWedged", "EngineRecovered"] {
        ensure!(events.iter().any(|event| event == reason), "no Event {reason} among {events:?}");
    }
    counted(fixture, count).await
}

/// The operator's metrics tell of so many cures.
async fn counted(fixture: &Fixture, count: usize) -> Result<()> {
    let operators = fixture.operators().await?;
    let operator = operators.first().context("no operator")?;
    let metrics = deployed::port(operator, 8080)?.get("/metrics").await?.text();
    for line in [
        format!(r#"speechstack_repairs_total{{outcome="recovered",rung="Restart"}} {count}"#),
        format!("speechstack_repair_seconds_count {count}"),
        r#"speechstack_guard_streams{state="open"} 3"#.to_owned(),
    ] {
        ensure!(metrics.lines().any(|told| told.eq_ignore_ascii_case(&line)), "no `{line}` in:\n{metrics}");
    }
    Ok(())
}

async fn cure(stack: &Deployed, gateway: &Client, load: &Load, wedge: &Wedge) -> Result<()> {
    let repairs = total(&stack.ready(REPAIR).await?);
    let pod = stack.pods(wedge.engine).await?.into_iter().next().context("the engine has no pod")?;
    let (name, uid, before) = (deployed::name(&pod), deployed::uid(&pod), restarts(&pod, "engine"));
    let mark = load.mark();
    stack.arm(&pod, &wedge.fault).await?;
    if wedge.engine == "magpie" {
        // Nothing else makes it speak before its next probe.
        gateway.speak("alloy", "good morning", "wav").await?;
    }
    let healed = |status: &SpeechStackStatus| {
        total(status) > repairs
            && last(status, wedge.engine).is_some_and(|record| record.outcome == Outcome::Recovered)
            && deployed::is_true(status, "Ready")
    };
    let status = stack.until("repaired", REPAIR, healed).await?;
    let counts = load.since(&mark).await?;
    let record = last(&status, wedge.engine).context("no record of the repair")?;
    let class = record.class.as_deref().unwrap_or("-");
    let now = stack.pod(name).await?.context("the pod was replaced")?;
    let restarted = restarts(&now, "engine") - before;
    let took = record.ended.as_ref().map(|ended| ended.0.duration_since(record.ordered.0).as_millis());
    eprintln!(
        "{:<20} {class:<6} {:<9} {:>9}/{:<3} {restarted:>10} {:>12}",
        wedge.what,
        record.rung.as_str(),
        counts.ok,
        counts.errors,
        took.unwrap_or_default(),
    );
    ensure!(record.rung == Rung::Restart, "it took {:?}", record.rung);
    ensure!(wedge.classes.contains(&class), "class {class}, not one of {:?}", wedge.classes);
    ensure!(deployed::uid(&now) == uid, "the pod was replaced");
    ensure!(restarted == 1, "the container was restarted {restarted} times");
    ensure!(
        !wedge.unseen || counts.errors == 0,
        "clients saw {} errors: {:?}",
        counts.errors,
        counts.failures
    );
    Ok(())
}

/// Replicas that wedge together are repaired one after the other, each verified before the next.
pub async fn a_common_fault_is_repaired_one_by_one(fixture: &Fixture) -> Result<()> {
    let stack = fixture.stack(&spec()).await?;
    stack.ready(START).await?;
    let load = clients(&stack).await?;
    let pods = stack.pods("parakeet").await?;
    for pod in &pods {
        stack.arm(pod, &json!({"mode": "F1"})).await?;
    }
    // The condition may end sooner than the next write of the status, the Event stays.
    await_condition("the Event CorrelatedSuspicion", REPAIR, async || {
        let events = stack.events().await?;
        ensure!(events.iter().any(|event| event == "CorrelatedSuspicion"), "only {events:?}");
        Ok(())
    })
    .await?;
    let healed = |status: &SpeechStackStatus| {
        let recovered = status.repair.iter().flat_map(|repair| &repair.records);
        recovered.filter(|record| record.outcome == Outcome::Recovered).count() >= pods.len()
            && deployed::is_true(status, "Ready")
            && !deployed::is_true(status, "CorrelatedFailure")
    };
    let status = stack.until("repaired", REPAIR * 2, healed).await?;
    drop(load);
    let records = status.repair.map(|repair| repair.records).unwrap_or_default();
    for pair in records.windows(2) {
        let [first, second] = pair else { continue };
        let ended = first.ended.as_ref().context("a repair has no end")?;
        ensure!(
            ended.0 <= second.ordered.0,
            "a second repair began before the first was verified: {records:?}"
        );
    }
    Ok(())
}

/// An engine that takes its time to start after a restart is waited for.
pub async fn a_slow_start_is_not_killed(fixture: &Fixture) -> Result<()> {
    let mut spec = spec();
    spec["stt"][0]["env"] = json!([{"name": "SPEECHSTACK_ENGINE_STATE_DIR", "value": "/faults"}]);
    spec["stt"][0]["podTemplatePatch"] = json!({"spec": {
        "volumes": [{"name": "faults", "emptyDir": {}}],
        "containers": [{"name": "engine", "volumeMounts": [{"name": "faults", "mountPath": "/faults"}]}],
    }});
    let stack = fixture.stack(&spec).await?;
    stack.ready(START).await?;
    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    stack.arm(&pod, &json!({"mode": "F27", "seconds": 25})).await?;
    stack.arm(&pod, &json!({"mode": "F1"})).await?;
    let load = clients(&stack).await?;
    repaired_once(&stack, &pod).await?;
    drop(load);
    Ok(())
}

/// A standby gets no request until its engine is out, and then all of them; but jobs whose answer is overdue may go to it as well.
pub async fn a_standby_serves_while_its_engine_is_repaired(fixture: &Fixture) -> Result<()> {
    let mut spec = spec();
    spec["stt"][0]["replicas"] = json!(1);
    let mut standby = spec["stt"][0].clone();
    (standby["name"], standby["standby"]) = (json!("spare"), json!(true));
    spec["stt"] = json!([spec["stt"][0], standby]);
    let stack = fixture.stack(&spec).await?;
    stack.ready(START).await?;
    let load = clients(&stack).await?;
    let mark = load.mark();
    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    let spare = stack.pods("spare").await?.into_iter().next().context("the standby has no pod")?;
    let deadline = Instant::now() + START;
    while served(&pod).await? < 10.0 {
        ensure!(Instant::now() < deadline, "the engine serves no client");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // The burst that the gateway allows of second tries.
    let hedged = served(&spare).await?;
    ensure!(hedged <= 3.0, "the standby served {hedged} requests while its engine was healthy");
    stack.arm(&pod, &json!({"mode": "F1"})).await?;
    repaired_once(&stack, &pod).await?;
    let counts = load.since(&mark).await?;
    drop(load);
    ensure!(served(&spare).await? > hedged, "the standby served nothing");
    ensure!(counts.errors == 0, "clients saw {} errors: {:?}", counts.errors, counts.failures);
    let spare = stack.pod(deployed::name(&spare)).await?.context("the standby was replaced")?;
    ensure!(restarts(&spare, "engine") == 0, "the standby was restarted");
    Ok(())
}

/// Requests that a pod's engine has served, by its guard's count.
async fn served(pod: &Pod) -> Result<f64> {
    let metrics = deployed::port(pod, contract::port::GUARD_ADMIN)?.get("/metrics").await?.text();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("speechstack_guard_requests_total") && line.contains("\"served\""));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).context("no count of served requests")
}

/// Waits until the repair of an engine is verified, which must have taken one restart of its container in that pod.
pub async fn repaired_once(stack: &Deployed, pod: &Pod) -> Result<SpeechStackStatus> {
    let healed = |status: &SpeechStackStatus| {
        last(status, "parakeet").is_some_and(|record| record.outcome == Outcome::Recovered)
            && deployed::is_true(status, "Ready")
    };
    let status = stack.until("repaired", REPAIR, healed).await?;
    let now = stack.pod(deployed::name(pod)).await?.context("the pod was replaced")?;
    ensure!(restarts(&now, "engine") == 1, "restarted {} times", restarts(&now, "engine"));
    Ok(status)
}

/// Repairs so far.
pub fn total(status: &SpeechStackStatus) -> i64 {
    status.repair.as_ref().map_or(0, |repair| repair.total)
}

/// The last repair of an engine.
pub fn last<'a>(status: &'a SpeechStackStatus, engine: &str) -> Option<&'a RepairRecord> {
    status.repair.as_ref()?.records.iter().rev().find(|record| record.engine == engine)
}
