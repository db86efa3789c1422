//! What is refused, what is only a concern, and what defaults become.

use std::collections::BTreeMap;

use speechstack_crds::condition::reason;

use super::*;
use crate::reconcile::observe::Found;
use crate::reconcile::testing::{self, MINIMAL};

fn refused(spec: &str) -> String {
    validate(&testing::stack(spec), &testing::observed(), &testing::defaults()).unwrap_err().message()
}

fn concerns(spec: &str, observed: Observed) -> Vec<Problem> {
    validate(&testing::stack(spec), &observed, &testing::defaults()).unwrap().concerns
}

fn node(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn what_cannot_be_carried_out_is_refused_by_name_and_all_at_once() {
    let engine = |rest: &str| format!("stt: [{{name: ears, preset: reference, {rest}}}]");
    for (spec, expected) in [
        ("{}".to_owned(), "needs an engine"),
        (engine("shmSize: much"), "spec.stt[ears].shmSize"),
        (engine("cache: {pvc: {size: '8 cows'}}"), "cache.pvc.size"),
        (engine("affinity: {nodeAfinity: {}, podAffinity: {x: 1}}"), "podAffinity.x is not a field"),
        (engine("topologySpreadConstraints: [{maxSkew: a}]"), "topologySpreadConstraints[0]"),
        (engine("autoscaling: {maxReplicas: 2, metrics: [{type: Pods, pod: {a: 1}}]}"), "metrics[0]"),
        (engine("podTemplatePatch: {spec: {containers: [{name: guard, image: x}]}}"), "guard container"),
        (engine("podTemplatePatch: {spec: {initContainers: [{name: guard, image: x}]}}"), "guard container"),
        (
            engine(
                "podTemplatePatch: {spec: {containers: [{name: engine, livenessProbe: {periodSeconds: 9}}]}}",
            ),
            "liveness probe",
        ),
        (
            engine("podTemplatePatch: {metadata: {labels: {speechstack.dev/engine: x}}}"),
            "belongs to the operator",
        ),
        (engine("podTemplatePatch: {spec: {volumes: [{name: speechstack-run}]}}"), "belongs to the guard"),
        (engine("podTemplatePatch: {spec: {contaners: [{name: engine}]}}"), "spec.contaners is not a field"),
        (engine("podTemplatePatch: {spec: {restartPolicy: Never}}"), "restartPolicy"),
        ("stt: [{name: own, preset: custom}]".into(), "image.repository"),
        ("llm: [{name: own, preset: external}]".into(), "spec.llm[own].external: belongs to preset external"),
        (
            "llm: [{name: own, preset: reference, external: {baseUrl: 'http://a', model: b}}]".into(),
            "spec.llm[own].external: belongs to preset external",
        ),
        (
            "stt: [{name: own, preset: external, protocols: [riva], external: {baseUrl: 'http://a', model: b}}]"
                .into(),
            "spec.stt[own].protocols",
        ),
        (engine("hosted: {jobsPerDay: 1}"), "spec.stt[ears].hosted: is for external servers"),
        (
            "stt: [{name: cloud, preset: external, external: {baseUrl: 'http://a', model: b}, hosted: {jobsPerDay: 1}}]"
                .into(),
            "spec.stt[cloud].hosted: there is no other engine",
        ),
        (
            "llm: [{name: ears, preset: reference}]\nstt: [{name: ears, preset: reference}]".into(),
            "is used twice",
        ),
        (
            "stt: [{name: own, preset: parakeet-9}]".into(),
            "there is no preset parakeet-9 here; there are cpu, custom",
        ),
        (
            "stt: [{name: ears, preset: reference, ports: {http: 8080}}]\ngateway: {mode: Sidecar}".into(),
            "spec.stt[ears].ports: 8080 is a port of the gateway",
        ),
        (
            "stt: [{name: ears, preset: reference, idle: {after: 1h}}]\ngateway: {mode: Sidecar}".into(),
            "remove idle, standby and hosted",
        ),
        (
            "stt: [{name: a, preset: reference}, {name: a-api, preset: cpu}]\ngateway: {mode: Sidecar}"
                .into(),
            "rename one of them",
        ),
        (format!("{MINIMAL}\nlabels: {{speechstack.dev/stack: x}}"), "belongs to the operator"),
        (
            format!(
                "{MINIMAL}\ngateway: {{podTemplatePatch: {{spec: {{volume: []}}, metadata: {{nam: x}}}}}}"
            ),
            "is not a field",
        ),
        (format!("{MINIMAL}\ngateway: {{modelAliases: {{mine: nothing}}}}"), "mine means nothing"),
        (engine("standby: true"), "spec.stt[ears].standby"),
        (format!("{MINIMAL}\ngateway: {{limits: {{maxUpload: big}}}}"), "maxUpload"),
    ] {
        let message = refused(&spec);
        assert!(message.contains(expected), "{spec}: {message}");
    }
    let both = refused("stt: [{name: a, preset: custom}, {name: b, preset: reference, shmSize: x}]");
    assert!(both.contains("spec.stt[a].image") && both.contains("spec.stt[b].shmSize"), "{both}");
}

#[test]
fn the_preset_gives_what_the_user_leaves_out() {
    let stack = testing::valid(MINIMAL);
    let ears = &stack.engines[0];
    assert_eq!(ears.image.reference, "nvcr.io/nim/nvidia/parakeet-0.6b-tdt:latest");
    assert_eq!(
        (ears.architectures.join(" ").as_str(), ears.min_gpu_memory_mib, ears.shm.0.as_str()),
        ("amd64", 15_000, "8Gi")
    );
    assert!(matches!(&ears.gpu, Gpu::Count { resource, count: 1 } if resource == "nvidia.com/gpu"));
    assert!(
        matches!(&ears.cache, Some((Volume::New(claim), path)) if claim.size.0 == "100Gi" && path == "/opt/nim/.cache")
    );
    let reference = testing::valid("stt: [{name: a, preset: reference}]");
    assert!(matches!(reference.engines[0].gpu, Gpu::None) && reference.engines[0].cache.is_none());
}

#[test]
fn another_image_may_run_anywhere() {
    let stack =
        testing::valid("stt: [{name: a, preset: parakeet-tdt-0.6b-v3, image: {repository: r.local/x}}]");
    assert!(stack.engines[0].architectures.is_empty());
    let stack = testing::valid("{stt: [{name: a, preset: parakeet-tdt-0.6b-v3}], imageRegistry: m.local}");
    assert_eq!(stack.engines[0].architectures, ["amd64"]);
    assert_eq!(stack.engines[0].image.reference, "m.local/nim/nvidia/parakeet-0.6b-tdt:latest");
}

#[test]
fn two_engines_of_one_preset_share_its_model_and_others_have_their_own() {
    let model = |spec: &str| testing::valid(spec).gateway.models;
    let shared = model("stt: [{name: a, preset: reference}, {name: b, preset: reference}]");
    assert_eq!((shared.len(), &shared[0].engine), (1, &None));
    let own =
        model("stt: [{name: a, preset: reference}, {name: b, preset: reference, models: [big, whisper-1]}]");
    assert_eq!(own[0].engine.as_deref(), Some("a"));
    assert_eq!((own[1].id.as_str(), own[1].engine.as_deref(), own[1].aliases.len()), ("big", Some("b"), 0));
    let aliased = model(
        "{stt: [{name: a, preset: reference}, {name: b, preset: reference, models: [big]}], gateway: {modelAliases: {whisper-1: big}}}",
    );
    assert_eq!(aliased[1].aliases, ["whisper-1"]);
    assert!(!aliased[0].aliases.contains(&"whisper-1".to_owned()), "a name means one model");
}

#[test]
fn what_may_be_cured_from_outside_is_a_concern() {
    let arm = node(&[("kubernetes.io/arch", "arm64")]);
    let small = node(&[("kubernetes.io/arch", "amd64"), ("nvidia.com/gpu.memory", "8192")]);
    let big = node(&[("kubernetes.io/arch", "amd64"), ("nvidia.com/gpu.memory", "81920"), ("pool", "b")]);
    let nodes =
        |nodes: &[BTreeMap<String, String>]| Observed { node_labels: nodes.to_vec(), ..testing::observed() };
    let one = "stt: [{name: a, preset: parakeet-tdt-0.6b-v3}]";
    let reasons = |spec: &str, observed: Observed| -> Vec<&str> {
        concerns(spec, observed).iter().map(|concern| concern.reason).collect()
    };
    assert_eq!(reasons(one, nodes(&[])), [""; 0], "nothing is known of nodes");
    assert_eq!(reasons(one, nodes(std::slice::from_ref(&arm))), [reason::ARCH_MISMATCH]);
    assert_eq!(reasons(one, nodes(std::slice::from_ref(&small))), [reason::INSUFFICIENT_GPU_MEMORY]);
    assert_eq!(reasons(one, nodes(&[arm, small, big.clone()])), [""; 0]);
    let pinned = one.replace("preset:", "nodeSelector: {pool: a}, preset:");
    assert_eq!(
        reasons(&pinned, nodes(&[big])),
        [""; 0],
        "no node of the pool yet: an autoscaler may make one"
    );
    let claim = "stt: [{name: a, preset: reference, cache: {existingClaim: models}}]";
    let missing = Observed { missing_claims: ["models".to_owned()].into(), ..testing::observed() };
    assert_eq!(reasons(claim, missing), [reason::CACHE_CLAIM_MISSING]);
    let secret = format!("{MINIMAL}\nauth: {{ngcSecretRef: {{name: ngc}}}}");
    let without = Observed { ngc_secret: Found::WithoutKey, ..testing::observed() };
    assert_eq!(reasons(&secret, without), [reason::AUTH_SECRET_MISSING]);
}
