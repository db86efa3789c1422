//! The build step (pure): a valid stack becomes all its objects.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::DynamicObject;
use serde::Serialize;
use serde_json::Value;
use speechstack_crds::Switch;

use super::observe::Observed;
use super::validate::ValidStack;
use crate::fingerprint;

mod alerts;
mod autoscaling;
mod config;
mod disruption;
pub mod engine;
mod external;
mod gateway;
mod guard;
pub mod metadata;
mod monitoring;
mod network_policy;
mod pod;
pub mod prefill;
mod route;
mod sidecar;
pub mod sleep;
pub mod storage;
mod template;
#[cfg(test)]
pub(crate) mod tests;
mod update;
mod workload;

pub use update::Update;
pub use workload::{Scale, Workload};

/// Every object of a stack.
#[derive(Clone, Debug, Default)]
pub struct DesiredObjects {
    /// The engines' account, which has no rights, and the gateway's.
    pub service_accounts: Vec<ServiceAccount>,
    /// What gateways may read.
    pub roles: Vec<Role>,
    /// Who may.
    pub role_bindings: Vec<RoleBinding>,
    /// Configuration of guards and gateways.
    pub config_maps: Vec<ConfigMap>,
    /// Model caches, and jobs and recordings of the gateway: made once, never deleted.
    pub claims: Vec<PersistentVolumeClaim>,
    /// One of each engine without an address, and the gateway's.
    pub services: Vec<Service>,
    /// Disruption budgets.
    pub disruption_budgets: Vec<PodDisruptionBudget>,
    /// Who may reach engine pods.
    pub network_policies: Vec<NetworkPolicy>,
    /// ConfigMaps that pods of an older template still read.
    pub kept_config_maps: BTreeSet<String>,
    /// Sizes that claims should have at least, with their name or the beginning of it.
    pub growths: Vec<(String, Quantity)>,
    /// What fills caches before a first start: made once, as their templates cannot change.
    pub jobs: Vec<Job>,
    /// The engines.
    pub engines: Vec<Workload>,
    /// The gateway.
    pub gateways: Vec<Deployment>,
    /// Autoscalers.
    pub autoscalers: Vec<HorizontalPodAutoscaler>,
    /// Ingress to the gateway.
    pub ingresses: Vec<Ingress>,
    /// HTTPRoute to the gateway.
    pub http_routes: Vec<DynamicObject>,
    /// Scraping.
    pub pod_monitors: Vec<DynamicObject>,
    /// Alerts.
    pub prometheus_rules: Vec<DynamicObject>,
}

impl DesiredObjects {
    /// All of them, as they are made.
    #[must_use]
    pub fn objects(self) -> Vec<Value> {
        fn push<K: Serialize>(to: &mut Vec<Value>, objects: &[K]) {
            to.extend(objects.iter().map(fingerprint::json));
        }
        let Self {
            service_accounts,
            roles,
            role_bindings,
            config_maps,
            claims,
            services,
            disruption_budgets,
            network_policies,
            kept_config_maps: _,
            growths: _,
            jobs,
            engines,
            gateways,
            autoscalers,
            ingresses,
            http_routes,
            pod_monitors,
            prometheus_rules,
        } = self;
        let mut all = Vec::new();
        push(&mut all, &service_accounts);
        push(&mut all, &roles);
        push(&mut all, &role_bindings);
        push(&mut all, &config_maps);
        push(&mut all, &claims);
        push(&mut all, &services);
        push(&mut all, &disruption_budgets);
        push(&mut all, &network_policies);
        push(&mut all, &jobs);
        all.extend(engines.iter().map(Workload::created));
        push(&mut all, &gateways);
        push(&mut all, &autoscalers);
        push(&mut all, &ingresses);
        push(&mut all, &http_routes);
        push(&mut all, &pod_monitors);
        push(&mut all, &prometheus_rules);
        all
    }
}

/// All objects of the stack. What exists decides only on optional kinds and on updates that wait.
#[must_use]
pub fn build(stack: &ValidStack, observed: &Observed) -> DesiredObjects {
    let beside = stack.gateway.is_sidecar();
    let mut desired = if beside { DesiredObjects::default() } else { in_front(stack) };
    desired.service_accounts.insert(0, engine::service_account(stack));
    for engine in &stack.engines {
        let live = observed.workloads.get(&metadata::of_engine(stack, engine));
        let prefill = prefill::plan(stack, engine, observed);
        let held = prefill.holds || sleep::sleeps(stack, engine, observed);
        desired.jobs.extend(prefill.job);
        let workload = workload::build(stack, engine, live, held, observed.now);
        desired.autoscalers.extend(autoscaling::engine(stack, engine, workload.target(live)));
        if workload.update != Update::Pending {
            desired.config_maps.push(config::guard(stack, engine, workload.config_map.clone()));
        }
        desired.engines.push(workload);
        desired.growths.extend(engine::growth(stack, engine));
        desired.services.push(engine::service(stack, engine));
        if beside {
            desired.config_maps.push(config::sidecar(stack, engine));
            desired.services.push(sidecar::service(stack, engine));
        }
        desired.disruption_budgets.push(disruption::engine(stack, engine));
        desired.claims.extend(engine::claim(stack, engine));
        if stack.network.enabled {
            desired.network_policies.push(network_policy::engine(stack, engine));
        }
    }
    let read = observed.pods.iter().filter_map(|(pod, _)| pod.revision.config_map.as_deref());
    // A pod that is gone may be made again from the template that runs.
    let made = observed.workloads.values().filter_map(|live| live.config_map.as_deref());
    desired.kept_config_maps = read.chain(made).map(str::to_owned).collect();
    if observed.optional.http_route && !beside {
        desired.http_routes.extend(route::http_route(stack));
    }
    if observed.optional.pod_monitor && stack.monitoring.pod_monitor == Switch::Auto {
        desired.pod_monitors.push(monitoring::pod_monitor(stack));
    }
    if observed.optional.prometheus_rule && stack.monitoring.prometheus_rule == Switch::Auto {
        desired.prometheus_rules.push(monitoring::prometheus_rule(stack));
    }
    desired
}

/// The gateway in front of all engines.
fn in_front(stack: &ValidStack) -> DesiredObjects {
    DesiredObjects {
        service_accounts: vec![gateway::service_account(stack)],
        roles: vec![gateway::role(stack)],
        role_bindings: vec![gateway::role_binding(stack)],
        config_maps: vec![config::gateway(stack)],
        services: vec![gateway::service(stack)],
        disruption_budgets: vec![disruption::gateway(stack)],
        network_policies: stack.network.enabled.then(|| network_policy::gateway(stack)).into_iter().collect(),
        gateways: vec![gateway::deployment(stack)],
        autoscalers: autoscaling::gateway(stack).into_iter().collect(),
        ingresses: route::ingress(stack).into_iter().collect(),
        claims: storage::claim(stack).into_iter().collect(),
        growths: storage::growth(stack).into_iter().collect(),
        ..DesiredObjects::default()
    }
}
