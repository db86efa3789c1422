//! `external` and `hosted` of an engine: a server that the operator does not run, and what of it may be used.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Span, schema};

/// A server with OpenAI's API, for audio or chat completions, in the cluster or hosted.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Its base URL, such as `https://api.example.com/v1` or `http://vllm.models.svc:8000`; https is checked against the
    /// certificate authorities of the guard's image.
    #[schemars(length(min = 8, max = 512), regex(pattern = r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"))]
    pub base_url: String,
    /// The model's name, as the server knows it and, unless it is `hosted`, as clients may use it.
    #[schemars(length(min = 1, max = 128))]
    pub model: String,
    /// The voice that it speaks with, whatever clients ask for: for servers that do not know the names of the gateway's voices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub voice: Option<String>,
    /// The Secret with the API key that the server asks for. A change of it reaches running pods within minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<ApiKeySecret>,
    /// Whether it is sent the `traceparent` of requests, which only the stack's own engines are unless this says so: for servers
    /// that export to the same collector.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trace_context: bool,
}

impl External {
    /// Its base URL as protocols need it: without the version, which they add.
    #[must_use]
    pub fn url(&self) -> &str {
        let url = self.base_url.trim_end_matches('/');
        url.strip_suffix("/v1").unwrap_or(url).trim_end_matches('/')
    }
}

/// A server of others that costs money: it stands in for all other engines of its list, whatever their model, while none of them
/// serves or their queue is long, as far as its budget goes. Replies then have the header `x-speechstack-hosted` with the engine's
/// name. API keys may be kept from it by `own_engines`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("has(self.jobsPerDay) || has(self.audioMinutesPerDay) || has(self.charactersPerDay)",
     "hosted has no budget: set hosted.jobsPerDay, audioMinutesPerDay or charactersPerDay"),
])))]
pub struct Hosted {
    /// It is used while the predicted wait for another engine is longer, and while none serves.
    pub beyond_wait: Span,
    /// How often it is probed; probes cost money too, and are not counted to the budget.
    pub probe_interval: Span,
    /// Jobs a day of UTC, of each gateway pod, as all limits here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub jobs_per_day: Option<u32>,
    /// Minutes of audio a day that it hears.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000_000))]
    pub audio_minutes_per_day: Option<u32>,
    /// Characters a day that it speaks, or that a language model is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_000_000_000))]
    pub characters_per_day: Option<u32>,
}

impl Default for Hosted {
    fn default() -> Self {
        Self {
            beyond_wait: Span::seconds(30),
            probe_interval: Span::minutes(15),
            jobs_per_day: None,
            audio_minutes_per_day: None,
            characters_per_day: None,
        }
    }
}

/// A key of a Secret in the stack's namespace that holds an API key.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct ApiKeySecret {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[serde(default = "api_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn api_key() -> String {
    "apiKey".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_in_a_base_url_is_the_protocols() {
        for (written, used) in [
            ("https://api.example.com/v1", "https://api.example.com"),
            ("https://api.example.com/v1/", "https://api.example.com"),
            ("https://api.example.com/openai/v1", "https://api.example.com/openai"),
            ("http://vllm:8000", "http://vllm:8000"),
            ("http://vllm:8000/", "http://vllm:8000"),
        ] {
            let external = External { base_url: written.into(), ..External::default() };
            assert_eq!(external.url(), used);
        }
    }
}
