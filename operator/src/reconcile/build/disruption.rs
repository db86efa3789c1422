//! Disruption budgets: drains take one pod at a time, and never wait for a pod that does not serve anyway.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;

use super::metadata;
use crate::reconcile::validate::{ValidEngine, ValidStack};

/// Of one engine.
pub fn engine(stack: &ValidStack, engine: &ValidEngine) -> PodDisruptionBudget {
    budget(metadata::engine(stack, engine), metadata::engine_selector(stack, engine))
}

/// Of the gateway.
pub fn gateway(stack: &ValidStack) -> PodDisruptionBudget {
    budget(metadata::gateway(stack), metadata::gateway_selector(stack))
}

fn budget(metadata: ObjectMeta, selector: LabelSelector) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata,
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
