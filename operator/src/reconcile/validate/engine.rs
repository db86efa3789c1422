//! One engine: the preset merged with what the user replaces.

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerBehavior, MetricSpec};
use k8s_openapi::api::core::v1::{
    Affinity, PodDNSConfig, PodTemplateSpec, ResourceClaim, ResourceRequirements, TopologySpreadConstraint,
    Volume as PodVolume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use speechstack_crds::{Capability, EngineSpec, Protocol, Span, SpeechStackSpec};

use super::check::Check;
use super::image::{self, ImageRef};
use super::{Defaults, Problem, inputs, patch};
use crate::preset::{Preset, Server};

/// Longest wait for work in flight when a pod ends.
const DRAIN: Span = Span::minutes(2);

/// An engine with all defaults resolved.
#[derive(Clone, Debug)]
pub struct ValidEngine {
    /// What the user wrote: fields that are passed on as they are.
    pub spec: EngineSpec,
    /// What it does.
    pub capability: Capability,
    /// What is known of its container.
    pub preset: Preset,
    /// How it is spoken to, in order of preference.
    pub protocols: Vec<Protocol>,
    /// Language of speech for which a client names none.
    pub language: Option<String>,
    /// Its image.
    pub image: ImageRef,
    /// Number of pods.
    pub replicas: Replicas,
    /// The GPU.
    pub gpu: Gpu,
    /// Least GPU memory in MiB; 0 asks for nothing.
    pub min_gpu_memory_mib: u64,
    /// CPU and memory of the engine container.
    pub resources: ResourceRequirements,
    /// Size limit of `/dev/shm`.
    pub shm: Quantity,
    /// HTTP port of the engine container.
    pub http: i32,
    /// gRPC port of the engine container.
    pub grpc: i32,
    /// Longest start.
    pub startup: Span,
    /// Longest wait for work in flight when a pod ends.
    pub drain: Span,
    /// Where models are kept, and where the container expects them.
    pub cache: Option<(Volume, String)>,
    /// Architectures that its nodes may have; any when empty.
    pub architectures: Vec<String>,
    /// Pod affinity.
    pub affinity: Affinity,
    /// Topology spread constraints.
    pub topology_spread: Vec<TopologySpreadConstraint>,
    /// Further volumes.
    pub volumes: Vec<PodVolume>,
    /// Further mounts of the engine container.
    pub mounts: Vec<VolumeMount>,
    /// DNS configuration.
    pub dns_config: Option<PodDNSConfig>,
    /// Patch of the pod template.
    pub patch: Option<PodTemplateSpec>,
    /// GPU jobs at a time.
    pub lane_jobs: u32,
    /// Names of its model, the listed one first; never empty.
    pub models: Vec<String>,
    /// Fingerprint of what the user wrote that renders the pod template.
    pub inputs: String,
}

/// Number of pods.
#[derive(Clone, Debug)]
pub enum Replicas {
    /// As the spec says.
    Fixed(i32),
    /// Owned by the autoscaler that the operator makes.
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
    /// Owned by a scaler of the user.
    External {
        /// Pods of a new engine.
        first: i32,
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
    New(Claim),
    /// A claim that the user made.
    Existing(String),
    /// As long as the pod.
    Ephemeral(Quantity),
    /// A folder of the node.
    HostPath {
        /// Its path.
        path: String,
        /// Whether a container that runs as root gives it to the engine's user.
        set_owner: bool,
    },
}

/// A claim that the operator makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Size.
    pub size: Quantity,
    /// Storage class; the cluster's default when unset.
    pub storage_class: Option<String>,
    /// Access mode.
    pub access_mode: String,
}

impl Claim {
    /// Whether one claim serves all replicas; otherwise each has its own.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.access_mode == "ReadWriteMany"
    }
}

impl ValidEngine {
    /// The claim that each replica has of its own.
    #[must_use]
    pub fn own_claim(&self) -> Option<&Claim> {
        match &self.cache {
            Some((Volume::New(claim), _)) if !claim.is_shared() => Some(claim),
            _ => None,
        }
    }
}

/// Merges preset and spec; what cannot be is added to `problems`. `None` when there is no such preset.
pub fn validate(
    engine: &EngineSpec,
    capability: Capability,
    spec: &SpeechStackSpec,
    defaults: &Defaults,
    problems: &mut Vec<Problem>,
) -> Option<ValidEngine> {
    let place = format!("spec.{}[{}]", capability.as_str(), engine.name);
    let Some(preset) = defaults.presets.get(&engine.preset, capability) else {
        let names = defaults.presets.names(capability).collect::<Vec<_>>().join(", ");
        let message = format!("there is no preset {} here; there are {names}", engine.preset);
        problems.push(Problem::field(&format!("{place}.preset"), message));
        return None;
    };
    let mut check = Check::of(&place, problems);
    let shm = engine.shm_size.clone().unwrap_or_else(|| preset.shm.clone());
    check.quantity("shmSize", &shm);
    let memory = engine.gpu.as_ref().and_then(|gpu| gpu.min_memory.as_ref()).unwrap_or(&preset.gpu_memory);
    let min_gpu_memory_mib = check.quantity("gpu.minMemory", memory).div_ceil(1 << 20);
    let affinity = check.parsed("affinity", engine.affinity.as_ref()).unwrap_or_default();
    let topology_spread = check.all_parsed("topologySpreadConstraints", &engine.topology_spread_constraints);
    let replicas = replicas(engine, &mut check);
    let cache = cache(engine, preset, &mut check);
    let volumes = check.all_parsed("volumes", &engine.volumes);
    let mounts = check.all_parsed("volumeMounts", &engine.volume_mounts);
    let dns_config = check.parsed("dnsConfig", engine.dns_config.as_ref());
    if engine.external.is_some() != preset.external {
        check.problem("external", "belongs to preset external, and that preset to it: set both or neither");
    }
    if engine.external.is_some() && engine.protocols.iter().any(|protocol| protocol.is_grpc()) {
        check.problem("protocols", "an external server is reached over HTTP: remove riva protocols");
    }
    if engine.hosted.is_some() && (engine.external.is_none() || engine.standby) {
        check.problem(
            "hosted",
            "is for external servers, which stand in for others by it: set external, and remove standby",
        );
    }
    let patch = patch::validate(engine.pod_template_patch.as_ref(), &mut check);
    let ports = &engine.ports;
    Some(ValidEngine {
        capability,
        image: resolve_image(engine, preset, spec, defaults, &place, problems),
        language: engine.language.clone().or_else(|| preset.probe.language.clone()),
        replicas,
        gpu: gpu(engine, preset),
        min_gpu_memory_mib,
        resources: resources(engine, preset),
        shm,
        http: ports.http.unwrap_or(preset.http),
        grpc: ports.grpc.unwrap_or(preset.grpc),
        startup: engine.startup.timeout.unwrap_or(preset.startup),
        drain: engine.drain.timeout.unwrap_or(DRAIN),
        cache,
        architectures: architectures(engine, preset).to_vec(),
        affinity,
        topology_spread,
        volumes,
        mounts,
        dns_config,
        patch,
        // Servers of language models batch by themselves; the user's number is that of speech engines.
        lane_jobs: spec.guard.lane_jobs.filter(|_| capability != Capability::Llm).unwrap_or(preset.jobs),
        models: models(engine, preset),
        inputs: inputs::fingerprint(engine, spec),
        spec: engine.clone(),
        protocols: if engine.protocols.is_empty() {
            preset.protocols.clone()
        } else {
            engine.protocols.clone()
        },
        preset: preset.clone(),
    })
}

/// Architectures of the engine's image; any when empty. Another image may have others.
#[must_use]
pub fn architectures<'a>(engine: &EngineSpec, preset: &'a Preset) -> &'a [String] {
    let own = engine.image.as_ref().is_none_or(|image| image.repository.is_none());
    if own { &preset.architectures } else { &[] }
}

fn resolve_image(
    engine: &EngineSpec,
    preset: &Preset,
    spec: &SpeechStackSpec,
    defaults: &Defaults,
    place: &str,
    problems: &mut Vec<Problem>,
) -> ImageRef {
    if engine.external.is_some() {
        // Its pods run the guard alone.
        return image::resolve(
            "spec.guard.image",
            spec.guard.image.as_ref(),
            &defaults.proxy_image,
            problems,
        );
    }
    let registry = spec.image_registry.as_deref().or(defaults.image_registry.as_deref());
    let default = match (&defaults.engine_image, &preset.image) {
        (Some(image), Some(own)) if preset.server == Server::Reference => {
            image::beside(image, &own.repository)
        }
        (_, Some(image)) => image::mirrored(&image.reference(), registry),
        (_, None) => String::new(),
    };
    image::resolve(&format!("{place}.image"), engine.image.as_ref(), &default, problems)
}

/// The user's CPU and memory, and the preset's requests of what the user says nothing about.
fn resources(engine: &EngineSpec, preset: &Preset) -> ResourceRequirements {
    let mut resources = engine.resources.clone().unwrap_or_default();
    for (name, amount) in &preset.requests {
        let says = |list: &Option<std::collections::BTreeMap<String, Quantity>>| {
            list.as_ref().is_some_and(|list| list.contains_key(name))
        };
        if !says(&resources.requests) && !says(&resources.limits) {
            resources.requests.get_or_insert_default().insert(name.clone(), amount.clone());
        }
    }
    resources
}

fn models(engine: &EngineSpec, preset: &Preset) -> Vec<String> {
    if let Some(external) = &engine.external {
        return vec![external.model.clone()];
    }
    if engine.models.is_empty() {
        return std::iter::once(&preset.model.id).chain(&preset.model.aliases).cloned().collect();
    }
    engine.models.clone()
}

fn gpu(engine: &EngineSpec, preset: &Preset) -> Gpu {
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
    match &engine.autoscaling {
        None => Replicas::Fixed(engine.replicas.unwrap_or(1)),
        Some(autoscaling) => match autoscaling.max_replicas {
            None => Replicas::External { first: autoscaling.min_replicas },
            Some(max) => Replicas::Autoscaled {
                min: autoscaling.min_replicas,
                max,
                metrics: check.all_parsed("autoscaling.metrics", &autoscaling.metrics),
                behavior: check.parsed("autoscaling.behavior", autoscaling.behavior.as_ref()),
            },
        },
    }
}

fn cache(engine: &EngineSpec, preset: &Preset, check: &mut Check<'_>) -> Option<(Volume, String)> {
    let path = preset.cache.as_ref().map_or("/cache", |cache| &cache.path);
    let preset_size =
        preset.cache.as_ref().map_or_else(|| Quantity("100Gi".into()), |cache| cache.size.clone());
    let new = |size: Option<Quantity>, storage_class, access_mode: Option<String>| {
        Volume::New(Claim {
            size: size.unwrap_or_else(|| preset_size.clone()),
            storage_class,
            access_mode: access_mode.unwrap_or_else(|| "ReadWriteOnce".into()),
        })
    };
    let volume = match &engine.cache {
        None if preset.cache.is_none() => return None,
        None => new(None, None, None),
        Some(cache) => match (&cache.pvc, &cache.existing_claim, &cache.ephemeral, &cache.host_path) {
            (Some(claim), ..) => {
                new(claim.size.clone(), claim.storage_class_name.clone(), claim.access_mode.clone())
            }
            (None, Some(claim), ..) => Volume::Existing(claim.clone()),
            (None, None, Some(ephemeral), _) => {
                Volume::Ephemeral(ephemeral.size.clone().unwrap_or_else(|| preset_size.clone()))
            }
            (None, None, None, Some(folder)) => {
                Volume::HostPath { path: folder.path.clone(), set_owner: folder.set_owner }
            }
            (None, None, None, None) => {
                check.problem("cache", "set one of existingClaim, pvc, ephemeral and hostPath");
                return None;
            }
        },
    };
    match &volume {
        Volume::New(claim) => check.quantity("cache.pvc.size", &claim.size),
        Volume::Ephemeral(size) => check.quantity("cache.ephemeral.size", size),
        Volume::Existing(_) | Volume::HostPath { .. } => 0,
    };
    Some((volume, path.to_owned()))
}
