//! Parts that pods of engines and gateways have in common.

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, ConfigMapVolumeSource, Container, DownwardAPIProjection,
    DownwardAPIVolumeFile, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath,
    ObjectFieldSelector, PersistentVolumeClaimVolumeSource, PodSecurityContext, Probe, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, ServiceAccountTokenProjection,
    Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use speechstack_crds::{ApiKeySecret, KeysSecret, RedisSecret};

use crate::names::volume;

/// Where the token is looked for.
const IDENTITY_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Folder of the configuration file.
const CONFIG_PATH: &str = "/etc/speechstack";
/// Folder of the file with API keys. A folder and not a file, so that a change of the Secret reaches the pod.
const KEYS_PATH: &str = "/etc/speechstack-keys";
/// The file with API keys.
pub const KEYS_FILE: &str = "/etc/speechstack-keys/keys.yaml";
/// Folder of the API key of a server that runs elsewhere.
const API_KEY_PATH: &str = "/etc/speechstack-api-key";
/// The file with it.
pub const API_KEY_FILE: &str = "/etc/speechstack-api-key/key";
/// Folder of the URL of a Redis.
const REDIS_PATH: &str = "/etc/speechstack-redis";
/// The file with it.
pub const REDIS_FILE: &str = "/etc/speechstack-redis/url";
/// Folder of the gateway's certificate, as a Secret of type kubernetes.io/tls has it.
pub const TLS_PATH: &str = "/etc/speechstack-tls";
/// User and group of all our processes.
const ID: i64 = 1000;

/// What a pod holds.
pub struct Parts {
    /// Init containers, sidecars among them.
    pub init: Vec<Container>,
    /// Containers.
    pub containers: Vec<Container>,
    /// Volumes.
    pub volumes: Vec<Volume>,
}

/// What the restricted Pod Security Standard asks of a pod. Without a fixed user the cluster gives it one.
pub fn pod_security(fixed: bool, user: Option<i64>) -> PodSecurityContext {
    let id = fixed.then(|| user.unwrap_or(ID));
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: id,
        run_as_group: id,
        fs_group: id,
        fs_group_change_policy: Some("OnRootMismatch".into()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

/// What it asks of a container. GPU hooks write to the root file system of engines, so only ours is read-only.
pub fn container_security(read_only: bool) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".into()]) }),
        read_only_root_filesystem: read_only.then_some(true),
        ..SecurityContext::default()
    }
}

/// Token, CA and namespace at the usual place, for this one container.
pub fn identity() -> (Volume, VolumeMount) {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            path: "token".into(),
            expiration_seconds: Some(3600),
            audience: None,
        }),
        ..VolumeProjection::default()
    };
    let ca = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: "kube-root-ca.crt".into(),
            items: Some(vec![KeyToPath { key: "ca.crt".into(), path: "ca.crt".into(), mode: None }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".into(),
                field_ref: Some(field("metadata.namespace")),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..VolumeProjection::default()
    };
    let volume = Volume {
        name: volume::IDENTITY.into(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![token, ca, namespace]),
            default_mode: None,
        }),
        ..Volume::default()
    };
    (volume, read_only(mount(volume::IDENTITY, IDENTITY_PATH)))
}

/// The configuration file from the ConfigMap of that name, as a volume of that name.
pub fn config(name: &str, config_map: String) -> (Volume, VolumeMount) {
    let volume = Volume {
        name: name.into(),
        config_map: Some(ConfigMapVolumeSource { name: config_map, ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    };
    (volume, read_only(mount(name, CONFIG_PATH)))
}

/// The API keys of clients.
pub fn keys(secret: &KeysSecret) -> (Volume, VolumeMount) {
    let volume = one_file(volume::KEYS, &secret.name, &secret.key, "keys.yaml");
    (volume, read_only(mount(volume::KEYS, KEYS_PATH)))
}

/// The API key of a server that runs elsewhere.
pub fn api_key(secret: &ApiKeySecret) -> (Volume, VolumeMount) {
    let volume = one_file(volume::API_KEY, &secret.name, &secret.key, "key");
    (volume, read_only(mount(volume::API_KEY, API_KEY_PATH)))
}

/// The URL of the Redis where gateways count quotas.
pub fn redis(secret: &RedisSecret) -> (Volume, VolumeMount) {
    let volume = one_file(volume::REDIS, &secret.name, &secret.key, "url");
    (volume, read_only(mount(volume::REDIS, REDIS_PATH)))
}

/// One key of a Secret as a file.
fn one_file(name: &str, secret: &str, key: &str, path: &str) -> Volume {
    Volume {
        name: name.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.into()),
            items: Some(vec![KeyToPath { key: key.into(), path: path.into(), mode: None }]),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// The gateway's certificate.
pub fn tls(secret: &str) -> (Volume, VolumeMount) {
    let volume = Volume {
        name: volume::TLS.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.into()),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    (volume, read_only(mount(volume::TLS, TLS_PATH)))
}

/// The volume of a claim.
pub fn claimed(name: &str, claim: String) -> Volume {
    Volume {
        name: name.into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim,
            read_only: None,
        }),
        ..Volume::default()
    }
}

/// A volume that ends with the pod.
pub fn empty_dir(name: &str, medium: Option<&str>, limit: Option<Quantity>) -> Volume {
    Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource { medium: medium.map(str::to_owned), size_limit: limit }),
        ..Volume::default()
    }
}

/// A mount.
pub fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.into(), mount_path: path.into(), ..VolumeMount::default() }
}

fn read_only(mount: VolumeMount) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount }
}

/// A plain environment variable.
pub fn env(name: &str, value: impl ToString) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.to_string()), value_from: None }
}

/// A field of the pod.
fn field(path: &str) -> ObjectFieldSelector {
    ObjectFieldSelector { api_version: None, field_path: path.into() }
}

/// The pod's name as the variable POD_NAME.
pub fn name() -> EnvVar {
    let field = EnvVarSource { field_ref: Some(field("metadata.name")), ..EnvVarSource::default() };
    EnvVar { name: "POD_NAME".into(), value: None, value_from: Some(field) }
}

/// A probe by HTTP on the port of that name.
pub fn http_probe(port: &str, path: &str, period: i32, timeout: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String(port.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(timeout),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// Requests of CPU and memory, with no limits.
pub fn requests(cpu: &str, memory: &str) -> ResourceRequirements {
    let requests = [("cpu", cpu), ("memory", memory)];
    ResourceRequirements {
        requests: Some(requests.map(|(name, amount)| (name.into(), Quantity(amount.into()))).into()),
        ..ResourceRequirements::default()
    }
}
