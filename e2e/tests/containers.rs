//! Engines in containers of a real Podman: healed through its API socket, as Docker's are.

#[path = "containers/podman.rs"]
mod podman;
#[path = "containers/relay.rs"]
mod relay;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use speechstack_e2e::client::say;
use speechstack_e2e::load::{Ask, Load};
use speechstack_e2e::stack::{Elsewhere, EngineOptions, Stack, StackOptions};
use speechstack_e2e::{binaries, ports, processes};

use podman::{IMAGE, Podman};
use relay::Relay;

const ENGINE: &str = "parakeet-0";
const CONTAINER: &str = "speechstack-parakeet";
/// SIGKILL's status, as shells and containers count.
const KILLED: i64 = 137;

/// A stack with one engine, whose container the guard creates.
async fn start(name: &str, socket: &Path) -> Result<Stack> {
    let address = ports::free()?;
    let container = json!({
        "name": CONTAINER, "engine": "podman", "socket": socket, "image": IMAGE, "network": "host",
        "command": ["/engine/speechstack-engine", "--kind", "stt", "--faults", "--listen", address.to_string()],
        "env": {"SPEECHSTACK_ENGINE_STATE_DIR": "/tmp/state"},
        "volumes": [
            "/usr:/usr:ro", "/etc/alternatives:/etc/alternatives:ro",
            format!("{}:/engine:ro", binaries::folder()?.display()),
        ],
        "ulimits": {"nofile": 1024, "nproc": 4096}, "user": "0:0",
    });
    let mut engine = EngineOptions::new(ENGINE, "stt");
    engine.elsewhere = Some(Elsewhere { address, entry: json!({"container": container}) });
    let mut options = StackOptions::new(name);
    options.engines = vec![engine];
    // The engine's own time to end.
    options.guard["repair"]["grace"] = json!("10s");
    Stack::start(options).await
}

fn load(stack: &Stack) -> Result<Load> {
    let clip = say(&[("slt", "Good morning.")])?;
    Ok(Load::start(stack.client.clone(), Ask::Transcribe(clip), Duration::from_secs(3)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wedged_engine_in_a_container_is_healed_at_once_or_gracefully_and_started_again() -> Result<()> {
    let podman = Podman::start()?;
    let stack = start("container-healed", &podman.socket()).await?;
    let created = podman.inspect(CONTAINER)?;
    ensure!(
        created["Config"]["Labels"]["speechstack.dev/engine"] == ENGINE,
        "{}",
        created["Config"]["Labels"]
    );
    let id = created["Id"].as_str().context("no id")?.to_owned();
    let instance = stack.engine(ENGINE).await?.instance;
    ensure!(instance.starts_with(&id), "{instance} is not of container {id}");
    let load = load(&stack)?;

    stack.arm(ENGINE, &json!({"mode": "F1"})).await?;
    stack.healed(ENGINE, 1).await.context("a sticky fault")?;
    ensure!(podman.exits(CONTAINER)? == [KILLED], "killed at once: {:?}", podman.exits(CONTAINER)?);

    stack.arm(ENGINE, &json!({"mode": "F2"})).await?;
    stack.healed(ENGINE, 2).await.context("a fault of another class")?;
    ensure!(podman.exits(CONTAINER)? == [KILLED, 0], "ended by SIGTERM: {:?}", podman.exits(CONTAINER)?);

    podman.run(&["kill", CONTAINER])?;
    stack.healed(ENGINE, 3).await.context("an engine that ended by itself")?;
    drop(load);

    let now = podman.inspect(CONTAINER)?;
    ensure!(now["Id"] == id.as_str(), "the container was made anew");
    let log = stack.engine(ENGINE).await?.instance;
    ensure!(log.starts_with(&id) && log != instance, "{log}");
    stack.stop().await?;
    ensure!(podman.inspect(CONTAINER)?["State"]["Running"] == true, "the container ended with the proxy");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_order_hits_no_later_start_of_the_container() -> Result<()> {
    let podman = Podman::start()?;
    let relay = Relay::start(&podman.socket())?;
    let stack = start("container-late", relay.path()).await?;
    // The guard's order waits for Podman's answer while someone else restarts the container.
    let closed = relay.close().await;
    stack.arm(ENGINE, &json!({"mode": "F1"})).await?;
    let load = load(&stack)?;
    stack
        .wait_until("the guard has ordered a restart", |state| {
            state.engine(ENGINE).is_some_and(|engine| engine.restarts == 1)
        })
        .await?;
    podman.run(&["restart", "--time=0", CONTAINER])?;
    let started = podman.started(CONTAINER)?;
    drop(closed);
    stack.healed(ENGINE, 1).await?;
    drop(load);
    ensure!(podman.started(CONTAINER)? == started, "the late order restarted the container");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_says_why_it_cannot_run_is_not_restarted_in_a_loop() -> Result<()> {
    let podman = Podman::start()?;
    let stack = start("container-unfit", &podman.socket()).await?;
    stack.arm(ENGINE, &json!({"mode": "F41", "clear": {"state_file": true}})).await?;
    podman.run(&["kill", CONTAINER])?;
    stack
        .wait_until("the engine is found unfit for its environment", |state| {
            state.engine(ENGINE).is_some_and(|engine| engine.state == contract::State::ConfigError)
        })
        .await?;
    let exits = podman.exits(CONTAINER)?;
    // The reason stands: the container is left alone.
    tokio::time::sleep(Duration::from_secs(5)).await;
    ensure!(podman.exits(CONTAINER)? == exits && exits.len() <= 3, "{:?}", podman.exits(CONTAINER)?);
    stack.stop().await
}

/// What `standalone` says when it does not start with that container.
fn refusal(container: &Value) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let config = json!({
        "gateway": {"listen": ports::free()?, "admin": ports::free()?, "drain": "1s"},
        "engines": [{
            "name": ENGINE, "capability": "stt", "url": format!("http://{}", ports::free()?),
            "guard": ports::free()?, "guard_admin": ports::free()?, "container": container,
        }],
    });
    let file = folder.path().join("stack.yaml");
    std::fs::write(&file, config.to_string())?;
    // One that starts after all would run for ever.
    let mut command = processes::tied_command(Path::new("/usr/bin/timeout"));
    command.arg("60").arg(binaries::find(binaries::PROXY)?).args(["standalone", "--config"]).arg(&file);
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(!output.status.success(), "it started with {container}");
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn what_is_missing_is_named_with_its_field() -> Result<()> {
    let podman = Podman::start()?;
    let socket = podman.socket();
    let absent = refusal(&json!({"name": CONTAINER, "socket": socket}))?;
    ensure!(absent.contains("engines[].container.name") && absent.contains(CONTAINER), "{absent}");
    let image = json!({"name": CONTAINER, "socket": socket, "image": "localhost/no-such-image:dev"});
    let image = refusal(&image)?;
    ensure!(image.contains("engines[].container.image") && image.contains("no-such-image"), "{image}");
    let socket = refusal(&json!({"name": CONTAINER, "socket": "/no/such/socket"}))?;
    ensure!(socket.contains("engines[].container.socket") && socket.contains("/no/such/socket"), "{socket}");
    Ok(())
}
