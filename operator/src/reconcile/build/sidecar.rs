//! The gateway beside an engine (`gateway.mode: Sidecar`): its container in the engine's pod, and its Service.

use k8s_openapi::api::core::v1::{Container, Service, Volume};

use super::gateway::{self, Ports};
use super::{metadata, pod};
use crate::names::volume;
use crate::reconcile::validate::{ValidEngine, ValidStack};

/// Engine and guard have ports of the other names.
const PORTS: Ports = Ports { http: "api", https: "api-tls", admin: "api-admin" };

/// The Service of the gateways in an engine's pods.
pub fn service(stack: &ValidStack, engine: &ValidEngine) -> Service {
    let labels = metadata::engine_labels(stack, engine);
    let metadata = metadata::owned(stack, metadata::of_api(stack, engine), labels);
    gateway::service_of(stack, metadata, metadata::engine_selector(stack, engine), &PORTS)
}

/// The container, with its volumes. As a native sidecar after the guard it ends before it.
pub fn container(stack: &ValidStack, engine: &ValidEngine) -> (Container, Vec<Volume>) {
    let (config, config_mount) = pod::config(volume::GATEWAY_CONFIG, metadata::of_api(stack, engine));
    let mut volumes = vec![config, pod::empty_dir(volume::GATEWAY_TMP, None, None)];
    let mut mounts = vec![config_mount, pod::mount(volume::GATEWAY_TMP, "/tmp")];
    gateway::secrets(stack, &mut volumes, &mut mounts);
    // The volume is in the pod for the guard already.
    mounts.extend(pod::trace_headers(stack.gateway.spec.tracing.as_ref()).map(|(_, mount)| mount));
    let name = ["--set", "engines[0].name=$(POD_NAME)"].map(str::to_owned);
    let mut container = gateway::container(stack, name.into(), mounts, &PORTS);
    container.env.get_or_insert_default().insert(0, pod::name());
    container.restart_policy = Some("Always".into());
    (container, volumes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kube::ResourceExt;
    use serde_json::{Value, json};

    use crate::fingerprint;
    use crate::reconcile::build::{DesiredObjects, build};
    use crate::reconcile::testing;

    fn built(gateway: &str) -> DesiredObjects {
        let spec = format!(
            "{}\nllm: [{{name: hosted, preset: external, external: {{baseUrl: 'https://a.example', model: m}}}}]\n\
             networkPolicy: {{enabled: true}}\ngateway: {{mode: Sidecar, {gateway}}}\n",
            testing::MINIMAL
        );
        build(&testing::valid(&spec), &testing::observed())
    }

    fn pods(desired: &DesiredObjects) -> Vec<Value> {
        desired
            .engines
            .iter()
            .map(|engine| engine.object.json()["spec"]["template"]["spec"].clone())
            .collect()
    }

    #[test]
    fn each_engine_has_a_gateway_and_a_service_and_there_is_none_in_front() {
        let desired = built("");
        assert!(desired.gateways.is_empty() && desired.roles.is_empty() && desired.autoscalers.is_empty());
        assert_eq!(desired.service_accounts.len(), 1, "that of the engines");
        let names: BTreeSet<_> = desired.services.iter().map(ResourceExt::name_any).collect();
        let wanted =
            ["demo-ears", "demo-ears-api", "demo-hosted", "demo-hosted-api", "demo-mouth", "demo-mouth-api"];
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
        let api = desired.services.iter().find(|service| service.name_any() == "demo-ears-api").unwrap();
        let api = fingerprint::json(api);
        assert_eq!(api["spec"]["selector"]["speechstack.dev/engine"], "ears");
        assert_eq!(
            (&api["spec"]["ports"][0]["port"], &api["spec"]["ports"][0]["targetPort"]),
            (&json!(80), &json!("api"))
        );
        for pod in pods(&desired) {
            let sidecars = pod["initContainers"].as_array().unwrap();
            let gateway = sidecars.last().unwrap();
            assert_eq!((&gateway["name"], &gateway["restartPolicy"]), (&json!("gateway"), &json!("Always")));
            let all = sidecars.iter().chain(pod["containers"].as_array().unwrap());
            let ports: Vec<_> = all.flat_map(|one| one["ports"].as_array().unwrap().clone()).collect();
            for what in ["name", "containerPort"] {
                let distinct: BTreeSet<_> = ports.iter().map(|port| port[what].to_string()).collect();
                assert_eq!(distinct.len(), ports.len(), "{what} is used twice: {ports:?}");
            }
            assert_eq!(gateway["readinessProbe"]["httpGet"]["port"], "api-admin");
        }
        let policies = desired.network_policies.iter().map(fingerprint::json).collect::<Vec<_>>();
        assert_eq!(policies.len(), 3);
        assert_eq!(
            policies[0]["spec"]["ingress"][0]["ports"][0]["port"], 8080,
            "clients reach the gateway alone"
        );
        let monitor = fingerprint::json(&desired.pod_monitors[0]);
        assert_eq!(monitor["spec"]["podMetricsEndpoints"][1]["port"], "api-admin");
    }

    #[test]
    fn its_file_has_its_own_engine_alone_and_clients_find_the_keys_and_the_certificate() {
        let desired =
            built("auth: {keysSecretRef: {name: people}}, tls: {secretName: cert}, modelAliases: {mine: m}");
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| {
            let map = desired.config_maps.iter().find(|map| map.name_any() == name).unwrap();
            let file = dir.path().join(name);
            std::fs::write(&file, &map.data.as_ref().unwrap()["config.yaml"]).unwrap();
            let set = ["engines[0].name=demo-ears-0".to_owned()];
            speechstack_proxy::config::from_file(&file, &set).unwrap()
        };
        let ears = read("demo-ears-api");
        let [engine] = ears.engines.as_slice() else { panic!() };
        assert_eq!(
            (engine.name.as_str(), engine.guard.to_string().as_str()),
            ("demo-ears-0", "127.0.0.1:9400")
        );
        assert!(ears.gateway.auth.is_on() && ears.gateway.tls.is_some() && ears.gateway.discovery.is_none());
        let [model] = ears.gateway.models.as_slice() else { panic!("its own model alone") };
        assert_eq!((model.id.as_str(), &model.pool), ("parakeet-tdt-0.6b-v3", &None));
        let hosted = read("demo-hosted-api");
        assert_eq!(hosted.gateway.models[0].aliases, ["mine"]);
        assert_eq!(hosted.language_models(), [("m", None)]);
        let volumes = pods(&desired)[0]["volumes"].to_string();
        assert!(volumes.contains("people") && volumes.contains("cert"));
    }

    #[test]
    fn only_what_renders_it_replaces_pods() {
        let inputs = |gateway: &str| built(gateway).engines[0].inputs.clone();
        let before = inputs("");
        assert_eq!(before, inputs("limits: {maxInFlight: 7}"), "a limit reaches it by its file");
        assert_eq!(before, inputs("service: {port: 81}"));
        assert_ne!(before, inputs("tls: {secretName: cert}"));
        assert_ne!(before, inputs("env: [{name: A, value: b}]"));
    }
}
