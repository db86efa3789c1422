//! The gateway's way to its engines: endpoints, discovery, balance, retries, and the path of one request.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;

use contract::{Capability, EngineReport, Predictor, State};

use crate::config::{Config, Current};
use crate::error::Error;
use crate::job::input::InputHash;
use crate::job::poison::{self, ServedInputs};
use crate::net::Clients;
use crate::net::drain::Drain;
use crate::net::permits::Permits;
use crate::rng::Rng;
use crate::upstream::spool::SpoolBudget;

mod ask;
mod balance;
mod chat;
mod demand;
mod discover;
mod endpoint;
mod exchange;
mod failure;
mod foreign;
mod framed;
mod get;
mod hedge;
mod hosted;
mod long;
mod membership;
mod metrics;
mod outgoing;
mod prepare;
mod race;
mod reply;
mod retry;
mod send;
pub mod slices;
mod speakers;
pub mod spool;
pub mod voices;
mod wait;

pub use chat::Said;
pub(crate) use exchange::Stop;
pub use failure::Failure;
#[cfg(test)]
pub use membership::Guest;
pub use membership::{Route, Target};
pub use metrics::Metrics;
pub use outgoing::{Asker, Gate, Listener, Long, Outgoing, Part, Upload};
pub use send::Served;

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
    config: Current,
    endpoints: RwLock<Arc<[Arc<Endpoint>]>>,
    /// The drain of the gateway, once endpoints are followed.
    following: Mutex<Option<Drain>>,
    /// Whether it is known which endpoints there are.
    synced: watch::Sender<bool>,
    clients: Clients,
    rng: Arc<Rng>,
    metrics: Metrics,
    budget: RwLock<Arc<RetryBudget>>,
    hedges: hedge::Budget,
    /// What engines of others may be used for.
    hosted: hosted::Budgets,
    spool: Arc<SpoolBudget>,
    pieces: long::Pieces,
    /// Ticks when some endpoint has become usable or better.
    improved: watch::Sender<()>,
    waiting: Permits,
    demand: demand::Demand,
    served: Mutex<ServedInputs>,
}

impl Upstreams {
    /// One endpoint for each configured engine; none yet where they are to be discovered. Nothing runs before
    /// [`Upstreams::start`].
    pub fn new(config: Current, clients: Clients, metrics: Metrics, rng: Rng) -> Self {
        let now = config.get();
        let inner = Inner {
            endpoints: RwLock::new(Arc::from([])),
            following: Mutex::new(None),
            synced: watch::Sender::new(false),
            clients,
            rng: Arc::new(rng),
            budget: RwLock::new(Arc::new(RetryBudget::new(&now.gateway.retry))),
            hedges: hedge::Budget::default(),
            hosted: hosted::Budgets::default(),
            spool: SpoolBudget::new(&now.gateway.spool, metrics.replay_bytes.clone()),
            pieces: long::Pieces::new(metrics.long_bytes.clone()),
            metrics,
            improved: watch::Sender::new(()),
            waiting: Permits::default(),
            demand: demand::Demand::default(),
            served: Mutex::default(),
            config,
        };
        let upstreams = Self { inner: Arc::new(inner) };
        upstreams.apply_list(&now);
        upstreams
    }

    /// Starts following the guards. It goes on while requests drain, because they may still need a retry.
    pub fn start(&self, drain: &Drain) {
        *self.inner.following.lock() = Some(drain.clone());
        for endpoint in self.endpoints().iter() {
            self.follow(endpoint);
        }
        let (upstreams, drain) = (self.clone(), drain.clone());
        let (before, changes) = (self.inner.config.get(), self.inner.config.changes());
        tokio::spawn(async move {
            tokio::select! {
                () = upstreams.follow_config(before, changes) => {}
                () = drain.forced() => {}
            }
        });
    }

    /// Takes over every configuration that replaces `before`, also one that did before `changes` are awaited.
    async fn follow_config(&self, mut before: Arc<Config>, mut changes: watch::Receiver<Arc<Config>>) {
        loop {
            let now = changes.borrow_and_update().clone();
            if now.gateway.retry != before.gateway.retry {
                *self.inner.budget.write() = Arc::new(RetryBudget::new(&now.gateway.retry));
            }
            if !Arc::ptr_eq(&now, &before) {
                self.apply_list(&now);
                self.inner.hosted.retain(&now);
            }
            before = now;
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn follow(&self, endpoint: &Arc<Endpoint>) {
        let Some(drain) = self.inner.following.lock().clone() else { return };
        let client = self.inner.clients.http.clone();
        let follow = discover::follow(Arc::clone(endpoint), client, Arc::clone(&self.inner.rng));
        let recheck = discover::recheck(Arc::clone(endpoint));
        let gone = endpoint.gone.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = follow => {}
                () = recheck => {}
                () = gone.cancelled() => {}
                () = drain.forced() => {}
            }
        });
    }

    fn apply_list(&self, config: &Config) {
        if config.gateway.discovery.is_none() {
            self.apply(config.engines.iter().map(Target::of).collect());
        }
    }

    /// Makes the endpoints those of `targets`. Requests on others go on; nothing new is sent there.
    pub fn apply(&self, targets: Vec<Target>) {
        let mut endpoints = self.inner.endpoints.write();
        let change = membership::change(&endpoints, targets);
        for endpoint in &change.gone {
            tracing::info!(engine = %endpoint.name, pool = %endpoint.pool, "endpoint is gone");
            endpoint.gone.cancel();
            endpoint.set_terminating(true);
            self.inner.metrics.forget(&endpoint.name);
        }
        let mut present = Vec::with_capacity(change.kept.len() + change.new.len());
        for (endpoint, terminating) in change.kept {
            endpoint.set_terminating(terminating);
            present.push(endpoint);
        }
        let mut new = Vec::with_capacity(change.new.len());
        for target in change.new {
            match self.endpoint(&target) {
                Ok(endpoint) => new.push(Arc::new(endpoint)),
                Err(error) => tracing::error!(engine = target.name, %error, "unable to use an engine"),
            }
        }
        present.extend(new.iter().cloned());
        *endpoints = present.into();
        drop(endpoints);
        for endpoint in &new {
            tracing::info!(engine = %endpoint.name, pool = %endpoint.pool, guard = %endpoint.guard, "endpoint found");
            self.follow(endpoint);
        }
        self.inner.synced.send_replace(true);
        // Jobs that wait for an engine may find a new one.
        self.inner.improved.send_replace(());
    }

    fn endpoint(&self, target: &Target) -> Result<Endpoint, ::http::Error> {
        let config = self.inner.config.get();
        let lane = &config.guard.lane;
        let predictor =
            Predictor { fixed: lane.fixed_seconds, per_audio_second: lane.seconds_per_audio_second };
        let gauge = self.inner.metrics.state_of(&target.name);
        let budget = target.hosted.as_ref().map(|guest| self.inner.hosted.of(guest));
        Endpoint::new(
            target,
            budget,
            predictor,
            gauge,
            self.inner.improved.clone(),
            self.inner.clients.clone(),
        )
    }

    /// Whether it is known which engines there are.
    pub fn is_synced(&self) -> bool {
        *self.inner.synced.borrow()
    }

    fn endpoints(&self) -> Arc<[Arc<Endpoint>]> {
        Arc::clone(&self.inner.endpoints.read())
    }

    fn retry_budget(&self) -> Arc<RetryBudget> {
        Arc::clone(&self.inner.budget.read())
    }

    /// The budget that request bodies are kept under.
    pub fn budget(&self) -> Arc<SpoolBudget> {
        Arc::clone(&self.inner.spool)
    }

    /// Each engine's last report with its incidents, in the order in which they were found.
    pub fn reports(&self) -> Vec<EngineReport> {
        let now = Instant::now();
        self.endpoints().iter().map(|endpoint| endpoint.snapshot(now)).collect()
    }

    /// Whether an engine of that capability is proven and can be sent to.
    pub fn ready(&self, capability: Capability) -> bool {
        let now = Instant::now();
        self.of(Route::from(capability).with_hosted(true)).any(|endpoint| endpoint.is_ready(now))
    }

    /// How many engines of that route would start a request at once.
    pub fn free(&self, route: impl Into<Route>) -> usize {
        let now = Instant::now();
        self.of(route.into())
            .filter(|endpoint| {
                let (candidate, _) = endpoint.candidate(now);
                endpoint.is_ready(now) && candidate.in_flight == 0 && candidate.wait <= NO_WAIT_SECONDS
            })
            .count()
    }

    /// Notes that an engine served the input of that hash, which clears it of any suspicion.
    pub fn served(&self, input: InputHash) {
        self.inner.served.lock().push(input);
    }

    /// Whether the input of that hash wedged engines at least twice within the window, wherever that was, and none served it.
    pub fn is_poison(&self, input: InputHash) -> bool {
        if self.inner.served.lock().contains(input) {
            return false;
        }
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let window = self.inner.config.get().guard.repair.poison;
        let sightings = |endpoint: &Arc<Endpoint>| endpoint.sightings(input, now, window);
        self.endpoints().iter().map(sightings).sum::<usize>() >= poison::PROOF
    }

    fn of(&self, route: Route) -> impl Iterator<Item = Arc<Endpoint>> {
        let endpoints = self.endpoints();
        (0..endpoints.len())
            .filter_map(move |at| endpoints.get(at).filter(|endpoint| route.includes(endpoint)).cloned())
    }

    /// Seconds until the first engine of the route may take a request, as far as the guards tell.
    fn opens_in(&self, route: &Route) -> Option<f64> {
        let now = Instant::now();
        self.of(route.clone()).filter_map(|endpoint| endpoint.opens_in(now)).min_by(f64::total_cmp)
    }

    fn retry_after(&self, route: &Route) -> Duration {
        let config = self.inner.config.get();
        let bounds = &config.gateway.retry_after;
        retry::retry_after(self.opens_in(route), self.inner.rng.jitter(bounds.jitter), bounds)
    }

    /// The error for an engine whose work is of no use.
    pub fn failed(&self, capability: Capability, reason: &'static str) -> Error {
        Error::EngineFailed { capability, reason, retry_after: self.retry_after_busy() }
    }

    /// When to come back after a refusal for want of room.
    fn retry_after_busy(&self) -> Duration {
        self.inner.config.get().gateway.retry_after.min
    }

    /// Why no engine of the route can be sent to, by the one that is nearest to serving.
    fn absence(&self, route: &Route) -> &'static str {
        let now = Instant::now();
        let reason = |endpoint: Arc<Endpoint>| match endpoint.shown(now) {
            Some(State::Healthy | State::Saturated | State::Degraded | State::Probation) => {
                (0, "just failed")
            }
            Some(State::Suspect | State::Unknown | State::Other) => (1, "under suspicion"),
            Some(State::Warming | State::Starting) => (2, "starting"),
            Some(State::Restarting) => (3, "restarting"),
            Some(State::Wedged | State::Ejected) => (4, "wedged, a restart is due"),
            Some(State::KillStuck | State::Exhausted) => (5, "out of repair"),
            Some(State::ConfigError) => (6, "cannot start"),
            None => (7, "unreachable"),
        };
        let nearest = self.of(route.clone()).map(reason).min().map(|(_, reason)| reason);
        nearest.unwrap_or_else(|| if self.is_synced() { "none is there" } else { "none is found yet" })
    }
}

#[cfg(test)]
mod tests;
