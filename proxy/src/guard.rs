//! The guard: in the data path of one engine, proves with real inference that it works, has it restarted when not.
//!
//! ```text
//! request -> forward (lane) -> engine          forward.rs, lane.rs, classify.rs
//!               | observation
//!               v
//! evidence -> verdict -> remediation           evidence.rs, verdict.rs, remediation.rs: pure
//!     ^                      |
//!   probe <---- health ----> supervisor        probe.rs, health.rs, supervisor.rs: IO
//!                 |            fence             fence.rs: where the kubelet restarts
//!                 |            operator          operator.rs, identity.rs: who must agree
//!               board -> /readyz /state        board.rs, admin.rs
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{self, Lane, Policy};
use crate::drain::Drain;
use crate::http;
use crate::report::{EngineReport, Predictor};

mod admin;
pub mod board;
pub mod classify;
pub mod evidence;
pub mod fence;
pub mod forward;
pub mod golden;
pub mod health;
pub mod identity;
pub mod incident;
pub mod lane;
pub mod metrics;
pub mod observation;
pub mod operator;
pub mod poison;
pub mod predictor;
pub mod probe;
pub mod redact;
pub mod remediation;
pub mod signatures;
pub mod supervisor;
pub mod verdict;

use board::Board;
use fence::Fencer;
use identity::{ApiServer, Identity, Keys};
use operator::Contact;
use poison::Poison;
use signatures::Catalogue;
use supervisor::{Actuator, Supervisor};

/// A running guard.
pub struct Guard {
    /// The engine's name.
    pub name: String,
    /// Where it takes traffic.
    pub address: SocketAddr,
    /// Where its state is served.
    pub admin: SocketAddr,
    /// What it concludes.
    pub board: Arc<Board>,
    /// Its rules; new ones take effect at once.
    pub policy: watch::Sender<Policy>,
    /// Its metrics.
    pub registry: Registry,
    supervisor: Option<Arc<Supervisor>>,
}

/// Why a guard cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port is taken.
    #[error("{name}: unable to listen on {address}: {source}")]
    Listen {
        /// The engine's name.
        name: String,
        /// The address.
        address: SocketAddr,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The engine's command does not start.
    #[error("{name}: {source}")]
    Engine {
        /// The engine's name.
        name: String,
        /// The reason.
        #[source]
        source: supervisor::Error,
    },
    /// The folder shared with the engine's container cannot be used.
    #[error("{name}: {source}")]
    Fence {
        /// The engine's name.
        name: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The data path cannot be made.
    #[error("{name}: {source}")]
    Forward {
        /// The engine's name.
        name: String,
        /// The reason.
        #[source]
        source: forward::Error,
    },
    /// The prober cannot be made.
    #[error("{name}: {source}")]
    Prober {
        /// The engine's name.
        name: String,
        /// The reason.
        #[source]
        source: probe::Error,
    },
    /// Two metrics of one name.
    #[error("{name}: unable to register metrics: {source}")]
    Metrics {
        /// The engine's name.
        name: String,
        /// The reason.
        #[source]
        source: prometheus::Error,
    },
}

impl Guard {
    /// Starts the engine, if its command is ours to run, and the guard of it.
    pub async fn build(engine: &config::Engine, policy: &Policy, drain: &Drain) -> Result<Self, Error> {
        Self::build_with(engine, policy, drain, Box::new(ApiServer)).await
    }

    /// As [`Guard::build`], with the operator's token checked against these keys.
    async fn build_with(
        engine: &config::Engine,
        policy: &Policy,
        drain: &Drain,
        keys: Box<dyn Keys>,
    ) -> Result<Self, Error> {
        let name = engine.name.clone();
        let traffic = listen(&name, engine.guard).await?;
        let admin = listen(&name, engine.guard_admin).await?;
        let registry = Registry::new();
        let metrics = |source| Error::Metrics { name: name.clone(), source };

        let supervisor = match engine.command.is_empty() {
            true => None,
            false => {
                let started = Supervisor::start(engine, &policy.repair);
                Some(Arc::new(started.map_err(|source| Error::Engine { name: name.clone(), source })?))
            }
        };
        let lane = lane::Lane::new(&policy.lane);
        lane.fence();
        let fencer = match &engine.fence {
            None => None,
            Some(fence) => {
                let started = Fencer::start(engine, fence, &policy.repair, lane.clone());
                Some(started.map_err(|source| Error::Fence { name: name.clone(), source })?)
            }
        };
        let draining = fencer.as_ref().map_or_else(|| watch::channel(false).1, Fencer::draining);
        let operator = engine.operator.clone().map(|wanted| admin::Operator {
            identity: Arc::new(Identity::new(wanted, keys)),
            contact: Contact::default(),
        });
        let board = Arc::new(Board::new(observation::Standing::starting(), first_report(engine, policy)));
        let (observer, observations) = observation::Observer::channel();
        let catalogue = Arc::new(Catalogue::new(&policy.signatures));
        let poison = Arc::new(Mutex::new(Poison::new(policy.repair.poison)));
        let forward = forward::Forward::new(forward::Parts {
            engine: engine.clone(),
            policy: policy.clone(),
            lane: lane.clone(),
            observer,
            standing: board.standing(),
            client: http::client(),
            catalogue: catalogue.clone(),
            poison: poison.clone(),
            metrics: forward::Metrics::register(&registry).map_err(metrics)?,
        });
        let forward = Arc::new(forward.map_err(|source| Error::Forward { name: name.clone(), source })?);
        let prober = probe::Prober::new(&engine.url, None, &policy.probe, catalogue);
        let prober = prober.map_err(|source| Error::Prober { name: name.clone(), source })?;
        let supervised = supervisor.clone().map(|supervisor| supervisor as Arc<dyn Actuator>);
        let actuator = fencer.map(|fencer| Arc::new(fencer) as Arc<dyn Actuator>).or(supervised);
        let (policies_in, policies) = watch::channel(policy.clone());
        let orders = health::start(
            health::Parts {
                engine: engine.clone(),
                policy: policy.clone(),
                policies,
                lane,
                forward: forward.clone(),
                poison,
                prober: Arc::new(prober),
                actuator,
                draining,
                operator: operator.as_ref().map(|operator| operator.contact.clone()),
                board: board.clone(),
                metrics: metrics::Metrics::register(&registry, &name).map_err(metrics)?,
            },
            observations,
            drain,
        );

        let guard = Self {
            address: traffic.local_addr().unwrap_or(engine.guard),
            admin: admin.local_addr().unwrap_or(engine.guard_admin),
            board: board.clone(),
            policy: policies_in,
            registry: registry.clone(),
            supervisor,
            name,
        };
        let service = hyper::service::service_fn(move |request| {
            let forward = forward.clone();
            async move { Ok(forward.handle(request).await) }
        });
        tokio::spawn(http::serve(traffic, service, drain.clone()));
        let routes = admin::router(admin::Admin { board, registry, orders, operator, drain: drain.clone() });
        let service = hyper_util::service::TowerToHyperService::new(routes);
        tokio::spawn(http::serve(admin, service, drain.clone()));
        Ok(guard)
    }

    /// Ends the engine process, if it is ours. To be called after the drain.
    pub async fn stop_engine(&self) {
        if let Some(supervisor) = &self.supervisor {
            supervisor.stop().await;
        }
    }
}

async fn listen(name: &str, address: SocketAddr) -> Result<TcpListener, Error> {
    let listening = TcpListener::bind(address).await;
    listening.map_err(|source| Error::Listen { name: name.to_owned(), address, source })
}

fn first_report(engine: &config::Engine, policy: &Policy) -> EngineReport {
    let Lane { fixed_seconds: fixed, seconds_per_audio_second: per_audio_second, .. } = policy.lane;
    EngineReport::unknown(&engine.name, engine.kind, &engine.url, Predictor { fixed, per_audio_second })
}

#[cfg(test)]
mod tests;
