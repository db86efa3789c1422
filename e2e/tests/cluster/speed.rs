//! How fast a cluster heals: printed, never judged by time.

use anyhow::{Context, Result, ensure};
use contract::EngineReport;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use speechstack_crds::{Outcome, SpeechStackStatus};
use speechstack_e2e::deployed::{self, Deployed};
use speechstack_e2e::report::event_at;

use super::fixture::Fixture;
use super::healing::{REPAIR, START, clip, small, total};

/// Pods of each engine; more repairs than that within minutes are deferred.
const REPLICAS: usize = 4;
/// How many engines there are; four wedges show that each step is there, more make the percentiles worth reading.
const ENGINES: &str = "SPEECHSTACK_SPEED_ENGINES";
const GUARD: u16 = 9400;
const ADMIN: u16 = 9401;

/// The steps of a cure: what they are called, and their event in the guard's incident.
const STEPS: [(&str, &str); 5] = [
    ("detected", "wedged"),
    ("ordered", "restarting"),
    ("restarted", "started"),
    ("loaded", "warming"),
    ("verified", "probation"),
];

/// Every pod of a stack wedges once, one after the other, each for the first time, so that no back-off of the kubelet
/// counts; the steps of its repair are reported as percentiles.
pub async fn every_first_wedge_heals(fixture: &Fixture) -> Result<()> {
    let count = std::env::var(ENGINES).map_or(Ok(1), |count| count.parse::<usize>()).context(ENGINES)?;
    let names: Vec<String> = (0..count).map(|at| format!("engine-{at}")).collect();
    let engine = |name| json!({"name": name, "preset": "reference", "replicas": REPLICAS, "args": ["--faults"], "resources": small()});
    let engines: Vec<_> = names.iter().map(engine).collect();
    let spec = json!({
        "stt": engines,
        "deepProbe": {"interval": "20s", "contentInterval": "60s"},
        "gateway": {"replicas": 1},
    });
    let stack = fixture.stack(&spec).await?;
    stack.ready(START * 2).await?;
    let mut healed = Vec::new();
    for engine in &names {
        for pod in stack.pods(engine).await? {
            healed.push(heal(&stack, &pod).await.with_context(|| deployed::name(&pod).to_owned())?);
        }
    }
    eprintln!("{} wedges of class A, ms since the first bad byte:", healed.len());
    eprintln!("{:<12} {:>7} {:>7} {:>7}", "step", "p50", "p99", "max");
    let steps = STEPS.iter().enumerate().map(|(nth, (name, _))| {
        let times: Vec<u64> = healed.iter().map(|steps| steps[nth]).collect();
        (*name, times)
    });
    let beyond =
        healed.iter().map(|[.., restarted, loaded, verified]| verified - (loaded - restarted)).collect();
    for (name, mut times) in steps.chain([("without load", beyond)]) {
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        eprintln!("{name:<12} {:>7} {:>7} {:>7}", at(0.5), at(0.99), at(1.0));
    }
    Ok(())
}

async fn heal(stack: &Deployed, pod: &Pod) -> Result<[u64; STEPS.len()]> {
    let repairs = total(&stack.status().await?);
    stack.arm(pod, &json!({"mode": "F1"})).await?;
    // Straight to its guard, so that the bad byte comes at once.
    let reply = deployed::port(pod, GUARD)?.transcribe("clip.wav", clip()?, "json").await?;
    ensure!(reply.status >= 500, "the wedged engine answered {}", reply.status);
    let cured = |status: &SpeechStackStatus| {
        let record = status.repair.iter().flat_map(|repair| &repair.records).next_back();
        total(status) > repairs
            && record.is_some_and(|record| record.outcome == Outcome::Recovered)
            && deployed::is_true(status, "Ready")
    };
    stack.until("repaired", REPAIR, cured).await?;
    let report = deployed::port(pod, ADMIN)?.get("/state").await?;
    let report: EngineReport = serde_json::from_slice(&report.body)?;
    let incident = report.incidents.last().context("the guard knows of no incident")?;
    let mut steps = [0; STEPS.len()];
    for (step, (name, event)) in steps.iter_mut().zip(STEPS) {
        *step =
            event_at(incident, &[event]).with_context(|| format!("not {name}: {:?}", incident.timeline))?;
    }
    Ok(steps)
}
