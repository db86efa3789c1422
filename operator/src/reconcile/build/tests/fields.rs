//! What users say of pods, Services and images, and where it comes out.

use speechstack_crds::SpeechStack;

use super::*;
use crate::names::volume;
use crate::preset::Presets;
use crate::reconcile::build::guard::CACHE_PATH;

/// What both an engine and the gateway take.
const OF_PODS: &str = "runtimeClassName: nvidia, priorityClassName: high, nodeSelector: {pool: speech}, \
    tolerations: [{key: team, operator: Exists}], topologySpreadConstraints: [{maxSkew: 2, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}], \
    podLabels: {team: speech}, podAnnotations: {note: mine}, env: [{name: MINE, value: '1'}], volumes: [{name: mine, emptyDir: {}}], \
    volumeMounts: [{name: mine, mountPath: /mine}], serviceAccountName: mine, dnsPolicy: Default, dnsConfig: {searches: [mine.local]}, \
    podSecurityContext: {runAsUser: 7}, securityContext: {runAsUser: 8}, resources: {limits: {memory: 3Gi}}";

#[test]
fn what_a_user_sets_of_pods_reaches_engines_and_gateway() {
    let spec = format!(
        "{{stt: [{{name: ears, preset: reference, {OF_PODS}, args: [--mine]}}], gateway: {{{OF_PODS}}}}}"
    );
    let desired = built(&spec);
    let engine = desired.engines[0].object.json()["spec"]["template"].clone();
    let gateway = fingerprint::json(&desired.gateways[0])["spec"]["template"].clone();
    for template in [&engine, &gateway] {
        let (pod, container) = (&template["spec"], engine_of(template));
        for (field, value) in [
            ("runtimeClassName", json!("nvidia")),
            ("priorityClassName", json!("high")),
            ("nodeSelector", json!({"pool": "speech"})),
            ("tolerations", json!([{"key": "team", "operator": "Exists"}])),
            ("serviceAccountName", json!("mine")),
            ("dnsPolicy", json!("Default")),
            ("dnsConfig", json!({"searches": ["mine.local"]})),
            ("securityContext", json!({"runAsUser": 7})),
        ] {
            assert_eq!(pod[field], value, "{field}");
        }
        assert_eq!(pod["topologySpreadConstraints"][0]["topologyKey"], "zone");
        assert_eq!(template["metadata"]["labels"]["team"], "speech");
        assert_eq!(template["metadata"]["annotations"]["note"], "mine");
        assert_eq!(container["securityContext"], json!({"runAsUser": 8}));
        assert_eq!(container["resources"]["limits"]["memory"], "3Gi");
        for (list, mine) in [
            (&pod["volumes"], json!({"name": "mine", "emptyDir": {}})),
            (&container["volumeMounts"], json!({"name": "mine", "mountPath": "/mine"})),
            (&container["env"], json!({"name": "MINE", "value": "1"})),
        ] {
            assert!(list.as_array().unwrap().contains(&mine), "{list}");
        }
    }
    assert!(engine_of(&engine)["args"].as_array().unwrap().contains(&json!("--mine")));
}

#[test]
fn the_reference_engine_listens_on_both_families() {
    let template = template("{stt: [{name: ears, preset: reference, protocols: [parakeet, riva]}]}");
    let args = engine_of(&template)["args"].to_string();
    assert!(args.contains("[::]:9000") && args.contains("[::]:50051") && !args.contains("0.0.0.0"), "{args}");
}

#[test]
fn the_gateways_service_takes_both_families_unless_told_otherwise() {
    let policies = |mode: &str, service: &str| {
        let spec = format!("{MINIMAL}\ngateway: {{mode: {mode}, service: {{{service}}}}}");
        let services = built(&spec).services.iter().map(fingerprint::json).collect::<Vec<_>>();
        let of_clients = |one: &&Value| one["spec"]["clusterIP"] != "None";
        let policies = services.iter().filter(of_clients).map(|one| one["spec"]["ipFamilyPolicy"].clone());
        policies.collect::<Vec<_>>()
    };
    assert_eq!(policies("Service", ""), ["PreferDualStack"]);
    assert_eq!(policies("Service", "ipFamilyPolicy: SingleStack"), ["SingleStack"]);
    assert_eq!(policies("Sidecar", "ipFamilyPolicy: RequireDualStack"), ["RequireDualStack"; 2]);
}

#[test]
fn no_policy_names_addresses() {
    let spec = format!("{MINIMAL}\nnetworkPolicy: {{enabled: true, egress: true}}");
    let policies = built(&spec).network_policies;
    assert_eq!(policies.len(), 3);
    for policy in &policies {
        assert!(!fingerprint::json(policy).to_string().contains("ipBlock"), "it would be of one family");
    }
}

/// The stacks in README's blocks of YAML and in the chart's samples, by where they are.
fn written() -> Vec<(String, SpeechStack)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut texts: Vec<_> = blocks.map(|text| ("README.md".to_owned(), text.to_owned())).collect();
    for entry in std::fs::read_dir(root.join("charts/speechstack/samples")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        texts.extend(text.split("\n---\n").map(|text| (path.display().to_string(), text.to_owned())));
    }
    let stacks = texts.into_iter().filter(|(_, text)| text.contains("kind: SpeechStack"));
    stacks.map(|(place, text)| (place, serde_saphyr::from_str(&text).unwrap())).collect()
}

#[test]
fn readme_and_samples_name_the_secrets_of_nvidias_images() {
    let presets = Presets::shipped().unwrap();
    let of_nvidia = |stack: &SpeechStack| {
        stack.spec.engines().any(|(capability, engine)| {
            let image = presets.get(&engine.preset, capability).and_then(|preset| preset.image.as_ref());
            engine.image.is_none() && image.is_some_and(|image| image.repository.starts_with("nvcr.io/"))
        })
    };
    let stacks: Vec<_> = written().into_iter().filter(|(_, stack)| of_nvidia(stack)).collect();
    assert!(stacks.len() >= 4 && stacks.iter().any(|(place, _)| place == "README.md"), "{}", stacks.len());
    for (place, stack) in stacks {
        assert!(!stack.spec.image_pull_secrets.is_empty(), "{place} has no imagePullSecrets");
        assert!(stack.spec.auth.ngc_secret_ref.is_some(), "{place} has no auth.ngcSecretRef");
    }
}

#[test]
fn a_guard_reads_the_models_of_an_engine_that_keeps_some_and_never_writes_them() {
    let guard = |spec: &str| {
        let desired = built(spec);
        let map = desired.config_maps.iter().find(|map| map.name_any().starts_with("demo-ears")).unwrap();
        let file = map.data.as_ref().unwrap()["config.yaml"].clone();
        let pod = desired.engines[0].object.json()["spec"]["template"]["spec"].clone();
        let containers = [&pod["initContainers"], &pod["containers"]].into_iter().filter_map(Value::as_array);
        let guard = containers.flatten().find(|one| one["name"] == container::GUARD).unwrap().clone();
        let mounts = guard["volumeMounts"].as_array().unwrap().clone();
        (mounts.into_iter().find(|mount| mount["name"] == volume::CACHE), file)
    };
    for cache in [
        "pvc: {}",
        "pvc: {accessMode: ReadWriteMany}",
        "existingClaim: models",
        "ephemeral: {}",
        "hostPath: {path: /var/cache/nim}",
    ] {
        let (mount, file) =
            guard(&format!("stt: [{{name: ears, preset: parakeet-rnnt-1.1b, cache: {{{cache}}}}}]"));
        let wanted = json!({"name": "speechstack-cache", "mountPath": CACHE_PATH, "readOnly": true});
        assert_eq!(mount, Some(wanted), "{cache}");
        assert!(file.contains(&format!("model_cache: {CACHE_PATH}")), "{cache}: {file}");
    }
    let hosted = "llm: [{name: ears, preset: external, external: {baseUrl: 'https://a.example', model: m}}]";
    for spec in ["stt: [{name: ears, preset: reference}]", hosted] {
        let (mount, file) = guard(spec);
        assert_eq!(mount, None, "{spec}");
        assert!(!file.contains("model_cache"), "{spec}: {file}");
    }
}
