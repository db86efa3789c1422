//! Messages about ended jobs, signed as Standard Webhooks has it.

use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, StatusCode, Uri, header};

use crate::config::Webhooks;
use crate::net::Client;

/// Longest wait between two deliveries.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// Why a key is none.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("unable to read gateway.jobs.webhooks.secret_file")]
    Read(#[source] std::io::Error),
    /// It has something else.
    #[error("gateway.jobs.webhooks.secret_file must hold whsec_ and at least 24 bytes in base64")]
    Malformed,
}

/// The key of signatures.
pub struct Key(aws_lc_rs::hmac::Key);

impl Key {
    /// That of the configuration, if messages may be sent at all.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read(config: &Webhooks) -> Result<Option<Self>, KeyError> {
        let Some(file) = config.secret_file.as_ref().filter(|_| !config.allow.is_empty()) else {
            return Ok(None);
        };
        Self::parse(&std::fs::read_to_string(file).map_err(KeyError::Read)?).map(Some)
    }

    fn parse(text: &str) -> Result<Self, KeyError> {
        /// Of the specification.
        const LEAST_BYTES: usize = 24;
        let text = text.trim();
        let bytes = STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text));
        let bytes = bytes.ok().filter(|bytes| bytes.len() >= LEAST_BYTES).ok_or(KeyError::Malformed)?;
        Ok(Self(aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &bytes)))
    }

    /// The header `webhook-signature` of a message.
    pub fn signature(&self, id: &str, seconds: u64, body: &str) -> String {
        let tag = aws_lc_rs::hmac::sign(&self.0, format!("{id}.{seconds}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(tag))
    }
}

/// Whether the origin of a URL is one of those that may be called.
pub fn is_allowed(url: &str, allow: &[String]) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let Some(origin) = origin(&url) else { return false };
    allow.iter().any(|allowed| match allowed.strip_prefix("https://*.") {
        Some(domain) => {
            let suffix = format!(".{}", domain.trim_end_matches('/').to_ascii_lowercase());
            origin.0 == "https" && origin.2 == 443 && origin.1.ends_with(&suffix)
        }
        None => allowed.parse::<Uri>().ok().as_ref().and_then(self::origin).as_ref() == Some(&origin),
    })
}

/// Scheme, host and port. None of a URL with a user in it.
fn origin(url: &Uri) -> Option<(String, String, u16)> {
    let authority = url.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let scheme = url.scheme_str()?.to_owned();
    let default = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let port = authority.port_u16().unwrap_or(default);
    Some((scheme, authority.host().to_ascii_lowercase(), port))
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It was taken.
    Taken,
    /// The receiver wants no more of them.
    Gone,
    /// It may be tried again.
    Failed,
}

/// Wait before delivery number `attempt`, from 1 for the second one.
pub fn wait(attempt: u32, config: &Webhooks) -> Duration {
    config.retry_after.saturating_mul(3_u32.saturating_pow(attempt.saturating_sub(1))).min(MAX_WAIT)
}

/// Sends a message once. A redirect is a failure: its target is not an allowed origin.
pub async fn deliver(client: &Client, key: &Key, url: &str, id: &str, seconds: u64, body: &str) -> Delivery {
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "speechstack")
        .header("webhook-id", id)
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", key.signature(id, seconds, body))
        .body(Body::from(body.to_owned()));
    let Ok(request) = request else { return Delivery::Gone };
    match client.request(request).await {
        Ok(response) if response.status().is_success() => Delivery::Taken,
        Ok(response) if response.status() == StatusCode::GONE => Delivery::Gone,
        Ok(response) => {
            tracing::info!(job = id, status = %response.status(), "webhook was not taken");
            Delivery::Failed
        }
        Err(error) => {
            tracing::info!(job = id, %error, "webhook did not arrive");
            Delivery::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // The example of the Standard Webhooks specification's reference libraries.
        let key = Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            key.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(Key::parse("whsec_c2hvcnQ=").is_err());
        assert!(Key::parse("no base64!").is_err());
    }

    #[test]
    fn only_allowed_origins_are_called() {
        let allow = ["https://hooks.example.com", "http://127.0.0.1:9000", "https://*.example.org"];
        let allow: Vec<String> = allow.into_iter().map(str::to_owned).collect();
        for url in [
            "https://hooks.example.com/a?b=c",
            "https://HOOKS.example.com:443/",
            "http://127.0.0.1:9000/x",
            "https://a.b.example.org/",
        ] {
            assert!(is_allowed(url, &allow), "{url}");
        }
        for url in [
            "http://hooks.example.com/",
            "https://hooks.example.com:8443/",
            "https://hooks.example.com.evil.com/",
            "https://hooks.example.com@169.254.169.254/",
            "http://127.0.0.1:9001/x",
            "http://a.example.org/",
            "https://a.example.org:8443/",
            "https://example.org/",
            "https://evilexample.org/",
            "file:///etc/passwd",
            "hooks.example.com",
            "",
        ] {
            assert!(!is_allowed(url, &allow), "{url}");
        }
    }

    #[test]
    fn waits_grow_up_to_an_hour() {
        let config = Webhooks::default();
        let waits: Vec<u64> = (1..9).map(|attempt| wait(attempt, &config).as_secs()).collect();
        assert_eq!(waits, [5, 15, 45, 135, 405, 1215, 3600, 3600]);
    }
}
