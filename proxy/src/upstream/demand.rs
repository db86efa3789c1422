//! When engines that may sleep were last asked for: by this the operator puts them to sleep and wakes them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use contract::State;

use super::{Route, Upstreams};
use crate::config::Pool;
use crate::error::{Error, Waking};

/// How long a pool was not used, as the operator reads it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Unused {
    /// Seconds since it was last used, or since the gateway began, as nothing is known of the time before.
    pub seconds: f64,
    /// Seconds since it was last asked for; `None` when it was not. An engine that sleeps wakes by this alone.
    pub asked_seconds: Option<f64>,
}

/// The last use of each pool that may sleep.
#[derive(Debug)]
pub(super) struct Demand {
    began: Instant,
    last: Mutex<HashMap<String, Instant>>,
}

impl Default for Demand {
    fn default() -> Self {
        Self { began: Instant::now(), last: Mutex::default() }
    }
}

impl Demand {
    fn note(&self, pool: &str, now: Instant) {
        let mut last = self.last.lock();
        match last.get_mut(pool) {
            Some(at) => *at = now,
            None => _ = last.insert(pool.to_owned(), now),
        }
    }

    fn unused(&self, pool: &str, busy: bool, now: Instant) -> Unused {
        let asked = self.last.lock().get(pool).copied();
        let asked = if busy { Some(now) } else { asked };
        let seconds = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
        Unused { seconds: seconds(asked.unwrap_or(self.began)), asked_seconds: asked.map(seconds) }
    }
}

/// A job of a route: it is use at its beginning and at its end.
pub(super) struct Use<'a> {
    upstreams: &'a Upstreams,
    route: &'a Route,
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.upstreams.note(self.route);
    }
}

impl Upstreams {
    /// Notes that engines of the route are asked for, now and when what is returned is dropped.
    pub(super) fn demand<'a>(&'a self, route: &'a Route) -> Use<'a> {
        self.note(route);
        Use { upstreams: self, route }
    }

    fn note(&self, route: &Route) {
        let now = Instant::now();
        self.each_sleeper(|pool| {
            if of_route(pool, route) {
                self.inner.demand.note(&pool.name, now);
            }
        });
    }

    fn each_sleeper(&self, mut each: impl FnMut(&Pool)) {
        let config = self.inner.config.get();
        let pools = config.gateway.discovery.iter().flat_map(|discovery| &discovery.pools);
        pools.filter(|pool| pool.sleeps).for_each(&mut each);
    }

    /// How long each pool that may sleep was not used; no time while it has work.
    pub fn unused(&self) -> BTreeMap<String, Unused> {
        let now = Instant::now();
        let endpoints = self.endpoints();
        let mut unused = BTreeMap::new();
        self.each_sleeper(|pool| {
            let busy = endpoints.iter().any(|endpoint| *endpoint.pool == *pool.name && endpoint.is_busy());
            unused.insert(pool.name.clone(), self.inner.demand.unused(&pool.name, busy, now));
        });
        unused
    }

    /// The error for a request that found the engines of its route asleep, or on their way from it; `None` when none of them may
    /// sleep or one is proven.
    pub(super) fn waking(&self, route: &Route, retry_after: Duration) -> Option<Error> {
        let mut sleeps = false;
        self.each_sleeper(|pool| sleeps |= of_route(pool, route));
        let now = Instant::now();
        let reports: Vec<_> = self
            .of(route.clone())
            .filter(|endpoint| !endpoint.is_terminating() && endpoint.budget.is_none())
            .map(|endpoint| endpoint.snapshot(now))
            .collect();
        let starts = |state: State| matches!(state, State::Starting | State::Warming | State::Unknown);
        if !sleeps || !reports.iter().all(|report| starts(report.state)) {
            return None;
        }
        let nearest =
            reports.iter().find(|report| report.state == State::Warming).or_else(|| reports.first());
        let waking = Waking {
            state: nearest.map_or("scheduled", |report| report.state.as_str()),
            engines: reports.len(),
            expected_seconds: nearest.and_then(|report| report.recovery_seconds),
            says: nearest.and_then(|report| report.says.clone()),
        };
        Some(Error::EngineWaking { capability: route.capability, waking: Box::new(waking), retry_after })
    }
}

fn of_route(pool: &Pool, route: &Route) -> bool {
    pool.capability == route.capability && route.pool.as_ref().is_none_or(|name| **name == *pool.name)
}
