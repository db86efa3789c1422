//! The gateway: models by name, limits as numbers.

use std::collections::{BTreeMap, BTreeSet};

use contract::port;

use k8s_openapi::api::core::v1::{
    Affinity, PodDNSConfig, PodSecurityContext, PodTemplateSpec, SecurityContext, TopologySpreadConstraint,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use speechstack_crds::{Capability, GatewayMode, GatewaySpec, ServiceType, SharedRedis, SpeechStackSpec};

use super::check::Check;
use super::engine::{Claim, ValidEngine, Volume as Kept};
use super::image::{self, ImageRef};
use super::{Defaults, Problem, patch};
use crate::reconcile::quantity;

/// Size of a new volume of jobs and recordings.
const STORAGE_SIZE: &str = "20Gi";

/// The gateway with all defaults resolved.
#[derive(Clone, Debug)]
pub struct ValidGateway {
    /// What the user wrote: fields that are passed on as they are.
    pub spec: GatewaySpec,
    /// Its image.
    pub image: ImageRef,
    /// Pods; `None` when an autoscaler owns the number.
    pub replicas: Option<i32>,
    /// Pod affinity; unset spreads over nodes.
    pub affinity: Option<Affinity>,
    /// Topology spread constraints, in place of that spread.
    pub topology_spread: Vec<TopologySpreadConstraint>,
    /// DNS configuration.
    pub dns_config: Option<PodDNSConfig>,
    /// Further volumes.
    pub volumes: Vec<Volume>,
    /// Further mounts of the container.
    pub mounts: Vec<VolumeMount>,
    /// Pod security context, in place of the restricted default.
    pub pod_security: Option<PodSecurityContext>,
    /// Security context of the container, in place of the restricted default.
    pub security: Option<SecurityContext>,
    /// Patch of the pod template.
    pub patch: Option<PodTemplateSpec>,
    /// Where jobs and recordings are kept.
    pub storage: Option<Storage>,
    /// Largest upload in bytes.
    pub max_upload: u64,
    /// Models that clients may name.
    pub models: Vec<Model>,
}

/// Where jobs and recordings are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Storage {
    /// The volume.
    pub volume: Kept,
    /// Its size in bytes; `None` when it is not ours to say.
    pub size: Option<u64>,
    /// Whether there are jobs, which are those of one pod without `redis`.
    pub jobs: bool,
    /// Where several pods keep the records of jobs.
    pub redis: Option<SharedRedis>,
    /// Whether there are recordings.
    pub recordings: bool,
}

impl Storage {
    /// Whether a second pod can use it at the same time.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        let claim = match &self.volume {
            Kept::New(claim) => claim.is_shared(),
            Kept::Existing(_) => true,
            Kept::Ephemeral(_) | Kept::HostPath { .. } => false,
        };
        claim && (!self.jobs || self.redis.is_some())
    }
}

impl ValidGateway {
    /// The claim that the operator makes for it.
    #[must_use]
    pub fn claim(&self) -> Option<&Claim> {
        match &self.storage.as_ref()?.volume {
            Kept::New(claim) => Some(claim),
            _ => None,
        }
    }

    /// Whether it runs beside each engine.
    #[must_use]
    pub fn is_sidecar(&self) -> bool {
        self.spec.mode == GatewayMode::Sidecar
    }

    /// Whether it has a port of plain HTTP.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.spec.tls.as_ref().is_none_or(|tls| tls.http)
    }

    /// Whether others give it an address, which may come later.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        (!self.is_sidecar() && self.spec.service.service_type == ServiceType::LoadBalancer)
            || self.spec.http_route.is_some()
    }
}

/// A model that clients may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its id.
    pub id: String,
    /// What serves it.
    pub capability: Capability,
    /// The one engine that serves it; `None` when several do.
    pub engine: Option<String>,
    /// Other names.
    pub aliases: Vec<String>,
}

/// Resolves defaults; what cannot be is added to `problems`.
pub fn validate(
    spec: &SpeechStackSpec,
    engines: &[ValidEngine],
    defaults: &Defaults,
    problems: &mut Vec<Problem>,
) -> ValidGateway {
    let gateway = &spec.gateway;
    let max_upload = quantity::units(&gateway.limits.max_upload).unwrap_or_else(|| {
        let text = &gateway.limits.max_upload.0;
        problems.push(Problem::field(
            "spec.gateway.limits.maxUpload",
            format!("{text:?} is not a quantity such as 2Gi"),
        ));
        0
    });
    let models = models(engines, &gateway.model_aliases, problems);
    if gateway.mode == GatewayMode::Sidecar {
        sidecars(engines, problems);
    }
    let mut check = Check::of("spec.gateway", problems);
    let affinity = check.parsed("affinity", gateway.affinity.as_ref());
    let topology_spread = check.all_parsed("topologySpreadConstraints", &gateway.topology_spread_constraints);
    let dns_config = check.parsed("dnsConfig", gateway.dns_config.as_ref());
    let volumes = check.all_parsed("volumes", &gateway.volumes);
    let mounts = check.all_parsed("volumeMounts", &gateway.volume_mounts);
    let pod_security = check.parsed("podSecurityContext", gateway.pod_security_context.as_ref());
    let security = check.parsed("securityContext", gateway.security_context.as_ref());
    let patch = patch::of_gateway(gateway.pod_template_patch.as_ref(), &mut check);
    let storage = storage(gateway, &mut check);
    let alone = storage.as_ref().is_some_and(|storage| !storage.is_shared());
    ValidGateway {
        image: image::resolve("spec.gateway.image", gateway.image.as_ref(), &defaults.proxy_image, problems),
        replicas: match gateway.autoscaling {
            Some(_) => None,
            None => Some(gateway.replicas.unwrap_or(if alone { 1 } else { 2 })),
        },
        affinity,
        topology_spread,
        dns_config,
        volumes,
        mounts,
        pod_security,
        security,
        patch,
        storage,
        max_upload,
        models,
        spec: gateway.clone(),
    }
}

/// What keeps a gateway from running beside an engine.
fn sidecars(engines: &[ValidEngine], problems: &mut Vec<Problem>) {
    for engine in engines {
        let place = format!("spec.{}[{}]", engine.capability.as_str(), engine.spec.name);
        if engine.spec.idle.is_some() || engine.spec.standby || engine.spec.hosted.is_some() {
            let message = "gateway.mode: Sidecar has no gateway that wakes it or chooses between two: remove idle, standby and hosted";
            problems.push(Problem::field(&place, message));
        }
        let taken = [port::GATEWAY, port::GATEWAY_TLS, port::GATEWAY_ADMIN].map(i32::from);
        let own = [engine.http, engine.grpc];
        if let Some(port) = own.iter().find(|port| engine.spec.external.is_none() && taken.contains(port)) {
            let message =
                format!("{port} is a port of the gateway beside it (gateway.mode: Sidecar): use another one");
            problems.push(Problem::field(&format!("{place}.ports"), message));
        }
        let service = format!("{}-api", engine.spec.name);
        if engines.iter().any(|other| other.spec.name == service) {
            let message = format!(
                "its Service with gateway.mode: Sidecar has the name of the engine {service}: rename one of them"
            );
            problems.push(Problem::field(&place, message));
        }
    }
}

/// The volume of jobs and recordings.
fn storage(gateway: &GatewaySpec, check: &mut Check<'_>) -> Option<Storage> {
    let wanted = gateway.storage.as_ref()?;
    let or_default = |size: Option<&Quantity>| size.cloned().unwrap_or_else(|| Quantity(STORAGE_SIZE.into()));
    let (volume, size) = match (&wanted.pvc, &wanted.existing_claim, &wanted.ephemeral) {
        (Some(claim), ..) => {
            let size = or_default(claim.size.as_ref());
            let bytes = check.quantity("storage.pvc.size", &size);
            let access_mode = claim.access_mode.clone().unwrap_or_else(|| "ReadWriteOnce".into());
            let storage_class = claim.storage_class_name.clone();
            (Kept::New(Claim { size, storage_class, access_mode }), Some(bytes))
        }
        (None, Some(claim), _) => (Kept::Existing(claim.clone()), None),
        (None, None, Some(ephemeral)) => {
            let size = or_default(ephemeral.size.as_ref());
            let bytes = check.quantity("storage.ephemeral.size", &size);
            (Kept::Ephemeral(size), Some(bytes))
        }
        (None, None, None) => {
            check.problem("storage", "set one of existingClaim, pvc and ephemeral");
            return None;
        }
    };
    let (jobs, recordings, redis) = (wanted.jobs, wanted.recordings, wanted.redis.clone());
    let storage = Storage { volume, size, jobs, redis, recordings };
    let several = gateway.autoscaling.is_some() || gateway.replicas.is_some_and(|replicas| replicas > 1);
    if several && !storage.is_shared() {
        check.problem("storage", "one gateway pod alone can use it: set gateway.replicas: 1");
    }
    Some(storage)
}

/// One entry for each model id. Engines with the same first name share it; of other names the first engine that has
/// one keeps it, so that two engines of one preset do not fight over `whisper-1`. The last resort serves them all by no name.
fn models(
    engines: &[ValidEngine],
    aliases: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) -> Vec<Model> {
    let engines: Vec<&ValidEngine> = engines.iter().filter(|engine| engine.spec.hosted.is_none()).collect();
    let mut models: Vec<Model> = Vec::new();
    let mut of_capability: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for engine in &engines {
        let Some(id) = engine.models.first() else { continue };
        of_capability.entry(engine.capability.as_str()).or_default().push(id);
        match models.iter_mut().find(|model| model.id == *id) {
            Some(model) if model.capability == engine.capability => model.engine = None,
            Some(_) => problems.push(Problem::field(
                &format!("spec.{}[{}].models", engine.capability.as_str(), engine.spec.name),
                format!("{id} names a model of the other capability too"),
            )),
            None => models.push(Model {
                id: id.clone(),
                capability: engine.capability,
                engine: Some(engine.spec.name.clone()),
                aliases: Vec::new(),
            }),
        }
    }
    for engine in engines.iter().filter(|engine| engine.spec.standby) {
        let stands_for = |other: &&ValidEngine| {
            !other.spec.standby
                && other.capability == engine.capability
                && other.models.first() == engine.models.first()
        };
        if !engines.iter().any(stands_for) {
            let model = engine.models.first().map_or("", String::as_str);
            problems.push(Problem::field(
                &format!("spec.{}[{}].standby", engine.capability.as_str(), engine.spec.name),
                format!("no other engine serves {model}: give both the same `models`, or remove standby"),
            ));
        }
    }
    // A shared model is served by every engine of its capability: a pool would be only one of them.
    for model in &mut models {
        let ids = of_capability.get(model.capability.as_str());
        let others = ids.is_some_and(|ids| ids.iter().any(|id| *id != model.id));
        if model.engine.is_none() && others {
            problems.push(Problem::field(
                "spec",
                format!(
                    "several {} engines serve {} and others serve another model: give each engine its own `models`",
                    model.capability.as_str(),
                    model.id
                ),
            ));
        }
    }

    let mut taken: BTreeSet<String> = models.iter().map(|model| model.id.clone()).collect();
    taken.extend(aliases.keys().cloned());
    for engine in &engines {
        for name in engine.models.iter().skip(1) {
            if taken.insert(name.clone()) {
                let own = engine.models.first();
                if let Some(model) = models.iter_mut().find(|model| Some(&model.id) == own) {
                    model.aliases.push(name.clone());
                }
            }
        }
    }
    for (alias, target) in aliases {
        let named = |model: &&mut Model| model.id == *target || model.aliases.contains(target);
        match models.iter_mut().find(named) {
            Some(model) if model.id == *alias => {}
            Some(model) => model.aliases.push(alias.clone()),
            None => problems.push(Problem::field(
                "spec.gateway.modelAliases",
                format!("{alias} means {target}, which no engine of this stack serves"),
            )),
        }
    }
    // An alias that is also the id of another model would name two models.
    let ids: BTreeSet<String> = models.iter().map(|model| model.id.clone()).collect();
    for model in &models {
        for alias in model.aliases.iter().filter(|alias| ids.contains(*alias)) {
            problems.push(Problem::field(
                "spec.gateway.modelAliases",
                format!("{alias} is the name of a model: remove the alias"),
            ));
        }
    }
    models
}
