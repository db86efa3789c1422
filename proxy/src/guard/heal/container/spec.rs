//! The container that is created when there is none: a request body from the configuration.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, PortBinding, PortMap, ResourcesUlimits,
};

use crate::config;
use crate::guard::heal::container::Error;

/// Label of containers that were created here; its value is the engine's name.
const LABEL: &str = "speechstack.dev/engine";

/// The request to create the engine's container. Reads the files of `env_files`.
pub(super) fn body(engine: &str, settings: &config::Container) -> Result<ContainerCreateBody, Error> {
    let ports = ports(settings)?;
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let host = HostConfig {
        binds: some(&settings.volumes),
        network_mode: settings.network.clone(),
        port_bindings: (!ports.is_empty()).then(|| ports.clone()),
        shm_size: settings.shm_size.map(|size| i64::try_from(size.as_u64()).unwrap_or(i64::MAX)),
        device_requests: gpus(&settings.gpus),
        ulimits: ulimits(settings),
        ..HostConfig::default()
    };
    Ok(ContainerCreateBody {
        image: settings.image.clone(),
        cmd: some(&settings.command),
        env: some(&env(settings)?),
        user: settings.user.clone(),
        exposed_ports: (!ports.is_empty()).then(|| ports.into_keys().collect()),
        labels: Some(HashMap::from([(LABEL.to_owned(), engine.to_owned())])),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

fn env(settings: &config::Container) -> Result<Vec<String>, Error> {
    let mut env: Vec<String> = settings.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    for (variable, path) in &settings.env_files {
        let value = std::fs::read_to_string(path).map_err(|source| Error::EnvFile {
            variable: variable.clone(),
            path: path.clone(),
            source,
        })?;
        env.push(format!("{variable}={}", value.trim_end_matches(['\r', '\n'])));
    }
    Ok(env)
}

fn ports(settings: &config::Container) -> Result<PortMap, Error> {
    let published = settings.published().map_err(|(field, reason)| Error::Invalid { field, reason })?;
    let mut ports = PortMap::new();
    for config::Published { address, port, inner } in published {
        let binding = PortBinding { host_ip: Some(address.to_string()), host_port: Some(port.to_string()) };
        ports.entry(format!("{inner}/tcp")).or_default().get_or_insert_default().push(binding);
    }
    Ok(ports)
}

/// Names with `=` belong to the Container Device Interface, all others to NVIDIA's runtime.
fn gpus(gpus: &[String]) -> Option<Vec<DeviceRequest>> {
    let (cdi, ids): (Vec<&String>, Vec<&String>) = gpus.iter().partition(|gpu| gpu.contains('='));
    let cloned = |ids: &[&String]| Some(ids.iter().map(|id| (*id).clone()).collect());
    let mut requests = Vec::new();
    if !cdi.is_empty() {
        let driver = Some("cdi".to_owned());
        requests.push(DeviceRequest { driver, device_ids: cloned(&cdi), ..DeviceRequest::default() });
    }
    let capabilities = Some(vec![vec!["gpu".to_owned()]]);
    if ids.iter().any(|id| *id == "all") {
        requests.push(DeviceRequest { count: Some(-1), capabilities, ..DeviceRequest::default() });
    } else if !ids.is_empty() {
        requests.push(DeviceRequest { device_ids: cloned(&ids), capabilities, ..DeviceRequest::default() });
    }
    (!requests.is_empty()).then_some(requests)
}

fn ulimits(settings: &config::Container) -> Option<Vec<ResourcesUlimits>> {
    let limit = |(name, value): (&String, &u32)| {
        let value = Some(i64::from(*value));
        ResourcesUlimits { name: Some(name.clone()), soft: value, hard: value }
    };
    (!settings.ulimits.is_empty()).then(|| settings.ulimits.iter().map(limit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(yaml: &str) -> serde_json::Value {
        let settings: config::Container = serde_saphyr::from_str(yaml).unwrap();
        serde_json::to_value(body("parakeet-0", &settings).unwrap()).unwrap()
    }

    #[test]
    fn every_option_has_its_place_in_the_request() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, "nvapi-1\n").unwrap();
        let made = request(&format!(
            "{{name: a, image: nim, command: [serve], env: {{B: '2'}}, env_files: {{NGC_API_KEY: '{}'}}, ports: ['9000:9000', \
             '0.0.0.0:9001:9000'], network: speech, gpus: ['0'], volumes: ['cache:/opt/nim/.cache'], shm_size: 8GiB, \
             user: '0:0', ulimits: {{nofile: 2048}}}}",
            key.display()
        ));
        let binding = |ip: &str, port: &str| json!({"HostIp": ip, "HostPort": port});
        assert_eq!(
            made,
            json!({
                "Image": "nim", "Cmd": ["serve"], "Env": ["B=2", "NGC_API_KEY=nvapi-1"], "User": "0:0",
                "ExposedPorts": {"9000/tcp": {}}, "Labels": {"speechstack.dev/engine": "parakeet-0"},
                "HostConfig": {
                    "Binds": ["cache:/opt/nim/.cache"], "NetworkMode": "speech", "ShmSize": 8_589_934_592_u64,
                    "PortBindings": {"9000/tcp": [binding("127.0.0.1", "9000"), binding("0.0.0.0", "9001")]},
                    "DeviceRequests": [{"DeviceIDs": ["0"], "Capabilities": [["gpu"]]}],
                    "Ulimits": [{"Name": "nofile", "Soft": 2048, "Hard": 2048}],
                },
            })
        );
    }

    #[test]
    fn what_is_not_configured_is_left_to_the_image() {
        let made = request("{name: a, image: nim}");
        assert_eq!(
            made,
            json!({"Image": "nim", "Labels": {"speechstack.dev/engine": "parakeet-0"}, "HostConfig": {}})
        );
    }

    #[test]
    fn gpus_are_asked_for_by_count_by_id_or_by_name() {
        let asked = |gpus: &str| {
            request(&format!("{{name: a, image: b, gpus: {gpus}}}"))["HostConfig"]["DeviceRequests"].take()
        };
        assert_eq!(asked("[all]"), json!([{"Count": -1, "Capabilities": [["gpu"]]}]));
        assert_eq!(asked("[GPU-1, '2']"), json!([{"DeviceIDs": ["GPU-1", "2"], "Capabilities": [["gpu"]]}]));
        assert_eq!(
            asked("[nvidia.com/gpu=0]"),
            json!([{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}])
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_its_variable() {
        let settings: config::Container =
            serde_saphyr::from_str("{name: a, image: b, env_files: {KEY: /no/such/file}}").unwrap();
        let error = body("parakeet-0", &settings).unwrap_err().to_string();
        for part in ["engines[].container.env_files", "/no/such/file", "KEY"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
