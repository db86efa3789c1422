//! `spec.stt[]`, `spec.tts[]` and `spec.llm[]`: one engine, that is one Deployment of pods with a guard in each.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, PodSecurityContext, ResourceClaim, ResourceRequirements, SecurityContext,
    Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{External, Hosted, Protocol, Span, schema};

/// One engine: a Deployment whose pods run the engine and its guard.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("self.name != 'gateway' && self.name != 'engine'",
     "an engine cannot be named gateway or engine: those names belong to the stack's own objects"),
    ("!(self.preset in ['custom', 'parakeet-container', 'nemo-speech-cpp', 'magpie-flow']) || (has(self.image) && has(self.image.repository))",
     "presets custom, parakeet-container, nemo-speech-cpp and magpie-flow have no image of their own: set image.repository"),
    ("!(has(self.idle) && has(self.autoscaling) && has(self.autoscaling.external) && self.autoscaling.external)",
     "idle and autoscaling.external both own the number of replicas: let your scaler go to zero, or remove one of the two"),
    ("!(has(self.replicas) && has(self.autoscaling))",
     "set either replicas or autoscaling: an autoscaler owns the number of replicas"),
    ("has(self.external) == (self.preset == 'external')",
     "preset external and the field external belong together: set both for a server that runs elsewhere, or neither"),
    ("!has(self.external) || !(has(self.image) || has(self.profile) || has(self.args) || has(self.gpu) || has(self.resources) || has(self.shmSize) || has(self.cache) || has(self.env) || has(self.envFrom) || has(self.volumes) || has(self.volumeMounts) || has(self.securityContext) || has(self.podTemplatePatch) || has(self.ports.http) || has(self.ports.grpc))",
     "an external server is not run here: remove image, profile, args, gpu, resources, shmSize, cache, env, envFrom, volumes, volumeMounts, securityContext, podTemplatePatch and ports"),
    ("!(has(self.external) && (has(self.idle) || has(self.autoscaling) || (has(self.models) && size(self.models) > 0)))",
     "an external server has its model in external.model, and pods that only pass requests on: remove models, idle and autoscaling"),
    ("!(has(self.external) && has(self.protocols) && self.protocols.exists(p, p.startsWith('riva')))",
     "an external server is reached over HTTP: remove riva protocols, which go over gRPC"),
    ("!has(self.hosted) || (has(self.external) && !(has(self.standby) && self.standby))",
     "hosted is for servers of others, and stands in for other engines by itself: set preset external with external, and remove standby"),
])))]
pub struct EngineSpec {
    /// Unique name within the stack: part of object names and of what users see.
    #[schemars(length(min = 1, max = 30), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What runs: image, ports, environment, cache, probes and models come from it; fields below replace single values.
    /// `cpu` is neural speech without a GPU, `reference` the small CPU engine for tests and demos, `custom` any container,
    /// `parakeet-container` a Parakeet server of your own with transcription and diarization, `external` a server that runs
    /// elsewhere. Never run by this project on a GPU, with figures from
    /// documentation: `parakeet-tdt-0.6b-v2`, `parakeet-tdt-0.6b-v3`, `parakeet-ctc-1.1b-en`, `parakeet-rnnt-1.1b`,
    /// `nemotron-asr-streaming`, `nemo-speech-cpp`, `magpie-multilingual`, `magpie-zeroshot` (NVIDIA must approve the access),
    /// `magpie-flow` (gone from NVIDIA's catalogue) and `chatterbox-multilingual`. `speechstack-operator presets` prints them;
    /// an administrator may add others.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub preset: String,
    /// Image in place of the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// The server that runs elsewhere, with preset `external`: its pods are guards that pass requests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// Which model profile a NIM container loads, in place of the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Arguments in place of the image's, after those that the preset needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub args: Vec<String>,
    /// Model names for clients, in place of the preset's; the first is listed, and is the one that a language model's server knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)))]
    pub models: Vec<String>,
    /// How the engine is spoken to, in order of preference, in place of the preset's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub protocols: Vec<Protocol>,
    /// Language of speech for which a client names none, such as `en-US` or `multi`; also that of the golden probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-zA-Z]{2,8}(-[a-zA-Z0-9]{2,8})*$"))]
    pub language: Option<String>,
    /// Pods; 1 when neither this nor autoscaling is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// Whether its pods stand in for the other engines that serve the same model: probed and repaired as they are, and sent
    /// requests only while none of the others serves with its full weight.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standby: bool,
    /// The external server is one of others that costs money: the last resort of its list, within a budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosted: Option<Hosted>,
    /// A HorizontalPodAutoscaler in place of a fixed number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// Stop the engine's pods while it is not used, and start them when it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    /// The GPU; unset takes one `nvidia.com/gpu`, except for the reference engine, which takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// CPU and memory of the engine container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Size limit of `/dev/shm`; the preset's when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<Quantity>,
    /// Where downloaded models are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// Ports of the engine container.
    #[serde(default)]
    pub ports: Ports,
    /// Environment of the engine container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
        ("!self.exists(e, e.name in ['NIM_HTTP_API_PORT', 'NIM_GRPC_API_PORT', 'NIM_CACHE_PATH', 'NGC_API_KEY', 'NIM_TAGS_SELECTOR', 'NIM_MANIFEST_PROFILE'])",
         "set ports, cache, profile or spec.auth.ngcSecretRef instead of their environment variables: the operator renders these"),
    ])))]
    pub env: Vec<EnvVar>,
    /// Environment of the engine container from ConfigMaps and Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env_from: Vec<EnvFromSource>,
    /// Nodes that may run it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations in place of the default one for `nvidia.com/gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub tolerations: Option<Vec<Toleration>>,
    /// Pod affinity, as in a pod's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_object")]
    pub affinity: Option<Value>,
    /// Topology spread constraints, as in a pod's spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::open_objects")]
    pub topology_spread_constraints: Vec<Value>,
    /// Priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// Scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,
    /// Runtime class; unset uses the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// Further volumes of the pod, as in a pod's spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::open_objects")]
    pub volumes: Vec<Value>,
    /// Further mounts of the engine container, as in a container's spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::open_objects")]
    pub volume_mounts: Vec<Value>,
    /// DNS policy: ClusterFirst, ClusterFirstWithHostNet, Default or None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_policy: Option<String>,
    /// DNS configuration, as in a pod's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_object")]
    pub dns_config: Option<Value>,
    /// Service account in place of the stack's own, which has no rights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Pod security context in place of the restricted default (user and group 1000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_security_context: Option<PodSecurityContext>,
    /// Security context of the engine container in place of the restricted default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
    /// Further pod labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,
    /// Further pod annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_annotations: BTreeMap<String, String>,
    /// Strategic merge patch of the pod template, applied last. It may not touch labels of the selector, the guard
    /// container, or the engine's liveness probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_object")]
    pub pod_template_patch: Option<Value>,
    /// Patience with a start.
    #[serde(default)]
    pub startup: Startup,
    /// How a new pod template is rolled out.
    #[serde(default)]
    pub rollout: Rollout,
    /// How a pod ends.
    #[serde(default)]
    pub drain: Drain,
}

/// A container image.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("!(has(self.tag) && has(self.digest))",
     "set either image.tag or image.digest: a digest names one image by itself"),
])))]
pub struct Image {
    /// Repository, such as `nvcr.io/nim/nvidia/parakeet-0.6b-tdt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub repository: Option<String>,
    /// Tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub tag: Option<String>,
    /// Digest, `sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
    /// When the image is pulled: Always, IfNotPresent or Never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum PullPolicy {
    /// At each start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// Its name in a container's spec.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Which model profile a NIM container loads.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("has(self.tagsSelector) != has(self.manifestProfile)",
     "set exactly one of profile.tagsSelector and profile.manifestProfile"),
])))]
pub struct Profile {
    /// `NIM_TAGS_SELECTOR`, such as `mode=ofl,vad=silero`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub tags_selector: Option<String>,
    /// `NIM_MANIFEST_PROFILE`, a profile's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub manifest_profile: Option<String>,
}

/// Who owns the number of an engine's replicas: a HorizontalPodAutoscaler that the operator makes, or a scaler of yours.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("!has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
     "autoscaling.minReplicas is above autoscaling.maxReplicas: lower the one or raise the other"),
    ("has(self.maxReplicas) != (has(self.external) && self.external)",
     "set either autoscaling.maxReplicas or autoscaling.external: true"),
])))]
pub struct Autoscaling {
    /// Least replicas.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// Most replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: Option<i32>,
    /// Leave the number of replicas to a scaler of yours, such as a KEDA ScaledObject or your own HorizontalPodAutoscaler.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
    /// Metrics, as in an autoscaling/v2 HorizontalPodAutoscaler; unset scales by the guards' queue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::open_objects")]
    pub metrics: Vec<Value>,
    /// Behaviour, as in an autoscaling/v2 HorizontalPodAutoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_object")]
    pub behavior: Option<Value>,
}

/// What happens to an engine that is not used.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct Idle {
    /// Time without a request after which its pods are stopped.
    pub after: Span,
    /// What is left of it.
    #[serde(default)]
    pub to: IdleTo,
}

/// What is left of an engine that is not used.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum IdleTo {
    /// No pod. Its caches stay.
    #[default]
    Zero,
}

/// The GPU of each pod: a count of an extended resource (whole GPUs, MIG slices) or DRA claims.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("!(has(self.claims) && (has(self.count) || has(self.resourceName)))",
     "set either gpu.count with gpu.resourceName, or gpu.claims"),
])))]
pub struct Gpu {
    /// Extended resource, such as `nvidia.com/mig-3g.40gb`; `nvidia.com/gpu` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 253))]
    pub resource_name: Option<String>,
    /// How many; 1 when unset. Speech engines use a single GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
    pub count: Option<i32>,
    /// Dynamic resource allocation: names of ResourceClaimTemplates in the stack's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8))]
    pub claims: Option<Vec<ResourceClaim>>,
    /// Least GPU memory of a node (label `nvidia.com/gpu.memory`); the preset's when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_memory: Option<Quantity>,
}

/// Where downloaded models are kept. Set one of the four; a new claim of the preset's size when unset.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("[has(self.existingClaim), has(self.pvc), has(self.ephemeral), has(self.hostPath)].filter(set, set).size() == 1",
     "set exactly one of cache.existingClaim, cache.pvc, cache.ephemeral and cache.hostPath"),
    ("!has(self.prefill) || has(self.existingClaim) || (has(self.pvc) && has(self.pvc.accessMode) && self.pvc.accessMode == 'ReadWriteMany')",
     "cache.prefill fills one cache for all replicas: use cache.existingClaim, or cache.pvc with accessMode: ReadWriteMany"),
])))]
pub struct Cache {
    /// A PersistentVolumeClaim that you made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub existing_claim: Option<String>,
    /// A PersistentVolumeClaim that the operator makes. It outlives the stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvc: Option<NewClaim>,
    /// A volume that ends with the pod: each pod downloads its models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Ephemeral>,
    /// A folder of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<HostPath>,
    /// Fill the cache by a Job before the engine's first start, which waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill: Option<Prefill>,
}

/// The Job that fills a cache.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Prefill {
    /// A command of the engine's image that downloads its models into the cache and ends; it gets no GPU. Unset runs the engine
    /// itself, with its GPU, until it is ready: models are then also built for that GPU, where the engine builds them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub command: Vec<String>,
    /// The engine's HTTP path that answers 2xx once it is ready; NVIDIA's and the reference engine's when unset, and for other
    /// engines an open HTTP port. Of no use with a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^/"))]
    pub ready_path: Option<String>,
    /// Longest time before it counts as failed; 6h when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

/// A PersistentVolumeClaim that the operator makes once and never deletes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
     "pvc.storageClassName cannot change once the claim exists: delete the claim, or use another name for the engine or the stack"),
])))]
pub struct NewClaim {
    /// Size of a new claim; the preset's when unset, 20Gi for a gateway. A claim grows with it and never shrinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
    /// Storage class; the cluster's default when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// Access mode; ReadWriteOnce when unset. ReadWriteMany is one claim for all replicas, any other mode one claim for
    /// each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(ReadWriteOnce|ReadWriteMany|ReadWriteOncePod)$"))]
    pub access_mode: Option<String>,
}

/// A volume that ends with the pod.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct Ephemeral {
    /// Size limit; the preset's cache size when unset, 20Gi for a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
}

/// A folder of the node.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("self.path.startsWith('/')",
     "cache.hostPath.path must be an absolute path such as /var/cache/nim"),
])))]
pub struct HostPath {
    /// Absolute path; made when missing.
    #[schemars(length(min = 2, max = 4096))]
    pub path: String,
    /// Have a container that runs as root give the folder to the engine's user before each start. Both need a namespace
    /// that enforces neither the Pod Security Standard baseline nor restricted.
    #[serde(default, rename = "setOwner", skip_serializing_if = "std::ops::Not::not")]
    pub set_owner: bool,
}

/// Ports of the engine container.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(default)]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("!(has(self.http) && self.http in [8000, 8001, 8002]) && !(has(self.grpc) && self.grpc in [8000, 8001, 8002])",
     "ports 8000 to 8002 belong to Triton inside the container: use another port, such as http: 9000 and grpc: 50051"),
    ("!(has(self.http) && has(self.grpc) && self.http == self.grpc) && !(has(self.http) && self.http in [9400, 9401]) && !(has(self.grpc) && self.grpc in [9400, 9401])",
     "ports.http and ports.grpc must differ from each other and from the guard's ports 9400 and 9401"),
])))]
pub struct Ports {
    /// HTTP API; the preset's when unset, which is 9000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65535))]
    pub http: Option<i32>,
    /// gRPC API; the preset's when unset, which is 50051.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65535))]
    pub grpc: Option<i32>,
}

/// Patience with a start: download, engine build, load.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(default)]
pub struct Startup {
    /// Longest start before it counts as failed; the preset's when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

/// How pods are replaced when the template changes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Strategy {
    /// All at once, old ones first.
    Recreate,
    /// One after the other.
    #[default]
    RollingUpdate,
}

/// How a new pod template is rolled out. No surge by default: a full GPU node could not hold it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("self.strategy != 'Recreate' || (!has(self.maxSurge) && !has(self.maxUnavailable))",
     "rollout.maxSurge and rollout.maxUnavailable belong to strategy RollingUpdate: remove them or the strategy"),
    ("!(has(self.maxSurge) && has(self.maxUnavailable) && (self.maxSurge == 0 || self.maxSurge == '0%') && (self.maxUnavailable == 0 || self.maxUnavailable == '0%'))",
     "rollout.maxSurge and rollout.maxUnavailable cannot both be 0: nothing could be replaced"),
    ("!(!has(self.maxSurge) && has(self.maxUnavailable) && (self.maxUnavailable == 0 || self.maxUnavailable == '0%'))",
     "rollout.maxUnavailable: 0 needs a rollout.maxSurge of at least 1, and a spare GPU"),
])))]
pub struct Rollout {
    /// RollingUpdate or Recreate.
    pub strategy: Strategy,
    /// Pods above the number of replicas during a rollout; 0 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_string")]
    pub max_surge: Option<IntOrString>,
    /// Pods missing during a rollout; 1 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_string")]
    pub max_unavailable: Option<IntOrString>,
}

/// How a pod ends.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Drain {
    /// Longest wait for work in flight, such as a long transcription; 2m when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

fn one() -> i32 {
    1
}
