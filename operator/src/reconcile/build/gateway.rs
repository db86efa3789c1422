//! The gateway: Deployment, Service, and the right to find engines.

use contract::port;
use k8s_openapi::DeepMerge;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, PodSpec, PodTemplateSpec, Service, ServiceAccount, ServicePort, ServiceSpec,
    TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use speechstack_crds::ServiceType;

use super::config::DRAIN_DELAY;
use super::{metadata, pod, storage};
use crate::names::{container, volume};
use crate::reconcile::validate::ValidStack;

/// Time beyond the drain that a pod has to end.
const MARGIN_SECONDS: u64 = 15;
/// Where clients of Riva look for a server.
const GRPC_PORT: i32 = 50051;

/// The account of gateways.
pub fn service_account(stack: &ValidStack) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata::gateway(stack),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// Name of the account that gateway pods run as.
fn account(stack: &ValidStack) -> String {
    stack.gateway.spec.service_account_name.clone().unwrap_or_else(|| metadata::of_gateway(stack))
}

/// Reading endpoint slices of this namespace is all that a gateway may do.
pub fn role(stack: &ValidStack) -> Role {
    Role {
        metadata: metadata::gateway(stack),
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec!["discovery.k8s.io".into()]),
            resources: Some(vec!["endpointslices".into()]),
            verbs: ["get", "list", "watch"].map(str::to_owned).into(),
            ..PolicyRule::default()
        }]),
    }
}

/// Gives [`role`] to [`service_account`].
pub fn role_binding(stack: &ValidStack) -> RoleBinding {
    RoleBinding {
        metadata: metadata::gateway(stack),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".into(),
            kind: "Role".into(),
            name: metadata::of_gateway(stack),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: account(stack),
            namespace: Some(stack.namespace.clone()),
            api_group: None,
        }]),
    }
}

/// Names of the container's ports.
pub struct Ports {
    /// Of plain HTTP.
    pub http: &'static str,
    /// Of HTTPS.
    pub https: &'static str,
    /// Of state, metrics and probes.
    pub admin: &'static str,
}

const ALONE: Ports = Ports { http: "http", https: "https", admin: "admin" };

/// The Service that clients use.
pub fn service(stack: &ValidStack) -> Service {
    let selector = metadata::gateway_selector(stack);
    service_of(stack, metadata::gateway(stack), selector, &ALONE)
}

/// A Service of gateways. Clients of Riva find the one port also where they look for it.
pub fn service_of(
    stack: &ValidStack,
    metadata: ObjectMeta,
    selector: LabelSelector,
    names: &Ports,
) -> Service {
    let wanted = &stack.gateway.spec.service;
    let kind = wanted.service_type;
    let port = |name: &str, number: i32, target: &str, protocol: &str| ServicePort {
        name: Some(name.into()),
        port: number,
        target_port: Some(IntOrString::String(target.into())),
        app_protocol: (kind != ServiceType::ClusterIP).then(|| protocol.into()),
        ..ServicePort::default()
    };
    let tls = stack.gateway.spec.tls.as_ref();
    let https = tls.map(|tls| port("https", tls.port, names.https, "https"));
    let mut ports = if stack.gateway.is_plain() {
        let http = port("http", wanted.port, names.http, "http");
        vec![http, port("grpc", GRPC_PORT, names.http, "kubernetes.io/h2c")]
    } else {
        vec![port("grpc", GRPC_PORT, names.https, "https")]
    };
    // A port that serves everything serves gRPC as well.
    let taken = [Some(wanted.port).filter(|_| stack.gateway.is_plain()), tls.map(|tls| tls.port)];
    ports.retain(|port| port.name.as_deref() != Some("grpc") || !taken.contains(&Some(GRPC_PORT)));
    ports.extend(https);
    Service {
        metadata: metadata::annotated(metadata, &wanted.annotations),
        spec: Some(ServiceSpec {
            type_: Some(kind.as_str().into()),
            selector: selector.match_labels,
            ports: Some(ports),
            ip_family_policy: Some(wanted.ip_family_policy.as_str().into()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The Deployment. It surges and never dips: gateways need no GPU.
pub fn deployment(stack: &ValidStack) -> Deployment {
    Deployment {
        metadata: metadata::gateway(stack),
        spec: Some(DeploymentSpec {
            replicas: stack.gateway.replicas,
            selector: metadata::gateway_selector(stack),
            strategy: Some(strategy(stack)),
            revision_history_limit: Some(3),
            template: template(stack),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// Pods whose storage a second one cannot use end before the next begins.
fn strategy(stack: &ValidStack) -> DeploymentStrategy {
    if stack.gateway.storage.as_ref().is_some_and(|storage| !storage.is_shared()) {
        return DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None };
    }
    DeploymentStrategy {
        type_: Some("RollingUpdate".into()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(1)),
            max_unavailable: Some(IntOrString::Int(0)),
        }),
    }
}

fn template(stack: &ValidStack) -> PodTemplateSpec {
    let annotations = stack.gateway.spec.pod_annotations.clone();
    let mut labels = stack.gateway.spec.pod_labels.clone();
    labels.extend(metadata::gateway_labels(stack));
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(pod_spec(stack)),
    };
    if let Some(patch) = stack.gateway.patch.clone() {
        template.merge_from(patch);
    }
    template
}

fn pod_spec(stack: &ValidStack) -> PodSpec {
    let gateway = &stack.gateway;
    let spec = &gateway.spec;
    let (config, config_mount) = pod::config(volume::CONFIG, metadata::of_gateway(stack));
    let (identity, identity_mount) = pod::identity();
    let mut mounts = vec![config_mount, identity_mount, pod::mount(volume::TMP, "/tmp")];
    let mut volumes = vec![config, identity, pod::empty_dir(volume::TMP, None, None)];
    secrets(stack, &mut volumes, &mut mounts);
    let (headers, headers_mount) = pod::trace_headers(spec.tracing.as_ref()).unzip();
    volumes.extend(headers);
    mounts.extend(headers_mount);
    let mut args = Vec::new();
    if let Some((kept, kept_mount, storage)) = gateway.storage.as_ref().and_then(|storage| {
        let (kept, mount) = storage::volume(stack, storage)?;
        Some((kept, mount, storage))
    }) {
        volumes.push(kept);
        mounts.push(kept_mount);
        if let Some(redis) = &storage.redis {
            let (redis, redis_mount) = pod::jobs_redis(&redis.url_secret_ref);
            volumes.push(redis);
            mounts.push(redis_mount);
        }
        args.extend(storage::args(stack, storage));
    }
    mounts.extend(gateway.mounts.clone());
    volumes.extend(gateway.volumes.clone());
    let drain = super::config::drain(stack).0.as_secs() + DRAIN_DELAY.0.as_secs();
    PodSpec {
        service_account_name: Some(account(stack)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(
            gateway.pod_security.clone().unwrap_or_else(|| pod::pod_security(stack.fixed_user, None)),
        ),
        image_pull_secrets: (!stack.image_pull_secrets.is_empty()).then(|| stack.image_pull_secrets.clone()),
        termination_grace_period_seconds: Some(i64::try_from(drain + MARGIN_SECONDS).unwrap_or(i64::MAX)),
        affinity: gateway.affinity.clone(),
        topology_spread_constraints: match gateway.topology_spread.as_slice() {
            [] => gateway.affinity.is_none().then(|| spread(stack)),
            own => Some(own.to_vec()),
        },
        runtime_class_name: spec.runtime_class_name.clone(),
        dns_policy: spec.dns_policy.clone(),
        dns_config: gateway.dns_config.clone(),
        node_selector: (!spec.node_selector.is_empty()).then(|| spec.node_selector.clone()),
        tolerations: (!spec.tolerations.is_empty()).then(|| spec.tolerations.clone()),
        priority_class_name: spec.priority_class_name.clone(),
        containers: vec![container(stack, args, mounts, &ALONE)],
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

/// Keys of clients, the certificate, and the URL of a Redis.
pub fn secrets(stack: &ValidStack, volumes: &mut Vec<Volume>, mounts: &mut Vec<VolumeMount>) {
    let spec = &stack.gateway.spec;
    let keys = spec.auth.as_ref().map(|auth| pod::keys(&auth.keys_secret_ref));
    let certificate = spec.tls.as_ref().map(|tls| pod::tls(&tls.secret_name));
    let redis = spec.quotas.as_ref().and_then(|quotas| quotas.redis.as_ref());
    let redis = redis.map(|redis| pod::redis(&redis.url_secret_ref));
    for (volume, mount) in keys.into_iter().chain(certificate).chain(redis) {
        volumes.push(volume);
        mounts.push(mount);
    }
}

/// The gateway's container, with these further arguments.
pub fn container(
    stack: &ValidStack,
    args: Vec<String>,
    mounts: Vec<VolumeMount>,
    names: &Ports,
) -> Container {
    let gateway = &stack.gateway;
    let spec = &gateway.spec;
    let port = |name: &str, port: u16| ContainerPort {
        name: Some(name.into()),
        container_port: port.into(),
        ..ContainerPort::default()
    };
    let public = gateway.is_plain().then(|| port(names.http, port::GATEWAY));
    let https = spec.tls.as_ref().map(|_| port(names.https, port::GATEWAY_TLS));
    let admin = port(names.admin, port::GATEWAY_ADMIN);
    let command = ["gateway", "--config", "/etc/speechstack/config.yaml"].map(str::to_owned);
    let probe =
        |path, period, timeout, failures| pod::http_probe(names.admin, path, period, timeout, failures);
    Container {
        name: container::GATEWAY.into(),
        image: Some(gateway.image.reference.clone()),
        image_pull_policy: Some(gateway.image.pull_policy.into()),
        command: Some(vec!["/usr/local/bin/speechstack-proxy".into()]),
        args: Some(command.into_iter().chain(args).collect()),
        ports: Some(public.into_iter().chain(https).chain([admin]).collect()),
        startup_probe: Some(probe("/livez", 1, 5, 60)),
        // Ready once engines are looked up, whether one serves or not: clients then get a truthful 503 with
        // Retry-After in place of a refused connection.
        readiness_probe: Some(probe("/startz", 2, 5, 2)),
        liveness_probe: Some(probe("/livez", 10, 5, 6)),
        resources: Some(spec.resources.clone().unwrap_or_else(|| pod::requests("100m", "128Mi"))),
        security_context: Some(gateway.security.clone().unwrap_or_else(|| pod::container_security(true))),
        env: (!spec.env.is_empty()).then(|| spec.env.clone()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// Over nodes where possible.
fn spread(stack: &ValidStack) -> Vec<TopologySpreadConstraint> {
    vec![TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(metadata::gateway_selector(stack)),
        ..TopologySpreadConstraint::default()
    }]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::fingerprint;
    use crate::reconcile::build::build;
    use crate::reconcile::testing;

    /// Ports of the Service by name with their target, the pod's spec, and the gateway's file as the proxy reads it.
    fn rendered(gateway: &str) -> (Vec<(String, i64, String)>, Value, speechstack_proxy::config::Gateway) {
        let spec =
            format!("{}\ngateway: {{{gateway}}}\nnetworkPolicy: {{enabled: true}}\n", testing::MINIMAL);
        let desired = build(&testing::valid(&spec), &testing::observed());
        let service = fingerprint::json(&desired.services[0]);
        let ports = service["spec"]["ports"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let ports = ports
            .map(|port| (text(&port["name"]), port["port"].as_i64().unwrap(), text(&port["targetPort"])))
            .collect();
        let pod = fingerprint::json(&desired.gateways[0])["spec"]["template"]["spec"].clone();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        let mut files = desired.config_maps.iter().filter_map(|map| map.data.as_ref()?.get("config.yaml"));
        std::fs::write(&file, files.find(|text| text.contains("discovery")).unwrap()).unwrap();
        let policy = fingerprint::json(&desired.network_policies[0]);
        let open = policy["spec"]["ingress"][0]["ports"].as_array().unwrap().len();
        let listens = pod["containers"][0]["ports"].as_array().unwrap().len();
        assert_eq!(open + 1, listens, "the policy opens what the pod serves, but for the admin port");
        (ports, pod, speechstack_proxy::config::from_file(&file, &[]).unwrap().gateway)
    }

    fn named(ports: &[(&str, i64, &str)]) -> Vec<(String, i64, String)> {
        ports.iter().map(|(name, port, to)| ((*name).to_owned(), *port, (*to).to_owned())).collect()
    }

    #[test]
    fn https_is_served_beside_plain_http_with_the_certificate_of_the_secret() {
        let (ports, pod, read) = rendered("tls: {secretName: cert}");
        assert_eq!(ports, named(&[("http", 80, "http"), ("grpc", 50051, "http"), ("https", 443, "https")]));
        let tls = read.tls.unwrap();
        assert_eq!((read.listen.port(), tls.listen.unwrap().port()), (8080, 8443));
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["mountPath"] == "/etc/speechstack-tls").unwrap();
        assert_eq!(
            (&mount["readOnly"], tls.cert_file.parent().unwrap().to_str()),
            (&json!(true), mount["mountPath"].as_str())
        );
        let volume = pod["volumes"].as_array().unwrap().iter().find(|one| one["name"] == mount["name"]);
        assert_eq!(volume.unwrap()["secret"]["secretName"], "cert");
    }

    #[test]
    fn without_plain_http_every_port_speaks_tls() {
        let (ports, pod, read) = rendered("tls: {secretName: cert, http: false}");
        assert_eq!(ports, named(&[("grpc", 50051, "https"), ("https", 443, "https")]));
        assert_eq!((read.listen.port(), read.tls.unwrap().listen), (8443, None));
        let served = pod["containers"][0]["ports"].as_array().unwrap();
        assert!(served.iter().all(|port| port["name"] != "http"), "{served:?}");
        let (ports, ..) = rendered("tls: {secretName: cert, port: 50051}");
        assert_eq!(ports, named(&[("http", 80, "http"), ("https", 50051, "https")]));
    }
}
