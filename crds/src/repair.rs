//! `spec.repair`: what may be done about a wedged engine, and how often.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Span, schema};

/// How far repair goes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Policy {
    /// Judge and report, touch nothing.
    Observe,
    /// Take wedged engines out of rotation, restart nothing.
    Eject,
    /// Take them out and restart them, by the ladder.
    #[default]
    Restart,
}

/// What follows when a fresh pod wedges too.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Escalation {
    /// Stop and tell.
    #[default]
    None,
    /// Keep this engine off that node for six hours. Needs the node escalation role of the chart.
    AvoidNode,
    /// As AvoidNode, and an Event on the node.
    ReportNode,
    /// As ReportNode, and a NoSchedule taint on the node.
    TaintNode,
}

/// Repair of wedged engines: the rungs and their budgets.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("self.escalation == 'None' || self.policy == 'Restart'",
     "repair.escalation needs repair.policy: Restart; set escalation: None to observe or eject only"),
])))]
pub struct Repair {
    /// How far repair goes: Observe, Eject or Restart.
    pub policy: Policy,
    /// Restarts of the engine's container, in place: node, GPU and cache stay.
    pub container_restarts: ContainerRestarts,
    /// Pods replaced when container restarts did not help.
    pub pod_recreates: PodRecreates,
    /// What follows when a fresh pod wedges too: None, AvoidNode, ReportNode or TaintNode.
    pub escalation: Escalation,
    /// Other replicas that must serve before one that still serves is restarted, such as one that got slow.
    #[schemars(range(min = 0))]
    pub min_healthy: u32,
    /// Repairs of one engine within ten minutes. The operator has a limit for all stacks together.
    #[schemars(range(min = 1, max = 100))]
    pub per_engine: u32,
    /// Percent of an engine's replicas (at least two) that wedge within a minute and so count as one common fault:
    /// repair then goes one by one, each verified before the next.
    #[schemars(range(min = 1, max = 100))]
    pub correlated_failure_threshold: u32,
    /// Stop all repair until this is false again. Wedged engines stay out of rotation.
    pub hold: bool,
}

impl Default for Repair {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            container_restarts: ContainerRestarts::default(),
            pod_recreates: PodRecreates::default(),
            escalation: Escalation::default(),
            min_healthy: 1,
            per_engine: 6,
            correlated_failure_threshold: 30,
            hold: false,
        }
    }
}

/// A token bucket of container restarts for each replica.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("duration(self.refill) >= duration('1s')",
     "repair.containerRestarts.refill must be at least 1s: it is the time that earns one more restart"),
    ("type(self.maxParallel) == int ? self.maxParallel >= 1 : self.maxParallel.matches('^([1-9][0-9]?|100)%$')",
     "repair.containerRestarts.maxParallel must be a number of replicas, at least 1, or a percentage such as 25%"),
])))]
pub struct ContainerRestarts {
    /// Restarts that may follow each other.
    #[schemars(range(min = 1, max = 20))]
    pub burst: u32,
    /// Time that earns one more.
    pub refill: Span,
    /// Wait before the second restart of a row; the first is at once, each further one waits three times as long.
    pub backoff: Span,
    /// Longest such wait.
    pub max_backoff: Span,
    /// Replicas of an engine that still serve and may be restarted at the same time: a number or a percentage, at least
    /// one. What does not serve waits for no other, unless replicas wedged together.
    #[schemars(schema_with = "schema::int_or_string")]
    pub max_parallel: IntOrString,
}

impl Default for ContainerRestarts {
    fn default() -> Self {
        Self {
            burst: 3,
            refill: Span::minutes(10),
            backoff: Span::seconds(10),
            max_backoff: Span::minutes(10),
            max_parallel: IntOrString::String("25%".into()),
        }
    }
}

/// Pods replaced within an hour.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodRecreates {
    /// For each engine; 0 turns the rung off.
    #[schemars(range(min = 0, max = 20))]
    pub per_hour: u32,
}

impl Default for PodRecreates {
    fn default() -> Self {
        Self { per_hour: 2 }
    }
}
