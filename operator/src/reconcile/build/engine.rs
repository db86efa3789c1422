//! One engine: its Deployment, headless Service and cache claim.

use contract::port;
use std::collections::BTreeMap;

use k8s_openapi::DeepMerge;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, HostPathVolumeSource, Lifecycle,
    LifecycleHandler, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, PodResourceClaim,
    PodSpec, PodTemplateSpec, Probe, ResourceClaim, ResourceRequirements, SecretKeySelector, Service,
    ServiceAccount, ServicePort, ServiceSpec, Toleration, Volume as PodVolume, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use speechstack_crds::{Preset, Strategy};

use super::{guard, metadata, pod};
use crate::names::{annotation, avoid_label, container, label, volume};
use crate::reconcile::fingerprint;
use crate::reconcile::validate::{Gpu, Replicas, ValidEngine, ValidStack, Volume};

/// Time beyond the drain that a pod has to end.
const MARGIN_SECONDS: u64 = 15;
/// Holds the liveness helper and a few small files.
const RUN_LIMIT: &str = "16Mi";

/// The account of engine pods. It has no rights; guards only need a token to read the API server's public keys.
pub fn service_account(stack: &ValidStack) -> ServiceAccount {
    let mut labels = metadata::gateway_labels(stack);
    labels.insert(label::COMPONENT.into(), "engine".into());
    ServiceAccount {
        metadata: metadata::owned(stack, metadata::engine_account(stack), labels),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// The Service through which gateways find the engine's pods.
pub fn service(stack: &ValidStack, engine: &ValidEngine) -> Service {
    let port = |name: &str, number: i32| ServicePort {
        name: Some(name.into()),
        port: number,
        target_port: Some(IntOrString::String(name.into())),
        ..ServicePort::default()
    };
    Service {
        metadata: metadata::engine(stack, engine),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            selector: metadata::engine_selector(stack, engine).match_labels,
            ports: Some(vec![port("speech", port::GUARD.into()), port("admin", port::GUARD_ADMIN.into())]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The cache, when the operator makes it. No owner: half an hour of download must not go with the stack.
pub fn claim(stack: &ValidStack, engine: &ValidEngine) -> Option<PersistentVolumeClaim> {
    let Some((Volume::New(claim), _)) = &engine.cache else { return None };
    let labels = metadata::engine_labels(stack, engine);
    Some(PersistentVolumeClaim {
        metadata: metadata::kept(stack, metadata::of_cache(stack, engine), labels),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![claim.access_mode.clone()]),
            storage_class_name: claim.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), claim.size.clone())].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    })
}

/// The Deployment, with the fingerprints by which the next operator version knows what the user asked for.
pub fn deployment(stack: &ValidStack, engine: &ValidEngine) -> Deployment {
    let template = template(stack, engine);
    let hashes = [
        (annotation::SPEC, engine.spec_hash.clone()),
        (annotation::TEMPLATE, fingerprint::of(&fingerprint::json(&template))),
    ];
    let replicas = match &engine.replicas {
        _ if stack.suspend => Some(0),
        Replicas::Fixed(replicas) => Some(*replicas),
        Replicas::Autoscaled { .. } => None,
    };
    Deployment {
        metadata: ObjectMeta {
            annotations: Some(hashes.map(|(key, hash)| (key.to_owned(), hash)).into()),
            ..metadata::engine(stack, engine)
        },
        spec: Some(DeploymentSpec {
            replicas,
            selector: metadata::engine_selector(stack, engine),
            strategy: Some(strategy(engine)),
            revision_history_limit: Some(3),
            // A first start downloads models and builds engines; the verdict on it is the guard's.
            progress_deadline_seconds: Some(seconds_i32(engine.spec.startup.timeout.0.as_secs() + 600)),
            template,
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn strategy(engine: &ValidEngine) -> DeploymentStrategy {
    let rollout = &engine.spec.rollout;
    match rollout.strategy {
        Strategy::Recreate => DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None },
        Strategy::RollingUpdate => DeploymentStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(rollout.max_surge.clone().unwrap_or(IntOrString::Int(0))),
                max_unavailable: Some(rollout.max_unavailable.clone().unwrap_or(IntOrString::Int(1))),
            }),
        },
    }
}

/// The pod template, with the user's patch applied last.
fn template(stack: &ValidStack, engine: &ValidEngine) -> PodTemplateSpec {
    let mut labels = engine.spec.pod_labels.clone();
    labels.extend(metadata::engine_labels(stack, engine));
    let annotations = engine.spec.pod_annotations.clone();
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(pod_spec(stack, engine)),
    };
    if let Some(patch) = engine.patch.clone() {
        template.merge_from(patch);
    }
    template
}

fn pod_spec(stack: &ValidStack, engine: &ValidEngine) -> PodSpec {
    let spec = &engine.spec;
    let (config, config_mount) = pod::config(metadata::of_engine(stack, engine));
    let (identity, identity_mount) = pod::identity();
    let mut volumes = vec![
        pod::empty_dir(volume::RUN, Some("Memory"), Some(Quantity(RUN_LIMIT.into()))),
        pod::empty_dir(volume::SHM, Some("Memory"), Some(engine.shm.clone())),
        pod::empty_dir(volume::TMP, None, None),
        config,
        identity,
    ];
    volumes.extend(cache_volume(stack, engine));
    PodSpec {
        service_account_name: Some(
            spec.service_account_name.clone().unwrap_or_else(|| metadata::engine_account(stack)),
        ),
        // The engine gets no token; the guard has its own volume.
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        share_process_namespace: stack.guard.direct_kill.then_some(true),
        security_context: Some(spec.pod_security_context.clone().unwrap_or_else(pod::pod_security)),
        image_pull_secrets: (!stack.image_pull_secrets.is_empty()).then(|| stack.image_pull_secrets.clone()),
        termination_grace_period_seconds: Some(
            i64::try_from(spec.drain.timeout.0.as_secs() + MARGIN_SECONDS).unwrap_or(i64::MAX),
        ),
        affinity: Some(affinity(stack, engine)),
        node_selector: (!spec.node_selector.is_empty()).then(|| spec.node_selector.clone()),
        tolerations: Some(spec.tolerations.clone().unwrap_or_else(|| gpu_toleration(engine))),
        topology_spread_constraints: (!engine.topology_spread.is_empty())
            .then(|| engine.topology_spread.clone()),
        priority_class_name: spec.priority_class_name.clone(),
        scheduler_name: spec.scheduler_name.clone(),
        runtime_class_name: spec.runtime_class_name.clone(),
        resource_claims: pod_claims(engine),
        init_containers: Some(vec![guard::container(stack, vec![config_mount, identity_mount])]),
        containers: vec![engine_container(stack, engine)],
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

fn engine_container(stack: &ValidStack, engine: &ValidEngine) -> Container {
    let spec = &engine.spec;
    let mut mounts = vec![pod::mount(volume::RUN, guard::RUN_PATH), pod::mount(volume::SHM, "/dev/shm")];
    if let Some((_, path)) = &engine.cache {
        mounts.push(pod::mount(volume::CACHE, path));
    }
    let port = |name: &str, port: i32| ContainerPort {
        name: Some(name.into()),
        container_port: port,
        ..ContainerPort::default()
    };
    let exec = |args: &[&str]| ExecAction {
        command: Some(
            std::iter::once(format!("{}/livez", guard::RUN_PATH))
                .chain(args.iter().map(|arg| (*arg).to_owned()))
                .collect(),
        ),
    };
    let args = args(engine);
    Container {
        name: container::ENGINE.into(),
        image: Some(engine.image.reference.clone()),
        image_pull_policy: engine.image.pull_policy.map(str::to_owned),
        args: (!args.is_empty()).then_some(args),
        env: Some(environment(stack, engine)).filter(|env| !env.is_empty()),
        env_from: (!spec.env_from.is_empty()).then(|| spec.env_from.clone()),
        ports: Some(vec![port("http", spec.ports.http), port("grpc", spec.ports.grpc)]),
        // Fails only when a restart request names this very instance; it never measures the engine. That is why it may
        // be strict, and why there is no start-up probe to shield it. One failure is not enough: a node that stalls for
        // longer than the timeout must kill nothing.
        liveness_probe: Some(Probe {
            exec: Some(exec(&[])),
            period_seconds: Some(1),
            failure_threshold: Some(2),
            timeout_seconds: Some(10),
            termination_grace_period_seconds: Some(1),
            ..Probe::default()
        }),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                exec: Some(exec(&["drain", &spec.drain.timeout.0.as_secs().to_string()])),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        // A refusal by NVIDIA's model store is only told in the log.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        resources: Some(resources(engine)),
        security_context: Some(
            spec.security_context.clone().unwrap_or_else(|| pod::container_security(false)),
        ),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn args(engine: &ValidEngine) -> Vec<String> {
    let mut args: Vec<String> = engine.preset.args.iter().map(|arg| (*arg).to_owned()).collect();
    if engine.spec.preset == Preset::Reference {
        args.extend(["--listen".to_owned(), format!("0.0.0.0:{}", engine.spec.ports.http)]);
        if !engine.spec.protocols.is_empty() {
            let names: Vec<&str> = engine.protocols.iter().map(|protocol| protocol.as_str()).collect();
            args.extend(["--protocol".to_owned(), names.join(",")]);
        }
        if engine.protocols.iter().any(|protocol| protocol.is_grpc()) {
            args.extend(["--grpc".to_owned(), format!("0.0.0.0:{}", engine.spec.ports.grpc)]);
        }
    }
    args.extend(engine.spec.args.clone());
    args
}

/// The environment of a NIM; what the user adds comes last.
fn environment(stack: &ValidStack, engine: &ValidEngine) -> Vec<EnvVar> {
    let spec = &engine.spec;
    let mut env = Vec::new();
    if engine.preset.nim {
        env.push(pod::env("NIM_HTTP_API_PORT", spec.ports.http));
        env.push(pod::env("NIM_GRPC_API_PORT", spec.ports.grpc));
        if let Some((_, path)) = &engine.cache {
            env.push(pod::env("NIM_CACHE_PATH", path));
        }
    }
    let profile = spec.profile.as_ref();
    match profile.and_then(|profile| profile.manifest_profile.as_deref()) {
        Some(manifest) => env.push(pod::env("NIM_MANIFEST_PROFILE", manifest)),
        None => {
            let selector = profile.and_then(|profile| profile.tags_selector.as_deref());
            env.extend(
                selector
                    .or(engine.preset.tags_selector)
                    .map(|selector| pod::env("NIM_TAGS_SELECTOR", selector)),
            );
        }
    }
    if let Some(key) = stack.ngc_key.as_ref().filter(|_| engine.preset.nim || spec.preset == Preset::Custom) {
        env.push(EnvVar {
            name: "NGC_API_KEY".into(),
            value: None,
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: key.name.clone(),
                    key: key.key.clone(),
                    optional: None,
                }),
                ..EnvVarSource::default()
            }),
        });
    }
    env.extend(spec.env.clone());
    env
}

fn resources(engine: &ValidEngine) -> ResourceRequirements {
    let mut resources = engine.spec.resources.clone().unwrap_or_default();
    match &engine.gpu {
        Gpu::None => {}
        Gpu::Count { resource, count } => {
            let amount = Quantity(count.to_string());
            for list in [&mut resources.requests, &mut resources.limits] {
                list.get_or_insert_with(BTreeMap::new).insert(resource.clone(), amount.clone());
            }
        }
        Gpu::Claims(claims) => {
            let named = claims
                .iter()
                .enumerate()
                .map(|(at, claim)| ResourceClaim { name: claim_name(at), request: claim.request.clone() });
            resources.claims = Some(named.collect());
        }
    }
    resources
}

fn pod_claims(engine: &ValidEngine) -> Option<Vec<PodResourceClaim>> {
    let Gpu::Claims(claims) = &engine.gpu else { return None };
    let named = claims.iter().enumerate().map(|(at, claim)| PodResourceClaim {
        name: claim_name(at),
        resource_claim_template_name: Some(claim.name.clone()),
        ..PodResourceClaim::default()
    });
    Some(named.collect())
}

fn claim_name(at: usize) -> String {
    format!("gpu-{at}")
}

fn gpu_toleration(engine: &ValidEngine) -> Vec<Toleration> {
    if matches!(engine.gpu, Gpu::None) {
        return Vec::new();
    }
    vec![Toleration {
        key: Some("nvidia.com/gpu".into()),
        operator: Some("Exists".into()),
        effect: Some("NoSchedule".into()),
        ..Toleration::default()
    }]
}

fn cache_volume(stack: &ValidStack, engine: &ValidEngine) -> Option<PodVolume> {
    let (volume, _) = engine.cache.as_ref()?;
    let claim = |claim_name: String| PodVolume {
        name: volume::CACHE.into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None }),
        ..PodVolume::default()
    };
    Some(match volume {
        Volume::New(_) => claim(metadata::of_cache(stack, engine)),
        Volume::Existing(name) => claim(name.clone()),
        Volume::Ephemeral(size) => pod::empty_dir(volume::CACHE, None, Some(size.clone())),
        Volume::HostPath(path) => PodVolume {
            name: volume::CACHE.into(),
            host_path: Some(HostPathVolumeSource {
                path: path.clone(),
                type_: Some("DirectoryOrCreate".into()),
            }),
            ..PodVolume::default()
        },
    })
}

/// The user's affinity, with what every engine pod requires of its node added to each alternative: the API server
/// takes a node when any of them fits.
fn affinity(stack: &ValidStack, engine: &ValidEngine) -> Affinity {
    let mut required = vec![NodeSelectorRequirement {
        key: avoid_label(&stack.name, &engine.spec.name),
        operator: "DoesNotExist".into(),
        values: None,
    }];
    required.extend(engine.arch.map(|arch| NodeSelectorRequirement {
        key: "kubernetes.io/arch".into(),
        operator: "In".into(),
        values: Some(vec![arch.into()]),
    }));

    let mut affinity = engine.affinity.clone();
    let node = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    let selector = node
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(|| NodeSelector { node_selector_terms: Vec::new() });
    if selector.node_selector_terms.is_empty() {
        selector.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut selector.node_selector_terms {
        term.match_expressions.get_or_insert_with(Vec::new).extend(required.clone());
    }
    affinity
}

fn seconds_i32(seconds: u64) -> i32 {
    i32::try_from(seconds).unwrap_or(i32::MAX)
}
