//! `SpeechStack`: the whole of `spec`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, ResourceRequirements};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Capability, DeepProbe, EngineSpec, GatewaySpec, Image, Repair, SpeechStackStatus, UpdateWindow, schema,
};

/// Each list of engines has one that others stand in for.
const LAST_RESORT: &str = "size(self) == 0 || self.exists(e, !has(e.hosted))";
const ONLY_HOSTED: &str =
    "a hosted engine is the last resort of its list: add an engine without hosted, for which it stands in";

/// Speech engines that heal themselves, behind one OpenAI-compatible audio URL.
#[derive(Clone, Debug, Default, Deserialize, Serialize, CustomResource, JsonSchema, PartialEq)]
#[kube(
    group = "speechstack.dev",
    version = "v1alpha1",
    kind = "SpeechStack",
    plural = "speechstacks",
    shortname = "spch",
    category = "ai",
    namespaced,
    status = "SpeechStackStatus",
    derive = "PartialEq",
    doc = "Speech engines that heal themselves, behind one OpenAI-compatible audio URL.",
    validation = Rule::new("size(self.metadata.name) <= 30")
        .message("metadata.name must have at most 30 characters: names of pods and nodes' labels are made from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must begin with a letter and have no dots: Services are named after it"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "STT", type_ = "string", json_path = ".status.summary.stt", description = "verified/desired"),
    printcolumn(name = "TTS", type_ = "string", json_path = ".status.summary.tts", description = "verified/desired"),
    printcolumn(name = "LLM", type_ = "string", json_path = ".status.summary.llm", description = "verified/desired", priority = 1),
    printcolumn(name = "Repairs", type_ = "integer", json_path = ".status.repair.total"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoints.openaiBaseUrl", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("size(self.stt) + size(self.tts) + size(self.llm) > 0",
     "a stack needs an engine: add one under spec.stt, spec.tts or spec.llm, such as stt: [{name: parakeet, preset: parakeet-tdt-0.6b-v3}]"),
    ("self.stt.all(s, !self.tts.exists(t, t.name == s.name)) && self.llm.all(l, !self.stt.exists(s, s.name == l.name) && !self.tts.exists(t, t.name == l.name))",
     "an engine name is used in two of spec.stt, spec.tts and spec.llm: names must be unique in a stack"),
    ("self.gateway.mode != 'Sidecar' || !(self.stt.exists(e, has(e.idle) || has(e.hosted) || (has(e.standby) && e.standby)) || self.tts.exists(e, has(e.idle) || has(e.hosted) || (has(e.standby) && e.standby)) || self.llm.exists(e, has(e.idle) || has(e.hosted) || (has(e.standby) && e.standby)))",
     "gateway.mode: Sidecar has no gateway that wakes an engine or chooses between two: remove idle, standby and hosted"),
])))]
pub struct SpeechStackSpec {
    /// Speech-to-text engines.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
        ("self.all(e, !e.preset.startsWith('magpie') && !e.preset.startsWith('chatterbox'))",
         "spec.stt takes speech-to-text presets: move magpie and chatterbox presets to spec.tts"),
        (LAST_RESORT, ONLY_HOSTED),
    ])))]
    pub stt: Vec<EngineSpec>,
    /// Text-to-speech engines.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
        ("self.all(e, !e.preset.startsWith('parakeet') && !e.preset.startsWith('nemo'))",
         "spec.tts takes text-to-speech presets: move parakeet, nemotron and nemo presets to spec.stt"),
        (LAST_RESORT, ONLY_HOSTED),
    ])))]
    pub tts: Vec<EngineSpec>,
    /// Language models, for conversations and translations: engines that run here, or servers that run elsewhere.
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
        ("self.all(e, !e.preset.startsWith('parakeet') && !e.preset.startsWith('nemo') && !e.preset.startsWith('magpie') && !e.preset.startsWith('chatterbox'))",
         "spec.llm takes language models: move speech presets to spec.stt or spec.tts"),
        ("self.all(e, e.preset != 'custom' || (has(e.models) && size(e.models) > 0))",
         "a server of language models asks for the name of one: set models of each spec.llm engine with preset custom"),
        (LAST_RESORT, ONLY_HOSTED),
    ])))]
    pub llm: Vec<EngineSpec>,
    /// Real inference with known content, by which engines are judged.
    pub deep_probe: DeepProbe,
    /// What may be done about a wedged engine, and how often.
    pub repair: Repair,
    /// The public API in front of all engines.
    pub gateway: GatewaySpec,
    /// The guard beside each engine.
    pub guard: GuardSpec,
    /// Access to NVIDIA's registry and models.
    pub auth: Auth,
    /// Scraping and alerts.
    pub monitoring: Monitoring,
    /// Network policy of the engines.
    pub network_policy: NetworkPolicy,
    /// Stop all engine pods and free their GPUs; caches and definitions stay.
    pub suspend: bool,
    /// When engine pods follow a change that is not the stack's own: OnSpecChange or Automatic.
    pub updates: Updates,
    /// The times in which `updates: Automatic` replaces pods; always when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_window: Option<UpdateWindow>,
    /// Further labels of every object of the stack and of its pods, such as those of cost reports.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Further annotations of every object of the stack.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Secrets for pulling images, in place of the operator's default ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Registry in place of the first part of every preset's image, for mirrors; the operator's default when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub image_registry: Option<String>,
}

impl SpeechStackSpec {
    /// All engines with what they do, in the order of status.
    pub fn engines(&self) -> impl Iterator<Item = (Capability, &EngineSpec)> {
        let lists =
            [(Capability::Stt, &self.stt), (Capability::Tts, &self.tts), (Capability::Llm, &self.llm)];
        lists.into_iter().flat_map(|(capability, specs)| specs.iter().map(move |spec| (capability, spec)))
    }
}

/// The guard beside each engine.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct GuardSpec {
    /// Image in place of the operator's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// CPU and memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// GPU jobs at a time in one speech engine; only for engines that batch by themselves. The preset's when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub lane_jobs: Option<u32>,
    /// Share the process namespace, so that the guard ends a wedged process itself in place of the kubelet.
    pub direct_kill: bool,
}

/// Access to NVIDIA's registry and models.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Auth {
    /// Secret with the NGC API key; unset serves from a filled cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ngc_secret_ref: Option<SecretKey>,
}

/// A key of a Secret in the stack's namespace.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct SecretKey {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[serde(default = "ngc_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Whether something optional is made.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Switch {
    /// When the cluster knows its kind.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Scraping and alerts by the Prometheus operator.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitoring {
    /// PodMonitor of guards and gateways.
    pub pod_monitor: Switch,
    /// PrometheusRule with the stack's alerts.
    pub prometheus_rule: Switch,
    /// Further labels of both, for Prometheus' selectors.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Network policy of the engines.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(default)]
pub struct NetworkPolicy {
    /// Let only the stack's gateway, the operator and scrapers reach engine pods, and only `clients` the gateway.
    pub enabled: bool,
    /// Who scrapes metrics, as peers of a NetworkPolicy; pods with the label `app.kubernetes.io/name: prometheus` when unset.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::open_objects")]
    pub scrapers: Vec<Value>,
    /// Who may call the gateway, as peers of a NetworkPolicy; all when unset.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::open_objects")]
    pub clients: Vec<Value>,
    /// Also limit what pods may reach: name look-ups, HTTPS and the API server, and engines for the gateway.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub egress: bool,
}

/// When engine pods follow a change that is not the stack's own, such as a new operator's defaults.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Updates {
    /// With the next change of the stack's spec; until then the status says UpdatePending.
    #[default]
    OnSpecChange,
    /// In the update window, as many engines of the cluster at a time as the operator allows; pod by pod, each verified
    /// before the next.
    Automatic,
}

fn ngc_key() -> String {
    "NGC_API_KEY".into()
}
