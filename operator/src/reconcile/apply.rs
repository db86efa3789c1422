//! The apply step (IO): server-side apply of what differs, in order, then prune.
//!
//! An object that carries the fingerprint of what is desired, and that no other client wrote since, is not touched: an unchanged
//! stack costs no call at all.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use serde::Serialize;
use serde_json::{Value, json};
use speechstack_crds::Updates;

use super::build::engine::is_claim;
use super::build::{DesiredObjects, Scale, Update, Workload};
use super::validate::ValidStack;
use super::{CALL_TIMEOUT, Context, quantity, rollouts};
use crate::fingerprint;
use crate::names::{FIELD_MANAGER, SCALE_FIELD_MANAGER, annotation, label};
use crate::owned::{Live, ObjectKey, Owned};
use crate::workloads::LiveWorkload;

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
    /// Whether a template waits for a time or for the fleet, and not for the user.
    pub waits_for_turn: bool,
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
        kept_config_maps,
        growths,
        jobs,
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
    pass.keep(Owned::ConfigMap, kept_config_maps);
    pass.once(Owned::Claim, &claims).await?;
    pass.grow(&growths).await?;
    // Services and protection exist before the first pod does.
    pass.all(Owned::Service, &services).await?;
    pass.all(Owned::DisruptionBudget, &disruption_budgets).await?;
    pass.all(Owned::NetworkPolicy, &network_policies).await?;
    pass.once(Owned::Job, &jobs).await?;
    // Engines before the gateway: they take longer.
    for workload in &engines {
        pass.workload(workload).await?;
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

    /// Objects that are left as they are, if they are there.
    fn keep(&mut self, kind: Owned, names: impl IntoIterator<Item = String>) {
        self.desired.extend(names.into_iter().map(|name| (kind, name)));
    }

    /// Notes a refusal of one object, and goes on.
    fn note(&mut self, done: Result<(), Error>) -> Result<(), Error> {
        match done {
            Err(error) if error.is_refusal() => {
                self.refused.get_or_insert(error);
                Ok(())
            }
            done => done,
        }
    }

    /// One engine's workload: its template when it is its time, the number of its replicas in any case.
    async fn workload(&mut self, workload: &Workload) -> Result<(), Error> {
        let name = workload.name(&self.stack.name);
        let update = self.turn(workload.update, &name);
        let kind = match &workload.live {
            Some(live) if update == Update::Pending => live.kind,
            _ => workload.object.kind(),
        };
        self.desired.insert((kind, name.clone()));
        let done = match (&workload.live, update) {
            (Some(live), Update::Pending) => {
                let scale = workload.scale(live);
                if scale.differs { self.scale(kind, &name, &scale).await } else { Ok(()) }
            }
            (live, _) => self.template(workload, live.as_ref(), kind, &name).await,
        };
        self.note(done)?;
        self.applied.waits_for_turn |= update == Update::Pending && self.stack.updates == Updates::Automatic;
        self.applied.engines.insert(workload.engine.clone(), update);
        Ok(())
    }

    /// What becomes of a template that waits for the fleet.
    fn turn(&self, update: Update, name: &str) -> Update {
        if update != Update::Turn {
            return update;
        }
        let key = (self.stack.namespace.clone(), name.to_owned());
        let partial = rollouts::partial(self.context);
        let free = self.context.rollouts.admit(&key, &partial, Instant::now());
        if free { Update::Apply } else { Update::Pending }
    }

    async fn template(
        &mut self,
        workload: &Workload,
        live: Option<&LiveWorkload>,
        kind: Owned,
        name: &str,
    ) -> Result<(), Error> {
        let mut object = workload.object.json();
        let live = live.filter(|live| live.kind == kind);
        let hash = match (workload.replicas, live) {
            (Some(replicas), _) => {
                object["spec"]["replicas"] = json!(replicas);
                fingerprint::of(&object)
            }
            // Not ours to write again, and so no part of what is compared.
            (None, None) => {
                let hash = fingerprint::of(&object);
                object["spec"]["replicas"] = json!(workload.first);
                hash
            }
            (None, Some(live)) => {
                let hash = fingerprint::of(&object);
                let known = self.live.get(&(kind, name.to_owned()));
                let changes = known.is_some_and(|known| known.holds_replicas && !known.is_current(&hash));
                if changes {
                    // The number would go with our next apply, and become 1.
                    self.scale(kind, name, &workload.scale(live)).await?;
                }
                hash
            }
        };
        self.one(kind, name.to_owned(), object, hash).await
    }

    /// Writes what is beside the template of a workload.
    async fn scale(&mut self, kind: Owned, name: &str, scale: &Scale) -> Result<(), Error> {
        let resource = kind.resource();
        let object = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name, "annotations": {annotation::INPUTS: scale.inputs}},
            "spec": {"replicas": scale.replicas},
        });
        let parameters = PatchParams::apply(SCALE_FIELD_MANAGER).force();
        let (api, patch) = (self.api(kind), Patch::Apply(&object));
        self.call("scale", kind, name, api.patch(name, &parameters, &patch)).await?;
        self.applied.written += 1;
        Ok(())
    }

    /// Claims and Jobs are made once: what a person changes of one stays.
    async fn once<K: Serialize + kube::ResourceExt>(
        &mut self,
        kind: Owned,
        objects: &[K],
    ) -> Result<(), Error> {
        for object in objects {
            let name = object.name_any();
            self.desired.insert((kind, name.clone()));
            if self.live.contains_key(&(kind, name.clone())) {
                continue;
            }
            let object = fingerprint::json(object);
            let hash = fingerprint::of(&object);
            let done = self.one(kind, name, object, hash).await;
            self.note(done)?;
        }
        Ok(())
    }

    /// Claims grow to the size that the stack asks for, and never shrink.
    async fn grow(&mut self, growths: &[(String, Quantity)]) -> Result<(), Error> {
        for (names, size) in growths {
            let wanted = fingerprint::short(&size.0);
            let smaller = |(kind, name): &ObjectKey, live: &Live| {
                *kind == Owned::Claim && is_claim(names, name) && live.size.as_deref() != Some(&*wanted)
            };
            let found = self.live.iter().filter(|(key, live)| smaller(key, live));
            let found: Vec<String> = found.map(|((_, name), _)| name.clone()).collect();
            for name in found {
                let done = self.grow_one(&name, size, &wanted).await;
                self.note(done)?;
            }
        }
        Ok(())
    }

    async fn grow_one(&mut self, name: &str, size: &Quantity, mark: &str) -> Result<(), Error> {
        let api = self.api(Owned::Claim);
        let found = self.call("get", Owned::Claim, name, api.get_opt(name)).await?;
        let Some(found) = found else { return Ok(()) };
        let has = found.data.pointer("/spec/resources/requests/storage").and_then(Value::as_str);
        let has = has.and_then(|text| quantity::units(&Quantity(text.to_owned()))).unwrap_or(u64::MAX);
        let mut patch = json!({"metadata": {"annotations": {annotation::SIZE: mark}}});
        if quantity::units(size).is_some_and(|wanted| wanted > has) {
            patch["spec"] = json!({"resources": {"requests": {"storage": size.0}}});
        }
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(&patch);
        let written = self.call("grow", Owned::Claim, name, api.patch(name, &parameters, &patch)).await?;
        self.context.owned.applied(Owned::Claim, &written.metadata);
        self.applied.written += 1;
        Ok(())
    }

    async fn all<K: Serialize + kube::ResourceExt>(
        &mut self,
        kind: Owned,
        objects: &[K],
    ) -> Result<(), Error> {
        for object in objects {
            let name = object.name_any();
            self.desired.insert((kind, name.clone()));
            let object = fingerprint::json(object);
            let hash = fingerprint::of(&object);
            let done = self.one(kind, name, object, hash).await;
            self.note(done)?;
        }
        Ok(())
    }

    async fn one(&mut self, kind: Owned, name: String, mut object: Value, hash: String) -> Result<(), Error> {
        match self.live.get(&(kind, name.clone())) {
            Some(live) if live.owner.as_ref().is_some_and(|owner| **owner != *self.stack.uid) => {
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
                    && live.owner.as_deref() == Some(&*self.stack.uid)
            })
            .map(|((kind, name), live)| (*kind, name.clone(), live.uid.to_string()))
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
