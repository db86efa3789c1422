//! What of systemd's D-Bus interface the guard uses, for one unit that runs a real process.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::process::{Child, Command};
use tokio::sync::RwLock;
use zbus::object_server::InterfaceRef;
use zbus::{Connection, OwnedObjectPath, fdo, interface};

const MANAGER: &str = "/org/freedesktop/systemd1";
const JOB: &str = "/org/freedesktop/systemd1/job/1";

/// One unit.
struct State {
    unit: String,
    path: OwnedObjectPath,
    command: Vec<String>,
    child: Option<Child>,
    /// Number of starts; the invocation id is made of it.
    starts: u64,
    active: &'static str,
    sub: &'static str,
    calls: Vec<String>,
}

/// The unit's state, and a lock that holds back every answer while a test has it.
#[derive(Clone)]
struct Shared {
    state: Arc<Mutex<State>>,
    gate: Arc<RwLock<()>>,
}

/// A systemd with one unit.
pub struct Systemd {
    connection: Connection,
    shared: Shared,
}

struct Manager(Shared);
struct Unit(Shared);
struct Service(Shared);

impl State {
    fn begin(&mut self) -> std::io::Result<()> {
        let (program, words) = self.command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let child = Command::new(program).args(words).process_group(0).kill_on_drop(true).spawn()?;
        self.child = Some(child);
        self.starts += 1;
        (self.active, self.sub) = ("active", "running");
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(Child::id).and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }

    /// Whether the process has ended since the last look.
    fn reap(&mut self) -> bool {
        let ended = self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            self.child = None;
            (self.active, self.sub) = ("failed", "failed");
        }
        ended
    }
}

impl Shared {
    async fn ended(&self) {
        while self.state.lock().child.is_some() {
            self.state.lock().reap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    fn load_unit(&self, name: &str) -> fdo::Result<OwnedObjectPath> {
        let state = self.0.state.lock();
        match name == state.unit {
            true => Ok(state.path.clone()),
            false => Err(fdo::Error::Failed(format!("no unit {name} in this test"))),
        }
    }

    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> fdo::Result<()> {
        let mut state = self.0.state.lock();
        state.calls.push(format!("KillUnit {name} {whom} {signal}"));
        let signal = Signal::try_from(signal).map_err(|error| fdo::Error::InvalidArgs(error.to_string()))?;
        state.signal(signal);
        Ok(())
    }

    fn reset_failed_unit(&self, _name: &str) {}

    fn restart_unit(&self, name: &str, mode: &str) -> fdo::Result<OwnedObjectPath> {
        let shared = self.0.clone();
        shared.state.lock().calls.push(format!("RestartUnit {name} {mode}"));
        shared.state.lock().signal(Signal::SIGTERM);
        // A job: the answer comes before it is done.
        tokio::spawn(async move {
            shared.ended().await;
            shared.state.lock().begin()
        });
        OwnedObjectPath::try_from(JOB).map_err(|error| fdo::Error::Failed(error.to_string()))
    }
}

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property)]
    async fn active_state(&self) -> String {
        let _open = self.0.gate.read().await;
        self.0.state.lock().active.to_owned()
    }

    #[zbus(property)]
    fn sub_state(&self) -> String {
        self.0.state.lock().sub.to_owned()
    }

    #[zbus(property)]
    fn load_state(&self) -> &str {
        "loaded"
    }

    #[zbus(property, name = "InvocationID")]
    fn invocation_id(&self) -> Vec<u8> {
        self.0.state.lock().starts.to_be_bytes().to_vec()
    }
}

#[interface(name = "org.freedesktop.systemd1.Service")]
impl Service {
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        self.0.state.lock().child.as_ref().and_then(Child::id).unwrap_or_default()
    }

    #[zbus(property, name = "NRestarts")]
    fn n_restarts(&self) -> u32 {
        0
    }
}

impl Systemd {
    /// Serves a unit that is not started yet.
    pub async fn serve(bus: &str, unit: &str, command: Vec<String>) -> Result<Self> {
        let path = OwnedObjectPath::try_from(format!("{MANAGER}/unit/engine"))?;
        let state = State {
            unit: unit.to_owned(),
            path: path.clone(),
            command,
            child: None,
            starts: 0,
            active: "inactive",
            sub: "dead",
            calls: Vec::new(),
        };
        let shared = Shared { state: Arc::new(Mutex::new(state)), gate: Arc::default() };
        let connection = zbus::connection::Builder::address(bus)
            .serve_at(MANAGER, Manager(shared.clone()))
            .serve_at(path.clone(), Unit(shared.clone()))
            .serve_at(path.clone(), Service(shared.clone()))
            .name("org.freedesktop.systemd1")
            .build()
            .await
            .context("unable to serve systemd's interface")?;
        let unit: InterfaceRef<Unit> = connection.object_server().interface(path).await?;
        let watched = shared.clone();
        tokio::spawn(async move {
            let mut before = (0, "inactive");
            loop {
                let now = {
                    let mut state = watched.state.lock();
                    state.reap();
                    (state.starts, state.active)
                };
                if now != before {
                    before = now;
                    let _ = unit.get().await.active_state_changed(unit.signal_emitter()).await;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Ok(Self { connection, shared })
    }

    /// What changes the unit was asked for so far.
    pub fn calls(&self) -> Vec<String> {
        self.shared.state.lock().calls.clone()
    }

    /// How often the unit was started.
    pub fn starts(&self) -> u64 {
        self.shared.state.lock().starts
    }

    /// Kills the unit's process, as the kernel's out-of-memory killer would.
    pub fn kill(&self) {
        self.shared.state.lock().signal(Signal::SIGKILL);
    }

    /// Restarts the unit as a person would, while every question about its state waits for the end of `meanwhile`.
    pub async fn restart_behind<T>(&self, meanwhile: impl Future<Output = Result<T>>) -> Result<T> {
        let closed = self.shared.gate.write().await;
        let result = meanwhile.await;
        self.kill();
        self.shared.ended().await;
        self.shared.state.lock().begin()?;
        drop(closed);
        result
    }

    /// Ends the unit's process and leaves the bus.
    pub async fn stop(self) {
        self.kill();
        self.shared.ended().await;
        let _ = self.connection.close().await;
    }
}
