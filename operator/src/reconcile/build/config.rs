//! The configuration files of guards and gateways: typed here, parsed by the proxy's own types in a test.
//!
//! A change reaches running pods through the file, without a restart; no hash of it is in any pod template.

use contract::port;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use serde::Serialize;
use speechstack_crds::{Capability, ContainerRestarts, Span};

use super::guard::{CACHE_PATH, RUN_PATH};
use super::metadata;
use super::pod::{API_KEY_FILE, TRACING_FILE};
use crate::names;
use crate::reconcile::validate::{ValidEngine, ValidStack};

mod gateway;

pub use gateway::{DRAIN_DELAY, drain, gateway, sidecar};

#[derive(Serialize)]
struct GuardFile {
    guard: Policy,
    engines: [Engine; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<Stop>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracing: Option<Tracing>,
}

/// Where spans go.
#[derive(Serialize)]
struct Tracing {
    otlp: Otlp,
}

#[derive(Serialize)]
struct Otlp {
    endpoint: String,
    sample_ratio: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers_file: Option<&'static str>,
}

impl Tracing {
    fn of(stack: &ValidStack) -> Option<Self> {
        let wanted = stack.gateway.spec.tracing.as_ref()?;
        let (endpoint, sample_ratio) = (wanted.endpoint.clone(), wanted.sample_ratio);
        let headers_file = wanted.headers_secret_ref.as_ref().map(|_| TRACING_FILE);
        Some(Self { otlp: Otlp { endpoint, sample_ratio, headers_file } })
    }
}

/// The end of a guard that has no engine beside it to wait for.
#[derive(Serialize)]
struct Stop {
    drain: Span,
}

#[derive(Serialize)]
struct Policy {
    probe: Probe,
    confirm: Confirm,
    lane: Lane,
    trend: Trend,
    startup: Startup,
    repair: Repair,
}

#[derive(Serialize)]
struct Probe {
    idle_period: Span,
    content_period: Span,
    timeout_min: Span,
    timeout_max: Span,
    max_word_error: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    voice: Option<String>,
}

#[derive(Serialize)]
struct Confirm {
    rules: Rules,
}

#[derive(Serialize)]
struct Rules {
    periodic: Quorum,
}

#[derive(Serialize)]
struct Quorum {
    failures: u32,
    of: u32,
}

#[derive(Serialize)]
struct Lane {
    jobs: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_streams: Option<u32>,
    fixed_seconds: f64,
    seconds_per_audio_second: f64,
}

#[derive(Serialize)]
struct Trend {
    degraded_factor: f64,
    recycle_factor: f64,
}

#[derive(Serialize)]
struct Startup {
    budget: Span,
}

#[derive(Serialize)]
struct Repair {
    restart: bool,
    eject: bool,
    burst: u32,
    refill: Span,
    spacing_seconds: Vec<f64>,
}

#[derive(Serialize)]
struct Engine {
    name: &'static str,
    capability: &'static str,
    protocols: Vec<&'static str>,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    voice: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jobs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_context: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_cache: Option<&'static str>,
    guard: String,
    guard_admin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubelet: Option<Kubelet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operator: Option<Operator>,
}

#[derive(Serialize)]
struct Kubelet {
    dir: &'static str,
    helper: &'static str,
    direct_kill: bool,
}

#[derive(Serialize)]
struct Operator {
    audience: String,
    subject: String,
}

/// The guard's file of one engine.
pub fn guard(stack: &ValidStack, engine: &ValidEngine, name: String) -> ConfigMap {
    let probe = &stack.deep_probe;
    let threshold = probe.failure_threshold;
    let degraded = f64::from(probe.degraded_latency_percent) / 100.0;
    let restarts = &stack.repair.container_restarts;
    let (external, hosted) = (engine.spec.external.as_ref(), engine.spec.hosted.as_ref());
    let file = GuardFile {
        guard: Policy {
            probe: Probe {
                idle_period: hosted.map_or(probe.interval, |hosted| hosted.probe_interval),
                content_period: hosted.map_or(probe.content_interval, |hosted| hosted.probe_interval),
                timeout_min: probe.timeout_min,
                timeout_max: probe.timeout_max,
                max_word_error: f64::from(probe.max_word_error_percent) / 100.0,
                voice: engine.preset.probe.voice.clone(),
            },
            confirm: Confirm { rules: Rules { periodic: Quorum { failures: threshold, of: threshold } } },
            lane: Lane {
                jobs: engine.lane_jobs,
                max_streams: engine.preset.streams,
                fixed_seconds: engine.preset.cost.fixed,
                seconds_per_audio_second: engine.preset.cost.per_audio_second,
            },
            // A recycle must need more than what counts as degraded.
            trend: Trend { degraded_factor: degraded, recycle_factor: (degraded + 0.5).max(3.0) },
            startup: Startup { budget: engine.startup },
            repair: Repair {
                restart: stack.restarts(),
                eject: stack.ejects(),
                burst: restarts.burst,
                refill: restarts.refill,
                spacing_seconds: spacing(restarts),
            },
        },
        engines: [Engine {
            jobs: (engine.capability == Capability::Llm).then_some(engine.lane_jobs),
            key_file: external.and_then(|server| server.api_key_secret_ref.as_ref()).map(|_| API_KEY_FILE),
            trace_context: external.map(|server| server.trace_context),
            model_cache: engine.cache.as_ref().filter(|_| external.is_none()).map(|_| CACHE_PATH),
            // What runs elsewhere is probed and left out when it fails, and restarted by others.
            kubelet: external.is_none().then_some(Kubelet {
                dir: RUN_PATH,
                helper: "/usr/local/bin/speechstack-livez",
                direct_kill: stack.guard.direct_kill,
            }),
            operator: external.is_none().then(|| Operator {
                audience: names::audience(&stack.namespace, &stack.name),
                subject: stack.subject.clone(),
            }),
            ..described(engine, "[::]")
        }],
        gateway: external.map(|_| Stop { drain: engine.drain }),
        tracing: Tracing::of(stack),
    };
    config_map(metadata::owned(stack, name, metadata::engine_labels(stack, engine)), &file)
}

/// An engine whose guard has that address, and whose name its pod sets.
fn described(engine: &ValidEngine, address: &str) -> Engine {
    let grpc = engine.protocols.iter().any(|protocol| protocol.is_grpc());
    let external = engine.spec.external.as_ref();
    Engine {
        name: "set-by-POD_NAME",
        capability: engine.capability.as_str(),
        protocols: engine.protocols.iter().map(|protocol| protocol.as_str()).collect(),
        url: external
            .map_or_else(|| format!("http://127.0.0.1:{}", engine.http), |server| server.url().to_owned()),
        grpc: grpc.then(|| format!("http://127.0.0.1:{}", engine.grpc)),
        language: engine.language.clone(),
        model: model(engine),
        voice: external.and_then(|server| server.voice.clone()),
        jobs: None,
        key_file: None,
        trace_context: None,
        model_cache: None,
        guard: format!("{address}:{}", port::GUARD),
        guard_admin: format!("{address}:{}", port::GUARD_ADMIN),
        kubelet: None,
        operator: None,
    }
}

/// The name by which servers of language models, and those that run elsewhere, know theirs.
fn model(engine: &ValidEngine) -> Option<String> {
    let asks = engine.capability == Capability::Llm || engine.spec.external.is_some();
    engine.models.first().filter(|_| asks).cloned()
}

fn config_map(metadata: ObjectMeta, file: &impl Serialize) -> ConfigMap {
    // Plain structs of numbers and texts always have a YAML form.
    let text = serde_saphyr::to_string(file).unwrap_or_default();
    ConfigMap { metadata, data: Some([("config.yaml".to_owned(), text)].into()), ..ConfigMap::default() }
}

/// Waits before the restarts of a row: none, then `backoff`, then three times as long each, up to `max_backoff`.
fn spacing(restarts: &ContainerRestarts) -> Vec<f64> {
    let (first, most) = (restarts.backoff.0.as_secs_f64(), restarts.max_backoff.0.as_secs_f64());
    let mut steps = vec![0.0, first.min(most)];
    let mut step = first * 3.0;
    while step < most && step > 0.0 && steps.len() < 8 {
        steps.push(step);
        step *= 3.0;
    }
    if most > first && first > 0.0 {
        steps.push(most);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_threefold_from_none_to_the_longest() {
        assert_eq!(spacing(&ContainerRestarts::default()), [0.0, 10.0, 30.0, 90.0, 270.0, 600.0]);
        let flat = ContainerRestarts {
            backoff: Span::seconds(60),
            max_backoff: Span::seconds(5),
            ..ContainerRestarts::default()
        };
        assert_eq!(spacing(&flat), [0.0, 5.0]);
        let none = ContainerRestarts { backoff: Span::seconds(0), ..ContainerRestarts::default() };
        assert_eq!(spacing(&none), [0.0, 0.0]);
    }
}
