//! The operator's own troubles: it is killed, it is away, its leader changes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use speechstack_crds::{Outcome, SpeechStackStatus};
use speechstack_e2e::cluster::scenario::{is_ready, restarts};
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed;
use tokio::time::sleep;

use super::fixture::Fixture;
use super::healing::{REPAIR, START, clients, last, repaired_once, spec, total};

/// Ceiling for what the operator tells of after a minute.
const TOLD: Duration = Duration::from_secs(150);

/// An operator killed in the middle of a repair leaves exactly one act behind it.
pub async fn an_operator_killed_in_mid_repair_acts_once(fixture: &Fixture) -> Result<()> {
    let stack = fixture.stack(&spec()).await?;
    let before = stack.ready(START).await?;
    let load = clients(&stack).await?;
    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    let before_kill = restarts(&pod, "engine");
    stack.arm(&pod, &json!({"mode": "F1"})).await?;
    // The intent is in the status before the act: from here on there is something to do twice.
    stack.until("begun", REPAIR, |status| total(status) > total(&before)).await?;
    fixture.kill_operators().await?;
    let healed = |status: &SpeechStackStatus| {
        deployed::is_true(status, "Ready")
            && last(status, "parakeet").is_some_and(|record| record.outcome != Outcome::Pending)
    };
    let status = stack.until("repaired", REPAIR, healed).await?;
    sleep(Duration::from_secs(5)).await;
    drop(load);
    let now = stack.pod(deployed::name(&pod)).await?.context("the pod was replaced")?;
    let restarted = restarts(&now, "engine") - before_kill;
    ensure!(restarted == 1, "the container was restarted {restarted} times");
    ensure!(
        total(&status) == total(&before) + 1,
        "{} repairs are on record",
        total(&status) - total(&before)
    );
    Ok(())
}

/// Without an operator a guard restarts a dead engine by itself, once.
pub async fn guards_go_on_alone_under_a_budget(fixture: &Fixture) -> Result<()> {
    let mut spec = spec();
    spec["stt"][0]["replicas"] = json!(1);
    let stack = fixture.stack(&spec).await?;
    stack.ready(START).await?;
    fixture.scale_operator(0).await?;
    let load = clients(&stack).await?;
    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    stack.arm(&pod, &json!({"mode": "F1"})).await?;
    let restarted = await_condition("its guard alone has restarted it", REPAIR * 2, async || {
        let now = stack.pod(deployed::name(&pod)).await?.context("the pod is gone")?;
        let ready = deployed::port(&now, 9401)?.get("/readyz").await?;
        ensure!(restarts(&now, "engine") == 1 && ready.status == 200, "{}", ready.text());
        Ok(now)
    })
    .await?;
    stack.arm(&restarted, &json!({"mode": "F1"})).await?;
    sleep(Duration::from_secs(45)).await;
    let now = stack.pod(deployed::name(&pod)).await?.context("the pod is gone")?;
    ensure!(restarts(&now, "engine") == 1, "a second restart within ten minutes, alone");
    drop(load);
    fixture.scale_operator(1).await?;
    // With the operator back, the second one is granted.
    stack
        .until("repaired", REPAIR * 2, |status| total(status) > 0 && deployed::is_true(status, "Ready"))
        .await?;
    Ok(())
}

/// F36: a guard that dies under load comes back, its engine is never touched and is taken over as proven: a hang that follows is
/// found as ever, and not given the time of a start.
pub async fn a_dead_guard_costs_no_engine(fixture: &Fixture) -> Result<()> {
    let stack = fixture.stack(&spec()).await?;
    stack.ready(START).await?;
    let load = clients(&stack).await?;
    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    let mark = load.mark();
    // Process 1 takes a TERM, and a KILL only from outside of its namespace.
    fixture.space.exec(deployed::name(&pod), "guard", &["/bin/sh", "-c", "kill -TERM 1"]).await?;
    await_condition("the guard is back", REPAIR, async || {
        let now = stack.pod(deployed::name(&pod)).await?.context("the pod is gone")?;
        ensure!(restarts(&now, "guard") >= 1, "not restarted yet");
        Ok(())
    })
    .await?;
    stack.ready(REPAIR).await?;
    let counts = load.since(&mark).await?;
    let now = stack.pod(deployed::name(&pod)).await?.context("the pod is gone")?;
    ensure!(restarts(&now, "engine") == 0, "the engine was restarted");
    ensure!(counts.errors == 0, "clients saw {} errors: {:?}", counts.errors, counts.failures);
    eprintln!("F36: {} ok, {} errors, 0 restarts of the engine", counts.ok, counts.errors);
    stack.arm(&pod, &json!({"mode": "F7"})).await?;
    repaired_once(&stack, &pod).await?;
    drop(load);
    Ok(())
}

/// A guard that the network keeps from the operator, as a policy does, is a condition and a metric; its engine serves on, and all
/// is well again once the way is open.
pub async fn a_guard_behind_a_policy_is_told(fixture: &Fixture) -> Result<()> {
    let mut spec = spec();
    spec["tts"] = json!([]);
    let stack = fixture.stack(&spec).await?;
    stack.ready(START).await?;
    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    let operator = fixture.operators().await?.into_iter().next().context("no operator")?;
    let address =
        |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("no address");
    let (from, to) = (address(&operator)?, address(&pod)?);
    // The test cluster enforces no NetworkPolicy: this is what one that allows the gateway alone comes to.
    let policy = async |verb: &str| -> Result<()> {
        for node in fixture.space.cluster.nodes() {
            let rule = [
                "-w", verb, "FORWARD", "-s", &from, "-d", &to, "-p", "tcp", "--dport", "9401", "-j", "REJECT",
            ];
            node.run("iptables", &[&rule[..], &["--reject-with", "tcp-reset"]].concat()).await?;
        }
        Ok(())
    };
    policy("-I").await?;
    let told = async {
        let is_told = |status: &SpeechStackStatus| deployed::is_true(status, "GuardUnreachable");
        let status = stack.until("told as unreachable", TOLD, is_told).await?;
        let condition =
            status.conditions.iter().find(|one| one.type_ == "GuardUnreachable").context("gone")?;
        ensure!(condition.message.contains(deployed::name(&pod)), "{}", condition.message);
        let metrics = deployed::port(&operator, 8080)?.get("/metrics").await?.text();
        let lost = r#"speechstack_guard_streams{state="lost"} 1"#;
        ensure!(metrics.lines().any(|line| line == lost), "no `{lost}` in:\n{metrics}");
        let now = stack.pod(deployed::name(&pod)).await?.context("the pod was replaced")?;
        ensure!(
            is_ready(&now) && total(&status) == 0,
            "a guard that is not reached is no fault of its engine"
        );
        Ok(())
    }
    .await;
    policy("-D").await?;
    told?;
    let is_well = |status: &SpeechStackStatus| {
        !deployed::is_true(status, "GuardUnreachable") && deployed::is_true(status, "Ready")
    };
    stack.until("well again", TOLD, is_well).await?;
    Ok(())
}

/// When the leader goes, the other operator takes over and repairs.
pub async fn a_standby_takes_over(fixture: &Fixture) -> Result<()> {
    let stack = fixture.stack(&spec()).await?;
    stack.ready(START).await?;
    let leader = fixture.operators().await?.into_iter().next().context("no operator")?;
    fixture.scale_operator(2).await?;
    fixture.space.kubectl(&["delete", "pod", deployed::name(&leader), "--grace-period=0", "--force"]).await?;
    let load = clients(&stack).await?;
    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    stack.arm(&pod, &json!({"mode": "F1"})).await?;
    let status = repaired_once(&stack, &pod).await?;
    drop(load);
    ensure!(total(&status) == 1, "{} repairs are on record", total(&status));
    Ok(())
}
