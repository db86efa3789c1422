//! `status`: what was observed, and what was done.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Capability;

/// What was observed of a stack, and what was done about it. Two writers own two parts: the reconciler all but
/// `repair`, the healer `repair`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct SpeechStackStatus {
    /// The generation of the spec that this status tells of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One word for people; the conditions are the contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Where clients connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// Figures for `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// The engines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub engines: Vec<EngineStatus>,
    /// Claims of the stack that no engine uses any more; they are never deleted: `kubectl delete pvc NAME` frees the disk.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub orphaned_caches: Vec<String>,
    /// What was done about wedges; budgets are counted from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<RepairStatus>,
    /// The operator that last wrote the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator_version: Option<String>,
}

/// A stack in one word.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Phase {
    /// Pods are not running yet.
    Pending,
    /// Engines load.
    Starting,
    /// Every engine is verified.
    Ready,
    /// It serves, with fewer engines than desired.
    Degraded,
    /// An engine is being repaired and none of its capability serves.
    Repairing,
    /// Suspended by its spec.
    Suspended,
    /// Something needs a person; see the conditions.
    Failed,
}

/// Where clients connect.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoints {
    /// `OPENAI_BASE_URL` within the cluster; with `gateway.mode: Sidecar` that of the first engine.
    pub openai_base_url: String,
    /// That of each engine, with `gateway.mode: Sidecar`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub engines: Vec<Endpoint>,
    /// URL from outside, by Ingress, HTTPRoute or load balancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
}

/// Where clients connect to one engine.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// The engine's name.
    pub name: String,
    /// `OPENAI_BASE_URL` within the cluster.
    pub openai_base_url: String,
}

/// Figures for `kubectl get`: verified/desired.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(default)]
pub struct Summary {
    /// Speech to text.
    pub stt: String,
    /// Text to speech.
    pub tts: String,
    /// Language models.
    pub llm: String,
}

/// One engine.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EngineStatus {
    /// Its name in the spec.
    pub name: String,
    /// What it does.
    pub capability: Capability,
    /// Pods wanted.
    pub desired: i32,
    /// Pods that the kubelet calls ready.
    pub ready: i32,
    /// Pods whose engine is proven by inference now.
    pub verified: i32,
    /// Pods of the current template.
    pub updated: i32,
    /// What a person should know of its preset before relying on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caution: Option<String>,
    /// The model that it serves, as a proven pod of it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The profile that its container chose, as a proven pod of it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Digest of the image that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// A new template waits for the next change of the spec.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub update_pending: bool,
    /// Its pods are stopped because it is not used; the next request starts them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asleep: bool,
    /// The Job that fills its cache, until the engine has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill: Option<PrefillStatus>,
    /// Its pods, at most 20: those in trouble first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub pods: Vec<PodStatus>,
    /// The last failure of one of its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Failure>,
}

/// How far the Job is that fills a cache.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct PrefillStatus {
    /// Where it stands.
    pub phase: PrefillPhase,
    /// What it waits for or failed of, in the words of the kubelet, the scheduler or the engine, at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the Job began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
}

/// Where the Job stands that fills a cache.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum PrefillPhase {
    /// It fills the cache, or waits for a node or its image.
    Running,
    /// The cache is filled.
    Complete,
    /// It gave up; the engine does not start.
    Failed,
}

/// One engine pod, as its guard reports it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// The pod's name.
    pub name: String,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The guard's state of the engine, such as healthy, wedged or restarting; unknown without a guard's word.
    pub state: String,
    /// Class of the fault behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The engine's own words about why it does not serve yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// Its model files, until the engine is verified: how far a first start is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_cache: Option<ModelCacheStatus>,
    /// Restarts of the engine container.
    pub restarts: i32,
    /// Since when it is in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// The model files of an engine that is not verified, as its guard measures them. Written at most twice a minute for an engine.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelCacheStatus {
    /// Bytes that they take on disk, with those of files that are not complete.
    pub bytes: i64,
    /// Share of what a filled cache holds, percent, where the preset knows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<i32>,
    /// Whether there are more that were not counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Growth of the last minute, bytes per second.
    pub bytes_per_second: i64,
    /// What goes on.
    pub activity: CacheActivity,
    /// When they last grew, or were first measured if they did not grow since, by the clock of the pod's node.
    pub unchanged_since: Time,
    /// When this was written.
    pub updated: Time,
}

/// What goes on in an engine that is not verified.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum CacheActivity {
    /// Its model files grow, or did within the last minute.
    Growing,
    /// They do not grow, and it computes or reads the disk.
    Loading,
    /// They do not grow, and it does nothing.
    Quiet,
    /// Its guard is newer than the operator and says something else.
    Unknown,
}

/// A failure of a pod, as far as the kubelet tells.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Reason of [`crate::condition::reason`].
    pub reason: String,
    /// What the kubelet or the engine said, at most 256 characters.
    pub message: String,
    /// The container's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The pod.
    pub pod: String,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// What was done about wedges.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct RepairStatus {
    /// Repairs since the stack was made.
    pub total: i64,
    /// The last 50 repairs, oldest first. Budgets count these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<RepairRecord>,
    /// Engines whose repair stopped: it did not help or its budget is used up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stopped: Vec<Stopped>,
    /// Engines of which several replicas wedged together: they are repaired one by one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub correlated: Vec<String>,
    /// The value of the reset annotation that was heeded last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset: Option<String>,
    /// When it was heeded: repairs before do not count against an engine any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_at: Option<MicroTime>,
}

/// One repair: written before the act, completed after it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RepairRecord {
    /// Engine.
    pub engine: String,
    /// Pod.
    pub pod: String,
    /// Its UID.
    pub pod_uid: String,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Hash of the pod template that it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The engine instance, as its guard names it.
    pub instance: String,
    /// What was done.
    pub rung: Rung,
    /// Class of the fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Number of the restart in its row, from 0.
    pub attempt: u32,
    /// When it was ordered.
    pub ordered: MicroTime,
    /// What came of it.
    pub outcome: Outcome,
    /// When that was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<MicroTime>,
}

/// A rung of the repair ladder.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// The engine's container is restarted in place.
    Restart,
    /// As Restart, of an engine that still serves, once it is idle.
    Recycle,
    /// The pod is replaced.
    Recreate,
    /// The node is marked as to be avoided by this engine, and the pod replaced.
    AvoidNode,
    /// The node is reported by an Event and an annotation.
    ReportNode,
    /// The node is tainted.
    TaintNode,
}

impl Rung {
    /// Its name in status, Events and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restart => "Restart",
            Self::Recycle => "Recycle",
            Self::Recreate => "Recreate",
            Self::AvoidNode => "AvoidNode",
            Self::ReportNode => "ReportNode",
            Self::TaintNode => "TaintNode",
        }
    }
}

/// What came of a repair.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Outcome {
    /// Ordered; not known yet.
    Pending,
    /// The engine was verified again.
    Recovered,
    /// It wedged again, or was not verified in time.
    Failed,
    /// The act was not done: the instance was gone or well again by itself.
    Withdrawn,
    /// The node was reported or tainted; healing it is its owner's work.
    Done,
}

impl Outcome {
    /// Its name in status, Events and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Recovered => "Recovered",
            Self::Failed => "Failed",
            Self::Withdrawn => "Withdrawn",
            Self::Done => "Done",
        }
    }
}

/// An engine whose repair stopped.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// Engine.
    pub engine: String,
    /// Reason of [`crate::condition::reason`].
    pub reason: String,
    /// Why, and what a person can do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Since when.
    pub since: MicroTime,
}
