//! The apply step (IO): server-side apply of what differs, in order, then prune.
//!
//! An object that carries the fingerprint of what is desired, and that no other client wrote since, is not touched: an unchanged
//! stack costs no call at all.

use std::collections::{HashMap, HashSet};

use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use serde::Serialize;
use serde_json::{Value, json};

use super::build::{DesiredObjects, Update, Workload};
use super::validate::ValidStack;
use super::{CALL_TIMEOUT, Context, fingerprint};
use crate::names::{FIELD_MANAGER, annotation, label};
use crate::owned::{Live, ObjectKey, Owned};

/// Why objects could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error("unable to {verb} {} {name}: {source}", kind.kind())]
    Call {
        /// What was tried.
        verb: &'static str,
        /// Kind.
        kind: Owned,
        /// Name.
        name: String,
        /// The reason.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("no answer to {verb} of {} {name}", kind.kind())]
    TimedOut {
        /// What was tried.
        verb: &'static str,
        /// Kind.
        kind: Owned,
        /// Name.
        name: String,
    },
    /// Somebody else's object has the name.
    #[error("{} {name} exists and is not of this stack: rename the engine or the stack, or remove it", kind.kind())]
    Taken {
        /// Kind.
        kind: Owned,
        /// Name.
        name: String,
    },
}

impl Error {
    /// Whether this one object is the problem, and not the way to the API server.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Taken { .. } => true,
            Self::Call { source, .. } => {
                matches!(&**source, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
            }
            Self::TimedOut { .. } => false,
        }
    }

    fn is_invalid(&self) -> bool {
        matches!(self, Self::Call { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 422))
    }
}

/// What was applied: the status step takes nothing else as done.
#[derive(Clone, Debug, Default)]
pub struct AppliedObjects {
    /// Engines by name: whether a new template waits.
    pub engines: HashMap<String, Update>,
    /// Objects written by this pass.
    pub written: usize,
    /// Objects deleted by this pass.
    pub pruned: usize,
}

/// Writes what differs, in the order of what needs what; then deletes what is not desired any more.
///
/// One refused object does not hold back the others; nothing is pruned then.
///
/// # Errors
/// With the first object that was refused, or at once when the API server cannot be reached.
pub async fn apply(
    context: &Context,
    stack: &ValidStack,
    desired: DesiredObjects,
) -> Result<AppliedObjects, Error> {
    let DesiredObjects {
        service_accounts,
        roles,
        role_bindings,
        config_maps,
        claims,
        services,
        disruption_budgets,
        network_policies,
        engines,
        gateways,
        autoscalers,
        ingresses,
        http_routes,
        pod_monitors,
        prometheus_rules,
    } = desired;
    let mut pass = Pass::new(context, stack);

    // Accounts and rights first: pods of a missing account are refused, and gateways start with their rights in place.
    pass.all(Owned::ServiceAccount, &service_accounts).await?;
    pass.all(Owned::Role, &roles).await?;
    pass.all(Owned::RoleBinding, &role_bindings).await?;
    // Then what pods mount, so that no pod waits for a volume.
    pass.all(Owned::ConfigMap, &config_maps).await?;
    pass.all(Owned::Claim, &claims).await?;
    // Services and protection exist before the first pod does.
    pass.all(Owned::Service, &services).await?;
    pass.all(Owned::DisruptionBudget, &disruption_budgets).await?;
    pass.all(Owned::NetworkPolicy, &network_policies).await?;
    // Engines before the gateway: they take longer.
    for Workload { engine, deployment, update } in &engines {
        match update {
            Update::Apply => pass.all(Owned::Deployment, std::slice::from_ref(deployment)).await?,
            Update::Pending => pass.leave(Owned::Deployment, deployment),
        }
        pass.applied.engines.insert(engine.clone(), *update);
    }
    pass.all(Owned::Deployment, &gateways).await?;
    // What points at the Deployments and the Service comes last.
    pass.all(Owned::Autoscaler, &autoscalers).await?;
    pass.all(Owned::Ingress, &ingresses).await?;
    pass.all(Owned::HttpRoute, &http_routes).await?;
    pass.all(Owned::PodMonitor, &pod_monitors).await?;
    pass.all(Owned::PrometheusRule, &prometheus_rules).await?;

    if let Some(refused) = pass.refused {
        return Err(refused);
    }
    pass.prune().await?;
    Ok(pass.applied)
}

/// One pass over a stack's objects.
struct Pass<'a> {
    context: &'a Context,
    stack: &'a ValidStack,
    live: HashMap<ObjectKey, Live>,
    desired: HashSet<ObjectKey>,
    applied: AppliedObjects,
    refused: Option<Error>,
}

impl<'a> Pass<'a> {
    fn new(context: &'a Context, stack: &'a ValidStack) -> Self {
        let live = context.owned.of_stack(&(stack.namespace.clone(), stack.name.clone()));
        Self {
            context,
            stack,
            live,
            desired: HashSet::new(),
            applied: AppliedObjects::default(),
            refused: None,
        }
    }

    fn api(&self, kind: Owned) -> Api<DynamicObject> {
        Api::namespaced_with(self.context.client.clone(), &self.stack.namespace, &kind.resource())
    }

    /// Desired, and left as it is.
    fn leave(&mut self, kind: Owned, object: &impl kube::ResourceExt) {
        self.desired.insert((kind, object.name_any()));
    }

    async fn all<K: Serialize + kube::ResourceExt>(
        &mut self,
        kind: Owned,
        objects: &[K],
    ) -> Result<(), Error> {
        for object in objects {
            let name = object.name_any();
            self.desired.insert((kind, name.clone()));
            match self.one(kind, name, fingerprint::json(object)).await {
                Err(error) if error.is_refusal() => {
                    self.refused.get_or_insert(error);
                }
                done => done?,
            }
        }
        Ok(())
    }

    async fn one(&mut self, kind: Owned, name: String, mut object: Value) -> Result<(), Error> {
        let hash = fingerprint::of(&object);
        match self.live.get(&(kind, name.clone())) {
            Some(live) if live.owner.as_ref().is_some_and(|owner| *owner != self.stack.uid) => {
                // Of an earlier stack of this name; the garbage collector is about to take it.
                return Err(Error::Taken { kind, name });
            }
            Some(live) if live.is_current(&hash) => return Ok(()),
            Some(_) => {}
            None => self.expect_free(kind, &name).await?,
        }
        object["metadata"]["annotations"][annotation::HASH] = json!(hash);
        if object["spec"]["strategy"]["type"] == "Recreate" {
            // Defaults of the other strategy would stay, and be refused with this one.
            object["spec"]["strategy"]["rollingUpdate"] = Value::Null;
        }
        let written = match self.write(kind, &name, &object).await {
            // Entries that somebody else added to a list can clash with ours, and apply does not remove them.
            Err(error) if error.is_invalid() && self.live.contains_key(&(kind, name.clone())) => {
                self.replace_lists(kind, &name, &object).await?;
                self.write(kind, &name, &object).await?
            }
            written => written?,
        };
        self.context.owned.applied(kind, &written.metadata);
        self.applied.written += 1;
        Ok(())
    }

    async fn write(&self, kind: Owned, name: &str, object: &Value) -> Result<DynamicObject, Error> {
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let (api, patch) = (self.api(kind), Patch::Apply(object));
        self.call("apply", kind, name, api.patch(name, &parameters, &patch)).await
    }

    /// A merge patch: its lists replace those that are there.
    async fn replace_lists(&self, kind: Owned, name: &str, object: &Value) -> Result<(), Error> {
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let (api, patch) = (self.api(kind), Patch::Merge(object));
        self.call("merge", kind, name, api.patch(name, &parameters, &patch)).await.map(|_| ())
    }

    /// Forced apply would take over what somebody else made under this name.
    async fn expect_free(&self, kind: Owned, name: &str) -> Result<(), Error> {
        let api = self.api(kind);
        let found = self.call("get", kind, name, api.get_metadata_opt(name)).await?;
        let Some(found) = found else { return Ok(()) };
        let labels = found.metadata.labels.unwrap_or_default();
        let of_stack = labels.get(label::STACK) == Some(&self.stack.name)
            && labels.get(label::MANAGED_BY).is_some_and(|manager| manager == label::OPERATOR);
        let owners = found.metadata.owner_references.unwrap_or_default();
        let owned = owners.iter().any(|owner| owner.uid == self.stack.uid);
        // The labels may have been edited away from our own object; a kept claim has no owner.
        if owned || (kind.is_kept() && of_stack) {
            Ok(())
        } else {
            Err(Error::Taken { kind, name: name.into() })
        }
    }

    /// Deletes what carries our labels and our owner reference and is not desired. Never a cache.
    async fn prune(&mut self) -> Result<(), Error> {
        let known = self.context.optional.now();
        let extra: Vec<_> = self
            .live
            .iter()
            .filter(|(key, live)| {
                !self.desired.contains(*key)
                    && !key.0.is_kept()
                    && known.has(key.0)
                    && live.owner.as_ref() == Some(&self.stack.uid)
            })
            .map(|((kind, name), live)| (*kind, name.clone(), live.uid.clone()))
            .collect();
        for (kind, name, uid) in extra {
            let parameters = DeleteParams {
                preconditions: Some(Preconditions { uid: Some(uid), resource_version: None }),
                ..DeleteParams::background()
            };
            let api = self.api(kind);
            let deleted = self.call("delete", kind, &name, api.delete(&name, &parameters)).await;
            match deleted {
                Err(Error::Call { source, .. }) if is_gone(&source) => {}
                deleted => {
                    deleted?;
                    self.applied.pruned += 1;
                    tracing::info!(stack = self.stack.name, kind = kind.kind(), name, "pruned");
                }
            }
        }
        Ok(())
    }

    async fn call<T>(
        &self,
        verb: &'static str,
        kind: Owned,
        name: &str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        self.context.metrics.called(verb, kind.kind());
        tokio::time::timeout(CALL_TIMEOUT, call)
            .await
            .map_err(|_| Error::TimedOut { verb, kind, name: name.into() })?
            .map_err(|source| Error::Call { verb, kind, name: name.into(), source: Box::new(source) })
    }
}

/// Deleted already, or replaced by another object of the name.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}
