//! `spec.llm[].external`: a server of language models that the operator does not run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A server with OpenAI's chat completions, in the cluster or hosted.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Its base URL, such as `https://api.example.com/v1` or `http://vllm.models.svc:8000`; https is checked against the
    /// certificate authorities of the guard's image.
    #[schemars(length(min = 8, max = 512), regex(pattern = r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"))]
    pub base_url: String,
    /// The model's name, as the server knows it and as clients may use it.
    #[schemars(length(min = 1, max = 128))]
    pub model: String,
    /// The Secret with the API key that the server asks for. A change of it reaches running pods within minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<ApiKeySecret>,
}

impl External {
    /// Its base URL as protocols need it: without the version, which they add.
    #[must_use]
    pub fn url(&self) -> &str {
        let url = self.base_url.trim_end_matches('/');
        url.strip_suffix("/v1").unwrap_or(url).trim_end_matches('/')
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
