//! Wiring: from a configuration to running listeners, and their end.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use hyper_util::service::TowerToHyperService;
use prometheus::Registry;
use tokio::net::TcpListener;
use trace::Tracer;

use crate::args::Command;
use crate::config::reload::{self, Watch};
use crate::config::{self, Config, Current};
use crate::gateway::Gateway;
use crate::guard::Guard;
use crate::net::ServerTls;
use crate::net::drain::{self, Drain};
use crate::rng::Rng;
use crate::upstream::{self, Upstreams, slices};
use crate::{admin, banner, keys, net, roundtrip};

/// Runs a command until SIGTERM or Ctrl-C, then drains.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let (bound, watch) = match command {
        Command::Gateway(file) => {
            let (watch, config) = Watch::read(file)?;
            (Bound::gateway(config).await?, watch)
        }
        Command::Guard { file, engine } => {
            let (watch, config) = Watch::read(file)?;
            (Bound::guard(&config, engine.as_deref()).await?, watch)
        }
        Command::Standalone(file) => {
            let path = file.config.clone();
            let (watch, config) = Watch::read(file)?;
            let bound = Bound::standalone(config).await?;
            if let Some(public) = bound.public {
                banner::start(public, bound.admin, &bound.guards, &bound.config.get(), &path);
            }
            (bound, watch)
        }
        Command::Keys(order) => return Ok(keys::run(&order)?),
        Command::Roundtrip(order) => return Ok(roundtrip::run(&order).await?),
    };
    bound.follow(watch)?;
    drain::signal().await.context("unable to wait for signals")?;
    bound.stop().await;
    Ok(())
}

/// What runs, and where.
pub struct Bound {
    /// The configuration in force.
    pub config: Current,
    /// The public address, if there is a gateway.
    pub public: Option<SocketAddr>,
    /// The address of HTTPS beside it, if there is one.
    pub https: Option<SocketAddr>,
    /// The gateway's admin address.
    pub admin: Option<SocketAddr>,
    /// The guards.
    pub guards: Vec<Guard>,
    upstreams: Option<Upstreams>,
    /// Of the gateway, or of the only guard.
    registry: Registry,
    gateway_drain: Drain,
    admin_drain: Drain,
    guard_drain: Drain,
    tracer: Tracer,
    /// What its spans are of, unless they are named.
    service: &'static str,
}

impl Bound {
    /// The gateway alone.
    pub async fn gateway(config: Config) -> anyhow::Result<Self> {
        let mut bound = Self::new(config, "speechstack-gateway")?;
        bound.start_gateway().await?;
        Ok(bound)
    }

    /// The guard of one engine.
    pub async fn guard(config: &Config, engine: Option<&str>) -> anyhow::Result<Self> {
        let mut bound = Self::new(config.clone(), "speechstack-guard")?;
        let engine = config.engine(engine)?;
        let guard = Guard::build(engine, &bound.config, &bound.guard_drain, &bound.tracer).await?;
        bound.registry = guard.registry.clone();
        bound.tracer.register(&bound.registry)?;
        bound.guards.push(guard);
        tracing::info!(engine = engine.name, address = %engine.guard, admin = %engine.guard_admin, "guard listens");
        Ok(bound)
    }

    /// A gateway, and guards that run their engines as child processes.
    pub async fn standalone(config: Config) -> anyhow::Result<Self> {
        anyhow::ensure!(!config.engines.is_empty(), "engines is empty; list at least one");
        let mut bound = Self::new(config, "speechstack")?;
        let started = bound.start_all().await;
        if let Err(error) = started {
            bound.stop().await; // engines that did start must not be left behind
            return Err(error);
        }
        Ok(bound)
    }

    /// With nothing that runs but the export of traces, as that service.
    fn new(config: Config, service: &'static str) -> anyhow::Result<Self> {
        let tracer = Tracer::new()?;
        export(&tracer, &config, service).context("unable to export traces (tracing.otlp)")?;
        Ok(Self {
            tracer,
            service,
            config: Current::new(config),
            upstreams: None,
            registry: Registry::new(),
            public: None,
            https: None,
            admin: None,
            guards: Vec::new(),
            gateway_drain: Drain::new(),
            admin_drain: Drain::new(),
            guard_drain: Drain::new(),
        })
    }

    async fn start_all(&mut self) -> anyhow::Result<()> {
        let config = self.config.get();
        for engine in &config.engines {
            self.guards.push(Guard::build(engine, &self.config, &self.guard_drain, &self.tracer).await?);
        }
        self.start_gateway().await
    }

    async fn start_gateway(&mut self) -> anyhow::Result<()> {
        let now = self.config.get();
        let config = &now.gateway;
        let discovery = match &config.discovery {
            Some(_) => Some(slices::client().context("gateway.discovery needs a cluster")?),
            None => None,
        };
        let keys = keys::Store::new(keys::Metrics::register(&self.registry)?);
        keys.open(&config.auth)?;
        let public = listen(config.listen).await?;
        let private = listen(config.admin).await?;
        let grpc = match config.grpc.listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let tls = self.tls(config)?;
        // Beside a port of HTTPS the others stay plain.
        let (plain, https) = match config.tls.as_ref().and_then(|tls| tls.listen) {
            Some(address) => (None, Some(listen(address).await?)),
            None => (tls.clone(), None),
        };
        self.public = Some(public.local_addr()?);
        self.https = https.as_ref().map(TcpListener::local_addr).transpose()?;
        self.admin = Some(private.local_addr()?);

        let registry = self.registry.clone();
        self.tracer.register(&registry)?;
        let metrics = upstream::Metrics::register(&registry)?;
        let upstreams = Upstreams::new(self.config.clone(), net::Clients::new(), metrics, Rng::random());
        upstreams.start(&self.gateway_drain);
        self.upstreams = Some(upstreams.clone());
        if let Some(client) = discovery {
            let (follow, drain) =
                (slices::follow(client, self.config.clone(), upstreams.clone()), self.gateway_drain.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = follow => {}
                    () = drain.forced() => {}
                }
            });
        }
        let (current, drain) = (self.config.clone(), self.gateway_drain.clone());
        let gateway =
            Gateway::new(current, upstreams, keys.clone(), drain.clone(), self.tracer.clone(), &registry)?;
        let follow = keys.follow(self.config.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = follow => {}
                () = drain.forced() => {}
            }
        });
        if !config.auth.is_on() && !config.listen.ip().is_loopback() {
            tracing::warn!(
                address = %config.listen,
                "every client that reaches this address may use the engines; set gateway.auth.mode to keys to ask for API keys"
            );
        }

        let limits = config.connections.limits();
        let listeners = std::iter::once(public).chain(grpc).map(|listener| (listener, plain.clone()));
        for (listener, tls) in listeners.chain(https.map(|listener| (listener, tls.clone()))) {
            let (service, drain) = (gateway.service(), self.gateway_drain.clone());
            tokio::spawn(net::serve_within(listener, tls, move |peer| service.for_peer(peer), limits, drain));
        }
        // The admin port outlives the public one: readiness and metrics tell of the drain.
        let routes = gateway.admin_router().merge(admin::router(registry));
        tokio::spawn(net::serve(private, TowerToHyperService::new(routes), self.admin_drain.clone()));
        let further = config.grpc.listen.map(tracing::field::display);
        let https = self.https.map(tracing::field::display);
        tracing::info!(address = %config.listen, grpc = further, https, admin = %config.admin, "gateway listens");
        Ok(())
    }

    /// The certificate that is configured, which is followed from now on.
    fn tls(&self, config: &config::Gateway) -> anyhow::Result<Option<ServerTls>> {
        let Some(tls) = &config.tls else { return Ok(None) };
        let files = net::TlsFiles { cert: tls.cert_file.clone(), key: tls.key_file.clone() };
        let tls = ServerTls::open(files, net::TlsMetrics::register(&self.registry)?)
            .context("unable to serve HTTPS (gateway.tls)")?;
        let (follow, drain) = (tls.clone().follow(), self.gateway_drain.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = follow => {}
                () = drain.forced() => {}
            }
        });
        Ok(Some(tls))
    }

    /// Takes over what changes in the file from now on.
    pub fn follow(&self, watch: Watch) -> anyhow::Result<()> {
        let metrics = reload::Metrics::register(&self.registry)?;
        let (current, tracer, service) = (self.config.clone(), self.tracer.clone(), self.service);
        tokio::spawn(watch.follow(metrics, move |config| {
            let fields = reload::needs_restart(&current.get(), &config);
            if !fields.is_empty() {
                tracing::warn!(?fields, "changes that count from the next start on");
            }
            if current.get().tracing != config.tracing
                && let Err(error) = export(&tracer, &config, service)
            {
                tracing::error!(%error, "unable to export traces as tracing.otlp says; it goes on as before");
            }
            current.replace(config);
        }));
        Ok(())
    }

    /// Stops from the outside in: gateway, guards, engines. Work in flight gets the configured time.
    pub async fn stop(self) {
        let config = self.config.get();
        let deadline = config.gateway.drain;
        self.gateway_drain.announce();
        if self.public.is_some() {
            // Clients that send here learn only now that they should not.
            tokio::time::sleep(config.gateway.drain_delay).await;
        }
        let dropped = self.gateway_drain.finish(deadline).await;
        let dropped = dropped + self.guard_drain.finish(deadline).await;
        self.admin_drain.finish(Duration::from_secs(1)).await;
        if dropped > 0 {
            tracing::warn!(dropped, "connections were cut at the drain deadline");
        }
        futures::future::join_all(self.guards.iter().map(Guard::stop_engine)).await;
        self.tracer.stop().await;
        tracing::info!("stopped");
    }
}

/// Has spans exported as the configuration says.
fn export(tracer: &Tracer, config: &Config, service: &str) -> Result<(), trace::Error> {
    let otlp = config.tracing.otlp.as_ref();
    tracer.export(otlp.map(|otlp| otlp.settings(service)).transpose()?)
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    net::listen(address).await.with_context(|| format!("unable to listen on {address}"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use reqwest::Certificate;

    use super::*;

    #[tokio::test]
    async fn https_is_served_beside_plain_http_or_alone() {
        let dir = tempfile::tempdir().unwrap();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (cert_file, key_file) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        std::fs::write(&cert_file, cert.pem()).unwrap();
        std::fs::write(&key_file, signing_key.serialize_pem()).unwrap();
        let trusted = Certificate::from_der(cert.der()).unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
        let get = async |scheme: &str, address: SocketAddr| {
            client.get(format!("{scheme}://{address}/healthz")).send().await.unwrap().status().as_u16()
        };
        let start = async |listen| {
            let mut config = Config::default();
            config.gateway.listen.set_port(0);
            config.gateway.admin.set_port(0);
            let (cert_file, key_file) = (cert_file.clone(), key_file.clone());
            config.gateway.tls = Some(config::Tls { cert_file, key_file, listen });
            Bound::gateway(config).await.unwrap()
        };

        let both = start(Some(([127, 0, 0, 1], 0).into())).await;
        assert_eq!(get("http", both.public.unwrap()).await, 200);
        assert_eq!(get("https", both.https.unwrap()).await, 200);
        let alone = start(None).await;
        assert_eq!(alone.https, None);
        assert_eq!(get("https", alone.public.unwrap()).await, 200);
        assert_eq!(get("http", alone.public.unwrap()).await, 400);
        assert_eq!(get("http", alone.admin.unwrap()).await, 404, "the admin port stays plain");
        tokio::join!(both.stop(), alone.stop());
    }
}
