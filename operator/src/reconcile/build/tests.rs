//! What a stack becomes: names, rendered pods against golden files, configuration that the proxy reads.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Value, json};

use super::{DesiredObjects, Live, Update, build};
use crate::names::{annotation, container};
use crate::reconcile::fingerprint;
use crate::reconcile::testing::{self, MINIMAL};

fn built(spec: &str) -> DesiredObjects {
    build(&testing::valid(spec), &testing::observed())
}

fn all(desired: DesiredObjects) -> Vec<Value> {
    fn push<K: Serialize>(to: &mut Vec<Value>, objects: &[K]) {
        to.extend(objects.iter().map(fingerprint::json));
    }
    let DesiredObjects {
        service_accounts,
        roles,
        role_bindings,
        config_maps,
        claims,
        services,
        disruption_budgets,
        network_policies,
        engines,
        gateways,
        autoscalers,
        ingresses,
        http_routes,
        pod_monitors,
        prometheus_rules,
    } = desired;
    let mut all = Vec::new();
    push(&mut all, &service_accounts);
    push(&mut all, &roles);
    push(&mut all, &role_bindings);
    push(&mut all, &config_maps);
    push(&mut all, &claims);
    push(&mut all, &services);
    push(&mut all, &disruption_budgets);
    push(&mut all, &network_policies);
    push(&mut all, &engines.into_iter().map(|engine| engine.deployment).collect::<Vec<_>>());
    push(&mut all, &gateways);
    push(&mut all, &autoscalers);
    push(&mut all, &ingresses);
    push(&mut all, &http_routes);
    push(&mut all, &pod_monitors);
    push(&mut all, &prometheus_rules);
    all
}

/// The engine pod's template.
fn template(spec: &str) -> Value {
    fingerprint::json(&built(spec).engines[0].deployment)["spec"]["template"].clone()
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
    assert_eq!(
        names,
        [
            "ConfigMap demo-ears",
            "ConfigMap demo-gateway",
            "ConfigMap demo-mouth",
            "Deployment demo-ears",
            "Deployment demo-gateway",
            "Deployment demo-mouth",
            "PersistentVolumeClaim demo-ears-cache",
            "PersistentVolumeClaim demo-mouth-cache",
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
const GOLDEN: [(&str, &str); 7] = [
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
                assert_eq!(read.guard.lane.jobs, if name == "autoscaled-dra" { 4 } else { 1 });
                assert_eq!(read.guard.repair.restart, name != "mirrored-observe");
                assert_eq!(read.guard.startup.budget.as_secs(), 2700);
            } else {
                assert_eq!(read.gateway.body_limit.as_u64(), 2 << 30);
                assert!(!read.gateway.models.is_empty());
            }
        }
    }
}

#[test]
fn a_policy_change_reaches_guards_by_their_file_and_rolls_no_pod() {
    let before = built(MINIMAL);
    let after = built(&format!("{MINIMAL}\nrepair: {{policy: Eject}}\ndeepProbe: {{interval: 10s}}\n"));
    for (before, after) in before.engines.iter().zip(&after.engines) {
        assert_eq!(before.deployment, after.deployment);
    }
    assert_ne!(before.config_maps, after.config_maps);
}

#[test]
fn a_new_proxy_image_waits_until_the_user_changes_something() {
    let live = |desired: &DesiredObjects| {
        let annotations = desired.engines[0].deployment.annotations();
        Live {
            spec_hash: annotations[annotation::SPEC].clone(),
            template_hash: annotations[annotation::TEMPLATE].clone(),
            replicas: 1,
        }
    };
    let running = live(&built(MINIMAL));
    let with = |spec: &str, image: &str| {
        let mut defaults = testing::defaults();
        defaults.proxy_image = image.into();
        let stack = testing::stack(spec);
        crate::reconcile::validate::validate(&stack, &testing::observed(), &defaults).unwrap()
    };
    let decide = |spec: &str, image: &str| {
        let desired = build(&with(spec, image), &testing::observed());
        super::update::decide(
            speechstack_crds::Updates::OnSpecChange,
            Some(running.clone()),
            &desired.engines[0].deployment,
        )
    };
    assert_eq!(decide(MINIMAL, "speechstack/proxy:1"), Update::Apply);
    assert_eq!(decide(MINIMAL, "speechstack/proxy:2"), Update::Pending);
    assert_eq!(
        decide(&format!("{MINIMAL}\nrepair: {{hold: true}}"), "speechstack/proxy:2"),
        Update::Pending,
        "not of the pods"
    );
    let changed = MINIMAL.replace("name: ears,", "name: ears, shmSize: 9Gi,");
    assert_eq!(decide(&changed, "speechstack/proxy:2"), Update::Apply);
    assert_eq!(
        decide(&format!("{MINIMAL}\nguard: {{directKill: true}}"), "speechstack/proxy:2"),
        Update::Apply
    );
}

#[test]
fn writing_a_default_out_is_no_change_of_the_spec() {
    let hash = |spec: &str| built(spec).engines[0].deployment.annotations()[annotation::SPEC].clone();
    let written =
        MINIMAL.replace("name: ears,", "name: ears, ports: {http: 9000, grpc: 50051}, drain: {timeout: 2m},");
    assert_eq!(hash(MINIMAL), hash(&written));
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
    assert_eq!(engine["args"], json!(["--kind", "stt", "--listen", "0.0.0.0:9000"]));
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
            expressions
                .contains(&json!({"key": "avoid.speechstack.dev/demo-ears", "operator": "DoesNotExist"}))
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
fn an_autoscaler_owns_the_number_and_suspend_stops_all() {
    let replicas = |spec: &str| built(spec).engines[0].deployment.spec.as_ref().unwrap().replicas;
    let autoscaled = "stt: [{name: ears, preset: reference, autoscaling: {maxReplicas: 4}}]";
    assert_eq!(replicas(autoscaled), None);
    assert_eq!(replicas(&format!("{autoscaled}\nsuspend: true")), Some(0));
    assert_eq!(built(GOLDEN[5].1).gateways[0].spec.as_ref().unwrap().replicas, None);
}
