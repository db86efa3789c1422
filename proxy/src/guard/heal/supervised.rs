//! Restarts an engine that another program runs: a container engine, or systemd.
//!
//! The program may restart the engine too; that is a new instance like any other.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::config;
use crate::guard::heal::actuator::{Actuator, Error, Instance, Life};
use crate::guard::heal::output::LastWords;
use crate::guard::judge::remediation::Kill;
use crate::guard::path::signatures::Catalogue;

#[cfg(test)]
mod tests;

/// How often the engine is looked at when nothing announces a change.
const POLL: Duration = Duration::from_secs(2);
/// How often it is looked at while something must come of an order.
const LOOK: Duration = Duration::from_millis(50);
/// From the end of the old process, or the order to start, until a new one must be there.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What reading the log of an engine that has ended may take of the time until it is started again.
const LOG_TIMEOUT: Duration = Duration::from_secs(2);

/// The program that runs one engine, and how that engine is spoken of there.
pub trait Supervisor: Send + 'static {
    /// The engine's present instance; `None` when the program does not know the engine any more.
    fn look(&mut self) -> impl Future<Output = Result<Option<Instance>, Error>> + Send;

    /// Waits until something may have changed. May be dropped at any time, and may return without a reason.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// Begins to end that instance gracefully.
    fn terminate(&mut self, instance: &Instance) -> impl Future<Output = Result<Next, Error>> + Send;

    /// Kills every process of that instance.
    fn kill(&mut self, instance: &Instance) -> impl Future<Output = Result<(), Error>> + Send;

    /// Starts a new instance once the old one has ended.
    fn start(&mut self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Who starts the new instance after the old one was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// We do.
    Start,
    /// The program does it by itself.
    Await,
}

/// Reads the end of what the instance of that key logged.
pub type ReadLog = Arc<dyn Fn(String) -> BoxFuture<'static, Option<String>> + Send + Sync>;

/// An engine that another program runs.
pub struct Supervised {
    orders: mpsc::Sender<Order>,
    instance: watch::Receiver<Instance>,
    log: Log,
}

/// The engine's log, as it is looked for known texts when the engine has ended. Cheap to clone.
#[derive(Clone)]
struct Log {
    read: ReadLog,
    shared: Arc<Mutex<Printed>>,
}

struct Printed {
    catalogue: Arc<Catalogue>,
    words: LastWords,
}

impl Log {
    fn new(read: ReadLog) -> Self {
        let printed = Printed { catalogue: Arc::new(Catalogue::new(&[])), words: LastWords::default() };
        Self { read, shared: Arc::new(Mutex::new(printed)) }
    }

    /// The instance of that key has ended: looks for why.
    async fn search(&self, key: String) {
        let log = timeout(LOG_TIMEOUT, (self.read)(key)).await.ok().flatten().unwrap_or_default();
        let mut printed = self.shared.lock();
        let found = printed.catalogue.find(log.as_bytes());
        let finding = found.map(|(class, signature)| (class, signature.to_owned()));
        printed.words = LastWords { finding, ..LastWords::default() };
    }
}

struct Order {
    key: String,
    kill: Kill,
    done: oneshot::Sender<Result<(), Error>>,
}

impl Supervised {
    /// Takes the running engine over, or starts it, and follows it from then on.
    ///
    /// # Errors
    /// When the program cannot be reached, does not know the engine, or does not start it.
    pub async fn start<S: Supervisor>(
        name: &str,
        supervisor: S,
        repair: &config::Repair,
        read_log: ReadLog,
    ) -> Result<Self, Error> {
        let log = Log::new(read_log);
        let (publish, instance) = watch::channel(Instance { key: String::new(), life: Life::Exited });
        let mut keeper = Keeper {
            name: name.to_owned(),
            supervisor,
            grace: repair.grace,
            stuck_after: repair.stuck_after,
            publish,
            log: log.clone(),
            failing: false,
        };
        match keeper.supervisor.look().await? {
            Some(seen) if seen.life != Life::Exited => keeper.see(Some(seen)).await,
            stopped => {
                keeper.see(stopped).await;
                keeper.supervisor.start().await?;
                keeper.renewed().await?;
            }
        }
        let (orders, inbox) = mpsc::channel(4);
        tokio::spawn(keeper.run(inbox));
        Ok(Self { orders, instance, log })
    }
}

impl Actuator for Supervised {
    fn instance(&self) -> watch::Receiver<Instance> {
        self.instance.clone()
    }

    fn restart(&self, key: String, kill: Kill, _why: String) -> BoxFuture<'static, Result<(), Error>> {
        let orders = self.orders.clone();
        Box::pin(async move {
            let (done, ended) = oneshot::channel();
            orders.send(Order { key, kill, done }).await.map_err(|_| Error::Stopping)?;
            ended.await.unwrap_or(Err(Error::Stopping))
        })
    }

    fn end_of_log(&self) -> BoxFuture<'static, Option<String>> {
        (self.log.read)(self.instance.borrow().key.clone())
    }

    fn last_words(&self) -> LastWords {
        self.log.shared.lock().words.clone()
    }

    fn recognise(&self, catalogue: Arc<Catalogue>) {
        self.log.shared.lock().catalogue = catalogue;
    }
}

struct Keeper<S> {
    name: String,
    supervisor: S,
    grace: Duration,
    stuck_after: Duration,
    publish: watch::Sender<Instance>,
    log: Log,
    /// Whether the last look failed: the log says so once.
    failing: bool,
}

/// What became of an instance that was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Exited,
    /// Another instance runs already.
    Replaced,
    Alive,
}

impl<S: Supervisor> Keeper<S> {
    /// Runs until the guard is gone. The engine stays.
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        let mut tick = interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(Order { key, kill, done }) => {
                        let _ = done.send(self.replace(&key, kill).await);
                    }
                    None => return,
                },
                () = self.supervisor.changed() => self.follow().await,
                _ = tick.tick() => self.follow().await,
            }
        }
    }

    async fn follow(&mut self) {
        match self.supervisor.look().await {
            Ok(seen) => self.see(seen).await,
            Err(error) if !self.failing => {
                tracing::warn!(engine = self.name, %error, "unable to look at the engine");
                self.failing = true;
            }
            Err(_) => {}
        }
    }

    /// Publishes what was seen, if it is news.
    async fn see(&mut self, seen: Option<Instance>) {
        self.failing = false;
        let before = self.publish.borrow().clone();
        let now = match seen {
            // It is known to outlive its kill until it has ended.
            Some(seen)
                if seen.key == before.key && before.life == Life::Stuck && seen.life == Life::Running =>
            {
                before.clone()
            }
            Some(seen) => seen,
            None => Instance { life: Life::Exited, ..before.clone() },
        };
        if now == before {
            return;
        }
        if now.key != before.key {
            self.log.shared.lock().words = LastWords::default();
        }
        match now.life {
            Life::Running => tracing::info!(engine = self.name, instance = now.key, "engine runs"),
            Life::Exited => {
                tracing::warn!(engine = self.name, instance = now.key, "engine ended");
                // Its reason is known before the health loop learns of its end.
                self.log.search(now.key.clone()).await;
            }
            Life::Awaited | Life::Stuck => {}
        }
        self.publish.send_replace(now);
    }

    async fn replace(&mut self, key: &str, kill: Kill) -> Result<(), Error> {
        let seen = self.supervisor.look().await?;
        self.see(seen).await;
        let present = self.publish.borrow().clone();
        if present.key != key {
            return Err(Error::Late);
        }
        let next = match present.life {
            Life::Exited => Next::Start,
            Life::Awaited | Life::Running | Life::Stuck => match self.end(&present, kill).await? {
                None => return Ok(()),
                Some(next) => next,
            },
        };
        if next == Next::Start {
            // The program may have been quicker.
            if self.ending(key).await? == Ending::Replaced {
                return Ok(());
            }
            self.supervisor.start().await?;
        }
        self.renewed().await
    }

    /// Ends an instance; `None` when another one runs already.
    async fn end(&mut self, present: &Instance, kill: Kill) -> Result<Option<Next>, Error> {
        let mut next = Next::Start;
        let mut ending = Ending::Alive;
        if kill == Kill::Graceful {
            next = self.supervisor.terminate(present).await?;
            ending = self.ended(&present.key, self.grace).await?;
        }
        if ending == Ending::Alive {
            self.supervisor.kill(present).await?;
            ending = self.ended(&present.key, self.stuck_after).await?;
        }
        match ending {
            Ending::Exited => Ok(Some(next)),
            Ending::Replaced => Ok(None),
            Ending::Alive => {
                self.publish.send_modify(|instance| instance.life = Life::Stuck);
                Err(Error::Stuck)
            }
        }
    }

    /// Waits until that instance is gone, at most that long.
    async fn ended(&mut self, key: &str, within: Duration) -> Result<Ending, Error> {
        let deadline = Instant::now() + within;
        loop {
            let ending = self.ending(key).await?;
            if ending != Ending::Alive || Instant::now() >= deadline {
                return Ok(ending);
            }
            sleep(LOOK).await;
        }
    }

    async fn ending(&mut self, key: &str) -> Result<Ending, Error> {
        let seen = self.supervisor.look().await?;
        self.see(seen).await;
        let now = self.publish.borrow();
        Ok(match now.life {
            _ if now.key != key => Ending::Replaced,
            Life::Exited => Ending::Exited,
            Life::Awaited | Life::Running | Life::Stuck => Ending::Alive,
        })
    }

    /// Waits for an instance other than the published one, whatever becomes of it.
    async fn renewed(&mut self) -> Result<(), Error> {
        let before = self.publish.borrow().key.clone();
        let deadline = Instant::now() + START_TIMEOUT;
        while self.ending(&before).await? != Ending::Replaced {
            if Instant::now() >= deadline {
                return Err(Error::Unstarted(START_TIMEOUT));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}
