//! Kinds that a cluster may have: looked for at start and every few minutes, never required.

use std::time::Duration;

use kube::Client;
use kube::runtime::reflector::Store;
use speechstack_crds::SpeechStack;

use super::{First, Shared, Watches};
use crate::owned::Owned;

/// How often kinds that are missing are looked for.
const AGAIN: Duration = Duration::from_secs(300);
/// Longest wait for an answer about a group, and for the first list of a kind.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// Which optional kinds the cluster knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Optional {
    /// HTTPRoute.
    pub http_route: bool,
    /// PodMonitor.
    pub pod_monitor: bool,
    /// PrometheusRule.
    pub prometheus_rule: bool,
}

impl Optional {
    /// Whether objects of that kind can be written.
    #[must_use]
    pub fn has(&self, kind: Owned) -> bool {
        match kind {
            Owned::HttpRoute => self.http_route,
            Owned::PodMonitor => self.pod_monitor,
            Owned::PrometheusRule => self.prometheus_rule,
            _ => true,
        }
    }

    fn learn(&mut self, kind: Owned) {
        match kind {
            Owned::HttpRoute => self.http_route = true,
            Owned::PodMonitor => self.pod_monitor = true,
            Owned::PrometheusRule => self.prometheus_rule = true,
            _ => {}
        }
    }
}

/// The optional kinds as last looked for.
#[derive(Default)]
pub struct OptionalKinds(Shared<Optional>);

impl OptionalKinds {
    /// What is known now.
    #[must_use]
    pub fn now(&self) -> Optional {
        *self.0.read()
    }

    /// With these kinds known.
    #[cfg(test)]
    pub fn of(known: Optional) -> Self {
        Self(Shared::new(known))
    }

    /// Looks for missing kinds once; each that is found is watched from then on. Returns whether one was found.
    pub async fn look(&self, watches: &Watches) -> bool {
        let mut found = false;
        for kind in Owned::OPTIONAL {
            if self.now().has(kind) || !is_served(&watches.client, kind).await {
                continue;
            }
            // What exists of it must be known before it is written or pruned.
            let name = kind.kind();
            let watch = Watches { cancel: watches.cancel.child_token(), ..watches.clone() };
            let (first, stop) = (First::optional(), watch.cancel.clone());
            let listed = first.listed.clone();
            tokio::spawn(watch.metadata(kind, first));
            if tokio::time::timeout(LIST_TIMEOUT, listed.cancelled()).await.is_ok() {
                tracing::info!(kind = name, "optional kind found");
                self.0.write().learn(kind);
                found = true;
            } else {
                stop.cancel();
                tracing::warn!(kind = name, "unable to list an optional kind; it is not used");
            }
        }
        found
    }

    /// Looks for missing kinds every few minutes, until all are known.
    pub async fn keep_looking(&self, mut watches: Watches, stacks: Store<SpeechStack>) {
        while Owned::OPTIONAL.iter().any(|kind| !self.now().has(*kind)) {
            tokio::select! {
                () = watches.cancel.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
            if self.look(&watches).await {
                watches.all(&stacks).await;
            }
        }
    }
}

async fn is_served(client: &Client, kind: Owned) -> bool {
    let resource = kind.resource();
    let call = client.list_api_group_resources(&resource.api_version);
    match tokio::time::timeout(LIST_TIMEOUT, call).await {
        Ok(Ok(list)) => list.resources.iter().any(|served| served.name == resource.plural),
        Ok(Err(error)) => {
            tracing::debug!(kind = resource.kind, %error, "kind not served");
            false
        }
        Err(_) => false,
    }
}
