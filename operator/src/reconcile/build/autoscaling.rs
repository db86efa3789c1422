//! Autoscalers of engines and gateway.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricIdentifier,
    MetricSpec, MetricTarget, PodsMetricSource, ResourceMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::metadata;
use crate::reconcile::validate::{Replicas, ValidEngine, ValidStack};

/// Jobs that wait in a guard's lane, from the guard's metrics; needs a metrics adapter in the cluster.
pub const QUEUE_METRIC: &str = "speechstack_guard_lane_waiting";

/// Of one engine, if it has one. GPU use tells nothing of a queue, so the queue itself is the default metric.
pub fn engine(stack: &ValidStack, engine: &ValidEngine) -> Option<HorizontalPodAutoscaler> {
    let Replicas::Autoscaled { min, max, metrics, behavior } = &engine.replicas else { return None };
    let metrics = if metrics.is_empty() { vec![queue()] } else { metrics.clone() };
    Some(HorizontalPodAutoscaler {
        metadata: metadata::engine(stack, engine),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: target(metadata::of_engine(stack, engine)),
            min_replicas: Some(*min),
            max_replicas: *max,
            metrics: Some(metrics),
            behavior: behavior.clone(),
        }),
        status: None,
    })
}

/// Of the gateway, if it has one, by CPU.
pub fn gateway(stack: &ValidStack) -> Option<HorizontalPodAutoscaler> {
    let autoscaling = stack.gateway.spec.autoscaling.as_ref()?;
    Some(HorizontalPodAutoscaler {
        metadata: metadata::gateway(stack),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: target(metadata::of_gateway(stack)),
            min_replicas: Some(autoscaling.min_replicas),
            max_replicas: autoscaling.max_replicas,
            metrics: Some(vec![MetricSpec {
                type_: "Resource".into(),
                resource: Some(ResourceMetricSource {
                    name: "cpu".into(),
                    target: MetricTarget {
                        type_: "Utilization".into(),
                        average_utilization: Some(autoscaling.cpu_percent),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]),
            behavior: None,
        }),
        status: None,
    })
}

fn queue() -> MetricSpec {
    MetricSpec {
        type_: "Pods".into(),
        pods: Some(PodsMetricSource {
            metric: MetricIdentifier { name: QUEUE_METRIC.into(), selector: None },
            target: MetricTarget {
                type_: "AverageValue".into(),
                average_value: Some(Quantity("2".into())),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn target(name: String) -> CrossVersionObjectReference {
    CrossVersionObjectReference { api_version: Some("apps/v1".into()), kind: "Deployment".into(), name }
}
