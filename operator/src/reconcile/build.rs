//! The build step (pure): a valid stack becomes all its objects.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::DynamicObject;
use speechstack_crds::Switch;

use super::observe::Observed;
use super::validate::ValidStack;

mod autoscaling;
mod config;
mod disruption;
mod engine;
mod gateway;
mod guard;
pub mod metadata;
mod monitoring;
mod network_policy;
mod pod;
mod route;
#[cfg(test)]
mod tests;
mod update;

pub use update::{Live, Update};

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
    /// Model caches: made once, never deleted.
    pub claims: Vec<PersistentVolumeClaim>,
    /// One of each engine without an address, and the gateway's.
    pub services: Vec<Service>,
    /// Disruption budgets.
    pub disruption_budgets: Vec<PodDisruptionBudget>,
    /// Who may reach engine pods.
    pub network_policies: Vec<NetworkPolicy>,
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

/// The Deployment of one engine.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The engine's name in the spec.
    pub engine: String,
    /// The Deployment.
    pub deployment: Deployment,
    /// Whether it is applied now.
    pub update: Update,
}

/// All objects of the stack. What exists decides only on optional kinds and on updates that wait.
#[must_use]
pub fn build(stack: &ValidStack, observed: &Observed) -> DesiredObjects {
    let mut desired = DesiredObjects {
        service_accounts: vec![engine::service_account(stack), gateway::service_account(stack)],
        roles: vec![gateway::role(stack)],
        role_bindings: vec![gateway::role_binding(stack)],
        config_maps: vec![config::gateway(stack)],
        services: vec![gateway::service(stack)],
        disruption_budgets: vec![disruption::gateway(stack)],
        gateways: vec![gateway::deployment(stack)],
        autoscalers: autoscaling::gateway(stack).into_iter().collect(),
        ingresses: route::ingress(stack).into_iter().collect(),
        ..DesiredObjects::default()
    };
    for engine in &stack.engines {
        let deployment = engine::deployment(stack, engine);
        let update =
            update::decide(stack.updates, observed.live(&metadata::of_engine(stack, engine)), &deployment);
        desired.engines.push(Workload { engine: engine.spec.name.clone(), deployment, update });
        desired.config_maps.push(config::guard(stack, engine));
        desired.services.push(engine::service(stack, engine));
        desired.disruption_budgets.push(disruption::engine(stack, engine));
        desired.claims.extend(engine::claim(stack, engine));
        desired.autoscalers.extend(autoscaling::engine(stack, engine));
        if stack.network_policy {
            desired.network_policies.push(network_policy::engine(stack, engine));
        }
    }
    if observed.optional.http_route {
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
