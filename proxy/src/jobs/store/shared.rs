//! Records of several gateways, in a Redis. Each knows all of them, asks for what changed, and changes a record only as it was
//! when it read it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, FromRedisValue, RedisError, Script};

use super::{Changes, Error, Put};
use crate::config::Redis;
use crate::jobs::record::Record;
use crate::net;

/// How soon it is tried again to connect.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
/// Records that are asked for at a time.
const RECORDS: usize = 500;
/// How long removals are known. A gateway that was away for half as long reads everything again.
const REMOVALS: Duration = Duration::from_secs(3600);

/// The records in Redis.
#[derive(Debug)]
pub struct Shared {
    config: Redis,
    link: tokio::sync::Mutex<Link>,
    seen: parking_lot::Mutex<Seen>,
    up: IntGauge,
}

#[derive(Debug)]
struct Link {
    connection: Option<MultiplexedConnection>,
    /// When to try again, after a failure.
    retry_at: Option<Instant>,
}

/// Ids with their records, which are JSON, or nothing once they were removed.
type Page = Vec<(String, Option<Vec<u8>>)>;

/// How far this gateway has read.
#[derive(Clone, Debug, Default)]
struct Seen {
    epoch: String,
    last: u64,
    at: Option<Instant>,
}

impl Shared {
    /// Not connected yet.
    pub fn new(config: Redis, up: IntGauge) -> Self {
        let link = tokio::sync::Mutex::new(Link { connection: None, retry_at: None });
        Self { config, link, seen: parking_lot::Mutex::default(), up }
    }

    /// All keys have one hash tag, so that a cluster has them in one place.
    fn key(&self, what: &str) -> String {
        format!("{}{{jobs}}:{what}", self.config.prefix)
    }

    /// What changed since this was asked last: everything at first, after a long time, and when Redis has lost its data.
    pub async fn changes(&self) -> Result<Changes, Error> {
        let mut seen = self.seen.lock().clone();
        if seen.at.is_none_or(|at| at.elapsed() > REMOVALS / 2) {
            seen = Seen::default();
        }
        let mut changes = Changes { is_all: false, changed: Vec::new() };
        let script = Script::new(include_str!("changes.lua"));
        loop {
            let mut call = script.prepare_invoke();
            call.key(self.key("changes")).key(self.key("records")).key(self.key("epoch"));
            call.arg(seen.last).arg(&seen.epoch).arg(crate::jobs::random_id()).arg(RECORDS);
            let (epoch, last, page): (String, u64, Page) = self.invoke(&call).await?;
            changes.is_all |= epoch != seen.epoch;
            let is_last = page.len() < RECORDS;
            seen = Seen { epoch, last, at: Some(Instant::now()) };
            for (id, record) in page {
                changes.changed.push((id, record.as_deref().map(read).transpose()?));
            }
            if is_last {
                break;
            }
        }
        *self.seen.lock() = seen;
        Ok(changes)
    }

    pub async fn put(&self, record: &Record, before: u64) -> Result<Put, Error> {
        let json = serde_json::to_vec(record).map_err(Error::Record)?;
        let script = Script::new(include_str!("put.lua"));
        let mut call = script.prepare_invoke();
        for key in ["records", "revisions", "changes", "count", "keys"] {
            call.key(self.key(key));
        }
        call.arg(&record.id).arg(before).arg(json).arg(idempotency(record));
        let (outcome, other): (String, Option<Vec<u8>>) = self.invoke(&call).await?;
        let other = other.as_deref().map(read).transpose()?;
        Ok(match (outcome.as_str(), other) {
            ("written", _) => Put::Written,
            ("earlier", Some(earlier)) => Put::Earlier(Box::new(earlier)),
            (_, other) => Put::Changed(other.map(Box::new)),
        })
    }

    pub async fn remove(&self, record: &Record, now: u64) -> Result<(), Error> {
        let script = Script::new(include_str!("remove.lua"));
        let mut call = script.prepare_invoke();
        for key in ["records", "revisions", "changes", "count", "keys", "removed"] {
            call.key(self.key(key));
        }
        let forgotten = now.saturating_sub(u64::try_from(REMOVALS.as_millis()).unwrap_or(u64::MAX));
        call.arg(&record.id).arg(idempotency(record)).arg(now).arg(forgotten);
        self.invoke::<u8>(&call).await.map(drop)
    }

    /// Says that this gateway is alive; those of the others that are not.
    pub async fn dead(&self, gateway: &str, others: HashSet<String>) -> Result<HashSet<String>, Error> {
        let others: Vec<String> = others.into_iter().collect();
        let script = Script::new(include_str!("alive.lua"));
        let mut call = script.prepare_invoke();
        for gateway in std::iter::once(gateway).chain(others.iter().map(String::as_str)) {
            call.key(self.alive(gateway));
        }
        call.arg(u64::try_from(self.config.ttl.as_millis()).unwrap_or(u64::MAX));
        let alive: Vec<bool> = self.invoke(&call).await?;
        let dead = others.into_iter().zip(alive).filter(|(_, is_alive)| !is_alive);
        Ok(dead.map(|(gateway, _)| gateway).collect())
    }

    /// Says that this gateway has ended.
    pub async fn leave(&self, gateway: &str) -> Result<(), Error> {
        let mut connection = self.connection().await?;
        let deleted: Result<(), RedisError> = connection.del(self.alive(gateway)).await;
        deleted.map_err(Error::Redis)
    }

    fn alive(&self, gateway: &str) -> String {
        self.key(&format!("alive:{gateway}"))
    }

    async fn invoke<T: FromRedisValue>(&self, call: &redis::ScriptInvocation<'_>) -> Result<T, Error> {
        let mut connection = self.connection().await?;
        match call.invoke_async(&mut connection).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.lose(&error).await;
                Err(Error::Redis(error))
            }
        }
    }

    async fn connection(&self) -> Result<MultiplexedConnection, Error> {
        let mut link = self.link.lock().await;
        if let Some(connection) = &link.connection {
            return Ok(connection.clone());
        }
        if link.retry_at.is_some_and(|at| at > Instant::now()) {
            return Err(Error::Away);
        }
        match net::redis::connect(self.config.server()).await {
            Ok(connection) => {
                tracing::info!("jobs are shared through Redis");
                self.up.set(1);
                *link = Link { connection: Some(connection.clone()), retry_at: None };
                Ok(connection)
            }
            Err(error) => {
                if link.retry_at.is_none() {
                    tracing::warn!(%error, "unable to reach Redis: jobs are refused until it is back");
                }
                link.retry_at = Some(Instant::now() + RECONNECT_AFTER);
                Err(Error::Connect(error))
            }
        }
    }

    async fn lose(&self, error: &RedisError) {
        // What the server itself says leaves the connection in order.
        if error.is_io_error() || error.is_connection_dropped() || error.is_timeout() {
            if self.link.lock().await.connection.take().is_some() {
                tracing::warn!(%error, "Redis is lost: jobs are refused until it is back");
            }
            self.up.set(0);
        }
    }
}

fn read(json: &[u8]) -> Result<Record, Error> {
    serde_json::from_slice(json).map_err(Error::Record)
}

/// The idempotency key of a job among those of all owners; empty without one.
fn idempotency(record: &Record) -> String {
    record.key.as_ref().map_or_else(String::new, |key| format!("{} {key}", record.owner))
}
