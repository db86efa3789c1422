//! What the API server must refuse, and with which words.

use serde_json::{Value, json};

/// A spec that is refused, with the start of the message.
pub struct Refusal {
    /// The start of the rule's message.
    pub message: &'static str,
    /// The stack's name.
    pub name: &'static str,
    /// The stack's spec.
    pub spec: Value,
}

/// One refusal for each rule of the CRD that judges a single object.
pub fn refusals() -> Vec<Refusal> {
    let named = |message, name, spec| Refusal { message, name, spec };
    let whole = |message, spec| named(message, "speech", spec);
    let stt = |message, fields: Value| {
        let mut engine = json!({"name": "parakeet", "preset": "parakeet-tdt-0.6b-v3"});
        merge(&mut engine, fields);
        whole(message, json!({"stt": [engine]}))
    };
    let with = |message, fields: Value| {
        let mut spec = json!({"stt": [{"name": "parakeet", "preset": "reference"}]});
        merge(&mut spec, fields);
        whole(message, spec)
    };
    vec![
        named(
            "metadata.name must have at most 30 characters",
            "a-stack-with-a-name-of-31-chars",
            json!({"stt": [{"name": "parakeet", "preset": "reference"}]}),
        ),
        named(
            "metadata.name must begin with a letter and have no dots",
            "speech.one",
            json!({"stt": [{"name": "parakeet", "preset": "reference"}]}),
        ),
        named(
            "metadata.name must begin with a letter and have no dots",
            "1-speech",
            json!({"stt": [{"name": "parakeet", "preset": "reference"}]}),
        ),
        whole("a stack needs an engine", json!({})),
        whole(
            "an engine name is used in two of spec.stt, spec.tts and spec.llm",
            json!({"stt": [{"name": "one", "preset": "reference"}], "tts": [{"name": "one", "preset": "reference"}]}),
        ),
        whole(
            "an engine name is used in two of spec.stt, spec.tts and spec.llm",
            json!({"tts": [{"name": "one", "preset": "reference"}], "llm": [{"name": "one", "preset": "reference"}]}),
        ),
        whole(
            "spec.llm takes language models",
            json!({"llm": [{"name": "words", "preset": "parakeet-rnnt-1.1b"}]}),
        ),
        whole(
            "a server of language models asks for the name of one",
            json!({"llm": [{"name": "words", "preset": "custom", "image": {"repository": "r.local/vllm"}}]}),
        ),
        stt("an external server is reached over HTTP", hosted(json!({"protocols": ["riva"]}))),
        stt("hosted is for servers of others", json!({"hosted": {"jobsPerDay": 1}})),
        stt("hosted is for servers of others", hosted(json!({"hosted": {"jobsPerDay": 1}, "standby": true}))),
        stt("hosted has no budget", hosted(json!({"hosted": {"beyondWait": "10s"}}))),
        stt("a hosted engine is the last resort of its list", hosted(json!({"hosted": {"jobsPerDay": 1}}))),
        whole(
            "preset external and the field external belong together",
            json!({"llm": [{"name": "hosted", "preset": "external"}]}),
        ),
        whole(
            "preset external and the field external belong together",
            json!({"llm": [{"name": "hosted", "preset": "reference", "external": server()}]}),
        ),
        whole(
            "an external server is not run here",
            json!({"llm": [{"name": "hosted", "preset": "external", "external": server(), "gpu": {"count": 1}}]}),
        ),
        whole(
            "an external server is not run here",
            json!({"llm": [{"name": "hosted", "preset": "external", "external": server(), "ports": {"http": 9000}}]}),
        ),
        whole(
            "an external server has its model in external.model",
            json!({"llm": [{"name": "hosted", "preset": "external", "external": server(), "models": ["mine"]}]}),
        ),
        whole(
            "spec.stt takes speech-to-text presets",
            json!({"stt": [{"name": "magpie", "preset": "magpie-multilingual"}]}),
        ),
        whole(
            "spec.tts takes text-to-speech presets",
            json!({"tts": [{"name": "parakeet", "preset": "parakeet-rnnt-1.1b"}]}),
        ),
        stt("an engine cannot be named gateway or engine", json!({"name": "gateway"})),
        stt("presets custom, parakeet-container", json!({"preset": "custom"})),
        stt(
            "set either replicas or autoscaling",
            json!({"replicas": 2, "autoscaling": {"minReplicas": 1, "maxReplicas": 2}}),
        ),
        stt(
            "autoscaling.minReplicas is above autoscaling.maxReplicas",
            json!({"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}),
        ),
        stt(
            "set either autoscaling.maxReplicas or autoscaling.external",
            json!({"autoscaling": {"minReplicas": 1}}),
        ),
        stt(
            "set either image.tag or image.digest",
            json!({"image": {"tag": "1", "digest": format!("sha256:{}", "0".repeat(64))}}),
        ),
        stt(
            "set exactly one of profile.tagsSelector",
            json!({"profile": {"tagsSelector": "a=b", "manifestProfile": "c"}}),
        ),
        stt(
            "set either gpu.count with gpu.resourceName",
            json!({"gpu": {"count": 1, "claims": [{"name": "gpu"}]}}),
        ),
        stt(
            "set exactly one of cache.existingClaim",
            json!({"cache": {"existingClaim": "a", "ephemeral": {"size": "1Gi"}}}),
        ),
        stt(
            "idle and autoscaling.external both own the number",
            json!({"idle": {"after": "15m"}, "autoscaling": {"external": true}}),
        ),
        stt(
            "cache.prefill fills one cache for all replicas",
            json!({"cache": {"pvc": {"accessMode": "ReadWriteOnce"}, "prefill": {}}}),
        ),
        stt(
            "cache.hostPath.path must be an absolute path",
            json!({"cache": {"hostPath": {"path": "var/cache"}}}),
        ),
        stt("ports 8000 to 8002 belong to Triton", json!({"ports": {"http": 8000}})),
        stt("ports.http and ports.grpc must differ", json!({"ports": {"http": 9400}})),
        stt(
            "set ports, cache, profile or spec.auth.ngcSecretRef",
            json!({"env": [{"name": "NIM_HTTP_API_PORT", "value": "9000"}]}),
        ),
        stt(
            "rollout.maxSurge and rollout.maxUnavailable belong to strategy RollingUpdate",
            json!({"rollout": {"strategy": "Recreate", "maxSurge": 1}}),
        ),
        stt(
            "rollout.maxSurge and rollout.maxUnavailable cannot both be 0",
            json!({"rollout": {"maxSurge": 0, "maxUnavailable": "0%"}}),
        ),
        stt("rollout.maxUnavailable: 0 needs a rollout.maxSurge", json!({"rollout": {"maxUnavailable": 0}})),
        with(
            "deepProbe.timeoutMin is longer than deepProbe.timeoutMax",
            json!({"deepProbe": {"timeoutMin": "20s", "timeoutMax": "10s"}}),
        ),
        with(
            "repair.escalation needs repair.policy: Restart",
            json!({"repair": {"policy": "Observe", "escalation": "AvoidNode"}}),
        ),
        with(
            "repair.containerRestarts.refill must be at least 1s",
            json!({"repair": {"containerRestarts": {"refill": "10ms"}}}),
        ),
        with(
            "repair.containerRestarts.maxParallel must be a number",
            json!({"repair": {"containerRestarts": {"maxParallel": "0%"}}}),
        ),
        with(
            "set either gateway.replicas or gateway.autoscaling",
            json!({"gateway": {"replicas": 2, "autoscaling": {"minReplicas": 1, "maxReplicas": 2}}}),
        ),
        with(
            "gateway.autoscaling.minReplicas is above maxReplicas",
            json!({"gateway": {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}}),
        ),
        with(
            "set either gateway.ingress or gateway.httpRoute",
            json!({"gateway": {"ingress": {"host": "a.example"}, "httpRoute": {"parentRefs": [{"name": "b"}]}}}),
        ),
        with(
            "gateway.mode: Sidecar has no gateway in front of all engines",
            json!({"gateway": {"mode": "Sidecar", "replicas": 2}}),
        ),
        with(
            "gateway.mode: Sidecar runs the gateway in the engines' pods",
            json!({"gateway": {"mode": "Sidecar", "nodeSelector": {"pool": "cpu"}}}),
        ),
        whole(
            "gateway.mode: Sidecar has no gateway that wakes an engine",
            json!({
                "stt": [{"name": "parakeet", "preset": "reference", "idle": {"after": "1h"}}],
                "gateway": {"mode": "Sidecar"},
            }),
        ),
        whole(
            "gateway.mode: Sidecar has no gateway that wakes an engine",
            json!({
                "stt": [
                    {"name": "parakeet", "preset": "reference"},
                    {"name": "cloud", "preset": "external", "external": server(), "hosted": {"jobsPerDay": 1}},
                ],
                "gateway": {"mode": "Sidecar"},
            }),
        ),
        with(
            "gateway.tracing.endpoint must be the URL of a collector",
            json!({"gateway": {"tracing": {"endpoint": "collector:4317"}}}),
        ),
        with(
            "gateway.quotas are those of API keys",
            json!({"gateway": {"quotas": {"tiers": {"free": {"jobs": 1}}}}}),
        ),
        with(
            "gateway.quotas.defaultTier is no tier of gateway.quotas.tiers",
            json!({"gateway": {
                "auth": {"keysSecretRef": {"name": "speech-keys"}},
                "quotas": {"defaultTier": "free", "tiers": {"paid": {"jobs": 1}}},
            }}),
        ),
        with(
            "gateway.tls.port and gateway.service.port must differ",
            json!({"gateway": {"tls": {"secretName": "cert"}, "service": {"port": 443}}}),
        ),
        with(
            "gateway.tls.http: false closes the port",
            json!({"gateway": {"tls": {"secretName": "cert", "http": false}, "ingress": {"host": "a.example"}}}),
        ),
        with(
            "set exactly one of gateway.storage.existingClaim, pvc and ephemeral",
            json!({"gateway": {"storage": {"existingClaim": "a", "ephemeral": {}}}}),
        ),
        with(
            "gateway.storage keeps nothing",
            json!({"gateway": {"storage": {"ephemeral": {}, "jobs": false, "recordings": false}}}),
        ),
        with(
            "gateway.storage.jobs are those of one gateway pod",
            json!({"gateway": {"replicas": 2, "storage": {"pvc": {"accessMode": "ReadWriteMany"}}}}),
        ),
        with(
            "gateway.storage.redis keeps jobs",
            json!({"gateway": {"storage": {"existingClaim": "a", "jobs": false, "redis": {"urlSecretRef": {"name": "r"}}}}}),
        ),
        with(
            "gateway.storage.redis needs a volume that all gateway pods have",
            json!({"gateway": {"storage": {"ephemeral": {}, "redis": {"urlSecretRef": {"name": "r"}}}}}),
        ),
        with(
            "gateway.storage is a volume of one gateway pod",
            json!({"gateway": {"replicas": 2, "storage": {"pvc": {"accessMode": "ReadWriteOnce"}, "jobs": false}}}),
        ),
        with(
            "updateWindow.duration must be above 0s",
            json!({"updateWindow": {"start": "02:00", "duration": "25h"}}),
        ),
    ]
}

/// An external engine with these fields.
fn hosted(fields: Value) -> Value {
    let mut engine = json!({"preset": "external", "external": server()});
    merge(&mut engine, fields);
    engine
}

fn server() -> Value {
    json!({"baseUrl": "https://api.example.com/v1", "model": "small-1"})
}

/// Messages of all rules in the CRD that compare with the object's past, which only an update can break.
pub const ON_UPDATE: &[&str] = &["pvc.storageClassName cannot change"];

/// The messages of every rule in a schema.
pub fn messages(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            let rules = fields.get("x-kubernetes-validations").and_then(Value::as_array);
            found.extend(
                rules.into_iter().flatten().filter_map(|rule| rule["message"].as_str().map(str::to_owned)),
            );
            fields.values().for_each(|value| messages(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| messages(value, found)),
        _ => {}
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
