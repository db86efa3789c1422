//! Engines that are systemd units, healed over D-Bus: a real bus and real engine processes; the few methods and properties of
//! systemd that the guard uses are served by the test, since systemd itself cannot run beside tests.

#[path = "units/bus.rs"]
mod bus;
#[path = "units/systemd.rs"]
mod systemd;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use speechstack_e2e::client::say;
use speechstack_e2e::load::{Ask, Load};
use speechstack_e2e::stack::{Elsewhere, EngineOptions, Stack, StackOptions};
use speechstack_e2e::{binaries, ports};

use bus::Bus;
use systemd::Systemd;

const ENGINE: &str = "parakeet-0";
const UNIT: &str = "speechstack-parakeet.service";

/// A stack with one engine, whose unit the guard starts.
async fn start(name: &str, bus: &Bus) -> Result<(Stack, Systemd)> {
    let address = ports::free()?;
    let program = binaries::find(binaries::ENGINE)?.display().to_string();
    let state = std::env::temp_dir().join(format!("ss-unit-{}", address.port())).display().to_string();
    let words = ["--kind", "stt", "--faults", "--listen", &address.to_string(), "--state-dir", &state];
    let command = std::iter::once(program).chain(words.map(str::to_owned)).collect();
    let systemd = Systemd::serve(&bus.address, UNIT, command).await?;
    let mut engine = EngineOptions::new(ENGINE, "stt");
    let unit = json!({"name": "speechstack-parakeet", "bus": bus.address});
    engine.elsewhere = Some(Elsewhere { address, entry: json!({"unit": unit}) });
    let mut options = StackOptions::new(name);
    options.engines = vec![engine];
    options.guard["repair"]["grace"] = json!("10s");
    Ok((Stack::start(options).await?, systemd))
}

fn load(stack: &Stack) -> Result<Load> {
    let clip = say(&[("slt", "Good morning.")])?;
    Ok(Load::start(stack.client.clone(), Ask::Transcribe(clip), Duration::from_secs(3)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wedged_unit_is_healed_at_once_or_gracefully_and_started_again() -> Result<()> {
    let bus = Bus::start()?;
    let (stack, systemd) = start("unit-healed", &bus).await?;
    let restart = format!("RestartUnit {UNIT} replace");
    let kill = format!("KillUnit {UNIT} all 9");
    let mut calls = vec![restart.clone()];
    ensure!(systemd.calls() == calls, "a unit that did not run: {:?}", systemd.calls());
    ensure!(stack.engine(ENGINE).await?.instance == "0000000000000001", "the instance is the invocation");
    let load = load(&stack)?;

    stack.arm(ENGINE, &json!({"mode": "F1"})).await?;
    stack.healed(ENGINE, 1).await.context("a sticky fault")?;
    calls.extend([kill, restart.clone()]);
    ensure!(systemd.calls() == calls, "a sticky fault: {:?}", systemd.calls());

    stack.arm(ENGINE, &json!({"mode": "F2"})).await?;
    stack.healed(ENGINE, 2).await.context("a fault of another class")?;
    calls.push(restart.clone());
    ensure!(systemd.calls() == calls, "a fault of another class: {:?}", systemd.calls());

    systemd.kill();
    stack.healed(ENGINE, 3).await.context("an engine that ended by itself")?;
    calls.push(restart);
    ensure!(systemd.calls() == calls, "an engine that ended by itself: {:?}", systemd.calls());
    ensure!(systemd.starts() == 4, "{} starts", systemd.starts());
    drop(load);
    stack.stop().await?;
    systemd.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_order_hits_no_later_invocation_of_the_unit() -> Result<()> {
    let bus = Bus::start()?;
    let (stack, systemd) = start("unit-late", &bus).await?;
    let before = systemd.calls();
    // The guard's order waits for systemd's answer while someone else restarts the unit.
    let ordered = async {
        stack.arm(ENGINE, &json!({"mode": "F1"})).await?;
        let load = load(&stack)?;
        let ordered = stack.wait_until("the guard has ordered a restart", |state| {
            state.engine(ENGINE).is_some_and(|engine| engine.restarts == 1)
        });
        ordered.await.map(|()| load)
    };
    let load = systemd.restart_behind(ordered).await?;
    stack.healed(ENGINE, 1).await?;
    drop(load);
    ensure!(systemd.calls() == before, "the late order was carried out: {:?}", systemd.calls());
    ensure!(systemd.starts() == 2, "{} starts", systemd.starts());
    stack.stop().await?;
    systemd.stop().await;
    Ok(())
}
