//! A whole stack of real binaries: started on free ports, watched until it is ready, ended without leftovers.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::report::{StackReport, is_healthy};
use crate::{binaries, ports, processes};
use contract::EngineReport;

mod measure;
mod process;

/// How much of the log a failing test prints.
const LOG_TAIL: u64 = 24 * 1024;
/// How long a stack may take to start or to heal: models load from a cold disk beside other builds.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// What to start.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// Names the log file.
    pub name: String,
    /// The engines.
    pub engines: Vec<EngineOptions>,
    /// Laid over the gateway's settings.
    pub gateway: Value,
    /// Laid over the guards' policy.
    pub guard: Value,
    /// Where traces go.
    pub tracing: Value,
}

/// One engine of a stack.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Unique name.
    pub name: String,
    /// `stt`, `tts` or `llm`.
    pub kind: &'static str,
    /// How it is spoken to; the default of its kind when empty.
    pub protocols: &'static [&'static str],
    /// The API key that it asks for; the stack has it in a file.
    pub api_key: Option<&'static str>,
    /// `--pace a,b`: a job takes at least `a` + `b` x seconds of audio.
    pub pace: Option<&'static str>,
    /// Jobs at a time of an engine that batches; 1 otherwise.
    pub jobs: u32,
    /// Whether it stands in for the others of its kind.
    pub standby: bool,
    /// `false` configures the engine and never starts it.
    pub present: bool,
    /// Who else runs it, instead of the guard by a command.
    pub elsewhere: Option<Elsewhere>,
}

/// An engine that is no child process of its guard.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// Where it listens.
    pub address: SocketAddr,
    /// Fields laid over its entry in the configuration.
    pub entry: Value,
}

impl EngineOptions {
    /// A live engine.
    pub fn new(name: &str, kind: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            protocols: &[],
            api_key: None,
            pace: None,
            jobs: 1,
            standby: false,
            present: true,
            elsewhere: None,
        }
    }
}

impl StackOptions {
    /// Two speech-to-text engines and one text-to-speech engine under a policy whose windows are short.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            engines: vec![
                EngineOptions::new("parakeet-0", "stt"),
                EngineOptions::new("parakeet-1", "stt"),
                EngineOptions::new("magpie-0", "tts"),
            ],
            gateway: json!({"drain": "3s"}),
            guard: quick_policy(),
            tracing: json!({}),
        }
    }
}

/// The default policy with windows of seconds instead of minutes and budgets that do not run out.
pub fn quick_policy() -> Value {
    json!({
        "probe": {"idle_period": "3s", "content_period": "5s", "timeout_min": "2s", "timeout_max": "5s"},
        "confirm": {"spacing_seconds": [0, 0.5, 1], "undecided_after": "15s"},
        "hang": {"floor": "3s", "deadline_floor": "5s"},
        "lane": {
            "max_waiting": 16, "max_wait_seconds": 15, "saturated_seconds": 3,
            // Recognition on a CPU.
            "fixed_seconds": 0.3, "seconds_per_audio_second": 0.5,
        },
        "trend": {"degraded_for": "4s", "recycle_for": "12s", "window": "20s"},
        "startup": {"budget": "60s"},
        "repair": {
            "burst": 50, "refill": "1s", "spacing_seconds": [0, 1, 2], "max_per_day": 1000,
            "probation": "2s", "forget": "1s", "ejected_probe": "2s", "stuck_after": "10s", "futility_window": "40s",
        },
    })
}

/// A running stack. Dropped without [`Stack::stop`] it counts as failed and prints the tail of its log.
#[derive(Debug)]
pub struct Stack {
    /// The public API.
    pub client: Client,
    /// Base URL of the public API.
    pub url: String,
    /// The gateway's admin port.
    pub admin: Client,
    engines: Vec<(EngineOptions, SocketAddr)>,
    /// The guards' admin ports, in the order of their engines.
    guards: Vec<SocketAddr>,
    /// Where the guards take traffic, in the same order.
    gates: Vec<SocketAddr>,
    proxy: Child,
    mark: String,
    log: PathBuf,
    stopped: bool,
    folder: TempDir,
}

impl Stack {
    /// Starts a stack and waits until every engine is healthy.
    ///
    /// # Errors
    /// When binaries are missing, or the stack ends or is not healthy in time.
    pub async fn start(options: StackOptions) -> Result<Self> {
        let stack = Self::launch(options).await?;
        stack.healthy().await?;
        Ok(stack)
    }

    /// Starts a stack and waits only until its gateway answers.
    ///
    /// # Errors
    /// When binaries are missing, or the gateway does not answer in time.
    pub async fn launch(options: StackOptions) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("speechstack-e2e-").tempdir()?;
        let (listen, admin) = (ports::free()?, ports::free()?);
        let mut engines = Vec::new();
        let (mut entries, mut guards, mut gates) = (Vec::new(), Vec::new(), Vec::new());
        for engine in options.engines {
            let address =
                engine.elsewhere.as_ref().map_or_else(ports::free, |elsewhere| Ok(elsewhere.address))?;
            let (gate, guard_admin) = (ports::free()?, ports::free()?);
            guards.push(guard_admin);
            gates.push(gate);
            let mut entry = json!({
                "name": engine.name,
                "capability": engine.kind,
                "url": format!("http://{address}"),
                "guard": gate,
                "guard_admin": guard_admin,
            });
            let grpc =
                engine.protocols.iter().any(|name| name.starts_with("riva")).then(ports::free).transpose()?;
            if !engine.protocols.is_empty() {
                entry["protocols"] = json!(engine.protocols);
            }
            if engine.kind == "llm" {
                entry["model"] = json!(crate::client::LLM);
            }
            if engine.standby {
                entry["standby"] = json!(true);
            }
            if let Some(grpc) = grpc {
                entry["grpc"] = json!(format!("http://{grpc}"));
            }
            if let Some(key) = engine.api_key {
                let file = folder.path().join(format!("{}.key", engine.name));
                std::fs::write(&file, format!("{key}\n"))?;
                entry["key_file"] = json!(file);
            }
            if let Some(elsewhere) = &engine.elsewhere {
                overlay(&mut entry, elsewhere.entry.clone());
            } else if engine.present {
                entry["command"] = engine_command(&engine, address, grpc, folder.path())?.into();
            }
            entries.push(entry);
            engines.push((engine, address));
        }
        let mut gateway = json!({"listen": listen, "admin": admin, "spool": {"dir": folder.path()}});
        overlay(&mut gateway, options.gateway);
        let (guard, tracing) = (options.guard, options.tracing);
        let config = json!({"gateway": gateway, "guard": guard, "engines": entries, "tracing": tracing});
        // JSON is YAML.
        let file = folder.path().join("stack.yaml");
        std::fs::write(&file, format!("{config:#}\n"))?;

        let mark = format!("{}-{}", options.name, listen.port());
        let log = binaries::logs()?.join(format!("{}.log", options.name));
        // A log of an earlier run tells nothing of this one.
        let _ = std::fs::remove_file(&log);
        let proxy = process::spawn(folder.path(), &mark, &log)?;
        let url = format!("http://{listen}");
        let mut stack = Self {
            client: Client::new(&url, Duration::from_secs(90))?,
            admin: Client::new(format!("http://{admin}"), Duration::from_secs(5))?,
            url,
            engines,
            guards,
            gates,
            proxy,
            mark,
            log,
            stopped: false,
            folder,
        };
        stack.wait_for_gateway().await?;
        Ok(stack)
    }

    async fn wait_for_gateway(&mut self) -> Result<()> {
        let deadline = Instant::now() + TEST_TIMEOUT;
        while self.client.get("/health").await.is_err() || self.state().await.is_err() {
            if let Some(status) = self.proxy.try_wait()? {
                bail!("the proxy ended while starting: {status}");
            }
            ensure!(Instant::now() < deadline, "the gateway does not answer after {TEST_TIMEOUT:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until the gateway is ready and every engine that was started is healthy.
    ///
    /// # Errors
    /// When that takes too long; the message has the last state.
    pub async fn healthy(&self) -> Result<()> {
        self.wait_until("every engine is healthy", |state| {
            let started = self.engines.iter().filter(|(engine, _)| engine.present);
            started.map(|(engine, _)| state.engine(&engine.name)).all(|engine| engine.is_some_and(is_healthy))
        })
        .await?;
        let ready = self.admin.get("/readyz").await?;
        ensure!(
            ready.status == 200,
            "all engines are healthy but /readyz says {}: {}",
            ready.status,
            ready.text()
        );
        Ok(())
    }

    /// Waits until the state fits.
    ///
    /// # Errors
    /// When that takes too long; the message has the last state.
    pub async fn wait_until(&self, what: &str, fits: impl Fn(&StackReport) -> bool) -> Result<()> {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            let state = self.state().await;
            if state.as_ref().is_ok_and(&fits) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let last = state.map(|state| {
                    let shown = state.engines.iter().map(|e| format!("{} {} {}", e.name, e.state, e.verdict));
                    shown.collect::<Vec<_>>().join(", ")
                });
                bail!("waited {TEST_TIMEOUT:?} until {what}: {last:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// `GET /state` of the gateway.
    ///
    /// # Errors
    /// When it does not answer, or not in the documented form.
    pub async fn state(&self) -> Result<StackReport> {
        let reply = self.admin.get("/state").await?.json()?;
        serde_json::from_value(reply.clone()).with_context(|| format!("unexpected /state: {reply}"))
    }

    /// What the stack says of one engine.
    ///
    /// # Errors
    /// When it says nothing of it.
    pub async fn engine(&self, name: &str) -> Result<EngineReport> {
        let state = self.state().await?;
        state.engine(name).cloned().with_context(|| format!("no engine {name} in /state"))
    }

    /// The file with the log of its processes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// A client of an engine itself, past guard and gateway.
    ///
    /// # Errors
    /// When there is no such engine.
    pub fn engine_client(&self, name: &str) -> Result<Client> {
        Client::new(format!("http://{}", self.address(name)?), Duration::from_secs(5))
    }

    /// Arms a fault at an engine.
    ///
    /// # Errors
    /// When the engine refuses it or does not answer.
    pub async fn arm(&self, name: &str, fault: &Value) -> Result<()> {
        let reply = self.engine_client(name)?.post("/_engine/fault", fault).await?;
        ensure!(reply.status < 300, "{name} refuses {fault}: {} {}", reply.status, reply.text());
        Ok(())
    }

    /// Takes back what is armed at an engine.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn disarm(&self, name: &str) -> Result<()> {
        let reply = self.engine_client(name)?.delete("/_engine/fault").await?;
        ensure!(reply.status < 300, "{name} does not disarm: {} {}", reply.status, reply.text());
        Ok(())
    }

    /// What is armed at an engine, with its counters.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn fault(&self, name: &str) -> Result<Value> {
        self.engine_client(name)?.get("/_engine/fault").await?.json()
    }

    /// Waits until a guard has restarted its engine so many times in all and found it healthy.
    ///
    /// # Errors
    /// As [`Stack::wait_until`].
    pub async fn healed(&self, name: &str, restarts: u64) -> Result<()> {
        let what = format!("{name} is healthy after restart {restarts}");
        let is_healed = |engine: &EngineReport| is_healthy(engine) && engine.restarts == restarts;
        self.wait_until(&what, |state| state.engine(name).is_some_and(is_healed)).await
    }

    /// SIGKILLs an engine's process, as the kernel's out-of-memory killer would.
    ///
    /// # Errors
    /// When it has none.
    pub fn kill_engine(&self, name: &str) -> Result<()> {
        processes::signal(self.engine_pid(name)?, Signal::KILL);
        Ok(())
    }

    /// Stops the proxy's process, as a starved or suspended machine would.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it run again.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.proxy.id()).ok().and_then(Pid::from_raw) {
            processes::signal(pid, signal);
        }
    }

    fn engine_pid(&self, name: &str) -> Result<Pid> {
        let address = self.address(name)?.to_string();
        let found = processes::marked(&self.mark).into_iter().find(|(_, command)| {
            let program = command.first().map(Path::new).and_then(Path::file_name);
            program.is_some_and(|program| program == binaries::ENGINE)
                && command.iter().any(|argument| argument.contains(&address))
        });
        found.map(|(pid, _)| pid).with_context(|| format!("{name} has no process"))
    }

    fn address(&self, name: &str) -> Result<SocketAddr> {
        let found = self.engines.iter().find(|(engine, _)| engine.name == name);
        found.map(|(_, address)| *address).with_context(|| format!("no engine {name} in this stack"))
    }

    /// Ends the stack as Ctrl-C would, and checks that it ends cleanly and alone.
    ///
    /// # Errors
    /// When it does not end in time, ends with a failure, or leaves a process behind.
    pub async fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = self.proxy.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "the stack still runs 30 s after SIGTERM");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        ensure!(status.success(), "the stack ended with {status}");
        let left = processes::marked(&self.mark);
        ensure!(left.is_empty(), "the stack left processes behind: {left:?}");
        self.stopped = true;
        Ok(())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        eprintln!("--- tail of {} ---\n{}", self.log.display(), tail(&self.log).unwrap_or_default());
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
        processes::sweep(&self.mark);
    }
}

/// The engine's command line; the one place that knows its flags.
fn engine_command(
    engine: &EngineOptions,
    address: SocketAddr,
    grpc: Option<SocketAddr>,
    folder: &Path,
) -> Result<Vec<String>> {
    let program = binaries::find(binaries::ENGINE)?;
    let mut command = vec![program.display().to_string()];
    command.extend(["--kind", engine.kind, "--faults", "--listen"].map(str::to_owned));
    command.push(address.to_string());
    if !engine.protocols.is_empty() {
        command.extend(["--protocol".to_owned(), engine.protocols.join(",")]);
    }
    if let Some(key) = engine.api_key {
        command.extend(["--api-key", key].map(str::to_owned));
    }
    if let Some(grpc) = grpc {
        command.extend(["--grpc".to_owned(), grpc.to_string()]);
    }
    command.push("--state-dir".to_owned());
    command.push(folder.join(&engine.name).display().to_string());
    if engine.jobs > 1 {
        command.extend(["--jobs".to_owned(), engine.jobs.to_string()]);
    }
    if let Some(pace) = engine.pace {
        command.extend(["--pace", pace].map(str::to_owned));
    }
    Ok(command)
}

/// Lays the fields of `over` onto `base`, maps into maps.
fn overlay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_keeps_what_it_does_not_name() {
        let mut base = json!({"a": {"b": 1, "c": 2}, "d": 3});
        overlay(&mut base, json!({"a": {"b": 9}, "e": [1]}));
        assert_eq!(base, json!({"a": {"b": 9, "c": 2}, "d": 3, "e": [1]}));
    }
}
