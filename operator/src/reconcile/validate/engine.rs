//! One engine: the preset merged with what the user replaces.

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerBehavior, MetricSpec};
use k8s_openapi::api::core::v1::{Affinity, PodTemplateSpec, ResourceClaim, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use speechstack_crds::{Capability, EngineSpec, Preset, PresetData, Protocol, PvcCache, SpeechStackSpec};

use super::image::{self, ImageRef};
use super::{Defaults, Problem, patch};
use crate::reconcile::{fingerprint, quantity};

/// An engine with all defaults resolved.
#[derive(Clone, Debug)]
pub struct ValidEngine {
    /// What the user wrote: fields that are passed on as they are.
    pub spec: EngineSpec,
    /// What it does.
    pub capability: Capability,
    /// What is known of its container.
    pub preset: PresetData,
    /// How it is spoken to, in order of preference.
    pub protocols: Vec<Protocol>,
    /// Its image.
    pub image: ImageRef,
    /// Number of pods.
    pub replicas: Replicas,
    /// The GPU.
    pub gpu: Gpu,
    /// Least GPU memory in MiB; 0 asks for nothing.
    pub min_gpu_memory_mib: u64,
    /// Size limit of `/dev/shm`.
    pub shm: Quantity,
    /// Where models are kept, and where the container expects them.
    pub cache: Option<(Volume, String)>,
    /// Architecture that its nodes must have.
    pub arch: Option<&'static str>,
    /// Pod affinity.
    pub affinity: Affinity,
    /// Topology spread constraints.
    pub topology_spread: Vec<TopologySpreadConstraint>,
    /// Patch of the pod template.
    pub patch: Option<PodTemplateSpec>,
    /// GPU jobs at a time.
    pub lane_jobs: u32,
    /// Names of its model, the listed one first; never empty.
    pub models: Vec<String>,
    /// Fingerprint of what the user wrote about its pods.
    pub spec_hash: String,
}

/// Number of pods.
#[derive(Clone, Debug)]
pub enum Replicas {
    /// As the spec says.
    Fixed(i32),
    /// Owned by an autoscaler.
    Autoscaled {
        /// Least.
        min: i32,
        /// Most.
        max: i32,
        /// What it looks at.
        metrics: Vec<MetricSpec>,
        /// How it moves.
        behavior: Option<HorizontalPodAutoscalerBehavior>,
    },
}

/// The GPU of a pod.
#[derive(Clone, Debug)]
pub enum Gpu {
    /// None.
    None,
    /// So many of an extended resource.
    Count {
        /// Such as `nvidia.com/gpu`.
        resource: String,
        /// How many.
        count: i32,
    },
    /// Dynamic resource allocation.
    Claims(Vec<ResourceClaim>),
}

/// Where models are kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Volume {
    /// A claim that the operator makes.
    New(PvcCache),
    /// A claim that the user made.
    Existing(String),
    /// As long as the pod.
    Ephemeral(Quantity),
    /// A folder of the node.
    HostPath(String),
}

/// Merges preset and spec; what cannot be is added to `problems`.
pub fn validate(
    engine: &EngineSpec,
    capability: Capability,
    spec: &SpeechStackSpec,
    shared: &Value,
    defaults: &Defaults,
    problems: &mut Vec<Problem>,
) -> ValidEngine {
    let preset = engine.preset.data(capability);
    let place = format!("spec.{}[{}]", capability.as_str(), engine.name);
    let mut check = Check { place: &place, problems };

    let shm = engine.shm_size.clone().unwrap_or_else(|| Quantity(preset.shm.into()));
    check.quantity("shmSize", &shm);
    let min_gpu_memory_mib = match engine.gpu.as_ref().and_then(|gpu| gpu.min_memory.as_ref()) {
        Some(memory) => check.quantity("gpu.minMemory", memory).div_ceil(1 << 20),
        None => preset.min_gpu_memory_mib,
    };
    let affinity = check.parsed("affinity", engine.affinity.as_ref()).unwrap_or_default();
    let topology_spread = check.all_parsed("topologySpreadConstraints", &engine.topology_spread_constraints);
    let replicas = replicas(engine, &mut check);
    let cache = cache(engine, &preset, &mut check);
    let patch = patch::validate(engine.pod_template_patch.as_ref(), &mut check);
    let known = Value::Object(serde_json::Map::new());
    let user_wrote = json!({
        "engine": fingerprint::without_defaults(&fingerprint::json(engine), &defaults_of(engine, &known)),
        "stack": shared,
    });

    ValidEngine {
        capability,
        image: resolve_image(engine, &preset, spec, defaults, &place, problems),
        replicas,
        gpu: gpu(engine, &preset),
        min_gpu_memory_mib,
        shm,
        cache,
        // Another image may have other architectures.
        arch: preset.arch.filter(|_| engine.image.as_ref().is_none_or(|image| image.repository.is_none())),
        affinity,
        topology_spread,
        patch,
        lane_jobs: spec.guard.lane_jobs.unwrap_or(preset.lane_jobs),
        models: models(engine, &preset),
        spec_hash: fingerprint::of(&user_wrote),
        spec: engine.clone(),
        protocols: if engine.protocols.is_empty() {
            preset.protocols.to_vec()
        } else {
            engine.protocols.clone()
        },
        preset,
    }
}

/// An engine spec with nothing set but what must be.
fn defaults_of(engine: &EngineSpec, nothing: &Value) -> Value {
    let minimal = json!({"name": engine.name, "preset": fingerprint::json(&engine.preset)});
    let mut default = serde_json::from_value::<EngineSpec>(minimal)
        .map_or_else(|_| nothing.clone(), |minimal| fingerprint::json(&minimal));
    if let Some(fields) = default.as_object_mut() {
        fields.remove("name");
        fields.remove("preset");
    }
    default
}

fn resolve_image(
    engine: &EngineSpec,
    preset: &PresetData,
    spec: &SpeechStackSpec,
    defaults: &Defaults,
    place: &str,
    problems: &mut Vec<Problem>,
) -> ImageRef {
    let default = match (&defaults.engine_image, engine.preset) {
        (Some(image), Preset::Reference) => image.clone(),
        _ if preset.repository.is_empty() => String::new(),
        _ => {
            let repository = image::mirrored(preset.repository, spec.image_registry.as_deref());
            if preset.tag.is_empty() { repository } else { format!("{repository}:{}", preset.tag) }
        }
    };
    image::resolve(&format!("{place}.image"), engine.image.as_ref(), &default, problems)
}

fn models(engine: &EngineSpec, preset: &PresetData) -> Vec<String> {
    if engine.models.is_empty() {
        let names = std::iter::once(&preset.model.id).chain(preset.model.aliases);
        return names.map(|name| (*name).to_owned()).collect();
    }
    engine.models.clone()
}

fn gpu(engine: &EngineSpec, preset: &PresetData) -> Gpu {
    let count = match &engine.gpu {
        Some(gpu) => match &gpu.claims {
            Some(claims) => return Gpu::Claims(claims.clone()),
            None => gpu.count.unwrap_or(1),
        },
        None => i32::from(preset.gpu),
    };
    let resource = engine.gpu.as_ref().and_then(|gpu| gpu.resource_name.clone());
    match count {
        0 => Gpu::None,
        count => Gpu::Count { resource: resource.unwrap_or_else(|| "nvidia.com/gpu".into()), count },
    }
}

fn replicas(engine: &EngineSpec, check: &mut Check<'_>) -> Replicas {
    let Some(autoscaling) = &engine.autoscaling else {
        return Replicas::Fixed(engine.replicas.unwrap_or(1));
    };
    Replicas::Autoscaled {
        min: autoscaling.min_replicas,
        max: autoscaling.max_replicas,
        metrics: check.all_parsed("autoscaling.metrics", &autoscaling.metrics),
        behavior: check.parsed("autoscaling.behavior", autoscaling.behavior.as_ref()),
    }
}

fn cache(engine: &EngineSpec, preset: &PresetData, check: &mut Check<'_>) -> Option<(Volume, String)> {
    let path = if preset.cache_path.is_empty() { "/cache" } else { preset.cache_path };
    let volume = match &engine.cache {
        None if preset.cache_path.is_empty() => return None,
        None => Volume::New(PvcCache {
            size: Quantity(preset.cache_size.into()),
            storage_class_name: None,
            access_mode: "ReadWriteOnce".into(),
        }),
        Some(cache) => match (&cache.pvc, &cache.existing_claim, &cache.ephemeral, &cache.host_path) {
            (Some(claim), ..) => Volume::New(claim.clone()),
            (None, Some(claim), ..) => Volume::Existing(claim.clone()),
            (None, None, Some(ephemeral), _) => Volume::Ephemeral(ephemeral.size.clone()),
            (None, None, None, Some(folder)) => Volume::HostPath(folder.path.clone()),
            (None, None, None, None) => {
                check.problem("cache", "set one of existingClaim, pvc, ephemeral and hostPath");
                return None;
            }
        },
    };
    match &volume {
        Volume::New(claim) => check.quantity("cache.pvc.size", &claim.size),
        Volume::Ephemeral(size) => check.quantity("cache.ephemeral.size", size),
        Volume::Existing(_) | Volume::HostPath(_) => 0,
    };
    Some((volume, path.to_owned()))
}

/// Collects what is wrong with the fields of one engine.
pub struct Check<'a> {
    place: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Check<'a> {
    /// For the fields of `place`.
    pub fn of(place: &'a str, problems: &'a mut Vec<Problem>) -> Self {
        Self { place, problems }
    }

    /// Notes a problem of a field.
    pub fn problem(&mut self, field: &str, message: impl std::fmt::Display) {
        self.problems.push(Problem::field(&format!("{}.{field}", self.place), message));
    }

    fn quantity(&mut self, field: &str, quantity: &Quantity) -> u64 {
        quantity::units(quantity).unwrap_or_else(|| {
            self.problem(field, format!("{:?} is not a quantity such as 8Gi", quantity.0));
            0
        })
    }

    /// A field of free form as the type that the API server will read it as, with unknown names refused.
    pub fn parsed<T: DeserializeOwned + Serialize>(
        &mut self,
        field: &str,
        value: Option<&Value>,
    ) -> Option<T> {
        let value = value?;
        match serde_json::from_value::<T>(value.clone()) {
            Ok(parsed) => {
                if let Some(lost) = lost(value, &fingerprint::json(&parsed)) {
                    self.problem(field, format!("{lost} is not a field"));
                }
                Some(parsed)
            }
            Err(error) => {
                self.problem(field, error);
                None
            }
        }
    }

    fn all_parsed<T: DeserializeOwned + Serialize>(&mut self, field: &str, values: &[Value]) -> Vec<T> {
        let numbered = values.iter().enumerate();
        numbered.filter_map(|(at, value)| self.parsed(&format!("{field}[{at}]"), Some(value))).collect()
    }
}

/// The first path of `written` that reading it lost.
fn lost(written: &Value, read: &Value) -> Option<String> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => written
            .iter()
            .find_map(|(key, value)| {
                let empty = value.is_null()
                    || value.as_array().is_some_and(Vec::is_empty)
                    || value.as_object().is_some_and(serde_json::Map::is_empty);
                match read.get(key) {
                    Some(read) => lost(value, read).map(|rest| format!("{key}.{rest}")),
                    None if empty => None,
                    None => Some(key.clone()),
                }
            })
            .map(|path| path.trim_end_matches('.').to_owned()),
        (Value::Array(written), Value::Array(read)) => written
            .iter()
            .zip(read)
            .enumerate()
            .find_map(|(at, (written, read))| lost(written, read).map(|rest| format!("[{at}].{rest}"))),
        _ => None,
    }
}
