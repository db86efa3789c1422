//! Wiring: from a configuration to running listeners, and their end.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use hyper_util::service::TowerToHyperService;
use prometheus::Registry;
use tokio::net::TcpListener;

use crate::args::{Command, File};
use crate::config::{self, Config};
use crate::drain::{self, Drain};
use crate::gateway::Gateway;
use crate::guard::Guard;
use crate::upstream::{self, Dice, Upstreams};
use crate::{admin, http, roundtrip, welcome};

/// Runs a command until SIGTERM or Ctrl-C, then drains.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let bound = match &command {
        Command::Gateway(file) => Bound::gateway(read(file)?).await?,
        Command::Guard { file, engine } => Bound::guard(&read(file)?, engine.as_deref()).await?,
        Command::Standalone(file) => {
            let bound = Bound::standalone(read(file)?).await?;
            welcome::start(&bound, &file.config);
            bound
        }
        Command::Roundtrip(order) => return Ok(roundtrip::run(order).await?),
    };
    drain::signal().await.context("unable to wait for signals")?;
    bound.stop().await;
    Ok(())
}

fn read(file: &File) -> anyhow::Result<Config> {
    Ok(config::from_file(&file.config, &file.overrides)?)
}

/// What runs, and where.
pub struct Bound {
    /// The configuration it was made from.
    pub config: Arc<Config>,
    /// The public address, if there is a gateway.
    pub public: Option<SocketAddr>,
    /// The gateway's admin address.
    pub admin: Option<SocketAddr>,
    /// The guards.
    pub guards: Vec<Guard>,
    gateway_drain: Drain,
    admin_drain: Drain,
    guard_drain: Drain,
}

impl Bound {
    /// The gateway alone.
    pub async fn gateway(config: Config) -> anyhow::Result<Self> {
        let mut bound = Self::empty(config);
        bound.start_gateway().await?;
        Ok(bound)
    }

    /// The guard of one engine.
    pub async fn guard(config: &Config, engine: Option<&str>) -> anyhow::Result<Self> {
        let mut bound = Self::empty(config.clone());
        let engine = config.engine(engine)?;
        bound.guards.push(Guard::build(engine, &config.guard, &bound.guard_drain).await?);
        tracing::info!(engine = engine.name, address = %engine.guard, admin = %engine.guard_admin, "guard listens");
        Ok(bound)
    }

    /// A gateway, and guards that run their engines as child processes.
    pub async fn standalone(config: Config) -> anyhow::Result<Self> {
        anyhow::ensure!(!config.engines.is_empty(), "engines is empty; list at least one");
        let mut bound = Self::empty(config);
        let started = bound.start_all().await;
        if let Err(error) = started {
            bound.stop().await; // engines that did start must not be left behind
            return Err(error);
        }
        Ok(bound)
    }

    fn empty(config: Config) -> Self {
        Self {
            config: Arc::new(config),
            public: None,
            admin: None,
            guards: Vec::new(),
            gateway_drain: Drain::new(),
            admin_drain: Drain::new(),
            guard_drain: Drain::new(),
        }
    }

    async fn start_all(&mut self) -> anyhow::Result<()> {
        for engine in &self.config.engines {
            self.guards.push(Guard::build(engine, &self.config.guard, &self.guard_drain).await?);
        }
        self.start_gateway().await
    }

    async fn start_gateway(&mut self) -> anyhow::Result<()> {
        let config = &self.config.gateway;
        let public = listen(config.listen).await?;
        let private = listen(config.admin).await?;
        self.public = Some(public.local_addr()?);
        self.admin = Some(private.local_addr()?);

        let registry = Registry::new();
        let metrics = upstream::Metrics::register(&registry)?;
        let upstreams = Upstreams::new(&self.config, http::client(), metrics, Dice::random())?;
        upstreams.start(&self.gateway_drain);
        let gateway = Gateway::new(self.config.clone(), upstreams, self.gateway_drain.clone(), &registry)?;

        let service = TowerToHyperService::new(gateway.router());
        tokio::spawn(http::serve(public, service, self.gateway_drain.clone()));
        // The admin port outlives the public one: readiness and metrics tell of the drain.
        let routes = gateway.admin_router().merge(admin::router(registry));
        tokio::spawn(http::serve(private, TowerToHyperService::new(routes), self.admin_drain.clone()));
        tracing::info!(address = %config.listen, admin = %config.admin, "gateway listens");
        Ok(())
    }

    /// Stops from the outside in: gateway, guards, engines. Work in flight gets the configured time.
    pub async fn stop(self) {
        let deadline = self.config.gateway.drain;
        let dropped = self.gateway_drain.finish(deadline).await;
        let dropped = dropped + self.guard_drain.finish(deadline).await;
        self.admin_drain.finish(std::time::Duration::from_secs(1)).await;
        if dropped > 0 {
            tracing::warn!(dropped, "connections were cut at the drain deadline");
        }
        futures::future::join_all(self.guards.iter().map(Guard::stop_engine)).await;
        tracing::info!("stopped");
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("unable to listen on {address}"))
}
