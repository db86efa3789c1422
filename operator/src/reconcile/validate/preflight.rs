//! What the stack refers to, and what the nodes have: found before pods fail on it.

use std::collections::BTreeMap;

use speechstack_crds::SpeechStackSpec;
use speechstack_crds::condition::reason;

use super::Problem;
use super::engine::{Gpu, ValidEngine, Volume};
use crate::reconcile::observe::{Found, Observed};

/// Label of NVIDIA's feature discovery: memory of the node's GPUs, MiB.
const GPU_MEMORY: &str = "nvidia.com/gpu.memory";
const ARCH: &str = "kubernetes.io/arch";

/// What may keep the stack's pods from starting.
pub fn concerns(spec: &SpeechStackSpec, engines: &[ValidEngine], observed: &Observed) -> Vec<Problem> {
    let mut concerns = Vec::new();
    if let Some(key) = &spec.auth.ngc_secret_ref {
        concerns.extend(secret(observed.ngc_secret, &key.name, &key.key));
    }
    if let Some(auth) = &spec.gateway.auth {
        let key = &auth.keys_secret_ref;
        concerns.extend(secret(observed.keys_secret, &key.name, &key.key));
    }
    if let Some(redis) = spec.gateway.quotas.as_ref().and_then(|quotas| quotas.redis.as_ref()) {
        let key = &redis.url_secret_ref;
        concerns.extend(secret(observed.redis_secret, &key.name, &key.key));
    }
    if let Some(redis) = spec.gateway.storage.as_ref().and_then(|storage| storage.redis.as_ref()) {
        let key = &redis.url_secret_ref;
        concerns.extend(secret(observed.jobs_redis_secret, &key.name, &key.key));
    }
    let tracing = spec.gateway.tracing.as_ref().and_then(|tracing| tracing.headers_secret_ref.as_ref());
    if let Some(key) = tracing {
        concerns.extend(secret(observed.tracing_secret, &key.name, &key.key));
    }
    if let Some(tls) = &spec.gateway.tls {
        concerns.extend(secret(observed.tls_secret, &tls.secret_name, "tls.crt"));
    }
    let kept = spec.gateway.storage.as_ref().and_then(|storage| storage.existing_claim.as_ref());
    if let Some(claim) = kept.filter(|claim| observed.missing_claims.contains(*claim)) {
        let message = format!("gateway.storage: there is no PersistentVolumeClaim {claim}");
        concerns.push(Problem { reason: reason::CACHE_CLAIM_MISSING, message });
    }
    for engine in engines {
        let name = &engine.spec.name;
        let external = engine.spec.external.as_ref();
        if let Some(key) = external.and_then(|external| external.api_key_secret_ref.as_ref()) {
            let found = observed.api_key_secrets.get(name).copied().unwrap_or_default();
            concerns.extend(secret(found, &key.name, &key.key));
        }
        if let Some((Volume::Existing(claim), _)) = &engine.cache
            && observed.missing_claims.contains(claim)
        {
            let message = format!("engine {name}: there is no PersistentVolumeClaim {claim}");
            concerns.push(Problem { reason: reason::CACHE_CLAIM_MISSING, message });
        }
        concerns.extend(architecture(engine, observed));
        concerns.extend(gpu_memory(engine, observed));
    }
    if spec.gateway.http_route.is_some() && !observed.optional.http_route {
        let message =
            "spec.gateway.httpRoute: the cluster does not know the kind HTTPRoute; install the Gateway API";
        concerns.push(Problem { reason: reason::INVALID_SPEC, message: message.into() });
    }
    concerns
}

fn secret(found: Found, name: &str, key: &str) -> Option<Problem> {
    let message = match found {
        Found::Yes => return None,
        Found::No => format!("there is no Secret {name}"),
        Found::WithoutKey => format!("the Secret {name} has no key {key}"),
    };
    Some(Problem { reason: reason::AUTH_SECRET_MISSING, message })
}

fn architecture(engine: &ValidEngine, observed: &Observed) -> Option<Problem> {
    let wanted = &engine.architectures;
    if wanted.is_empty() {
        return None;
    }
    let labels: Vec<_> = candidates(engine, observed).filter_map(|labels| labels.get(ARCH)).collect();
    if labels.is_empty() || labels.iter().any(|arch| wanted.contains(arch)) {
        return None;
    }
    let message = format!(
        "engine {}: its image is for {} only and no node that it may use has this architecture",
        engine.spec.name,
        wanted.join(" and ")
    );
    Some(Problem { reason: reason::ARCH_MISMATCH, message })
}

/// Only where nodes tell their GPU memory; MIG slices and DRA devices are smaller or bigger than what the label says.
fn gpu_memory(engine: &ValidEngine, observed: &Observed) -> Option<Problem> {
    let Gpu::Count { resource, .. } = &engine.gpu else { return None };
    if resource != "nvidia.com/gpu" || engine.min_gpu_memory_mib == 0 {
        return None;
    }
    let memory = candidates(engine, observed)
        .filter_map(|labels| labels.get(GPU_MEMORY)?.parse::<u64>().ok())
        .max()?;
    if memory >= engine.min_gpu_memory_mib {
        return None;
    }
    let message = format!(
        "engine {} needs {} MiB of GPU memory and the largest GPU that it may use has {memory} MiB; \
         choose another profile, or lower gpu.minMemory if you know better",
        engine.spec.name, engine.min_gpu_memory_mib
    );
    Some(Problem { reason: reason::INSUFFICIENT_GPU_MEMORY, message })
}

/// Labels of the nodes that the engine's selector admits.
fn candidates<'a>(
    engine: &'a ValidEngine,
    observed: &'a Observed,
) -> impl Iterator<Item = &'a BTreeMap<String, String>> {
    let selector = &engine.spec.node_selector;
    observed
        .node_labels
        .iter()
        .filter(move |labels| selector.iter().all(|(key, value)| labels.get(key) == Some(value)))
}
