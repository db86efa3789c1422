//! Which of the user's words render an engine's pod template: only a change of these replaces pods.

use serde_json::{Map, Value, json};
use speechstack_crds::{Auth, EngineSpec, GatewayMode, GatewaySpec, GuardSpec, SpeechStackSpec};

use crate::fingerprint;

/// Fingerprint of them. Fields that are unset are left out, so that neither a new field of the API nor another default of
/// an old one changes it. Every field of an engine is named here: a new one does not compile until it is placed.
#[must_use]
pub fn fingerprint(engine: &EngineSpec, stack: &SpeechStackSpec) -> String {
    let EngineSpec {
        preset,
        image,
        external,
        profile,
        args,
        protocols,
        gpu,
        resources,
        shm_size,
        cache,
        ports,
        env,
        env_from,
        node_selector,
        tolerations,
        affinity,
        topology_spread_constraints,
        priority_class_name,
        scheduler_name,
        runtime_class_name,
        volumes,
        volume_mounts,
        dns_policy,
        dns_config,
        service_account_name,
        pod_security_context,
        security_context,
        pod_labels,
        pod_annotations,
        pod_template_patch,
        drain,
        // Read by the guard from its file, by the gateway from its own, or by the workload beside the template.
        name: _,
        models: _,
        language: _,
        replicas: _,
        standby: _,
        hosted: _,
        autoscaling: _,
        idle: _,
        startup: _,
        rollout: _,
    } = engine;
    let GuardSpec { image: guard_image, resources: guard_resources, direct_kill, lane_jobs: _ } =
        &stack.guard;
    let Auth { ngc_secret_ref } = &stack.auth;
    let cache = cache.as_ref().map(|cache| {
        let mut cache = fingerprint::json(cache);
        // What fills it is not the engine. The size and class of a claim are the claim's, not the template's.
        if let Some(fields) = cache.as_object_mut() {
            fields.remove("prefill");
        }
        if let Some(claim) = cache.get_mut("pvc").and_then(Value::as_object_mut) {
            claim.retain(|key, _| key == "accessMode");
        }
        cache
    });
    let mut inputs = Map::new();
    let mut put = |key: &str, value: Value| {
        if !is_unset(&value) {
            inputs.insert(key.to_owned(), value);
        }
    };
    put("preset", fingerprint::json(preset));
    put("image", fingerprint::json(image));
    put("external", fingerprint::json(external));
    put("profile", fingerprint::json(profile));
    put("args", fingerprint::json(args));
    put("protocols", fingerprint::json(protocols));
    put("gpu", fingerprint::json(gpu));
    put("resources", fingerprint::json(resources));
    put("shmSize", fingerprint::json(shm_size));
    put("cache", fingerprint::json(&cache));
    put("ports", fingerprint::json(ports));
    put("env", fingerprint::json(env));
    put("envFrom", fingerprint::json(env_from));
    put("nodeSelector", fingerprint::json(node_selector));
    let none = tolerations.as_ref().is_some_and(Vec::is_empty); // other than no word of them
    put("tolerations", if none { Value::from("none") } else { fingerprint::json(tolerations) });
    put("affinity", fingerprint::json(affinity));
    put("topologySpreadConstraints", fingerprint::json(topology_spread_constraints));
    put("priorityClassName", fingerprint::json(priority_class_name));
    put("schedulerName", fingerprint::json(scheduler_name));
    put("runtimeClassName", fingerprint::json(runtime_class_name));
    put("volumes", fingerprint::json(volumes));
    put("volumeMounts", fingerprint::json(volume_mounts));
    put("dnsPolicy", fingerprint::json(dns_policy));
    put("dnsConfig", fingerprint::json(dns_config));
    put("serviceAccountName", fingerprint::json(service_account_name));
    put("podSecurityContext", fingerprint::json(pod_security_context));
    put("securityContext", fingerprint::json(security_context));
    put("podLabels", fingerprint::json(pod_labels));
    put("podAnnotations", fingerprint::json(pod_annotations));
    put("podTemplatePatch", fingerprint::json(pod_template_patch));
    put("drain", fingerprint::json(drain));
    put("guardImage", fingerprint::json(guard_image));
    put("guardResources", fingerprint::json(guard_resources));
    put("directKill", if *direct_kill { Value::Bool(true) } else { Value::Null });
    put("ngcSecretRef", fingerprint::json(ngc_secret_ref));
    put("imagePullSecrets", fingerprint::json(&stack.image_pull_secrets));
    put("imageRegistry", fingerprint::json(&stack.image_registry));
    put("labels", fingerprint::json(&stack.labels));
    let headers = stack.gateway.tracing.as_ref().and_then(|tracing| tracing.headers_secret_ref.as_ref());
    put("tracingHeaders", fingerprint::json(&headers));
    put("sidecar", sidecar(&stack.gateway));
    fingerprint::of(&Value::Object(inputs))
}

/// What renders the gateway beside an engine; nothing where it has pods of its own.
fn sidecar(gateway: &GatewaySpec) -> Value {
    if gateway.mode == GatewayMode::Service {
        return Value::Null;
    }
    json!({
        "mode": gateway.mode, "image": gateway.image, "resources": gateway.resources, "env": gateway.env, "tls": gateway.tls,
        "redis": gateway.quotas.as_ref().and_then(|quotas| quotas.redis.as_ref()).map(|redis| &redis.url_secret_ref),
        "keys": gateway.auth.as_ref().map(|auth| &auth.keys_secret_ref), "securityContext": gateway.security_context,
    })
}

/// Nothing, or a map or list of nothing.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_unset),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
