//! What a stack becomes: names, rendered pods against golden files, configuration that the proxy reads.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kube::ResourceExt;
use serde_json::{Value, json};

use super::{DesiredObjects, Update, Workload, build};
use crate::fingerprint;
use crate::names::container;
use crate::reconcile::testing::{self, MINIMAL};
use crate::workloads::LiveWorkload;

mod fields;

fn built(spec: &str) -> DesiredObjects {
    build(&testing::valid(spec), &testing::observed())
}

fn all(desired: DesiredObjects) -> Vec<Value> {
    desired.objects()
}

/// The first engine's workload.
pub fn workload(spec: &str) -> Workload {
    built(spec).engines.swap_remove(0)
}

/// The workload as it runs.
pub fn live(workload: &Workload) -> LiveWorkload {
    LiveWorkload {
        kind: workload.object.kind(),
        replicas: workload.replicas.unwrap_or(workload.first),
        updated: 0,
        available: 0,
        observed: true,
        inputs: Some(workload.inputs.clone()),
        revision: Some(workload.revision.clone()),
        config_map: Some(workload.config_map.clone()),
        claim_templates: None,
        refusal: None,
        overdue: false,
    }
}

/// The engine pod's template.
fn template(spec: &str) -> Value {
    built(spec).engines[0].object.json()["spec"]["template"].clone()
}

fn engine_of(template: &Value) -> &Value {
    &template["spec"]["containers"][0]
}

#[test]
fn a_minimal_stack_is_exactly_these_objects() {
    let names: BTreeSet<_> = all(built(MINIMAL))
        .iter()
        .map(|object| {
            format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
        })
        .collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let desired = built(MINIMAL);
    let [ears, mouth] = &desired.engines[..] else { panic!() };
    assert_eq!(
        names,
        [
            &format!("ConfigMap {}", ears.config_map),
            "ConfigMap demo-gateway",
            &format!("ConfigMap {}", mouth.config_map),
            "Deployment demo-gateway",
            "PodDisruptionBudget demo-ears",
            "PodDisruptionBudget demo-gateway",
            "PodDisruptionBudget demo-mouth",
            "PodMonitor demo",
            "PrometheusRule demo",
            "Role demo-gateway",
            "RoleBinding demo-gateway",
            "Service demo-ears",
            "Service demo-gateway",
            "Service demo-mouth",
            "ServiceAccount demo-engine",
            "ServiceAccount demo-gateway",
            "StatefulSet demo-ears",
            "StatefulSet demo-mouth",
        ]
    );
}

#[test]
fn every_object_but_the_cache_goes_with_the_stack_and_carries_our_labels() {
    for object in all(built(MINIMAL)) {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/managed-by"], "speechstack-operator", "{object}");
        assert_eq!(labels["speechstack.dev/stack"], "demo", "{object}");
        let owner = &object["metadata"]["ownerReferences"][0]["uid"];
        assert_eq!(owner.is_null(), object["kind"] == "PersistentVolumeClaim", "{object}");
    }
}

/// Stacks whose rendered objects are kept as files: a change of a default shows up in review.
const GOLDEN: [(&str, &str); 8] = [
    (
        "parakeet-nim",
        "{stt: [{name: ears, preset: parakeet-tdt-0.6b-v3}], auth: {ngcSecretRef: {name: ngc}}}",
    ),
    ("magpie-nim", "{tts: [{name: mouth, preset: magpie-multilingual, replicas: 2, guard: {}}]}"),
    (
        "parakeet-container",
        "{stt: [{name: own, preset: parakeet-container, image: {repository: registry.local/parakeet, tag: '3'}}]}",
    ),
    (
        "reference",
        "{stt: [{name: ears, preset: reference}], tts: [{name: mouth, preset: reference}], monitoring: {podMonitor: Off, prometheusRule: Off}}",
    ),
    (
        "custom-mig",
        "{stt: [{name: own, preset: custom, image: {repository: r.local/asr, digest: 'sha256:0000000000000000000000000000000000000000000000000000000000000000'}, \
         gpu: {resourceName: nvidia.com/mig-3g.40gb, count: 1}, cache: {ephemeral: {size: 20Gi}}, rollout: {strategy: Recreate}}]}",
    ),
    (
        "autoscaled-dra",
        "{stt: [{name: ears, preset: parakeet-rnnt-1.1b, autoscaling: {minReplicas: 1, maxReplicas: 4}, gpu: {claims: [{name: gpu-template}]}, \
         cache: {existingClaim: models}}], guard: {directKill: true, laneJobs: 4}, networkPolicy: {enabled: true}, \
         gateway: {autoscaling: {minReplicas: 2, maxReplicas: 8}, ingress: {host: speech.example.com, tlsSecretName: cert}}}",
    ),
    (
        "mirrored-observe",
        "{stt: [{name: ears, preset: nemotron-asr-streaming, cache: {hostPath: {path: /var/cache/nim}}, \
         nodeSelector: {pool: speech}, affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [a]}]}, {matchExpressions: [{key: zone, operator: In, values: [b]}]}]}}}, \
         podTemplatePatch: {spec: {hostNetwork: false, containers: [{name: engine, env: [{name: EXTRA, value: '1'}]}, {name: sidecar, image: s}]}}}], \
         imageRegistry: mirror.local:5000, repair: {policy: Observe}, suspend: true, \
         gateway: {httpRoute: {parentRefs: [{name: public}], hostnames: [speech.example.com]}}}",
    ),
    (
        "language-models",
        "{llm: [{name: words, preset: reference}, {name: hosted, preset: external, external: {baseUrl: 'https://api.example.com/v1', \
         model: small-1, apiKeySecretRef: {name: llm}}}]}",
    ),
];

#[test]
fn rendered_objects_are_the_golden_files() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, spec) in GOLDEN {
        let objects = all(built(spec));
        let text: String = objects
            .iter()
            .map(|object| format!("---\n{}", serde_saphyr::to_string(object).unwrap()))
            .collect();
        let file = folder.join(format!("{name}.yaml"));
        if std::env::var_os("SPEECHSTACK_WRITE_GOLDEN").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            golden == text,
            "{} differs: every running GPU pod would get this as a pending update; if that is meant, write it anew with SPEECHSTACK_WRITE_GOLDEN=1",
            file.display()
        );
    }
}

fn read(text: &str, overrides: &[String]) -> Result<speechstack_proxy::config::Config, String> {
    static FILES: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = FILES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let file =
        std::env::temp_dir().join(format!("speechstack-operator-{}-{number}.yaml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let read = speechstack_proxy::config::from_file(&file, overrides).map_err(|error| error.to_string());
    std::fs::remove_file(&file).unwrap();
    read
}

#[test]
fn rendered_configuration_is_read_by_the_proxy() {
    for (name, spec) in GOLDEN {
        for config in built(spec).config_maps {
            let text = &config.data.as_ref().unwrap()["config.yaml"];
            let name_set = ["engines[0].name=pod-0".to_owned()];
            let overrides = if text.contains("engines:") { name_set.as_slice() } else { &[] };
            let read = read(text, overrides)
                .unwrap_or_else(|error| panic!("{name} {}: {error}\n{text}", config.name_any()));
            if let [engine] = read.engines.as_slice() {
                assert_eq!(engine.name, "pod-0");
                let jobs = match name {
                    "autoscaled-dra" => 4,
                    "language-models" => 16,
                    _ => 1,
                };
                assert_eq!(engine.ruled(&read.guard).lane.jobs, jobs);
                assert_eq!(read.guard.repair.restart, name != "mirrored-observe");
                assert!(read.guard.startup.budget.as_secs() >= 120);
            } else {
                assert_eq!(read.gateway.body_limit.as_u64(), 2 << 30);
                assert!(!read.gateway.models.is_empty());
            }
        }
    }
}

#[test]
fn api_keys_are_mounted_and_quotas_reach_the_gateway_by_its_file() {
    let spec = format!(
        "{MINIMAL}\ngateway: {{auth: {{keysSecretRef: {{name: people}}, anonymousModels: true}}, \
         quotas: {{defaultTier: free, tiers: {{free: {{requestsPerMinute: 6, audioMinutesPerDay: 30}}}}}}}}\n"
    );
    let objects = built(&spec);
    let text = objects.config_maps.iter().filter_map(|config| config.data.as_ref()?.get("config.yaml"));
    let text = text.filter(|text| text.contains("keys_file")).collect::<Vec<_>>();
    let gateway = read(text[0], &[]).unwrap().gateway;
    assert!(gateway.auth.is_on() && gateway.auth.anonymous_models);
    assert_eq!(gateway.auth.keys_file.as_deref(), Some(std::path::Path::new(super::pod::KEYS_FILE)));
    let limits = gateway.quotas.of(None, Default::default());
    assert_eq!((limits.requests_per_minute, limits.audio_minutes_per_day), (Some(6), Some(30.0)));
    let all = all(objects);
    let deployment = all
        .iter()
        .find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == "demo-gateway");
    let pod = &deployment.unwrap()["spec"]["template"]["spec"];
    let secret = pod["volumes"].as_array().unwrap().iter().find_map(|volume| volume.get("secret")).unwrap();
    assert_eq!((&secret["secretName"], &secret["items"][0]["key"]), (&"people".into(), &"keys.yaml".into()));
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    assert!(
        mounts.iter().any(|mount| mount["mountPath"] == "/etc/speechstack-keys" && mount["readOnly"] == true)
    );
}

#[test]
fn a_policy_change_reaches_guards_by_their_file_and_rolls_no_pod() {
    let before = built(MINIMAL);
    let after = built(&format!("{MINIMAL}\nrepair: {{policy: Eject}}\ndeepProbe: {{interval: 10s}}\n"));
    for (before, after) in before.engines.iter().zip(&after.engines) {
        assert_eq!(before.object, after.object);
    }
    assert_ne!(before.config_maps, after.config_maps);
}

/// What is built when that is there.
fn built_on(
    spec: &str,
    defaults: &crate::reconcile::validate::Defaults,
    live: LiveWorkload,
) -> DesiredObjects {
    let mut observed = testing::observed();
    observed.workloads.insert("demo-ears".into(), live);
    let stack = crate::reconcile::validate::validate(&testing::stack(spec), &observed, defaults).unwrap();
    build(&stack, &observed)
}

#[test]
fn a_new_proxy_image_waits_with_its_configuration_and_replicas_do_not() {
    let running = workload(MINIMAL);
    let mut newer = testing::defaults();
    newer.proxy_image = "speechstack/proxy:2".into();
    let of = |spec: &str| built_on(spec, &newer, live(&running));
    let waiting = of(MINIMAL);
    assert_eq!(waiting.engines[0].update, Update::Pending);
    let names: Vec<_> = waiting.config_maps.iter().map(ResourceExt::name_any).collect();
    assert!(
        !names.iter().any(|name| name.starts_with("demo-ears-")),
        "an older guard may not read it: {names:?}"
    );
    assert!(waiting.kept_config_maps.contains(&running.config_map), "a pod may be made again meanwhile");
    let scaled = of(&MINIMAL.replace("name: ears,", "name: ears, replicas: 3,"));
    assert_eq!(scaled.engines[0].update, Update::Pending, "a scale-up must not roll the pods that run");
    let scale = scaled.engines[0].scale(&live(&running));
    assert_eq!((scale.replicas, scale.differs, &scale.inputs), (3, true, &running.inputs));
    assert!(!waiting.engines[0].scale(&live(&running)).differs);
    let changed = of(&MINIMAL.replace("name: ears,", "name: ears, shmSize: 9Gi,"));
    assert_eq!(changed.engines[0].update, Update::Apply);
    assert_ne!(changed.engines[0].config_map, running.config_map, "the old pods keep their file");
    assert_eq!(of(&format!("{MINIMAL}\nguard: {{directKill: true}}")).engines[0].update, Update::Apply);
}

#[test]
fn a_workload_without_a_note_gets_one_and_the_next_change_is_seen() {
    let running = LiveWorkload { inputs: None, revision: None, ..live(&workload(MINIMAL)) };
    let first = built_on(MINIMAL, &testing::defaults(), running.clone());
    assert_eq!(first.engines[0].update, Update::Pending);
    let scale = first.engines[0].scale(&running);
    assert!(scale.differs && scale.inputs == first.engines[0].inputs);
    let noted = LiveWorkload { inputs: Some(scale.inputs), ..running };
    let changed = MINIMAL.replace("name: ears,", "name: ears, args: [x],");
    assert_eq!(built_on(&changed, &testing::defaults(), noted).engines[0].update, Update::Apply);
}

#[test]
fn a_claim_of_its_own_for_each_replica_unless_all_can_share_one() {
    let kinds = |cache: &str| -> Vec<String> {
        let spec = format!("stt: [{{name: ears, preset: parakeet-rnnt-1.1b, replicas: 2, {cache}}}]");
        all(built(&spec))
            .iter()
            .filter(|object| object["metadata"]["name"].as_str().unwrap().starts_with("demo-ears"))
            .filter_map(|object| object["kind"].as_str())
            .filter(|kind| ["Deployment", "StatefulSet", "PersistentVolumeClaim"].contains(kind))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(kinds(""), ["StatefulSet"]);
    assert_eq!(kinds("cache: {pvc: {accessMode: ReadWriteOncePod}}"), ["StatefulSet"]);
    assert_eq!(kinds("cache: {pvc: {accessMode: ReadWriteMany}}"), ["PersistentVolumeClaim", "Deployment"]);
    assert_eq!(kinds("cache: {existingClaim: models}"), ["Deployment"]);
    let set = workload(MINIMAL).created();
    assert_eq!(set["spec"]["volumeClaimTemplates"][0]["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(set["spec"]["podManagementPolicy"], "Parallel");
    // Sizes grow claim by claim: the template of claims cannot change.
    let running = LiveWorkload {
        claim_templates: serde_json::from_value(set["spec"]["volumeClaimTemplates"].clone()).unwrap(),
        ..live(&workload(MINIMAL))
    };
    let bigger = MINIMAL.replace("name: ears,", "name: ears, cache: {pvc: {size: 200Gi}},");
    let grown = built_on(&bigger, &testing::defaults(), running);
    assert_eq!(
        grown.engines[0].object.json()["spec"]["volumeClaimTemplates"],
        set["spec"]["volumeClaimTemplates"]
    );
    assert_eq!(grown.growths[0].0, "speechstack-cache-demo-ears-");
    assert_eq!(grown.growths[0].1.0, "200Gi");
}

#[test]
fn network_policies_cover_gateway_scrapers_and_egress() {
    let policies = |more: &str| {
        let spec = format!("{MINIMAL}\nnetworkPolicy: {{enabled: true, {more}}}");
        built(&spec).network_policies.iter().map(fingerprint::json).collect::<Vec<_>>()
    };
    let closed = policies(
        "egress: true, clients: [{namespaceSelector: {matchLabels: {team: a}}}], scrapers: [{namespaceSelector: {matchLabels: {name: monitoring}}}]",
    );
    assert_eq!(closed.len(), 3);
    let gateway = closed.iter().find(|policy| policy["metadata"]["name"] == "demo-gateway").unwrap();
    assert_eq!(gateway["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"]["team"], "a");
    for policy in &closed {
        assert!(policy.to_string().contains("monitoring"), "{policy}");
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert!(policy["spec"]["egress"].as_array().unwrap().len() >= 2);
    }
    let open = policies("");
    assert!(open.iter().all(|policy| policy["spec"]["egress"].is_null()));
    let gateway = open.iter().find(|policy| policy["metadata"]["name"] == "demo-gateway").unwrap();
    assert!(gateway["spec"]["ingress"][0]["from"].is_null(), "all may call");
}

#[test]
fn clients_of_riva_find_the_gateway_on_their_own_port() {
    let ports = |service: &str| {
        let stack = format!("{MINIMAL}\ngateway: {{service: {service}}}");
        let objects = all(built(&stack));
        let is_gateway = |object: &&Value| {
            object["kind"] == "Service"
                && object["metadata"]["labels"]["app.kubernetes.io/component"] == "gateway"
        };
        let ports = objects.iter().find(is_gateway).unwrap()["spec"]["ports"].clone();
        let port = |port: &Value| (port["name"].clone(), port["port"].clone(), port["appProtocol"].clone());
        ports.as_array().unwrap().iter().map(port).collect::<Vec<_>>()
    };
    let balanced = ports("{type: LoadBalancer}");
    assert_eq!(balanced[0], (json!("http"), json!(80), json!("http")));
    assert_eq!(balanced[1], (json!("grpc"), json!(50051), json!("kubernetes.io/h2c")));
    assert_eq!(ports("{port: 50051}"), [(json!("http"), json!(50051), Value::Null)]);
}

#[test]
fn a_folder_of_the_node_is_given_to_the_engines_user_when_asked() {
    let init = |cache: &str| {
        let spec = format!("stt: [{{name: ears, preset: parakeet-rnnt-1.1b, cache: {{hostPath: {cache}}}}}]");
        template(&spec)["spec"]["initContainers"].as_array().unwrap().clone()
    };
    assert_eq!(init("{path: /var/cache/nim}").len(), 1);
    let with = init("{path: /var/cache/nim, setOwner: true}");
    assert_eq!(with[0]["command"], json!(["chown", "1000:1000", "/opt/nim/.cache"]));
    assert_eq!(
        (&with[0]["securityContext"]["runAsUser"], &with[1]["name"]),
        (&json!(0), &json!(container::GUARD))
    );
}

#[test]
fn pods_may_run_as_the_user_that_the_cluster_gives() {
    let mut defaults = testing::defaults();
    defaults.fixed_user = false;
    let stack =
        crate::reconcile::validate::validate(&testing::stack(MINIMAL), &testing::observed(), &defaults);
    let desired = build(&stack.unwrap(), &testing::observed());
    let pods = [desired.engines[0].object.json(), fingerprint::json(&desired.gateways[0])];
    for pod in pods {
        let security = &pod["spec"]["template"]["spec"]["securityContext"];
        assert!(security["runAsUser"].is_null() && security["fsGroup"].is_null(), "{security}");
        assert_eq!(security["runAsNonRoot"], true);
    }
}

#[test]
fn labels_and_pull_secrets_are_on_every_object_that_takes_them() {
    let spec = format!("{MINIMAL}\nlabels: {{cost-center: speech}}\nannotations: {{owner: team-a}}");
    for object in all(built(&spec)) {
        assert_eq!(object["metadata"]["labels"]["cost-center"], "speech", "{object}");
        assert_eq!(object["metadata"]["annotations"]["owner"], "team-a", "{object}");
        let template = &object["spec"]["template"];
        assert!(template.is_null() || template["metadata"]["labels"]["cost-center"] == "speech", "{object}");
    }
    let mut defaults = testing::defaults();
    defaults.image_pull_secrets = vec!["ngc-registry".into()];
    defaults.image_registry = Some("mirror.local".into());
    let stack =
        crate::reconcile::validate::validate(&testing::stack(MINIMAL), &testing::observed(), &defaults);
    let pod = build(&stack.unwrap(), &testing::observed()).engines[0].object.json();
    let pod = &pod["spec"]["template"]["spec"];
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "ngc-registry"}]));
    assert_eq!(pod["containers"][0]["image"], "mirror.local/nim/nvidia/parakeet-0.6b-tdt:latest");
}

#[test]
fn writing_a_default_out_is_no_change_of_the_pods() {
    let written =
        MINIMAL.replace("name: ears,", "name: ears, ports: {}, drain: {}, cache: {pvc: {size: 100Gi}},");
    let cache = MINIMAL.replace("name: ears,", "name: ears, cache: {pvc: {}},");
    assert_eq!(workload(&cache).inputs, workload(&written).inputs);
}

#[test]
fn the_engine_starts_behind_its_guard_and_ends_by_eject_only() {
    let template = template("{stt: [{name: ears, preset: reference, drain: {timeout: 90s}}]}");
    let guard = &template["spec"]["initContainers"][0];
    assert_eq!((&guard["name"], &guard["restartPolicy"]), (&json!(container::GUARD), &json!("Always")));
    let engine = engine_of(&template);
    assert_eq!(engine["livenessProbe"]["exec"]["command"], json!(["/run/speechstack/livez"]));
    assert_eq!(engine["livenessProbe"]["failureThreshold"], 2);
    assert_eq!(engine["livenessProbe"]["terminationGracePeriodSeconds"], 1);
    assert!(engine["startupProbe"].is_null() && engine["readinessProbe"].is_null());
    assert_eq!(
        engine["lifecycle"]["preStop"]["exec"]["command"],
        json!(["/run/speechstack/livez", "drain", "90"])
    );
    assert_eq!(template["spec"]["terminationGracePeriodSeconds"], 105);
    assert_eq!(engine["args"], json!(["--kind", "stt", "--listen", "[::]:9000"]));
    assert_eq!(template["spec"]["automountServiceAccountToken"], false);
    let mounts = engine["volumeMounts"].as_array().unwrap();
    assert!(!mounts.iter().any(|mount| mount["name"] == "speechstack-identity"), "the engine gets no token");
}

#[test]
fn every_alternative_of_the_users_affinity_avoids_marked_nodes() {
    let (_, spec) = GOLDEN[6];
    let template = template(spec);
    let terms = template["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"].clone();
    let terms = terms.as_array().unwrap();
    assert_eq!(terms.len(), 2);
    for term in terms {
        let expressions = term["matchExpressions"].as_array().unwrap();
        assert!(
            expressions.contains(
                &json!({"key": "avoid.speechstack.dev/speech.demo.ears", "operator": "DoesNotExist"})
            )
        );
        assert_eq!(expressions[0]["key"], "zone");
    }
}

#[test]
fn the_patch_merges_lists_by_name_and_replaces_values() {
    let (_, spec) = GOLDEN[6];
    let template = template(spec);
    let containers = template["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 2);
    let env = engine_of(&template)["env"].as_array().unwrap();
    assert!(env.iter().any(|variable| variable["name"] == "EXTRA"));
    assert!(env.iter().any(|variable| variable["name"] == "NIM_HTTP_API_PORT"));
    assert!(engine_of(&template)["livenessProbe"].is_object());
}

#[test]
fn a_scaler_owns_the_number_and_suspend_stops_all() {
    let of = |scaling: &str, more: &str| {
        workload(&format!("{{stt: [{{name: ears, preset: reference, autoscaling: {scaling}}}]{more}}}"))
    };
    let own = of("{minReplicas: 2, maxReplicas: 4}", "");
    assert_eq!((own.replicas, own.first), (None, 2));
    let external = of("{external: true}", "");
    assert_eq!((external.replicas, external.first), (None, 1));
    assert_eq!(of("{maxReplicas: 4}", ", suspend: true").replicas, Some(0));
    let scalers = |scaling: &str| {
        built(&format!("stt: [{{name: ears, preset: reference, autoscaling: {scaling}}}]")).autoscalers.len()
    };
    assert_eq!((scalers("{maxReplicas: 4}"), scalers("{external: true}")), (1, 0));
    assert_eq!(built(GOLDEN[5].1).gateways[0].spec.as_ref().unwrap().replicas, None);
}

#[test]
fn an_autoscaler_keeps_engines_longer_than_a_start_takes() {
    let spec = "stt: [{name: ears, preset: parakeet-rnnt-1.1b, autoscaling: {maxReplicas: 4}}]";
    let scaler = fingerprint::json(&built(spec).autoscalers[0]);
    assert_eq!(scaler["spec"]["scaleTargetRef"]["kind"], "StatefulSet");
    assert_eq!(scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 2400);
    assert_eq!(scaler["spec"]["behavior"]["scaleUp"]["policies"][0]["value"], 1);
}
