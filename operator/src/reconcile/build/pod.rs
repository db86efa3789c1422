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

use speechstack_crds::{ApiKeySecret, KeysSecret, RedisSecret, Tracing};

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
const JOBS_REDIS_PATH: &str = "/etc/speechstack-jobs-redis";
/// The URL of the Redis where gateways keep jobs.
pub const JOBS_REDIS_FILE: &str = "/etc/speechstack-jobs-redis/url";
/// Folder of headers for the collector of traces.
const TRACING_PATH: &str = "/etc/speechstack-tracing";
/// The file with them.
pub const TRACING_FILE: &str = "/etc/speechstack-tracing/headers";
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

/// The URL of the Redis where gateways keep jobs.
pub fn jobs_redis(secret: &RedisSecret) -> (Volume, VolumeMount) {
    let volume = one_file(volume::JOBS_REDIS, &secret.name, &secret.key, "url");
    (volume, read_only(mount(volume::JOBS_REDIS, JOBS_REDIS_PATH)))
}

/// Headers for the collector of traces. A pod starts without them: an engine must not wait for what only watches it.
pub fn trace_headers(tracing: Option<&Tracing>) -> Option<(Volume, VolumeMount)> {
    let secret = tracing?.headers_secret_ref.as_ref()?;
    let mut volume = one_file(volume::TRACING, &secret.name, &secret.key, "headers");
    if let Some(source) = &mut volume.secret {
        source.optional = Some(true);
    }
    Some((volume, read_only(mount(volume::TRACING, TRACING_PATH))))
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

/// The same, to read from alone.
pub fn read_only(mount: VolumeMount) -> VolumeMount {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fingerprint;
    use crate::reconcile::build::{DesiredObjects, build};
    use crate::reconcile::testing::{self, MINIMAL};

    fn built(mode: &str, tracing: &str) -> DesiredObjects {
        let spec = format!(
            "{MINIMAL}\nllm: [{{name: hosted, preset: external, external: {{baseUrl: 'https://a.example', model: m}}}}]\n\
             gateway: {{mode: {mode}, tracing: {{endpoint: 'https://collector.example'{tracing}}}}}\n"
        );
        build(&testing::valid(&spec), &testing::observed())
    }

    fn pods(desired: &DesiredObjects) -> Vec<Value> {
        let gateways = desired.gateways.iter().map(fingerprint::json);
        let all = desired.engines.iter().map(|engine| engine.object.json()).chain(gateways);
        all.map(|object| object["spec"]["template"]["spec"].clone()).collect()
    }

    #[test]
    fn headers_for_the_collector_come_from_a_secret_to_gateways_and_guards_alone() {
        for mode in ["Service", "Sidecar"] {
            let desired = built(mode, ", headersSecretRef: {name: collector-key}");
            for pod in pods(&desired) {
                let volumes = pod["volumes"].as_array().unwrap().iter();
                let [volume] = &volumes.filter(|one| one["name"] == volume::TRACING).collect::<Vec<_>>()[..]
                else {
                    panic!("{mode}: {pod}")
                };
                let items = json!([{"key": "headers", "path": "headers"}]);
                let secret = json!({"secretName": "collector-key", "items": items, "optional": true});
                assert_eq!(volume["secret"], secret, "an engine does not wait for it");
                let containers = [&pod["initContainers"], &pod["containers"]];
                for container in containers.into_iter().filter_map(Value::as_array).flatten() {
                    let mounts = container["volumeMounts"].to_string();
                    assert_eq!(mounts.contains(TRACING_PATH), container["name"] != "engine", "{container}");
                }
            }
            for map in &desired.config_maps {
                let text = &map.data.as_ref().unwrap()["config.yaml"];
                assert!(text.contains(TRACING_FILE) && !text.contains("collector-key"), "{text}");
            }
            for role in &desired.roles {
                assert!(!fingerprint::json(role).to_string().contains("secrets"), "the kubelet mounts it");
            }
        }
    }

    #[test]
    fn pods_get_them_when_the_user_says_so_and_another_collector_replaces_none() {
        let inputs = |tracing: &str| built("Service", tracing).engines[0].inputs.clone();
        assert_eq!(inputs(""), inputs(", sampleRatio: 0.5"));
        assert_ne!(inputs(""), inputs(", headersSecretRef: {name: collector-key}"));
        assert!(pods(&built("Service", "")).iter().all(|pod| !pod.to_string().contains(volume::TRACING)));
    }
}
