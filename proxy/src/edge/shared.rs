//! Quotas of several gateways: each writes into Redis what it holds and has used, and asks there before work.
//!
//! All that a gateway writes is its own whole state of a name, never a difference. So what is lost on the way or in Redis is made
//! good by the next write, and what a gateway held that was killed ends with its time to live.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use parking_lot::RwLock;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Script};
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::config::Redis;
use crate::edge::account::{Account, Accounts};
use crate::edge::quota::{DAY_MS, Rate, Used, until_full};
use crate::edge::unix_millis;
use crate::error::Unit;
use crate::net;
use crate::rng::Rng;

/// The first wait before Redis is tried again, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Names that are written at a time.
const AT_A_TIME: usize = 16;
const SCRIPT: &str = include_str!("shared/quota.lua");

/// What is asked for beside what is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ask {
    Nothing,
    /// One more job, of so many.
    Job(u32),
    /// One more session, of so many.
    Stream(u32),
    /// So much of a unit, of so much a day.
    Day(Unit, f64, f64),
}

impl Ask {
    /// Its number, its amount and its limit in the script.
    fn numbers(self) -> (u8, f64, f64) {
        match self {
            Self::Nothing => (0, 0.0, -1.0),
            Self::Job(limit) => (1, 1.0, f64::from(limit)),
            Self::Stream(limit) => (2, 1.0, f64::from(limit)),
            Self::Day(Unit::AudioSeconds, amount, limit) => (3, amount, limit),
            Self::Day(Unit::Characters, amount, limit) => (4, amount, limit),
        }
    }
}

/// What Redis says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Answer {
    /// It is granted, and that is left of a minute's requests.
    Granted(Option<Rate>),
    /// There were too many requests; when the next may come.
    TooManyRequests(Duration),
    /// No more of what was asked for.
    UsedUp,
    /// Nothing: this gateway decides alone.
    Unreachable,
}

/// The store that several gateways share.
pub(super) struct Shared {
    /// This gateway, until it ends.
    gateway: String,
    config: Redis,
    connection: RwLock<Option<MultiplexedConnection>>,
    lost: Notify,
    changed: mpsc::UnboundedSender<Arc<Account>>,
    script: Script,
    up: IntGauge,
    checks: IntCounterVec,
}

impl Shared {
    /// Not connected yet, and the names that change from now on: for [`Shared::follow`].
    ///
    /// # Errors
    /// When its metrics are registered already.
    pub(super) fn new(
        config: Redis,
        registry: &Registry,
    ) -> prometheus::Result<(Arc<Self>, mpsc::UnboundedReceiver<Arc<Account>>)> {
        let up = IntGauge::new(
            "speechstack_gateway_quota_redis_up",
            "Whether quotas are shared through Redis now: 0 while each gateway counts alone",
        )?;
        let help = "Checks of quotas by who decided: shared by Redis, local while it is unreachable";
        let checks = IntCounterVec::new(
            Opts::new("speechstack_gateway_quota_redis_checks_total", help),
            &["decided"],
        )?;
        registry.register(Box::new(up.clone()))?;
        registry.register(Box::new(checks.clone()))?;
        let (changed, changes) = mpsc::unbounded_channel();
        let rng = Rng::random();
        let gateway = format!("{:016x}{:016x}", rng.roll(), rng.roll());
        let (connection, lost, script) = (RwLock::default(), Notify::new(), Script::new(SCRIPT));
        Ok((Arc::new(Self { gateway, config, connection, lost, changed, script, up, checks }), changes))
    }

    /// The state of a name has changed: it is written soon. A name waits once at most, so the queue has a bound.
    pub(super) fn changed(&self, account: &Arc<Account>) {
        if !account.waits.swap(true, Ordering::AcqRel) {
            let _ = self.changed.send(Arc::clone(account));
        }
    }

    /// Asks for what this gateway has set aside already for a name.
    pub(super) async fn ask(&self, account: &Account, rate: Option<u32>, ask: Ask) -> Answer {
        let answer = self.exchange(account, rate, ask).await;
        let decided = if answer == Answer::Unreachable { "local" } else { "shared" };
        self.checks.with_label_values(&[decided]).inc();
        answer
    }

    async fn exchange(&self, account: &Account, rate: Option<u32>, ask: Ask) -> Answer {
        // Writes of one name come in the order in which its state was read.
        let _turn = account.turn.lock().await;
        let Some(mut connection) = self.connection.read().clone() else { return Answer::Unreachable };
        let now = unix_millis();
        let day = now / DAY_MS;
        let (held, spent) = account.held(now);
        let (kind, amount, limit) = ask.numbers();
        let (mut jobs, mut streams) = (account.jobs.taken(), account.streams.taken());
        let Used { mut audio_seconds, mut characters, .. } = held;
        match kind {
            1 => jobs = jobs.saturating_sub(1),
            2 => streams = streams.saturating_sub(1),
            3 => audio_seconds = (audio_seconds - amount).max(0.0),
            4 => characters = (characters - amount).max(0.0),
            _ => {}
        }
        let key = |what: &str| format!("{}{{{}}}:{what}", self.config.prefix, account.name);
        let mut call = self.script.prepare_invoke();
        call.key(key("held")).key(key(&format!("day:{day}"))).key(key("rate"));
        call.arg(&self.gateway).arg(u64::try_from(self.config.ttl.as_millis()).unwrap_or(u64::MAX));
        call.arg(jobs).arg(streams).arg(audio_seconds).arg(characters);
        call.arg(spent.audio_seconds).arg(spent.characters);
        call.arg(kind).arg(amount).arg(limit).arg(rate.unwrap_or(0));
        let answer: Result<(u8, f64, f64, f64), RedisError> = call.invoke_async(&mut connection).await;
        let (outcome, left, audio_seconds, characters) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.lose(&error);
                return Answer::Unreachable;
            }
        };
        account.state.lock().ledger.others(day, Used { requests: 0, audio_seconds, characters });
        match (outcome, rate) {
            (0, rate) => Answer::Granted(rate.map(|limit| Rate::of(limit, left))),
            (1, Some(limit)) => Answer::TooManyRequests(until_full(limit, 1.0 - left)),
            _ => Answer::UsedUp,
        }
    }

    fn lose(&self, error: &RedisError) {
        if self.connection.write().take().is_some() {
            tracing::warn!(%error, "Redis is lost: each gateway counts quotas alone until it is back");
            self.up.set(0);
            self.lost.notify_one();
        }
    }

    /// Writes what changes, keeps what is held alive, and connects anew when Redis was lost, for as long as there are accounts.
    pub(super) async fn follow(
        self: Arc<Self>,
        accounts: Weak<Accounts>,
        mut changes: mpsc::UnboundedReceiver<Arc<Account>>,
    ) {
        let mut beat = interval(self.config.ttl / 3);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut backoff, mut is_logged) = (BACKOFF.0, false);
        while let Some(known) = accounts.upgrade() {
            let is_lost = self.connection.read().is_none();
            if is_lost {
                match net::redis::connect(self.config.server()).await {
                    Ok(connection) => {
                        *self.connection.write() = Some(connection);
                        (backoff, is_logged) = (BACKOFF.0, false);
                        self.up.set(1);
                        tracing::info!("quotas are shared through Redis");
                        let now = unix_millis();
                        let all = known.all().into_iter().map(|(_, account)| account);
                        self.write(all.filter(|account| !account.is_at_rest(now)).collect()).await;
                    }
                    Err(error) => {
                        if !is_logged {
                            let retry_after = BACKOFF.1.as_secs();
                            tracing::warn!(%error, retry_after, "unable to reach Redis: quotas are counted by each gateway alone");
                            is_logged = true;
                        }
                        drop(known);
                        sleep(backoff).await;
                        backoff = (backoff * 2).min(BACKOFF.1);
                    }
                }
                continue;
            }
            drop(known);
            let mut batch = Vec::new();
            tokio::select! {
                count = changes.recv_many(&mut batch, AT_A_TIME) => if count == 0 { return },
                () = self.lost.notified() => continue,
                _ = beat.tick() => {
                    let Some(known) = accounts.upgrade() else { return };
                    batch.extend(known.all().into_iter().map(|(_, account)| account).filter(|account| account.holds()));
                }
            }
            self.write(batch).await;
        }
    }

    async fn write(&self, accounts: Vec<Arc<Account>>) {
        stream::iter(accounts)
            .for_each_concurrent(AT_A_TIME, |account| async move {
                account.waits.store(false, Ordering::Release);
                self.exchange(&account, None, Ask::Nothing).await;
            })
            .await;
    }
}
