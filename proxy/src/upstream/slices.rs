//! Finds engines in the endpoint slices of their services, and keeps what it knows while the API server is away.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};

use crate::config::{Config, Current, Discovery, Pool};
use crate::upstream::Upstreams;
use crate::upstream::membership::{Guest, Target};

#[cfg(test)]
mod tests;

/// The label by which a slice names its service.
const SERVICE: &str = "kubernetes.io/service-name";
/// Names of the ports of an engine's service.
const SPEECH: &str = "speech";
const ADMIN: &str = "admin";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether the configuration names other pools.
const RECONSIDER: Duration = Duration::from_secs(1);

/// Why no engine can be found at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not in a cluster, or no token and CA mounted.
    #[error("no way to the API server")]
    Config(#[source] kube::config::InClusterError),
    /// The client cannot be made.
    #[error("unable to make a client for the API server")]
    Client(#[source] Box<kube::Error>),
}

/// A client for the cluster that this pod runs in.
pub fn client() -> Result<kube::Client, Error> {
    let mut config = kube::Config::incluster().map_err(Error::Config)?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    kube::Client::try_from(config).map_err(|source| Error::Client(Box::new(source)))
}

/// Follows the slices of the configured pools for ever.
pub async fn follow(client: kube::Client, config: Current, upstreams: Upstreams) {
    loop {
        match config.get().gateway.discovery.clone() {
            Some(discovery) => {
                tokio::select! {
                    () = watch(client.clone(), &discovery, &upstreams) => {}
                    () = changed(&config, &discovery) => tracing::info!("pools changed"),
                }
            }
            None => return,
        }
    }
}

async fn changed(config: &Current, discovery: &Discovery) {
    let differs = |config: &Config| config.gateway.discovery.as_ref() != Some(discovery);
    while !differs(&config.get()) {
        tokio::time::sleep(RECONSIDER).await;
    }
}

async fn watch(client: kube::Client, discovery: &Discovery, upstreams: &Upstreams) {
    if discovery.pools.is_empty() {
        upstreams.apply(Vec::new());
        return std::future::pending().await;
    }
    let services: Vec<&str> = discovery.pools.iter().map(|pool| pool.service.as_str()).collect();
    let slices: Api<EndpointSlice> = Api::namespaced(client, &discovery.namespace);
    let selected = watcher::Config::default().labels(&format!("{SERVICE} in ({})", services.join(",")));
    let mut events = std::pin::pin!(watcher::watcher(slices, selected).default_backoff());
    let mut known = Known::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if let Some(targets) = known.take(event, &discovery.pools) {
                    upstreams.apply(targets);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "unable to watch endpoint slices; what is known of engines is kept");
            }
        }
    }
}

/// The slices seen so far. Pure.
#[derive(Debug, Default)]
struct Known {
    slices: BTreeMap<String, Vec<Target>>,
    /// A new list that is not complete yet.
    incoming: BTreeMap<String, Vec<Target>>,
}

impl Known {
    /// Takes one event; all targets when they are known completely and may have changed.
    fn take(&mut self, event: Event<EndpointSlice>, pools: &[Pool]) -> Option<Vec<Target>> {
        match event {
            Event::Init => {
                self.incoming.clear();
                return None;
            }
            Event::InitApply(slice) => {
                self.incoming.insert(name(&slice), targets(&slice, pools));
                return None;
            }
            Event::InitDone => self.slices = std::mem::take(&mut self.incoming),
            Event::Apply(slice) => {
                self.slices.insert(name(&slice), targets(&slice, pools));
            }
            Event::Delete(slice) => {
                self.slices.remove(&name(&slice));
            }
        }
        Some(self.targets())
    }

    /// Each engine once. One that moves between slices is in both for a moment: the word of the one that keeps it counts.
    fn targets(&self) -> Vec<Target> {
        let mut all: BTreeMap<&str, &Target> = BTreeMap::new();
        for target in self.slices.values().flatten() {
            let known = all.entry(&target.name).or_insert(target);
            if known.terminating && !target.terminating {
                *known = target;
            }
        }
        all.into_values().cloned().collect()
    }
}

fn name(slice: &EndpointSlice) -> String {
    slice.metadata.name.clone().unwrap_or_default()
}

/// The engines of one slice. Whether they are ready does not count: their guards tell that themselves, and sooner.
fn targets(slice: &EndpointSlice, pools: &[Pool]) -> Vec<Target> {
    let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE));
    let Some(pool) = pools.iter().find(|pool| Some(&pool.service) == service) else { return Vec::new() };
    let port = |wanted: &str| {
        let port = slice.ports.iter().flatten().find(|port| port.name.as_deref() == Some(wanted))?;
        u16::try_from(port.port?).ok()
    };
    let (Some(speech), Some(admin)) = (port(SPEECH), port(ADMIN)) else {
        // A slice without endpoints has no ports.
        if !slice.endpoints.is_empty() {
            tracing::warn!(service = pool.service, "endpoint slice without the ports {SPEECH} and {ADMIN}");
        }
        return Vec::new();
    };
    let target = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
        let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.clone());
        let guard = SocketAddr::new(address, speech);
        let terminating = endpoint.conditions.as_ref().and_then(|conditions| conditions.terminating);
        Some(Target {
            name: pod.unwrap_or_else(|| address.to_string()),
            pool: pool.name.clone(),
            capability: pool.capability,
            protocols: pool.spoken(),
            settings: pool.settings(),
            standby: pool.standby,
            hosted: pool.hosted.clone().map(|limits| Guest { name: pool.name.clone(), limits }),
            url: format!("http://{guard}"),
            guard,
            admin: SocketAddr::new(address, admin),
            terminating: terminating == Some(true),
        })
    };
    slice.endpoints.iter().filter_map(target).collect()
}
