//! Has the kubelet replace the engine's container: writes a restart request that the container's liveness helper reads.
//!
//! ```text
//! guard   -> livez     the helper, for the engine's container to run
//! helper  -> instance  which life of the container this is; refreshed by every probe
//! guard   -> restart   the instance that must go; the helper then fails, and the kubelet kills
//! helper  -> vitals    how busy the container is, from every probe
//! helper  -> drain     the container is about to be stopped
//! guard   -> drained   nothing runs on the engine any more
//! guard   -> proven    the container that golden probes have proven, for the guard's own next life
//! ```

use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use contract::ProcessRecord;

use crate::config;
use crate::guard::heal::actuator::{Actuator, Error, Instance, Life, Proven};
use crate::guard::heal::output::LastWords;
use crate::guard::heal::process_record::{self, LastRecord, Records};
use crate::guard::judge::remediation::Kill;
use crate::guard::path::lane::{Lane, LaneView};

mod processes;
mod run_dir;
#[cfg(test)]
mod tests;

use run_dir::{RunDir, Seen};

/// How often the folder is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How often it is checked whether an engine outlives its restart request, once that is overdue.
const LOOK: Duration = Duration::from_secs(1);
/// From the wish to drain until the lane may count as idle: newcomers are refused by then.
const SETTLE: Duration = Duration::from_millis(300);
const CONNECT: Duration = Duration::from_millis(500);
/// Looks in a row that find the engine's port open before a silent container counts as alive: the port may be that of the next
/// container, whose helper has not run yet.
const OPEN_LOOKS: u32 = 10;

struct Order {
    key: String,
    kill: Kill,
    why: String,
    done: oneshot::Sender<Result<(), Error>>,
}

/// Restarts one engine's container.
#[derive(Debug)]
pub struct Kubelet {
    dir: RunDir,
    orders: mpsc::Sender<Order>,
    instance: watch::Receiver<Instance>,
    draining: watch::Receiver<bool>,
    records: Records,
}

impl Kubelet {
    /// Puts the helper into the folder, cleans what an earlier guard left, and starts to follow the engine's container.
    ///
    /// # Errors
    /// When the folder cannot be written, or the helper cannot be read: the engine's container could not start either.
    pub fn start(
        engine: &config::Engine,
        settings: &config::Kubelet,
        repair: &config::Repair,
        lane: Lane,
    ) -> Result<Self, std::io::Error> {
        let dir = RunDir::open(settings)?;
        let instance = match dir.seen() {
            Some(seen) => Instance { key: seen.key, life: Life::Running },
            None => Instance { key: String::new(), life: Life::Awaited },
        };
        let records = Records::default();
        let keeper = Keeper {
            name: engine.name.clone(),
            engine: engine.url.parse::<http::Uri>().ok().as_ref().and_then(address),
            direct_kill: settings.direct_kill,
            grace: repair.grace,
            stuck_after: repair.stuck_after,
            dir: dir.clone(),
            lane,
            records: records.clone(),
            restarting: None,
            drain: None,
        };
        let (publish, instance) = watch::channel(instance);
        let (drains, draining) = watch::channel(false);
        let (orders, inbox) = mpsc::channel(4);
        tokio::spawn(keeper.run(inbox, publish, drains));
        Ok(Self { dir, orders, instance, draining, records })
    }

    /// Whether the engine's container is about to be stopped.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.clone()
    }
}

impl Actuator for Kubelet {
    fn instance(&self) -> watch::Receiver<Instance> {
        self.instance.clone()
    }

    fn restart(&self, key: String, kill: Kill, why: String) -> BoxFuture<'static, Result<(), Error>> {
        let orders = self.orders.clone();
        Box::pin(async move {
            let (done, ended) = oneshot::channel();
            orders.send(Order { key, kill, why, done }).await.map_err(|_| Error::Stopping)?;
            ended.await.unwrap_or(Err(Error::Stopping))
        })
    }

    fn proven(&self) -> Option<Proven> {
        self.dir.proven()
    }

    fn keep(&self, proven: &Proven) {
        if let Err(error) = self.dir.keep(proven) {
            tracing::warn!(%error, "a later guard will not know that the engine was proven");
        }
    }

    fn record(&self, key: &str) -> Option<LastRecord> {
        self.records.take(key)
    }
}

struct Restarting {
    /// When to look whether the instance lives on though its restart was requested.
    look: Instant,
    /// Looks in a row that found the engine's port open.
    open: u32,
    done: oneshot::Sender<Result<(), Error>>,
}

struct Keeper {
    name: String,
    /// Host and port of the engine.
    engine: Option<String>,
    direct_kill: bool,
    grace: Duration,
    stuck_after: Duration,
    dir: RunDir,
    lane: Lane,
    records: Records,
    restarting: Option<Restarting>,
    /// Since when a drain is asked for.
    drain: Option<Instant>,
}

impl Keeper {
    /// Runs until the guard is gone.
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Order>,
        publish: watch::Sender<Instance>,
        drains: watch::Sender<bool>,
    ) {
        let mut tick = interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(order) => self.order(order, &publish),
                    None => return,
                },
                _ = tick.tick() => {}
            }
            let seen = self.dir.seen();
            if let Some(seen) = &seen
                && seen.key != publish.borrow().key
            {
                self.replaced(seen, &publish);
            } else if self.restarting.as_ref().is_some_and(|restarting| Instant::now() >= restarting.look) {
                self.overdue(seen.as_ref(), &publish).await;
            }
            self.drain(&drains);
        }
    }

    fn order(&mut self, order: Order, publish: &watch::Sender<Instance>) {
        let Order { key, kill, why, done } = order;
        if key.is_empty() || publish.borrow().key != key {
            let _ = done.send(Err(Error::Late));
            return;
        }
        if let Err(source) = self.dir.request_restart(&key, &why) {
            let _ = done.send(Err(Error::Request { source }));
            return;
        }
        tracing::warn!(engine = self.name, instance = key, why, "restart requested from the kubelet");
        // The container's output is the kubelet's: nothing of it is known here.
        let counted = self.dir.vitals().filter(|vitals| vitals.instance == key).map(|vitals| vitals.threads);
        let process = ProcessRecord { threads: counted, ..ProcessRecord::default() };
        self.records.put(&key, LastRecord { process, finding: None });
        if self.direct_kill {
            tokio::spawn(record_and_end(self.records.clone(), key, kill, self.grace));
        }
        // An order that replaces another of the same instance: the first one is answered as late.
        self.restarting = Some(Restarting { look: Instant::now() + self.stuck_after, open: 0, done });
    }

    /// Another container runs.
    fn replaced(&mut self, seen: &Seen, publish: &watch::Sender<Instance>) {
        tracing::info!(engine = self.name, instance = seen.key, "engine container started");
        let before = publish.send_replace(Instance { key: seen.key.clone(), life: Life::Running });
        if before.life != Life::Awaited {
            // What is left in the folder concerns a container that is gone.
            self.dir.clean();
        }
        if let Some(restarting) = self.restarting.take() {
            let _ = restarting.done.send(Ok(()));
        }
    }

    /// No other container runs yet: either the old one lives on, or the kubelet takes its time.
    async fn overdue(&mut self, seen: Option<&Seen>, publish: &watch::Sender<Instance>) {
        let silent = seen.and_then(|seen| SystemTime::now().duration_since(seen.refreshed).ok());
        let connects = match &self.engine {
            Some(engine) => matches!(timeout(CONNECT, TcpStream::connect(engine)).await, Ok(Ok(_))),
            None => false,
        };
        let Some(restarting) = &mut self.restarting else { return };
        restarting.open = if connects { restarting.open + 1 } else { 0 };
        if !lives_on(silent, restarting.open, self.stuck_after) {
            restarting.look = Instant::now() + LOOK;
            return;
        }
        if let Some(restarting) = self.restarting.take() {
            publish.send_modify(|instance| instance.life = Life::Stuck);
            let _ = restarting.done.send(Err(Error::Stuck));
        }
    }

    fn drain(&mut self, drains: &watch::Sender<bool>) {
        if !self.dir.drain_is_asked() {
            if self.drain.take().is_some() {
                drains.send_replace(false);
            }
            return;
        }
        let asked = *self.drain.get_or_insert_with(|| {
            tracing::info!(engine = self.name, "engine is about to be stopped: draining");
            drains.send_replace(true);
            Instant::now()
        });
        if is_drained(asked.elapsed(), &self.lane.view())
            && let Err(error) = self.dir.drained()
        {
            tracing::warn!(engine = self.name, %error, "unable to tell that the engine is drained");
        }
    }
}

/// Its processes can be seen here, so they are recorded before they are killed.
async fn record_and_end(records: Records, key: String, kill: Kill, grace: Duration) {
    let of = key.clone();
    let seen = process_record::take(move |proc| processes::of(&of, proc), LastWords::default()).await;
    if seen.process.threads.is_some() {
        records.put(&key, seen);
    }
    processes::end(key, kill, grace).await;
}

/// Whether an instance whose restart was requested lives on: its helper still runs (it last did `silent` ago), or its port stays
/// open. A dead one that the kubelet has not replaced yet, because it backs off, does neither.
fn lives_on(silent: Option<Duration>, open: u32, stuck_after: Duration) -> bool {
    open >= OPEN_LOOKS || silent.is_some_and(|silent| silent < stuck_after / 2)
}

/// Whether nothing runs or waits on the engine, and newcomers were refused long enough for that to last.
fn is_drained(asked_for: Duration, lane: &LaneView) -> bool {
    asked_for >= SETTLE && lane.running.is_empty() && lane.waiting == 0 && lane.uploading == 0
}

fn address(url: &http::Uri) -> Option<String> {
    Some(format!("{}:{}", url.host()?, url.port_u16().unwrap_or(80)))
}
