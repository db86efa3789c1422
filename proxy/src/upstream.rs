//! The gateway's way to its engines: endpoints, discovery, balance, retries, and the path of one request.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::config::{self, Config};
use crate::drain::Drain;
use crate::http::Client;
use crate::report::{EngineReport, Kind, Predictor, State};
use crate::served::Served;
use crate::spool::SpoolBudget;

mod balance;
mod dice;
mod discover;
mod endpoint;
mod failure;
mod get;
mod metrics;
mod park;
mod poison;
mod reply;
mod retry;
mod send;

pub use dice::Dice;
pub use metrics::Metrics;
pub use reply::{Reply, ReplyBody};
pub use send::Outgoing;

use endpoint::Endpoint;
use retry::RetryBudget;

/// A wait below this is none, seconds.
const NO_WAIT_SECONDS: f64 = 0.01;

/// All endpoints of a gateway and the limits on using them. Cloning shares them.
#[derive(Clone)]
pub struct Upstreams {
    inner: Arc<Inner>,
}

struct Inner {
    endpoints: Vec<Arc<Endpoint>>,
    client: Client,
    dice: Arc<Dice>,
    metrics: Metrics,
    budget: RetryBudget,
    spool: Arc<SpoolBudget>,
    /// Ticks when some endpoint has become usable or better.
    improved: watch::Sender<()>,
    park_slots: Semaphore,
    park: config::Park,
    attempts: u32,
    retry_after: config::RetryAfter,
    lane: config::Lane,
    hang: config::Hang,
    poison: Duration,
    served: Mutex<Served>,
}

impl Upstreams {
    /// One endpoint for each configured engine. Nothing runs before [`Upstreams::start`].
    pub fn new(config: &Config, client: Client, metrics: Metrics, dice: Dice) -> Result<Self, ::http::Error> {
        let lane = &config.guard.lane;
        let predictor =
            Predictor { fixed: lane.fixed_seconds, per_audio_second: lane.seconds_per_audio_second };
        let improved = watch::Sender::new(());
        let mut endpoints = Vec::with_capacity(config.engines.len());
        for engine in &config.engines {
            let gauge = metrics.state_of(&engine.name);
            endpoints.push(Arc::new(Endpoint::new(engine, predictor, gauge, improved.clone())?));
        }
        let gateway = &config.gateway;
        let slots = gateway.park.max_requests.min(Semaphore::MAX_PERMITS);
        let inner = Inner {
            endpoints,
            client,
            dice: Arc::new(dice),
            budget: RetryBudget::new(&gateway.retry),
            spool: SpoolBudget::new(&gateway.spool, metrics.replay_bytes.clone()),
            metrics,
            improved,
            park_slots: Semaphore::new(slots),
            park: gateway.park.clone(),
            attempts: gateway.retry.attempts.max(1),
            retry_after: gateway.retry_after.clone(),
            lane: lane.clone(),
            hang: config.guard.hang.clone(),
            poison: config.guard.repair.poison,
            served: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts following the guards. It goes on while requests drain, because they may still need a retry.
    pub fn start(&self, drain: &Drain) {
        for endpoint in &self.inner.endpoints {
            let follow = discover::follow(
                Arc::clone(endpoint),
                self.inner.client.clone(),
                Arc::clone(&self.inner.dice),
            );
            let recheck = discover::recheck(Arc::clone(endpoint));
            let drain = drain.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = follow => {}
                    () = recheck => {}
                    () = drain.forced() => {}
                }
            });
        }
    }

    /// The budget that request bodies are kept under.
    pub fn budget(&self) -> Arc<SpoolBudget> {
        Arc::clone(&self.inner.spool)
    }

    /// Each engine's last report with its incidents, in the order of the configuration.
    pub fn reports(&self) -> Vec<EngineReport> {
        let now = Instant::now();
        self.inner.endpoints.iter().map(|endpoint| endpoint.snapshot(now)).collect()
    }

    /// Whether an engine of that kind is proven and can be sent to.
    pub fn ready(&self, kind: Kind) -> bool {
        let now = Instant::now();
        self.of(kind).any(|endpoint| endpoint.is_ready(now))
    }

    /// How many engines of that kind would start a request at once.
    pub fn free(&self, kind: Kind) -> usize {
        let now = Instant::now();
        self.of(kind)
            .filter(|endpoint| {
                let (candidate, _) = endpoint.candidate(now);
                endpoint.is_ready(now) && candidate.in_flight == 0 && candidate.wait <= NO_WAIT_SECONDS
            })
            .count()
    }

    /// Notes that an engine served the input of that hash, which clears it of any suspicion.
    pub fn served(&self, hash: &str) {
        if let Ok(input) = u64::from_str_radix(hash, 16) {
            self.inner.served.lock().push(input);
        }
    }

    /// Whether the input of that hash wedged engines at least twice lately, wherever that was, and none served it.
    pub fn is_poison(&self, hash: &str) -> bool {
        let served = |input| self.inner.served.lock().contains(input);
        if u64::from_str_radix(hash, 16).is_ok_and(served) {
            return false;
        }
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let sightings = |endpoint: &Arc<Endpoint>| endpoint.sightings(hash, now, self.inner.poison);
        self.inner.endpoints.iter().map(sightings).sum::<usize>() >= poison::POISONOUS
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.inner.endpoints.iter().filter(move |endpoint| endpoint.kind == kind)
    }

    /// Seconds until the first engine of the kind may take a request, as far as the guards tell.
    fn opens_in(&self, kind: Kind) -> Option<f64> {
        let now = Instant::now();
        self.of(kind).filter_map(|endpoint| endpoint.opens_in(now)).min_by(f64::total_cmp)
    }

    fn retry_after(&self, kind: Kind) -> Duration {
        let bounds = &self.inner.retry_after;
        retry::retry_after(self.opens_in(kind), self.inner.dice.jitter(bounds.jitter), bounds)
    }

    /// Why no engine of the kind can be sent to, by the one that is nearest to serving.
    fn absence(&self, kind: Kind) -> &'static str {
        let now = Instant::now();
        let reason = |endpoint: &Arc<Endpoint>| match endpoint.shown(now) {
            Some(State::Healthy | State::Saturated | State::Degraded | State::Probation) => {
                (0, "just failed")
            }
            Some(State::Suspect | State::Unknown) => (1, "under suspicion"),
            Some(State::Warming | State::Starting) => (2, "starting"),
            Some(State::Restarting) => (3, "restarting"),
            Some(State::Wedged | State::Fenced) => (4, "wedged, a restart is due"),
            Some(State::KillStuck | State::Exhausted) => (5, "out of repair"),
            Some(State::ConfigError) => (6, "cannot start"),
            None => (7, "unreachable"),
        };
        self.of(kind).map(reason).min().map_or("none is configured", |(_, reason)| reason)
    }
}

#[cfg(test)]
mod tests;
