//! Tokens of an identity provider in place of keys.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use contract::Capability;

use crate::config::{Auth, AuthMode, Jwt};
use crate::edge::unix_seconds;
use crate::gateway::tests::stack::{Stack, envelope, form, wav};
use crate::net::drain::Drain;

/// An identity provider.
struct Provider {
    url: String,
    key: Ed25519KeyPair,
    published: Arc<Mutex<Vec<Value>>>,
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let published: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (keys, about) = (Arc::clone(&published), json!({"jwks_uri": format!("{url}/keys")}));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(move || async move { Json(about) }))
            .route("/keys", get(move || async move { Json(json!({"keys": *keys.lock()})) }));
        tokio::spawn(crate::net::serve(listener, TowerToHyperService::new(router), Drain::new()));
        let key = Ed25519KeyPair::generate().unwrap();
        let x = URL_SAFE_NO_PAD.encode(key.public_key());
        published.lock().push(
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "alg": "EdDSA", "use": "sig", "x": x}),
        );
        Self { url, key, published }
    }

    /// Its token with these claims in place of good ones.
    fn token(&self, claims: Value) -> String {
        self.sign(&json!({"alg": "EdDSA", "kid": "one"}), claims)
    }

    fn sign(&self, header: &Value, claims: Value) -> String {
        let mut all = json!({"iss": self.url, "aud": ["speech"], "sub": "u|1", "exp": unix_seconds() + 600});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(header), encode(&all));
        let signature = self.key.sign(text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    async fn stack(&self) -> Stack {
        let jwt = Jwt {
            issuer: self.url.clone(),
            audience: "speech".into(),
            jwks_url: None,
            jwks_file: None,
            name_claim: "sub".into(),
            grants_claim: "speechstack".into(),
        };
        let stack = Stack::with(&[Capability::Stt], |config| {
            config.gateway.auth =
                Auth { mode: AuthMode::Keys, jwt: Some(jwt), failed_tries: 10_000, ..Auth::default() };
        })
        .await;
        let (deadline, good) = (Instant::now() + Duration::from_secs(60), self.token(json!({})));
        while ask(&stack, &good).await.status() != 200 {
            assert!(Instant::now() < deadline, "the keys are not fetched");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stack
    }
}

async fn ask(stack: &Stack, token: &str) -> reqwest::Response {
    stack.client.get(format!("{}/v1/models", stack.url)).bearer_auth(token).send().await.unwrap()
}

#[tokio::test]
async fn a_good_token_is_a_key_and_any_other_is_none() {
    let provider = Provider::start().await;
    let stack = provider.stack().await;
    let request =
        stack.post("/v1/audio/transcriptions").bearer_auth(provider.token(json!({"aud": "speech"})));
    assert_eq!(request.multipart(form(&[], wav(32_000))).send().await.unwrap().status(), 200);
    assert!(!stack.engines[0].seen.lock()[0].headers.contains_key("authorization"));
    assert_eq!(stack.counted("speechstack_gateway_key_requests_total", "oidc:u|1"), 1.0);
    let other = Provider {
        key: Ed25519KeyPair::generate().unwrap(),
        published: Arc::default(),
        ..Provider::start().await
    };
    let other = Provider { url: provider.url.clone(), ..other };
    let now = unix_seconds();
    for wrong in [
        other.token(json!({})),
        provider.token(json!({"iss": "https://other.example.com"})),
        provider.token(json!({"aud": "others"})),
        provider.token(json!({"exp": now - 60})),
        provider.token(json!({"nbf": now + 600})),
        provider.token(json!({"sub": null})),
        provider.token(json!({"speechstack": {"dialects": ["morse"]}})),
        provider.sign(&json!({"alg": "EdDSA", "kid": "two"}), json!({})),
        provider.sign(&json!({"alg": "none", "kid": "one"}), json!({})),
        provider.sign(&json!({"alg": "HS256", "kid": "one"}), json!({})),
        provider.sign(&json!({"alg": "RS256", "kid": "one"}), json!({})),
        "eyJ.a.b".into(),
    ] {
        envelope(ask(&stack, &wrong).await, 401, None).await;
    }
    assert_eq!(ask(&stack, &provider.token(json!({}))).await.status(), 200);
}

#[tokio::test]
async fn a_token_does_what_it_is_granted() {
    let provider = Provider::start().await;
    let stack = provider.stack().await;
    let granted = provider
        .token(json!({"sub": "root", "speechstack": {"admin": true, "dialects": ["tldw"], "tier": "free"}}));
    let usage =
        stack.client.get(format!("{}/v1/usage", stack.url)).bearer_auth(&granted).send().await.unwrap();
    let usage: Value = usage.json().await.unwrap();
    assert_eq!((&usage["key"], &usage["tier"]), (&json!("oidc:root"), &json!("free")));
    let request = stack.post("/v1/audio/transcriptions").bearer_auth(&granted).multipart(form(&[], wav(100)));
    envelope(request.send().await.unwrap(), 403, None).await;
    let request = stack.post("/v1/realtime/client_secrets").bearer_auth(provider.token(json!({})));
    let message = envelope(request.json(&json!({})).send().await.unwrap(), 403, None).await;
    assert!(message.contains("token"), "{message}");
}

#[tokio::test]
async fn a_key_that_is_new_at_the_provider_counts_soon() {
    let mut provider = Provider::start().await;
    let stack = provider.stack().await;
    let (old, kept) = (provider.token(json!({})), Ed25519KeyPair::generate().unwrap());
    let x = URL_SAFE_NO_PAD.encode(kept.public_key());
    *provider.published.lock() = vec![json!({"kty": "OKP", "crv": "Ed25519", "kid": "two", "x": x})];
    provider.key = kept;
    let new = provider.sign(&json!({"alg": "EdDSA", "kid": "two"}), json!({}));
    let deadline = Instant::now() + Duration::from_secs(60);
    while ask(&stack, &new).await.status() != 200 {
        assert!(Instant::now() < deadline, "the new key is not fetched");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    envelope(ask(&stack, &old).await, 401, None).await;
}
