//! Runs an engine as a child process and replaces it on order.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::config;
use crate::guard::heal::actuator::{Actuator, Error, Instance, Life};
use crate::guard::heal::output::{LastWords, Output};
use crate::guard::heal::process_record::{self, LastRecord, Records};
use crate::guard::heal::vitals::group;
use crate::guard::heal::vitals::source::Source;
use crate::guard::judge::remediation::Kill;
use crate::guard::path::signatures::Catalogue;

/// From a process's end until all that it printed should be read. A worker that outlives it keeps the pipe open.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(200);

enum Order {
    Restart { key: String, kill: Kill, done: oneshot::Sender<Result<(), Error>> },
    Stop { done: oneshot::Sender<()> },
}

/// Owns the child process of one engine.
#[derive(Debug)]
pub struct ChildProcess {
    orders: mpsc::Sender<Order>,
    instance: watch::Receiver<Instance>,
    output: Output,
    records: Records,
    leader: Arc<AtomicI32>,
}

impl ChildProcess {
    /// Starts the engine's command and watches it; what it prints goes to `output`.
    pub fn start(engine: &config::Engine, repair: &config::Repair, output: Output) -> Result<Self, Error> {
        let records = Records::default();
        let leader = Arc::new(AtomicI32::new(0));
        let mut keeper = Keeper {
            name: engine.name.clone(),
            command: engine.command.clone(),
            env: engine.env.clone().into_iter().collect(),
            grace: repair.grace,
            stuck_after: repair.stuck_after,
            started: 0,
            output: output.clone(),
            following: JoinSet::new(),
            records: records.clone(),
            leader: leader.clone(),
        };
        let child = keeper.spawn()?;
        let (publish, instance) = watch::channel(keeper.instance(&child));
        let (orders, inbox) = mpsc::channel(4);
        tokio::spawn(keeper.run(child, inbox, publish));
        Ok(Self { orders, instance, output, records, leader })
    }

    /// Where samples of how busy it is come from.
    pub fn vitals(&self) -> Source {
        Source::child(self.leader.clone())
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

    fn record(&self, key: &str) -> Option<LastRecord> {
        self.records.take(key)
    }

    fn last_words(&self) -> LastWords {
        self.output.last_words(Instant::now())
    }

    fn recognise(&self, catalogue: Arc<Catalogue>) {
        self.output.configure(catalogue);
    }
}

struct Keeper {
    name: String,
    command: Vec<String>,
    env: Vec<(String, String)>,
    grace: Duration,
    stuck_after: Duration,
    started: u32,
    output: Output,
    /// Read what the present process prints.
    following: JoinSet<()>,
    records: Records,
    /// The present process, which leads its group; 0 while there is none.
    leader: Arc<AtomicI32>,
}

impl Keeper {
    fn spawn(&mut self) -> Result<Child, Error> {
        let (program, args) =
            self.command.split_first().map_or(("", [].as_slice()), |(first, rest)| (first, rest));
        let mut child = Command::new(beside_us(program))
            .args(args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C reaches the proxy alone, and a kill reaches the engine's workers.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Spawn { program: program.to_owned(), source })?;
        self.started += 1;
        self.leader.store(leader(&child).unwrap_or(0), Ordering::Release);
        self.follow(&mut child);
        tracing::info!(engine = self.name, pid = child.id(), start = self.started, "engine process started");
        Ok(child)
    }

    /// Reads what it prints from now on. A worker of the process before loses its reader.
    fn follow(&mut self, child: &mut Child) {
        self.output.begin();
        self.following = JoinSet::new();
        if let Some(pipe) = child.stdout.take() {
            let output = self.output.clone();
            self.following.spawn(async move { output.follow(pipe).await });
        }
        if let Some(pipe) = child.stderr.take() {
            let output = self.output.clone();
            self.following.spawn(async move { output.follow(pipe).await });
        }
    }

    /// The process has ended: what it printed is read to its end.
    async fn last_words(&mut self) -> LastWords {
        let read = async { while self.following.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_WORDS_TIMEOUT, read).await;
        self.leader.store(0, Ordering::Release);
        self.output.last_words(Instant::now())
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
                    let words = self.last_words().await;
                    if let Some((class, signature)) = &words.finding {
                        let engine = &self.name;
                        tracing::warn!(engine, class = class.as_str(), signature, "engine said why it ended");
                    }
                    let key = publish.borrow().key.clone();
                    self.records.put(&key, process_record::ended(words));
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
                        self.last_words().await;
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
            let leader = leader(running).unwrap_or(0);
            let words = self.output.last_words(Instant::now());
            self.records
                .put(key, process_record::take(move |proc| group::members(proc, leader), words).await);
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
        let Some(group) = leader(child).map(Pid::from_raw) else {
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

/// The process's number, which is that of its group; `None` once it is reaped.
fn leader(child: &Child) -> Option<i32> {
    child.id().and_then(|pid| i32::try_from(pid).ok())
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
mod tests;
