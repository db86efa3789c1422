//! The configuration files of guards and gateways: typed here, parsed by the proxy's own types in a test.
//!
//! A change reaches running pods through the file, without a restart; no hash of it is in any pod template.

use contract::port;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use serde::Serialize;
use speechstack_crds::{Capability, ContainerRestarts, GatewayAuth, QuotaLimits, Span};

use super::guard::RUN_PATH;
use super::pod::{API_KEY_FILE, KEYS_FILE, TLS_PATH};
use super::{metadata, storage};
use crate::names;
use crate::reconcile::validate::{ValidEngine, ValidStack};

/// How long a stopping gateway goes on accepting, so that those who send to it learn of its end.
pub const DRAIN_DELAY: Span = Span::seconds(5);
const DEFAULT_VOICE: &str = "Magpie-Multilingual.EN-US.Mia";

#[derive(Serialize)]
struct GuardFile {
    guard: Policy,
    engines: [Engine; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<Stop>,
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
    jobs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<&'static str>,
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

#[derive(Serialize)]
struct GatewayFile {
    gateway: Gateway,
}

#[derive(Serialize)]
struct Auth {
    mode: &'static str,
    keys_file: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    query: bool,
    anonymous_models: bool,
}

#[derive(Serialize)]
struct Quotas {
    #[serde(skip_serializing_if = "Option::is_none")]
    default_tier: Option<String>,
    tiers: BTreeMap<String, Tier>,
}

#[derive(Serialize)]
struct Tier {
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_minute: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jobs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_minutes_per_day: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    characters_per_day: Option<u32>,
}

#[derive(Serialize)]
struct Tls {
    cert_file: String,
    key_file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
}

#[derive(Serialize)]
struct Jobs {
    disk: u64,
}

#[derive(Serialize)]
struct Gateway {
    listen: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
    admin: String,
    body_limit: u64,
    max_in_flight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    jobs: Option<Jobs>,
    drain: Span,
    drain_delay: Span,
    wait: Wait,
    discovery: Discovery,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<Auth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quotas: Option<Quotas>,
    models: Vec<Model>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    voices: BTreeMap<String, String>,
    default_voice: String,
}

#[derive(Serialize)]
struct Wait {
    max_wait: Span,
}

#[derive(Serialize)]
struct Discovery {
    namespace: String,
    pools: Vec<Pool>,
}

#[derive(Serialize)]
struct Pool {
    name: String,
    capability: &'static str,
    service: String,
    protocols: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    standby: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    sleeps: bool,
}

#[derive(Serialize)]
struct Model {
    id: String,
    capability: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    aliases: Vec<String>,
}

/// The guard's file of one engine.
pub fn guard(stack: &ValidStack, engine: &ValidEngine, name: String) -> ConfigMap {
    let probe = &stack.deep_probe;
    let threshold = probe.failure_threshold;
    let degraded = f64::from(probe.degraded_latency_percent) / 100.0;
    let restarts = &stack.repair.container_restarts;
    let external = engine.spec.external.as_ref();
    let file = GuardFile {
        guard: Policy {
            probe: Probe {
                idle_period: probe.interval,
                content_period: probe.content_interval,
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
            name: "set-by-POD_NAME",
            capability: engine.capability.as_str(),
            protocols: engine.protocols.iter().map(|protocol| protocol.as_str()).collect(),
            url: external.map_or_else(
                || format!("http://127.0.0.1:{}", engine.http),
                |server| server.url().to_owned(),
            ),
            grpc: engine
                .protocols
                .iter()
                .any(|protocol| protocol.is_grpc())
                .then(|| format!("http://127.0.0.1:{}", engine.grpc)),
            language: engine.language.clone(),
            model: model(engine),
            jobs: (engine.capability == Capability::Llm).then_some(engine.lane_jobs),
            key_file: external.and_then(|server| server.api_key_secret_ref.as_ref()).map(|_| API_KEY_FILE),
            guard: format!("[::]:{}", port::GUARD),
            guard_admin: format!("[::]:{}", port::GUARD_ADMIN),
            // What runs elsewhere is probed and left out when it fails, and restarted by others.
            kubelet: external.is_none().then(|| Kubelet {
                dir: RUN_PATH,
                helper: "/usr/local/bin/speechstack-livez",
                direct_kill: stack.guard.direct_kill,
            }),
            operator: external.is_none().then(|| Operator {
                audience: names::audience(&stack.namespace, &stack.name),
                subject: stack.subject.clone(),
            }),
        }],
        gateway: external.map(|_| Stop { drain: engine.drain }),
    };
    config_map(metadata::owned(stack, name, metadata::engine_labels(stack, engine)), &file)
}

/// The gateway's file.
pub fn gateway(stack: &ValidStack) -> ConfigMap {
    let gateway = &stack.gateway;
    let pools = stack.engines.iter().map(|engine| Pool {
        name: engine.spec.name.clone(),
        capability: engine.capability.as_str(),
        service: metadata::of_engine(stack, engine),
        protocols: engine.protocols.iter().map(|protocol| protocol.as_str()).collect(),
        language: engine.language.clone(),
        model: model(engine),
        standby: engine.spec.standby,
        sleeps: engine.spec.idle.is_some(),
    });
    let models = gateway.models.iter().map(|model| Model {
        id: model.id.clone(),
        capability: model.capability.as_str(),
        pool: model.engine.clone(),
        aliases: model.aliases.clone(),
    });
    let [plain, https] = [port::GATEWAY, port::GATEWAY_TLS].map(|port| format!("[::]:{port}"));
    let file = GatewayFile {
        gateway: Gateway {
            listen: if gateway.is_plain() { plain } else { https.clone() },
            tls: gateway.spec.tls.as_ref().map(|_| Tls {
                cert_file: format!("{TLS_PATH}/tls.crt"),
                key_file: format!("{TLS_PATH}/tls.key"),
                listen: gateway.is_plain().then_some(https),
            }),
            admin: format!("[::]:{}", port::GATEWAY_ADMIN),
            body_limit: gateway.max_upload,
            max_in_flight: gateway.spec.limits.max_in_flight,
            jobs: gateway.storage.as_ref().and_then(storage::job_bytes).map(|disk| Jobs { disk }),
            drain: drain(stack),
            drain_delay: DRAIN_DELAY,
            wait: Wait { max_wait: gateway.spec.limits.queue_timeout },
            discovery: Discovery { namespace: stack.namespace.clone(), pools: pools.collect() },
            auth: gateway.spec.auth.as_ref().map(auth),
            quotas: gateway.spec.quotas.as_ref().map(quotas),
            models: models.collect(),
            voices: voices(&gateway.spec.voice_aliases),
            default_voice: gateway.spec.default_voice.clone().unwrap_or_else(|| DEFAULT_VOICE.into()),
        },
    };
    config_map(metadata::gateway(stack), &file)
}

/// The name by which servers of language models know theirs.
fn model(engine: &ValidEngine) -> Option<String> {
    engine.models.first().filter(|_| engine.capability == Capability::Llm).cloned()
}

fn auth(auth: &GatewayAuth) -> Auth {
    Auth {
        mode: "keys",
        keys_file: KEYS_FILE,
        header: auth.header.clone(),
        query: auth.query,
        anonymous_models: auth.anonymous_models,
    }
}

fn quotas(quotas: &speechstack_crds::Quotas) -> Quotas {
    let tier = |(name, limits): (&String, &QuotaLimits)| {
        let limits = Tier {
            requests_per_minute: limits.requests_per_minute,
            jobs: limits.jobs,
            streams: limits.streams,
            audio_minutes_per_day: limits.audio_minutes_per_day,
            characters_per_day: limits.characters_per_day,
        };
        (name.clone(), limits)
    };
    Quotas { default_tier: quotas.default_tier.clone(), tiers: quotas.tiers.iter().map(tier).collect() }
}

/// How long a stopping gateway waits for work in flight: as long as a job may take.
pub fn drain(stack: &ValidStack) -> Span {
    let gateway = &stack.gateway.spec;
    gateway.drain_timeout.unwrap_or(gateway.limits.longest_job)
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

/// The user's voice names on top of OpenAI's; nothing when the user has none, as the proxy knows OpenAI's by itself.
fn voices(aliases: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    if aliases.is_empty() {
        return BTreeMap::new();
    }
    let mut voices: BTreeMap<_, _> = OPENAI_VOICES
        .iter()
        .map(|(voice, speaker)| ((*voice).to_owned(), format!("Magpie-Multilingual.EN-US.{speaker}")))
        .collect();
    voices.extend(aliases.clone());
    voices
}

/// The proxy's own defaults, repeated because a file that names voices replaces them all; a test compares the two.
const OPENAI_VOICES: [(&str, &str); 13] = [
    ("alloy", "Sofia"),
    ("ash", "Jason"),
    ("ballad", "Leo"),
    ("cedar", "Ray"),
    ("coral", "Mia"),
    ("echo", "Jason"),
    ("fable", "Leo"),
    ("marin", "Aria"),
    ("nova", "Aria"),
    ("onyx", "Ray"),
    ("sage", "Sofia"),
    ("shimmer", "Louise"),
    ("verse", "Leo"),
];

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

    #[test]
    fn voices_are_those_of_the_proxy_and_the_users() {
        let proxy = speechstack_proxy::config::Gateway::default();
        assert_eq!(proxy.default_voice, DEFAULT_VOICE);
        let mine = [("narrator".to_owned(), "Magpie-Multilingual.EN-US.Ray".to_owned())];
        let mut rendered = voices(&mine.into());
        assert!(rendered.remove("narrator").is_some());
        assert_eq!(rendered, proxy.voices);
    }
}
