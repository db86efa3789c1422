//! Runs an engine as a child process and replaces it on order.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures::future::BoxFuture;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config;
use crate::guard::heal::actuator::{Actuator, Error, Instance, Life};
use crate::guard::judge::remediation::Kill;

enum Order {
    Restart { key: String, kill: Kill, done: oneshot::Sender<Result<(), Error>> },
    Stop { done: oneshot::Sender<()> },
}

/// Owns the child process of one engine.
#[derive(Debug)]
pub struct ChildProcess {
    orders: mpsc::Sender<Order>,
    instance: watch::Receiver<Instance>,
}

impl ChildProcess {
    /// Starts the engine's command and watches it.
    pub fn start(engine: &config::Engine, repair: &config::Repair) -> Result<Self, Error> {
        let mut keeper = Keeper {
            name: engine.name.clone(),
            command: engine.command.clone(),
            env: engine.env.clone().into_iter().collect(),
            grace: repair.grace,
            stuck_after: repair.stuck_after,
            started: 0,
        };
        let child = keeper.spawn()?;
        let (publish, instance) = watch::channel(keeper.instance(&child));
        let (orders, inbox) = mpsc::channel(4);
        tokio::spawn(keeper.run(child, inbox, publish));
        Ok(Self { orders, instance })
    }

    /// Ends the process, gracefully first. To be called once its guard has drained.
    pub async fn stop(&self) {
        let (done, ended) = oneshot::channel();
        if self.orders.send(Order::Stop { done }).await.is_ok() {
            let _ = ended.await;
        }
    }
}

impl Actuator for ChildProcess {
    fn instance(&self) -> watch::Receiver<Instance> {
        self.instance.clone()
    }

    fn restart(&self, key: String, kill: Kill, _why: String) -> BoxFuture<'static, Result<(), Error>> {
        let orders = self.orders.clone();
        Box::pin(async move {
            let (done, ended) = oneshot::channel();
            orders.send(Order::Restart { key, kill, done }).await.map_err(|_| Error::Stopping)?;
            ended.await.unwrap_or(Err(Error::Stopping))
        })
    }
}

struct Keeper {
    name: String,
    command: Vec<String>,
    env: Vec<(String, String)>,
    grace: Duration,
    stuck_after: Duration,
    started: u32,
}

impl Keeper {
    fn spawn(&mut self) -> Result<Child, Error> {
        let (program, args) =
            self.command.split_first().map_or(("", [].as_slice()), |(first, rest)| (first, rest));
        let child = Command::new(beside_us(program))
            .args(args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            // A group of its own: Ctrl-C reaches the proxy alone, and a kill reaches the engine's workers.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Spawn { program: program.to_owned(), source })?;
        self.started += 1;
        tracing::info!(engine = self.name, pid = child.id(), start = self.started, "engine process started");
        Ok(child)
    }

    fn instance(&self, child: &Child) -> Instance {
        let pid = child.id().unwrap_or_default();
        Instance { key: format!("{}/{}/{pid}", self.name, self.started), life: Life::Running }
    }

    async fn run(mut self, first: Child, mut inbox: mpsc::Receiver<Order>, publish: watch::Sender<Instance>) {
        let mut child = Some(first);
        loop {
            let order = tokio::select! {
                order = inbox.recv() => order,
                () = ended(&mut child) => {
                    child = None;
                    publish.send_modify(|instance| instance.life = Life::Exited);
                    continue;
                }
            };
            match order {
                Some(Order::Restart { key, kill, done }) => {
                    let result = self.replace(&mut child, &key, kill, &publish).await;
                    let _ = done.send(result);
                }
                Some(Order::Stop { done }) => {
                    if let Some(child) = &mut child {
                        let _ = self.end(child, Kill::Graceful).await;
                    }
                    let _ = done.send(());
                    return;
                }
                None => return, // dropping the child kills it
            }
        }
    }

    async fn replace(
        &mut self,
        child: &mut Option<Child>,
        key: &str,
        kill: Kill,
        publish: &watch::Sender<Instance>,
    ) -> Result<(), Error> {
        if publish.borrow().key != key {
            return Err(Error::Late);
        }
        if let Some(running) = child {
            if let Err(error) = self.end(running, kill).await {
                publish.send_modify(|instance| instance.life = Life::Stuck);
                return Err(error);
            }
            *child = None;
            publish.send_modify(|instance| instance.life = Life::Exited);
        }
        let new = self.spawn()?;
        publish.send_replace(self.instance(&new));
        *child = Some(new);
        Ok(())
    }

    /// Ends the whole process group and waits for its leader.
    async fn end(&self, child: &mut Child, kill: Kill) -> Result<(), Error> {
        let Some(group) = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw) else {
            return Ok(()); // already reaped
        };
        if kill == Kill::Graceful {
            let _ = killpg(group, Signal::SIGTERM);
            if tokio::time::timeout(self.grace, child.wait()).await.is_ok() {
                // Workers that outlive their leader would keep the GPU and the port.
                let _ = killpg(group, Signal::SIGKILL);
                return Ok(());
            }
        }
        let _ = killpg(group, Signal::SIGKILL);
        match tokio::time::timeout(self.stuck_after, child.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Stuck),
        }
    }
}

/// A bare name is looked for beside our own executable first, then on the PATH.
fn beside_us(program: &str) -> PathBuf {
    let own = std::env::current_exe().ok().map(|own| own.with_file_name(program));
    match own.filter(|path| !program.contains('/') && path.is_file()) {
        Some(path) => path,
        None => PathBuf::from(program),
    }
}

async fn ended(child: &mut Option<Child>) {
    match child {
        Some(child) => match child.wait().await {
            Ok(status) => tracing::warn!(%status, "engine process ended"),
            Err(error) => tracing::warn!(%error, "unable to wait for the engine process"),
        },
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::Capability;

    fn engine(command: &[&str]) -> config::Engine {
        config::Engine {
            name: "engine-0".into(),
            capability: Capability::Stt,
            url: "http://127.0.0.1:1".into(),
            guard: ([127, 0, 0, 1], 0).into(),
            guard_admin: ([127, 0, 0, 1], 0).into(),
            grpc: None,
            protocols: Vec::new(),
            language: None,
            model: None,
            key_file: None,
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: Default::default(),
            container: None,
            unit: None,
            kubelet: None,
            operator: None,
        }
    }

    #[tokio::test]
    async fn a_restart_replaces_the_process_and_a_late_order_does_nothing() {
        let repair = config::Repair::default();
        let supervisor = ChildProcess::start(&engine(&["sleep", "600"]), &repair).unwrap();
        let first = supervisor.instance().borrow().key.clone();
        supervisor.restart(first.clone(), Kill::AtOnce, String::new()).await.unwrap();
        let second = supervisor.instance().borrow().clone();
        assert_ne!(first, second.key);
        assert_eq!(second.life, Life::Running);
        assert!(matches!(supervisor.restart(first, Kill::AtOnce, String::new()).await, Err(Error::Late)));
        assert_eq!(supervisor.instance().borrow().key, second.key);
        supervisor.stop().await;
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_killed_after_the_grace() {
        let repair = config::Repair { grace: Duration::from_millis(200), ..Default::default() };
        let command = ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"];
        let supervisor = ChildProcess::start(&engine(&command), &repair).unwrap();
        let key = supervisor.instance().borrow().key.clone();
        supervisor.restart(key.clone(), Kill::Graceful, String::new()).await.unwrap();
        assert_ne!(supervisor.instance().borrow().key, key);
        supervisor.stop().await;
    }

    #[tokio::test]
    async fn a_process_that_ends_by_itself_is_reported_and_started_on_order() {
        let supervisor = ChildProcess::start(&engine(&["true"]), &config::Repair::default()).unwrap();
        let mut instance = supervisor.instance();
        let seen = instance.wait_for(|instance| instance.life == Life::Exited).await.unwrap().clone();
        supervisor.restart(seen.key.clone(), Kill::Graceful, String::new()).await.unwrap();
        assert_ne!(supervisor.instance().borrow().key, seen.key);
        supervisor.stop().await;
    }

    #[tokio::test]
    async fn a_command_that_does_not_exist_is_named() {
        let error =
            ChildProcess::start(&engine(&["no-such-engine"]), &config::Repair::default()).unwrap_err();
        assert!(error.to_string().contains("no-such-engine"));
    }
}
