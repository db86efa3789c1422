//! Fetches the API server's public keys with the pod's own token.

use std::time::Duration;

use futures::future::BoxFuture;
use serde::Deserialize;
use tokio::time::timeout;

use crate::guard::heal::identity::{FetchError, Keys, Published};

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";
const TIMEOUT: Duration = Duration::from_secs(5);

/// The API server of the cluster that the pod runs in. A client is made for each fetch: fetches are rare, and an idle one
/// would hold connections and memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct ApiServer;

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

impl Keys for ApiServer {
    fn fetch(&self) -> BoxFuture<'_, Result<Published, FetchError>> {
        Box::pin(async {
            let config = kube::Config::incluster().map_err(FetchError::Config)?;
            let client =
                kube::Client::try_from(config).map_err(|source| FetchError::Client(Box::new(source)))?;
            let fetched = timeout(TIMEOUT, published(&client)).await;
            fetched.map_err(FetchError::Silent)?
        })
    }
}

async fn published(client: &kube::Client) -> Result<Published, FetchError> {
    let Discovery { issuer } = ask(client, DISCOVERY).await?;
    let KeySet { keys } = ask(client, KEYS).await?;
    Ok(Published { issuer, keys })
}

async fn ask<T: serde::de::DeserializeOwned>(
    client: &kube::Client,
    path: &'static str,
) -> Result<T, FetchError> {
    let request = http::Request::get(path).body(Vec::new()).map_err(FetchError::Request)?;
    client.request(request).await.map_err(|source| FetchError::Ask { path, source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use http::{Response, StatusCode};
    use kube::client::Body;

    use super::*;

    fn client(answer: fn(&str) -> (u16, &'static str)) -> kube::Client {
        let service = tower::service_fn(move |request: http::Request<Body>| async move {
            let (status, body) = answer(request.uri().path());
            let mut response = Response::new(Body::from(body.as_bytes().to_vec()));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok::<_, std::convert::Infallible>(response)
        });
        kube::Client::new(service, "default")
    }

    #[tokio::test]
    async fn issuer_and_keys_are_asked_for() {
        let answers = client(|path| match path {
            "/.well-known/openid-configuration" => (200, r#"{"issuer": "https://k", "jwks_uri": "x"}"#),
            "/openid/v1/jwks" => (200, r#"{"keys": [{"kty": "RSA", "kid": "a"}]}"#),
            _ => (404, ""),
        });
        let published = published(&answers).await.unwrap();
        assert_eq!((published.issuer.as_str(), published.keys.len()), ("https://k", 1));
    }

    #[tokio::test]
    async fn a_refusal_says_what_was_asked_for() {
        let error = published(&client(|_| (403, "{}"))).await.unwrap_err();
        assert!(error.to_string().contains(DISCOVERY), "{error}");
    }
}
