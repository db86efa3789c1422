//! Who may call the gateway, and how much of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Redis;

/// How clients prove who they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Whether they must.
    pub mode: AuthMode,
    /// The file with the API keys; see `speechstack-proxy keys`.
    pub keys_file: Option<PathBuf>,
    /// An identity provider whose tokens count as keys.
    pub jwt: Option<Jwt>,
    /// A header that carries a key beside `Authorization` and `api-key`.
    pub header: String,
    /// Whether a key may come in the URL, as `api_key`, `token` or `access_token`.
    pub query: bool,
    /// Whether lists of models and voices are for everyone.
    pub anonymous_models: bool,
    /// Wrong keys that one address may send in a minute; beyond it they are refused with a 429.
    pub failed_tries: u32,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: AuthMode::None,
            keys_file: None,
            jwt: None,
            header: "x-api-key".into(),
            query: false,
            anonymous_models: false,
            failed_tries: 30,
        }
    }
}

/// An identity provider of OpenID Connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// What its tokens have as `iss`; its URL.
    pub issuer: String,
    /// What tokens for this gateway have as `aud`.
    pub audience: String,
    /// Where its public keys are; found by the issuer's URL when unset.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// A file with them, where the gateway cannot reach the provider.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// The claim that names the caller.
    #[serde(default = "sub")]
    pub name_claim: String,
    /// The claim with `tier`, `dialects`, `models` and `admin`; a token without it may do what a plain key may.
    #[serde(default = "speechstack")]
    pub grants_claim: String,
}

fn sub() -> String {
    "sub".into()
}

fn speechstack() -> String {
    "speechstack".into()
}

/// What is asked of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// Nothing.
    #[default]
    None,
    /// An API key.
    Keys,
}

impl Auth {
    /// Whether a client needs a key.
    pub fn is_on(&self) -> bool {
        self.mode == AuthMode::Keys
    }

    /// What of these cannot be: the field and the reason.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        if http::HeaderName::from_bytes(self.header.as_bytes()).is_err() {
            return Some(("header", "is not the name of a header, as in x-api-key"));
        }
        if self.is_on() && self.keys_file.is_none() && self.jwt.is_none() {
            let reason =
                "is not set, and mode keys needs it or jwt: make it with `speechstack-proxy keys add`";
            return Some(("keys_file", reason));
        }
        if let Some(jwt) = &self.jwt {
            if jwt.issuer.is_empty() || jwt.audience.is_empty() {
                return Some(("jwt", "has no issuer or no audience: the tokens of others would count"));
            }
            if jwt.jwks_url.is_some() && jwt.jwks_file.is_some() {
                return Some(("jwt", "has both jwks_url and jwks_file: keep one"));
            }
        }
        if self.failed_tries == 0 {
            return Some(("failed_tries", "must be at least 1"));
        }
        None
    }
}

/// Quotas of all keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// The tier of keys that name none; they have no limits when unset.
    pub default_tier: Option<String>,
    /// Limits by the name of a tier.
    pub tiers: BTreeMap<String, Limits>,
    /// Where several gateways count together; each counts alone when unset.
    pub redis: Option<Redis>,
}

/// What one name may use. A limit that is not set does not bind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests that cost engine time, and sessions, a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Requests that cost engine time, at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<u32>,
    /// Sessions at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<u32>,
    /// Minutes of audio that are heard, a day of UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_minutes_per_day: Option<f64>,
    /// Characters that are spoken, a day of UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub characters_per_day: Option<u64>,
}

impl Limits {
    /// These, and the others where these say nothing.
    pub fn or(self, other: Self) -> Self {
        Self {
            requests_per_minute: self.requests_per_minute.or(other.requests_per_minute),
            jobs: self.jobs.or(other.jobs),
            streams: self.streams.or(other.streams),
            audio_minutes_per_day: self.audio_minutes_per_day.or(other.audio_minutes_per_day),
            characters_per_day: self.characters_per_day.or(other.characters_per_day),
        }
    }

    /// What of these cannot be: the field and the reason.
    pub fn fault(&self) -> Option<(&'static str, &'static str)> {
        if self.requests_per_minute == Some(0) {
            return Some(("requests_per_minute", "must be at least 1: revoke the key to refuse all"));
        }
        if self.audio_minutes_per_day.is_some_and(|minutes| !minutes.is_finite() || minutes < 0.0) {
            return Some(("audio_minutes_per_day", "must be a number from 0 on"));
        }
        None
    }
}

impl Quotas {
    /// The limits of a key of that tier with limits of its own.
    pub fn of(&self, tier: Option<&str>, own: Limits) -> Limits {
        let tier = tier.or(self.default_tier.as_deref()).and_then(|tier| self.tiers.get(tier));
        own.or(tier.copied().unwrap_or_default())
    }

    /// What of these cannot be: the field and the reason.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        if let Some(tier) = self.default_tier.as_ref().filter(|tier| !self.tiers.contains_key(*tier)) {
            return Some(("default_tier", format!("is {tier:?}, which is no tier of gateway.quotas.tiers")));
        }
        if let Some(reason) = self.redis.as_ref().and_then(Redis::fault) {
            return Some(("redis", reason.into()));
        }
        self.tiers.iter().find_map(|(tier, limits)| {
            limits.fault().map(|(field, reason)| ("tiers", format!("{tier}: {field} {reason}")))
        })
    }
}

/// What is kept of usage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// A file to which a line of JSON is added for each piece of work.
    pub file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keys_own_limits_come_first_and_then_those_of_its_tier() {
        let tier = Limits { jobs: Some(2), streams: Some(3), ..Limits::default() };
        let quotas =
            Quotas { default_tier: Some("free".into()), tiers: [("free".into(), tier)].into(), redis: None };
        let own = Limits { jobs: Some(9), ..Limits::default() };
        let limits = quotas.of(None, own);
        assert_eq!((limits.jobs, limits.streams, limits.requests_per_minute), (Some(9), Some(3), None));
        assert_eq!(quotas.of(Some("unknown"), Limits::default()), Limits::default());
        assert_eq!(quotas.fault(), None);
        let wrong = Quotas { default_tier: Some("paid".into()), ..quotas };
        assert_eq!(wrong.fault().unwrap().0, "default_tier");
    }

    #[test]
    fn keys_need_a_file() {
        let auth = Auth { mode: AuthMode::Keys, ..Auth::default() };
        assert_eq!(auth.fault().unwrap().0, "keys_file");
        assert_eq!(Auth { keys_file: Some("keys".into()), ..auth }.fault(), None);
        assert_eq!(Auth { header: "x api key".into(), ..Auth::default() }.fault().unwrap().0, "header");
    }
}
