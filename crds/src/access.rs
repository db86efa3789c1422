//! `spec.gateway.auth` and `spec.gateway.quotas`: who may call the gateway, and how much of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// API keys of clients.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GatewayAuth {
    /// The Secret with the file of keys, as `speechstack-proxy keys add` writes it. A change of it reaches running gateways.
    pub keys_secret_ref: KeysSecret,
    /// A header that carries a key, beside Authorization and api-key; X-API-Key when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub header: Option<String>,
    /// Whether a key may come in the URL, where proxies in front may log it.
    #[serde(default)]
    pub query: bool,
    /// Whether lists of models and voices need no key.
    #[serde(default)]
    pub anonymous_models: bool,
}

/// A key of a Secret in the stack's namespace that holds a file of API keys.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct KeysSecret {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[serde(default = "keys_yaml")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn keys_yaml() -> String {
    "keys.yaml".into()
}

/// Quotas of API keys, counted by each gateway pod alone, or by all of them in a Redis.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("!has(self.defaultTier) || (has(self.tiers) && self.defaultTier in self.tiers)",
     "gateway.quotas.defaultTier is no tier of gateway.quotas.tiers"),
])))]
pub struct Quotas {
    /// The tier of keys that name none; they have no limits when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub default_tier: Option<String>,
    /// Limits by the name of a tier.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub tiers: BTreeMap<String, QuotaLimits>,
    /// Where gateway pods count together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<SharedRedis>,
}

/// A Redis that gateway pods, of this stack and of others, share.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SharedRedis {
    /// The Secret with its URL, `rediss://:PASSWORD@host:6379/0`.
    pub url_secret_ref: RedisSecret,
    /// Its port, which a limited egress lets gateways reach.
    #[serde(default = "redis_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

fn redis_port() -> u16 {
    6379
}

/// A key of a Secret in the stack's namespace that holds the URL of a Redis.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct RedisSecret {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[serde(default = "url")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn url() -> String {
    "url".into()
}

/// What the keys of one name may use. A limit that is unset does not bind.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct QuotaLimits {
    /// Requests that cost engine time, and sessions, a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_minute: Option<u32>,
    /// Requests that cost engine time, at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub jobs: Option<u32>,
    /// Sessions at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub streams: Option<u32>,
    /// Minutes of audio that are heard, a day of UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000_000))]
    pub audio_minutes_per_day: Option<u32>,
    /// Characters that are spoken, a day of UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_000_000_000))]
    pub characters_per_day: Option<u32>,
}
