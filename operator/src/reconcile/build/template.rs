//! The pod of an engine: what its template is made from.

use std::collections::BTreeMap;

use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, HostPathVolumeSource,
    Lifecycle, LifecycleHandler, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PodResourceClaim, PodSpec, PodTemplateSpec, Probe, ResourceClaim, ResourceRequirements,
    SecretKeySelector, SecurityContext, Toleration, Volume as PodVolume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;

use super::{external, guard, metadata, pod, sidecar};
use crate::names::{annotation, avoid_label, container, volume};
use crate::preset::Server;
use crate::reconcile::validate::{Gpu, ValidEngine, ValidStack, Volume};

/// Time beyond the drain that a pod has to end.
const MARGIN_SECONDS: u64 = 15;
/// Holds the liveness helper and a few small files.
const RUN_LIMIT: &str = "16Mi";

/// The pod template, with the user's patch applied last. Its guard reads the ConfigMap of that name.
pub fn template(stack: &ValidStack, engine: &ValidEngine, config_map: String) -> PodTemplateSpec {
    let mut labels = engine.spec.pod_labels.clone();
    labels.extend(metadata::engine_labels(stack, engine));
    let mut annotations = engine.spec.pod_annotations.clone();
    // The guard reads these once, when it starts: another server is another pod.
    annotations.extend(engine.spec.external.as_ref().map(|server| {
        let traced = server.trace_context.then_some("traced");
        let words = [Some(server.url()), Some(server.model.as_str()), server.voice.as_deref(), traced];
        (annotation::EXTERNAL.to_owned(), words.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }));
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(pod_spec(stack, engine, config_map)),
    };
    if let Some(patch) = engine.patch.clone() {
        template.merge_from(patch);
    }
    template
}

fn pod_spec(stack: &ValidStack, engine: &ValidEngine, config_map: String) -> PodSpec {
    let spec = &engine.spec;
    let mut parts = match &spec.external {
        Some(server) => external::parts(stack, server, config_map),
        None => beside(stack, engine, config_map),
    };
    if stack.gateway.is_sidecar() {
        let (gateway, volumes) = sidecar::container(stack, engine);
        parts.init.push(gateway);
        parts.volumes.extend(volumes);
    }
    let pod::Parts { init, containers, volumes } = parts;
    PodSpec {
        service_account_name: Some(
            spec.service_account_name.clone().unwrap_or_else(|| metadata::engine_account(stack)),
        ),
        // The engine gets no token; the guard has its own volume.
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        share_process_namespace: stack.guard.direct_kill.then_some(true),
        security_context: Some(
            spec.pod_security_context
                .clone()
                .unwrap_or_else(|| pod::pod_security(stack.fixed_user, engine.preset.user)),
        ),
        image_pull_secrets: (!stack.image_pull_secrets.is_empty()).then(|| stack.image_pull_secrets.clone()),
        termination_grace_period_seconds: Some(
            i64::try_from(engine.drain.0.as_secs() + MARGIN_SECONDS).unwrap_or(i64::MAX),
        ),
        affinity: Some(affinity(stack, engine)),
        node_selector: (!spec.node_selector.is_empty()).then(|| spec.node_selector.clone()),
        tolerations: Some(spec.tolerations.clone().unwrap_or_else(|| gpu_toleration(engine))),
        topology_spread_constraints: (!engine.topology_spread.is_empty())
            .then(|| engine.topology_spread.clone()),
        priority_class_name: spec.priority_class_name.clone(),
        scheduler_name: spec.scheduler_name.clone(),
        runtime_class_name: spec.runtime_class_name.clone(),
        dns_policy: spec.dns_policy.clone(),
        dns_config: engine.dns_config.clone(),
        resource_claims: pod_claims(engine),
        init_containers: (!init.is_empty()).then_some(init),
        containers,
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

/// An engine with its guard.
fn beside(stack: &ValidStack, engine: &ValidEngine, config_map: String) -> pod::Parts {
    let (config, config_mount) = pod::config(volume::CONFIG, config_map);
    let (identity, identity_mount) = pod::identity();
    let mut volumes = vec![
        pod::empty_dir(volume::RUN, Some("Memory"), Some(Quantity(RUN_LIMIT.into()))),
        pod::empty_dir(volume::SHM, Some("Memory"), Some(engine.shm.clone())),
        pod::empty_dir(volume::TMP, None, None),
        config,
        identity,
    ];
    let (headers, headers_mount) = pod::trace_headers(stack.gateway.spec.tracing.as_ref()).unzip();
    volumes.extend(headers);
    volumes.extend(cache_volume(stack, engine));
    volumes.extend(engine.volumes.clone());
    // As the engine's user, who can read what it downloads.
    let cache = engine.cache.as_ref().map(|_| pod::read_only(pod::mount(volume::CACHE, guard::CACHE_PATH)));
    let mounts = [config_mount, identity_mount].into_iter().chain(headers_mount).chain(cache);
    let guard = guard::sidecar(stack, mounts.collect());
    pod::Parts {
        init: owner_setter(stack, engine).into_iter().chain([guard]).collect(),
        containers: vec![engine_container(stack, engine)],
        volumes,
    }
}

/// Gives a node's folder to the engine's user. The kubelet makes it for root, and sets no group on it.
fn owner_setter(stack: &ValidStack, engine: &ValidEngine) -> Option<Container> {
    let Some((Volume::HostPath { set_owner: true, .. }, path)) = &engine.cache else { return None };
    let pod = engine.spec.pod_security_context.clone();
    let pod = pod.unwrap_or_else(|| pod::pod_security(stack.fixed_user, engine.preset.user));
    let (user, group) = (pod.run_as_user.unwrap_or(0), pod.run_as_group.or(pod.fs_group).unwrap_or(0));
    let capabilities = Capabilities { add: Some(vec!["CHOWN".into()]), drop: Some(vec!["ALL".into()]) };
    Some(Container {
        name: container::OWNER.into(),
        image: Some(engine.image.reference.clone()),
        image_pull_policy: Some(engine.image.pull_policy.into()),
        command: Some(["chown", &format!("{user}:{group}"), path].map(str::to_owned).into()),
        security_context: Some(SecurityContext {
            run_as_user: Some(0),
            run_as_non_root: Some(false),
            capabilities: Some(capabilities),
            ..pod::container_security(false)
        }),
        volume_mounts: Some(vec![pod::mount(volume::CACHE, path)]),
        ..Container::default()
    })
}

fn engine_container(stack: &ValidStack, engine: &ValidEngine) -> Container {
    let spec = &engine.spec;
    let mut mounts = vec![pod::mount(volume::RUN, guard::RUN_PATH), pod::mount(volume::SHM, "/dev/shm")];
    if let Some((_, path)) = &engine.cache {
        mounts.push(pod::mount(volume::CACHE, path));
    }
    mounts.extend(engine.mounts.clone());
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
        image_pull_policy: Some(engine.image.pull_policy.into()),
        args: (!args.is_empty()).then_some(args),
        env: Some(environment(stack, engine)).filter(|env| !env.is_empty()),
        env_from: (!spec.env_from.is_empty()).then(|| spec.env_from.clone()),
        ports: Some(vec![port("http", engine.http), port("grpc", engine.grpc)]),
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
                exec: Some(exec(&["drain", &engine.drain.0.as_secs().to_string()])),
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
    let mut args = engine.preset.args.clone();
    if engine.preset.server == Server::Reference {
        args.extend(["--listen".to_owned(), format!("[::]:{}", engine.http)]);
        if !engine.spec.protocols.is_empty() {
            let names: Vec<&str> = engine.protocols.iter().map(|protocol| protocol.as_str()).collect();
            args.extend(["--protocol".to_owned(), names.join(",")]);
        }
        if engine.protocols.iter().any(|protocol| protocol.is_grpc()) {
            args.extend(["--grpc".to_owned(), format!("[::]:{}", engine.grpc)]);
        }
    }
    args.extend(engine.spec.args.clone());
    args
}

/// The environment of a NIM; what the user adds comes last.
fn environment(stack: &ValidStack, engine: &ValidEngine) -> Vec<EnvVar> {
    let spec = &engine.spec;
    let mut env: Vec<EnvVar> = engine.preset.env.iter().map(|(name, value)| pod::env(name, value)).collect();
    let nim = engine.preset.server == Server::Nim;
    if nim {
        env.push(pod::env("NIM_HTTP_API_PORT", engine.http));
        env.push(pod::env("NIM_GRPC_API_PORT", engine.grpc));
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
                    .or(engine.preset.selector.as_deref())
                    .map(|selector| pod::env("NIM_TAGS_SELECTOR", selector)),
            );
        }
    }
    if let Some(key) = stack.ngc_key.as_ref().filter(|_| nim || engine.preset.key) {
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
    let mut resources = engine.resources.clone();
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
    if engine.own_claim().is_some() {
        return None; // the StatefulSet adds each replica's own
    }
    let claim = |name: String| pod::claimed(volume::CACHE, name);
    Some(match volume {
        Volume::New(_) => claim(metadata::of_cache(stack, engine)),
        Volume::Existing(name) => claim(name.clone()),
        Volume::Ephemeral(size) => pod::empty_dir(volume::CACHE, None, Some(size.clone())),
        Volume::HostPath { path, .. } => PodVolume {
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
        key: avoid_label(&stack.namespace, &stack.name, &engine.spec.name),
        operator: "DoesNotExist".into(),
        values: None,
    }];
    if !engine.architectures.is_empty() {
        required.push(NodeSelectorRequirement {
            key: "kubernetes.io/arch".into(),
            operator: "In".into(),
            values: Some(engine.architectures.clone()),
        });
    }

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
