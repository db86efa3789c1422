//! A server that runs elsewhere: its pods are guards that probe it and pass requests on, with its API key.

use speechstack_crds::External;

use super::{guard, pod};
use crate::names::volume;
use crate::reconcile::validate::ValidStack;

/// What such a pod holds.
pub fn parts(stack: &ValidStack, server: &External, config_map: String) -> pod::Parts {
    let (config, config_mount) = pod::config(volume::CONFIG, config_map);
    let mut volumes = vec![pod::empty_dir(volume::TMP, None, None), config];
    let mut mounts = vec![config_mount];
    if let Some(secret) = &server.api_key_secret_ref {
        let (key, key_mount) = pod::api_key(secret);
        volumes.push(key);
        mounts.push(key_mount);
    }
    if let Some((headers, headers_mount)) = pod::trace_headers(stack.gateway.spec.tracing.as_ref()) {
        volumes.push(headers);
        mounts.push(headers_mount);
    }
    pod::Parts { init: Vec::new(), containers: vec![guard::alone(stack, mounts)], volumes }
}

/// The server's port, where it is not that of HTTPS.
pub fn port(url: &str) -> Option<u16> {
    let uri = url.parse::<http::Uri>().ok()?;
    uri.port_u16().or_else(|| (uri.scheme_str() == Some("http")).then_some(80))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::fingerprint;
    use crate::reconcile::build::{DesiredObjects, build};
    use crate::reconcile::testing;

    const HOSTED: &str = "llm: [{name: hosted, preset: external, replicas: 2, external: {baseUrl: 'https://api.example.com/v1', \
        model: small-1, apiKeySecretRef: {name: people, key: llm}}}]";

    fn built(spec: &str) -> DesiredObjects {
        build(&testing::valid(spec), &testing::observed())
    }

    fn pod(desired: &DesiredObjects) -> Value {
        desired.engines[0].object.json()["spec"]["template"].clone()
    }

    /// Reads a file as the proxy does.
    fn read(desired: &DesiredObjects, with: &str) -> speechstack_proxy::config::Config {
        let files = desired.config_maps.iter().filter_map(|map| map.data.as_ref()?.get("config.yaml"));
        let text = files.into_iter().find(|text| text.contains(with)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, text).unwrap();
        speechstack_proxy::config::from_file(&file, &[]).unwrap()
    }

    #[test]
    fn a_hosted_server_is_a_guard_with_its_key_and_a_pool_of_the_gateway() {
        let desired = built(HOSTED);
        let pod = pod(&desired);
        let spec = &pod["spec"];
        assert!(spec.get("initContainers").is_none(), "no engine, no sidecar");
        let [guard] = spec["containers"].as_array().unwrap().as_slice() else { panic!("{spec}") };
        assert_eq!((&guard["name"], guard.get("restartPolicy")), (&json!("guard"), None));
        let volumes = spec["volumes"].as_array().unwrap();
        let secret = volumes.iter().find_map(|volume| volume.get("secret")).unwrap();
        assert_eq!(
            (&secret["secretName"], &secret["items"][0]),
            (&json!("people"), &json!({"key": "llm", "path": "key"}))
        );
        assert!(!spec.to_string().contains("serviceAccountToken"), "it asks the API server nothing");
        assert_eq!(spec["tolerations"], json!([]), "it needs no GPU");

        let of_guard = read(&desired, "guard_admin");
        let [engine] = of_guard.engines.as_slice() else { panic!() };
        assert_eq!(
            (engine.url.as_str(), engine.model.as_deref()),
            ("https://api.example.com", Some("small-1"))
        );
        let key = engine.key_file.as_ref().unwrap();
        let mounts = guard["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().any(|mount| mount["mountPath"].as_str() == key.parent().unwrap().to_str()));
        assert_eq!(engine.ruled(&of_guard.guard).lane.jobs, 16);
        assert!(engine.kubelet.is_none() && engine.operator.is_none(), "it restarts nothing");
        assert_eq!(of_guard.gateway.drain.as_secs(), 120);

        let of_gateway = read(&desired, "discovery");
        assert_eq!(of_gateway.language_models(), [("small-1", Some("hosted"))]);
        assert_eq!(of_gateway.gateway.models[0].id, "small-1");
    }

    #[test]
    fn a_hosted_server_is_the_last_resort_within_its_budget_and_has_no_name() {
        let desired = built(
            "stt: [{name: ears, preset: reference}, {name: cloud, preset: external, external: {baseUrl: 'https://api.example.com/v1', \
             model: whisper-1}, hosted: {beyondWait: 5s, audioMinutesPerDay: 60}}]",
        );
        let of_gateway = read(&desired, "discovery");
        let pools = &of_gateway.gateway.discovery.as_ref().unwrap().pools;
        let limits = pools[1].hosted.as_ref().unwrap();
        assert_eq!((pools[0].hosted.as_ref(), pools[1].model.as_deref()), (None, Some("whisper-1")));
        assert_eq!(
            (limits.beyond_wait.as_secs(), limits.audio_minutes_per_day, limits.jobs_per_day),
            (5, Some(60.0), None)
        );
        let [model] = of_gateway.gateway.models.as_slice() else { panic!("names of the own engine alone") };
        assert_eq!(model.pool.as_deref(), Some("ears"));
        assert!(model.aliases.iter().any(|alias| alias == "whisper-1"), "an alias of the own one");
        let guards = desired.config_maps.iter().filter_map(|map| map.data.as_ref()?.get("config.yaml"));
        let guard = guards.into_iter().find(|text| text.contains("api.example.com")).unwrap();
        assert!(guard.contains("idle_period: 15m") && guard.contains("openai"), "{guard}");
    }

    #[test]
    fn another_server_is_another_pod_and_another_key_in_the_secret_is_not() {
        let before = pod(&built(HOSTED));
        assert_ne!(before, pod(&built(&HOSTED.replace("api.example.com", "api.example.org"))));
        assert_ne!(before, pod(&built(&HOSTED.replace("small-1", "small-2"))));
        let traced = HOSTED.replace("model:", "traceContext: true, model:");
        assert_ne!(before, pod(&built(&traced)));
        let joins = |spec: &str| read(&built(spec), "guard_admin").engines[0].joins_traces();
        assert_eq!((joins(HOSTED), joins(&traced)), (false, true));
        let inputs = |spec: &str| built(spec).engines[0].inputs.clone();
        assert_ne!(inputs(HOSTED), inputs(&HOSTED.replace("small-1", "small-2")), "the user asked for it");
    }

    #[test]
    fn a_limited_egress_lets_it_reach_its_server() {
        let egress = |spec: &str| {
            let desired = built(&format!("{spec}\nnetworkPolicy: {{enabled: true, egress: true}}"));
            let policies = desired.network_policies.iter().map(fingerprint::json);
            let mut own = policies.filter(|policy| policy["metadata"]["name"] == "demo-hosted");
            own.next().unwrap()["spec"]["egress"].to_string()
        };
        assert!(!egress(HOSTED).contains("8000"));
        assert!(egress(&HOSTED.replace("https://api.example.com/v1", "http://vllm:8000")).contains("8000"));
        assert!(egress(&HOSTED.replace("https://api.example.com/v1", "http://vllm")).contains("80"));
    }

    #[test]
    fn an_engine_that_runs_here_is_probed_restarted_and_told_its_model() {
        let desired = built(
            "llm: [{name: words, preset: custom, image: {repository: r.local/vllm, tag: '1'}, models: [org/model-7b, seven]}]",
        );
        let pod = pod(&desired);
        assert_eq!(pod["spec"]["containers"][0]["name"], "engine");
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], "1");
        let of_guard = read(&desired, "guard_admin");
        assert!(of_guard.engines[0].kubelet.is_some() && of_guard.engines[0].operator.is_some());
        assert_eq!(
            (of_guard.engines[0].url.as_str(), of_guard.engines[0].model.as_deref()),
            ("http://127.0.0.1:8000", Some("org/model-7b"))
        );
        let of_gateway = read(&desired, "discovery");
        assert_eq!(of_gateway.gateway.models[0].aliases, ["seven"]);
    }
}
