//! The guard: in the data path of one engine, proves with real inference that it works, has it restarted when not.
//!
//! ```text
//! request -> forward (lane, jobs) -> engine         path/
//!               | observation
//!               v
//! evidence -> decide -> verdict, act, standing      judge/: pure
//!     ^                      |
//!   probe <---- control ---> actuator               heal/: child, container, unit, kubelet
//!                 |            operator             must agree, where there is one
//!               snapshot -> /readyz /state
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::Registry;
use tokio::net::TcpListener;
use trace::Tracer;

use contract::{EngineReport, Predictor};

use crate::config::{self, Current, Lane, Policy};
use crate::net::drain::Drain;
use crate::net::{self, Tls, TlsError};

pub mod heal;
pub mod judge;
mod key;
pub mod path;
mod protocols;

use heal::child::ChildProcess;
use heal::contact::Contact;
use heal::identity::{ApiServer, Identity, Keys};
use heal::model_cache::Meter;
use heal::output::Output;
use heal::runner::{self, Runner};
use heal::snapshot::Snapshot;
use heal::vitals::recorder::Recorder;
use heal::vitals::source::Source;
use heal::{admin, control, gpu, metrics, output, prober};
use judge::observation;
use path::observer::Observer;
use path::signatures::Catalogue;
use path::{forward, lane};
use protocols::Protocols;

use crate::job::poison::Poison;

/// A running guard.
pub struct Guard {
    /// The engine's name.
    pub name: String,
    /// Where it takes traffic.
    pub address: SocketAddr,
    /// Where its state is served.
    pub admin: SocketAddr,
    /// What it concludes.
    pub snapshot: Arc<Snapshot>,
    /// Its metrics.
    pub registry: Registry,
    child: Option<Arc<ChildProcess>>,
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
    /// The engine does not start, or what runs it cannot be reached.
    #[error("{name}: {source}")]
    Engine {
        /// The engine's name.
        name: String,
        /// The reason.
        #[source]
        source: runner::Error,
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
        source: prober::Error,
    },
    /// The engine's key cannot be used.
    #[error("{name}: {source}")]
    Key {
        /// The engine's name.
        name: String,
        /// The reason.
        #[source]
        source: key::Error,
    },
    /// The engine's URL is https, and there is no TLS.
    #[error("{name}: {source}")]
    Tls {
        /// The engine's name.
        name: String,
        /// The reason.
        #[source]
        source: TlsError,
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
    pub async fn build(
        engine: &config::Engine,
        config: &Current,
        drain: &Drain,
        tracer: &Tracer,
    ) -> Result<Self, Error> {
        Self::build_with(engine, config, drain, tracer, Box::new(ApiServer)).await
    }

    /// As [`Guard::build`], with the operator's token checked against these keys.
    async fn build_with(
        engine: &config::Engine,
        config: &Current,
        drain: &Drain,
        tracer: &Tracer,
        keys: Box<dyn Keys>,
    ) -> Result<Self, Error> {
        let changes = config.changes();
        let current = config;
        let config = config.get();
        let policy = &engine.ruled(&config.guard);
        let name = engine.name.clone();
        let traffic = listen(&name, engine.guard).await?;
        let admin = listen(&name, engine.guard_admin).await?;
        let registry = Registry::new();
        let metrics = |source| Error::Metrics { name: name.clone(), source };

        let catalogue = Arc::new(Catalogue::new(&policy.signatures));
        let (observer, observations) = Observer::channel();
        let output = Output::new(&name, catalogue.clone(), std::io::stderr());
        tokio::spawn(output::observe(output.hints(), observer.clone()));
        let lane = lane::Lane::new(&policy.lane);
        lane.eject();
        let runner = Runner::start(engine, &policy.repair, &lane, output).await;
        let runner = runner.map_err(|source| Error::Engine { name: name.clone(), source })?;
        let child = runner.child();
        let helper = engine.kubelet.as_ref().map(|settings| Source::helper(&settings.dir));
        let vitals = helper.or_else(|| child.as_ref().map(|child| child.vitals()));
        let vitals = Recorder::start(vitals, &registry, &name, drain).map_err(metrics)?;
        let folder = engine.model_cache.clone();
        let model_cache = Meter::start(folder, vitals.clone(), &registry, &name, drain).map_err(metrics)?;
        let gpu = gpu::start(engine, &registry, &observer, drain).map_err(metrics)?;
        let wanted = wanted(current.clone(), engine);
        let operator = engine.operator.is_some().then(|| admin::Operator {
            identity: Arc::new(Identity::new(wanted, keys)),
            contact: Contact::default(),
        });
        let snapshot =
            Arc::new(Snapshot::new(observation::Standing::starting(), first_report(engine, policy)));
        let poison = Arc::new(Mutex::new(Poison::new(policy.repair.poison)));
        let protocols = Protocols::of(engine).map_err(|source| Error::Key { name: name.clone(), source })?;
        let protocols = Arc::new(protocols);
        let tls = over_tls(engine).then(Tls::system).transpose();
        let tls = tls.map_err(|source| Error::Tls { name: name.clone(), source })?;
        let forward = forward::Forward::new(forward::Parts {
            engine: engine.clone(),
            policy: policy.clone(),
            lane: lane.clone(),
            observer,
            standing: snapshot.standing(),
            protocols: protocols.clone(),
            clients: net::Clients::kept(tls.as_ref()),
            catalogue: catalogue.clone(),
            poison: poison.clone(),
            metrics: forward::Metrics::register(&registry).map_err(metrics)?,
            drain: drain.clone(),
            tracer: tracer.clone(),
        });
        let forward = Arc::new(forward.map_err(|source| Error::Forward { name: name.clone(), source })?);
        let fresh = net::Clients::fresh(tls.as_ref());
        let prober =
            prober::Prober::new(engine, Arc::new(fresh), protocols.clone(), &policy.probe, catalogue);
        let prober = prober.map_err(|source| Error::Prober { name: name.clone(), source })?;
        let orders = control::start(
            control::Parts {
                engine: engine.clone(),
                policy: policy.clone(),
                changes,
                lane,
                forward: forward.clone(),
                poison,
                protocols,
                prober: Arc::new(prober),
                actuator: runner.actuator,
                vitals,
                model_cache,
                gpu,
                draining: runner.draining,
                operator: operator.as_ref().map(|operator| operator.contact.clone()),
                snapshot: snapshot.clone(),
                tracer: tracer.clone(),
                metrics: metrics::Metrics::register(&registry, &name).map_err(metrics)?,
            },
            observations,
            drain,
        );

        let guard = Self {
            address: traffic.local_addr().unwrap_or(engine.guard),
            admin: admin.local_addr().unwrap_or(engine.guard_admin),
            snapshot: snapshot.clone(),
            registry: registry.clone(),
            child,
            name,
        };
        let service = hyper::service::service_fn(move |request| {
            let forward = forward.clone();
            async move { Ok(forward.handle(request).await) }
        });
        tokio::spawn(net::serve_within(
            traffic,
            None,
            move |_| service.clone(),
            policy.connections.limits(),
            drain.clone(),
        ));
        let routes =
            admin::router(admin::Admin { snapshot, registry, orders, operator, drain: drain.clone() });
        let service = hyper_util::service::TowerToHyperService::new(routes);
        tokio::spawn(net::serve(admin, service, drain.clone()));
        Ok(guard)
    }

    /// Ends the engine process, if it is our child; containers and units go on. To be called after the drain.
    pub async fn stop_engine(&self) {
        if let Some(child) = &self.child {
            child.stop().await;
        }
    }
}

async fn listen(name: &str, address: SocketAddr) -> Result<TcpListener, Error> {
    let listening = net::listen(address).await;
    listening.map_err(|source| Error::Listen { name: name.to_owned(), address, source })
}

/// Whose orders the guard of that engine obeys, as the configuration says at the time.
fn wanted(
    config: Current,
    engine: &config::Engine,
) -> impl Fn() -> Option<config::Operator> + Send + Sync + 'static {
    let (name, first) = (engine.name.clone(), engine.operator.clone());
    move || {
        let config = config.get();
        let now = config.engines.iter().find(|engine| engine.name == name);
        now.map_or_else(|| first.clone(), |engine| engine.operator.clone())
    }
}

/// Whether one of the engine's URLs is https.
fn over_tls(engine: &config::Engine) -> bool {
    std::iter::once(&engine.url).chain(&engine.grpc).any(|url| url.starts_with("https:"))
}

fn first_report(engine: &config::Engine, policy: &Policy) -> EngineReport {
    let Lane { fixed_seconds: fixed, seconds_per_audio_second: per_audio_second, .. } = policy.lane;
    EngineReport::unknown(&engine.name, engine.capability, &engine.url, Predictor { fixed, per_audio_second })
}

#[cfg(test)]
mod tests;
