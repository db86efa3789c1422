//! The file of a gateway: in front of all engines, or beside one.

use std::collections::BTreeMap;

use contract::port;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;
use speechstack_crds::{GatewayAuth, QuotaLimits, Span};

use super::super::pod::{KEYS_FILE, REDIS_FILE, TLS_PATH};
use super::super::{metadata, storage};
use super::{Engine, Tracing, config_map, described, model};
use crate::reconcile::validate::{self, ValidEngine, ValidStack};

/// How long a stopping gateway goes on accepting, so that those who send to it learn of its end.
pub const DRAIN_DELAY: Span = Span::seconds(5);
const DEFAULT_VOICE: &str = "Magpie-Multilingual.EN-US.Mia";

#[derive(Serialize)]
struct GatewayFile {
    gateway: Gateway,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    engines: Vec<Engine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracing: Option<Tracing>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<Redis>,
}

#[derive(Serialize)]
struct Redis {
    url_file: &'static str,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    discovery: Option<Discovery>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    voice: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    standby: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    sleeps: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hosted: Option<Hosted>,
}

#[derive(Serialize)]
struct Hosted {
    beyond_wait: Span,
    #[serde(skip_serializing_if = "Option::is_none")]
    jobs_per_day: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_minutes_per_day: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    characters_per_day: Option<u32>,
}

#[derive(Serialize)]
struct Model {
    id: String,
    capability: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    aliases: Vec<String>,
}

/// The file of the gateway in front of all engines.
pub fn gateway(stack: &ValidStack) -> ConfigMap {
    let pools = stack.engines.iter().map(|engine| Pool {
        name: engine.spec.name.clone(),
        capability: engine.capability.as_str(),
        service: metadata::of_engine(stack, engine),
        protocols: engine.protocols.iter().map(|protocol| protocol.as_str()).collect(),
        language: engine.language.clone(),
        model: model(engine),
        voice: engine.spec.external.as_ref().and_then(|server| server.voice.clone()),
        standby: engine.spec.standby,
        sleeps: engine.spec.idle.is_some(),
        hosted: engine.spec.hosted.as_ref().map(hosted),
    });
    let models =
        stack.gateway.models.iter().map(|model| Model { pool: model.engine.clone(), ..named(model) });
    let file = GatewayFile {
        gateway: Gateway {
            drain: drain(stack),
            jobs: stack.gateway.storage.as_ref().and_then(storage::job_bytes).map(|disk| Jobs { disk }),
            discovery: Some(Discovery { namespace: stack.namespace.clone(), pools: pools.collect() }),
            ..settings(stack, models.collect())
        },
        engines: Vec::new(),
        tracing: Tracing::of(stack),
    };
    config_map(metadata::gateway(stack), &file)
}

/// The file of the gateway beside an engine: it has this one alone.
pub fn sidecar(stack: &ValidStack, engine: &ValidEngine) -> ConfigMap {
    let own = engine.models.first();
    let models = stack.gateway.models.iter().filter(|model| Some(&model.id) == own).map(named);
    let file = GatewayFile {
        gateway: Gateway { drain: engine.drain, ..settings(stack, models.collect()) },
        engines: vec![described(engine, "127.0.0.1")],
        tracing: Tracing::of(stack),
    };
    let labels = metadata::engine_labels(stack, engine);
    config_map(metadata::owned(stack, metadata::of_api(stack, engine), labels), &file)
}

fn named(model: &validate::Model) -> Model {
    Model {
        id: model.id.clone(),
        capability: model.capability.as_str(),
        pool: None,
        aliases: model.aliases.clone(),
    }
}

/// What gateways have in common, wherever they run.
fn settings(stack: &ValidStack, models: Vec<Model>) -> Gateway {
    let gateway = &stack.gateway;
    let [plain, https] = [port::GATEWAY, port::GATEWAY_TLS].map(|port| format!("[::]:{port}"));
    Gateway {
        listen: if gateway.is_plain() { plain } else { https.clone() },
        tls: gateway.spec.tls.as_ref().map(|_| Tls {
            cert_file: format!("{TLS_PATH}/tls.crt"),
            key_file: format!("{TLS_PATH}/tls.key"),
            listen: gateway.is_plain().then_some(https),
        }),
        admin: format!("[::]:{}", port::GATEWAY_ADMIN),
        body_limit: gateway.max_upload,
        max_in_flight: gateway.spec.limits.max_in_flight,
        jobs: None,
        drain: DRAIN_DELAY,
        drain_delay: DRAIN_DELAY,
        wait: Wait { max_wait: gateway.spec.limits.queue_timeout },
        discovery: None,
        auth: gateway.spec.auth.as_ref().map(auth),
        quotas: gateway.spec.quotas.as_ref().map(quotas),
        models,
        voices: voices(&gateway.spec.voice_aliases),
        default_voice: gateway.spec.default_voice.clone().unwrap_or_else(|| DEFAULT_VOICE.into()),
    }
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
    Quotas {
        default_tier: quotas.default_tier.clone(),
        tiers: quotas.tiers.iter().map(tier).collect(),
        redis: quotas.redis.as_ref().map(|_| Redis { url_file: REDIS_FILE }),
    }
}

fn hosted(hosted: &speechstack_crds::Hosted) -> Hosted {
    Hosted {
        beyond_wait: hosted.beyond_wait,
        jobs_per_day: hosted.jobs_per_day,
        audio_minutes_per_day: hosted.audio_minutes_per_day,
        characters_per_day: hosted.characters_per_day,
    }
}

/// How long a stopping gateway waits for work in flight: as long as a job may take.
pub fn drain(stack: &ValidStack) -> Span {
    let gateway = &stack.gateway.spec;
    gateway.drain_timeout.unwrap_or(gateway.limits.longest_job)
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
    fn voices_are_those_of_the_proxy_and_the_users() {
        let proxy = speechstack_proxy::config::Gateway::default();
        assert_eq!(proxy.default_voice, DEFAULT_VOICE);
        let mine = [("narrator".to_owned(), "Magpie-Multilingual.EN-US.Ray".to_owned())];
        let mut rendered = voices(&mine.into());
        assert!(rendered.remove("narrator").is_some());
        assert_eq!(rendered, proxy.voices);
    }
}
