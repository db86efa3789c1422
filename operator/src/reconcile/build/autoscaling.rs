//! Autoscalers of engines and gateway.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
    PodsMetricSource, ResourceMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::metadata;
use crate::owned::Owned;
use crate::reconcile::validate::{Replicas, ValidEngine, ValidStack};

/// Longest windows and periods that the API server takes, seconds.
const MOST_SECONDS: i32 = 3600;
const MOST_PERIOD: i32 = 1800;
/// Jobs that wait in a guard's lane, from the guard's metrics; needs a metrics adapter in the cluster.
pub const QUEUE_METRIC: &str = "speechstack_guard_lane_waiting";
/// Requests in flight of a gateway, from the gateway's metrics; needs the same adapter.
pub const IN_FLIGHT_METRIC: &str = "speechstack_gateway_in_flight";

/// Of one engine, if it has one. GPU use tells nothing of a queue, so the queue itself is the default metric.
pub fn engine(stack: &ValidStack, engine: &ValidEngine, kind: Owned) -> Option<HorizontalPodAutoscaler> {
    let Replicas::Autoscaled { min, max, metrics, behavior } = &engine.replicas else { return None };
    if stack.suspend {
        return None; // it would start what is stopped
    }
    let metrics = if metrics.is_empty() { vec![of_pods(QUEUE_METRIC, 2)] } else { metrics.clone() };
    Some(HorizontalPodAutoscaler {
        metadata: metadata::engine(stack, engine),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: target(kind, metadata::of_engine(stack, engine)),
            min_replicas: Some(*min),
            max_replicas: *max,
            metrics: Some(metrics),
            behavior: Some(behavior.clone().unwrap_or_else(|| for_slow_starts(engine))),
        }),
        status: None,
    })
}

/// Of the gateway, if it has one.
pub fn gateway(stack: &ValidStack) -> Option<HorizontalPodAutoscaler> {
    let autoscaling = stack.gateway.spec.autoscaling.as_ref()?;
    let cpu = MetricSpec {
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
    };
    let in_flight = autoscaling.in_flight.map(|target| of_pods(IN_FLIGHT_METRIC, target));
    Some(HorizontalPodAutoscaler {
        metadata: metadata::gateway(stack),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: target(Owned::Deployment, metadata::of_gateway(stack)),
            min_replicas: Some(autoscaling.min_replicas),
            max_replicas: autoscaling.max_replicas,
            metrics: Some(std::iter::once(cpu).chain(in_flight).collect()),
            behavior: None,
        }),
        status: None,
    })
}

/// A metric of which pods have that many on average.
fn of_pods(metric: &str, average: i32) -> MetricSpec {
    MetricSpec {
        type_: "Pods".into(),
        pods: Some(PodsMetricSource {
            metric: MetricIdentifier { name: metric.into(), selector: None },
            target: MetricTarget {
                type_: "AverageValue".into(),
                average_value: Some(Quantity(average.to_string())),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

/// Up by one pod in a start's time, and down only after the load was low for longer than a start takes: a pod that goes is
/// half an hour away.
fn for_slow_starts(engine: &ValidEngine) -> HorizontalPodAutoscalerBehavior {
    let start = i32::try_from(engine.startup.0.as_secs()).unwrap_or(MOST_SECONDS);
    let one_in = |seconds: i32| HPAScalingPolicy { type_: "Pods".into(), value: 1, period_seconds: seconds };
    HorizontalPodAutoscalerBehavior {
        scale_up: Some(HPAScalingRules {
            stabilization_window_seconds: Some(30),
            policies: Some(vec![one_in((start / 4).clamp(60, MOST_PERIOD))]),
            ..HPAScalingRules::default()
        }),
        scale_down: Some(HPAScalingRules {
            stabilization_window_seconds: Some(start.clamp(600, MOST_SECONDS)),
            policies: Some(vec![one_in((start / 4).clamp(300, MOST_PERIOD))]),
            ..HPAScalingRules::default()
        }),
    }
}

fn target(kind: Owned, name: String) -> CrossVersionObjectReference {
    CrossVersionObjectReference { api_version: Some("apps/v1".into()), kind: kind.kind().into(), name }
}
