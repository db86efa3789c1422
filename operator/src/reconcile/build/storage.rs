//! Where a gateway keeps jobs and recordings.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{engine, metadata, pod};
use crate::names::volume;
use crate::reconcile::validate::{Storage, ValidStack, Volume as Kept};

/// Folder of the volume in a gateway's pod.
const PATH: &str = "/var/lib/speechstack";

/// The claim, when the operator makes it. No owner: jobs and recordings of users must not go with the stack.
pub fn claim(stack: &ValidStack) -> Option<PersistentVolumeClaim> {
    let claim = stack.gateway.claim()?;
    let metadata = metadata::kept(stack, metadata::of_storage(stack), metadata::gateway_labels(stack));
    Some(PersistentVolumeClaim { metadata, spec: Some(engine::claim_spec(claim)), status: None })
}

/// The size that it should have at least, with its name.
pub fn growth(stack: &ValidStack) -> Option<(String, Quantity)> {
    Some((metadata::of_storage(stack), stack.gateway.claim()?.size.clone()))
}

/// The volume, and where it is mounted.
pub fn volume(stack: &ValidStack, storage: &Storage) -> Option<(Volume, VolumeMount)> {
    let volume = match &storage.volume {
        Kept::New(_) => pod::claimed(volume::STORAGE, metadata::of_storage(stack)),
        Kept::Existing(name) => pod::claimed(volume::STORAGE, name.clone()),
        Kept::Ephemeral(size) => pod::empty_dir(volume::STORAGE, None, Some(size.clone())),
        Kept::HostPath { .. } => return None, // the API has none for gateways
    };
    Some((volume, pod::mount(volume::STORAGE, PATH)))
}

/// Where the gateway's configuration puts them. As arguments: they count from the start of a pod, so a change must replace it.
pub fn args(stack: &ValidStack, storage: &Storage) -> Vec<String> {
    let set = |field: &str, value: String| ["--set".to_owned(), format!("gateway.{field}={value}")];
    let mut args = Vec::new();
    if storage.jobs {
        args.extend(set("jobs.dir", format!("{PATH}/jobs")));
    }
    if storage.redis.is_some() {
        args.extend(set("jobs.redis.url_file", pod::JOBS_REDIS_FILE.into()));
        // Stacks may have one Redis, and never each other's jobs.
        let prefix = format!("speechstack/{}/{}/", stack.namespace, stack.name);
        args.extend(set("jobs.redis.prefix", prefix));
    }
    if storage.recordings {
        args.extend(set("clips.dir", format!("{PATH}/recordings")));
    }
    args
}

/// Bytes of uploads that may wait or run: four fifths of the volume, as results and recordings need the rest.
pub fn job_bytes(storage: &Storage) -> Option<u64> {
    storage.size.filter(|_| storage.jobs).map(|size| size / 5 * 4)
}

#[cfg(test)]
mod tests {
    use super::super::build;
    use crate::fingerprint;
    use crate::reconcile::testing;
    use serde_json::{Value, json};

    /// The gateway's Deployment and the rest, of a stack with that storage.
    fn built(gateway: &str) -> (Value, super::super::DesiredObjects) {
        let spec = format!("{}\ngateway: {{{gateway}}}\n", testing::MINIMAL);
        let desired = build(&testing::valid(&spec), &testing::observed());
        (fingerprint::json(&desired.gateways[0]), desired)
    }

    /// What the gateway makes of its file and its arguments.
    fn configured(
        gateway: &Value,
        desired: &super::super::DesiredObjects,
    ) -> speechstack_proxy::config::Gateway {
        let args = gateway["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
        let set: Vec<String> =
            args.iter().skip(4).step_by(2).map(|arg| arg.as_str().unwrap().into()).collect();
        let mut files = desired.config_maps.iter().filter_map(|map| map.data.as_ref()?.get("config.yaml"));
        let text = files.find(|text| text.contains("discovery")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, text).unwrap();
        speechstack_proxy::config::from_file(&file, &set).unwrap().gateway
    }

    #[test]
    fn jobs_and_recordings_are_kept_on_a_claim_of_the_one_gateway() {
        let (gateway, desired) = built("storage: {pvc: {size: 10Gi, storageClassName: fast}}");
        let claim = fingerprint::json(&desired.claims.last().unwrap());
        assert_eq!(claim["metadata"]["name"], "demo-gateway-storage");
        assert!(claim["metadata"]["ownerReferences"].is_null(), "it outlives the stack");
        assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteOnce"]));
        assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "10Gi");
        assert_eq!(desired.growths[0].0, "demo-gateway-storage");
        assert_eq!(gateway["spec"]["replicas"], 1);
        assert_eq!(gateway["spec"]["strategy"], json!({"type": "Recreate"}), "a second pod cannot use it");
        let pod = &gateway["spec"]["template"]["spec"];
        let mounted = pod["containers"][0]["volumeMounts"].as_array().unwrap().last().unwrap();
        assert_eq!(mounted["mountPath"], "/var/lib/speechstack");
        let volume = pod["volumes"].as_array().unwrap().iter().find(|one| one["name"] == mounted["name"]);
        assert_eq!(volume.unwrap()["persistentVolumeClaim"]["claimName"], "demo-gateway-storage");

        let read = configured(&gateway, &desired);
        assert_eq!(read.jobs.dir.unwrap().to_str(), Some("/var/lib/speechstack/jobs"));
        assert_eq!(read.jobs.disk.as_u64(), (10 << 30) / 5 * 4);
        assert_eq!(read.clips.dir.unwrap().to_str(), Some("/var/lib/speechstack/recordings"));
    }

    #[test]
    fn recordings_alone_are_shared_by_several_gateways() {
        let (gateway, _) = built("storage: {pvc: {accessMode: ReadWriteMany}, jobs: false}");
        assert_eq!(
            (&gateway["spec"]["replicas"], &gateway["spec"]["strategy"]["type"]),
            (&json!(2), &json!("RollingUpdate"))
        );
        let args = gateway["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
        assert!(args.contains("gateway.clips.dir=") && !args.contains("gateway.jobs.dir="), "{args}");
        let (gateway, desired) = built("storage: {ephemeral: {}}");
        assert_eq!((&gateway["spec"]["replicas"], desired.claims.len()), (&json!(1), 0));
    }

    #[test]
    fn jobs_are_those_of_several_gateways_with_a_redis() {
        let (gateway, desired) = built(
            "storage: {pvc: {accessMode: ReadWriteMany}, redis: {urlSecretRef: {name: jobs, key: uri}}}",
        );
        assert_eq!(
            (&gateway["spec"]["replicas"], &gateway["spec"]["strategy"]["type"]),
            (&json!(2), &json!("RollingUpdate"))
        );
        let read = configured(&gateway, &desired);
        let redis = read.jobs.redis.unwrap();
        assert_eq!(redis.url_file.unwrap().to_str(), Some("/etc/speechstack-jobs-redis/url"));
        assert_eq!(redis.prefix, "speechstack/speech/demo/");
        let pod = &gateway["spec"]["template"]["spec"];
        let volumes = pod["volumes"].as_array().unwrap();
        let secret = volumes.iter().find(|volume| volume["name"] == "speechstack-jobs-redis").unwrap();
        assert_eq!(secret["secret"], json!({"secretName": "jobs", "items": [{"key": "uri", "path": "url"}]}));
        let mounts = pod["containers"][0]["volumeMounts"].to_string();
        assert!(mounts.contains("/etc/speechstack-jobs-redis"), "{mounts}");
    }

    #[test]
    fn several_gateways_on_storage_of_one_are_refused() {
        for (gateway, fits) in [
            ("replicas: 2, storage: {pvc: {}}", false),
            ("autoscaling: {minReplicas: 1, maxReplicas: 2}, storage: {ephemeral: {}, jobs: false}", false),
            ("replicas: 2, storage: {existingClaim: kept, jobs: false}", true),
            ("replicas: 1, storage: {pvc: {}}", true),
            ("replicas: 2, storage: {existingClaim: kept}", false),
            ("replicas: 2, storage: {existingClaim: kept, redis: {urlSecretRef: {name: jobs}}}", true),
            ("replicas: 2, storage: {pvc: {}, redis: {urlSecretRef: {name: jobs}}}", false),
        ] {
            let stack = testing::stack(&format!("{}\ngateway: {{{gateway}}}\n", testing::MINIMAL));
            let valid =
                crate::reconcile::validate::validate(&stack, &testing::observed(), &testing::defaults());
            assert_eq!(valid.is_ok(), fits, "{gateway}");
        }
    }
}
