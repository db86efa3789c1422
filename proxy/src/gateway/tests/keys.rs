//! API keys at the gateway: who is let in, where keys may be put, and the replies to refusals.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use contract::Capability;

use crate::config::{Auth, AuthMode, Config};
use crate::gateway::tests::stack::{Stack, envelope, form, plain, wav};
use crate::keys::testing::{add, revoke};

/// A stack that asks for keys.
pub struct Keyed {
    pub stack: Stack,
    pub path: PathBuf,
    _dir: TempDir,
}

impl Keyed {
    /// With a key of alice, who may do everything.
    pub async fn start() -> (Self, String) {
        Self::with(|_| {}).await
    }

    pub async fn with(settings: impl FnOnce(&mut Auth)) -> (Self, String) {
        Self::configured(|config| settings(&mut config.gateway.auth)).await
    }

    pub async fn configured(settings: impl FnOnce(&mut Config)) -> (Self, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.yaml");
        let alice = add(&path, "alice", |_| {});
        let keys_file = Some(path.clone());
        let stack = Stack::with(&[Capability::Stt, Capability::Tts], |config| {
            // Tests wait for keys by trying them.
            config.gateway.auth =
                Auth { mode: AuthMode::Keys, keys_file, failed_tries: 100_000, ..Auth::default() };
            settings(config);
        })
        .await;
        (Self { stack, path, _dir: dir }, alice)
    }

    /// The reply to a GET with that key.
    pub async fn get(&self, path: &str, key: &str) -> reqwest::Response {
        let url = format!("{}{path}", self.stack.url);
        self.stack.client.get(url).bearer_auth(key).send().await.unwrap()
    }

    /// Transcribes a second of sound with that key.
    pub async fn transcribe(&self, key: &str, fields: &[(&'static str, &'static str)]) -> reqwest::Response {
        let request = self.stack.post("/v1/audio/transcriptions").bearer_auth(key);
        request.multipart(form(fields, wav(32_000))).send().await.unwrap()
    }

    /// Waits until a key counts, or does not.
    pub async fn until(&self, key: &str, status: u16) {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while self.get("/v1/models", key).await.status() != status {
            assert!(std::time::Instant::now() < deadline, "the keys are not taken over");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What is for everyone, whatever is configured: it tells no more than that the gateway is there.
const OPEN: [&str; 12] = [
    "/",
    "/docs",
    "/openapi.json",
    "/page/{name}",
    "/health",
    "/health/live",
    "/health/ready",
    "/health/stt",
    "/health/tts",
    "/health/llm",
    "/healthz",
    "/readyz",
];

#[tokio::test]
async fn every_route_asks_for_a_key_but_those_that_tell_nothing() {
    let (keyed, _) = Keyed::start().await;
    let root = add(&keyed.path, "root", |record| record.scopes.admin = true);
    keyed.until(&root, 200).await;
    // An address may send so many wrong keys only: one form of each path, and some of the others.
    let forms = ["/v1/models", "/openai/v1/models", "/v1/audio/speech"];
    // A client of Socket.IO may show its key after the handshake: see the tests of the bridge.
    let is_asked = |pattern: &&String| {
        let is_plain = plain(pattern) == pattern.replace("{*", "{") && !pattern.contains("/socket.io");
        is_plain || forms.contains(&pattern.as_str())
    };
    for pattern in keyed.stack.routes.iter().filter(is_asked) {
        let route = plain(pattern);
        let path = pattern
            .replace("{*id}", "whisper-1")
            .replace("{deployment}", "whisper-1")
            .replace("{name}", "main.js")
            .replace("{key}", "unknown");
        for method in [reqwest::Method::GET, reqwest::Method::POST] {
            let url = format!("{}{path}", keyed.stack.url);
            let send = |key: Option<&str>| {
                let request = keyed.stack.client.request(method.clone(), &url);
                let request = match key {
                    Some(key) => request.bearer_auth(key),
                    None => request,
                };
                async { request.send().await.unwrap() }
            };
            let status = send(None).await.status().as_u16();
            assert_eq!(status == 401, !OPEN.contains(&route.as_str()), "{method} {route}: {status}");
            let status = send(Some("sk-ss-0123456789abcdef_wrong")).await.status().as_u16();
            assert_eq!(status == 401, !OPEN.contains(&route.as_str()), "{method} {route}: {status}");
            let status = send(Some(&root)).await.status().as_u16();
            // WebRTC is not served, and says so.
            let is_served = status < 500 || status == 501;
            assert!(![401, 403, 429].contains(&status) && is_served, "{method} {route}: {status}");
        }
    }
    envelope(keyed.stack.get("/v1/nothing").await, 401, None).await;
    let preflight =
        keyed.stack.client.request(reqwest::Method::OPTIONS, format!("{}/v1/models", keyed.stack.url));
    assert_eq!(preflight.send().await.unwrap().status(), 204);
    assert_eq!(keyed.stack.complete(), 0);
}

#[tokio::test]
async fn a_key_is_taken_where_clients_put_it_and_goes_no_further() {
    let (keyed, alice) = Keyed::with(|auth| auth.header = "x-gateway-key".into()).await;
    for (name, value) in [
        ("authorization", format!("Bearer {alice}")),
        ("x-gateway-key", alice.clone()),
        ("api-key", alice.clone()),
    ] {
        let request = keyed.stack.post("/v1/audio/transcriptions").header(name, value);
        let response = request.multipart(form(&[], wav(32_000))).send().await.unwrap();
        assert_eq!(response.status(), 200, "{name}");
    }
    let secret = alice.rsplit('_').next().unwrap();
    let seen = keyed.stack.engines[0].seen.lock().clone();
    assert_eq!(seen.len(), 3);
    for request in &seen {
        assert!(!format!("{:?}", request.headers).contains(secret));
    }
    let path = format!("/v1/models?api_key={alice}");
    envelope(keyed.stack.get(&path).await, 401, None).await;
    let mut config = (*keyed.stack.config.get()).clone();
    config.gateway.auth.query = true;
    keyed.stack.config.replace(config);
    assert_eq!(keyed.stack.get(&path).await.status(), 200);
}

#[tokio::test]
async fn a_refusal_says_why_and_shows_no_key() {
    let (keyed, alice) = Keyed::start().await;
    let response = keyed.stack.transcribe(&[]).await;
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    assert!(envelope(response, 401, None).await.contains("Authorization: Bearer"));
    let wrong = format!("{}x", &alice[..alice.len() - 1]);
    let response = keyed.get("/v1/models", &wrong).await;
    assert_eq!(response.headers()["x-should-retry"], "false");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "invalid_api_key");
    assert!(!body.to_string().contains(wrong.rsplit('_').next().unwrap()), "{body}");
    assert!(body.to_string().contains(&alice[..22]), "the id is shown: {body}");
    let old =
        add(&keyed.path, "old", |record| record.expires = Some("2020-01-01T00:00:00Z".parse().unwrap()));
    keyed.until(&old, 401).await;
    let mut body = Value::Null;
    while !body.to_string().contains("expired") {
        body = keyed.get("/v1/models", &old).await.json().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(keyed.stack.complete(), 0);
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say() {
    let (keyed, _) = Keyed::start().await;
    let hears = add(&keyed.path, "hears", |record| {
        record.scopes.models = vec!["parakeet-tdt-0.6b-v3".into()];
        record.scopes.dialects = vec!["openai".into()];
    });
    keyed.until(&hears, 200).await;
    for fields in [&[][..], &[("model", "whisper-1")], &[("model", "parakeet-tdt-0.6b-v3")]] {
        assert_eq!(keyed.transcribe(&hears, fields).await.status(), 200, "{fields:?}");
    }
    let spoken = json!({"input": "So it is.", "voice": "alloy"});
    let response =
        keyed.stack.post("/v1/audio/speech").bearer_auth(&hears).json(&spoken).send().await.unwrap();
    let message = envelope(response, 403, None).await;
    assert!(message.contains("magpie-tts-multilingual"), "{message}");
    let response = keyed.stack.post("/transcribe").bearer_auth(&hears).multipart(form(&[], wav(100))).send();
    let message = envelope(response.await.unwrap(), 403, None).await;
    assert!(message.contains("parakeet_fastapi"), "{message}");
}

#[tokio::test]
async fn keys_come_and_go_while_the_gateway_runs() {
    let (keyed, alice) = Keyed::start().await;
    let bob = add(&keyed.path, "bob", |_| {});
    keyed.until(&bob, 200).await;
    revoke(&keyed.path, "alice");
    keyed.until(&alice, 401).await;
    std::fs::write(&keyed.path, "keys: none").unwrap();
    while keyed.stack.counted("speechstack_gateway_keys_reloads_total", "invalid") == 0.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(keyed.get("/v1/models", &bob).await.status(), 200, "a broken file changes nothing");
}

#[tokio::test]
async fn wrong_keys_are_refused_for_a_while_and_good_ones_never() {
    let (keyed, alice) = Keyed::with(|auth| auth.failed_tries = 3).await;
    for _ in 0..3 {
        envelope(keyed.get("/v1/models", "sk-guess").await, 401, None).await;
    }
    let response = keyed.get("/v1/models", "sk-guess").await;
    let after: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&after));
    envelope(response, 429, None).await;
    assert_eq!(keyed.get("/v1/models", &alice).await.status(), 200);
    envelope(keyed.stack.get("/v1/models").await, 401, None).await;
}

#[tokio::test]
async fn lists_can_be_for_everyone() {
    let (keyed, _) = Keyed::with(|auth| auth.anonymous_models = true).await;
    for path in
        ["/v1/models", "/v1/models/whisper-1", "/v1/audio/voices", "/v1/audio/models", "/openai/v1/models"]
    {
        assert_eq!(keyed.stack.get(path).await.status(), 200, "{path}");
    }
    envelope(keyed.stack.transcribe(&[]).await, 401, None).await;
    envelope(keyed.get("/v1/models", "sk-wrong").await, 401, None).await;
}

#[tokio::test]
async fn the_configuration_is_shown_to_those_who_administer_it() {
    let (keyed, alice) = Keyed::start().await;
    let root = add(&keyed.path, "root", |record| record.scopes.admin = true);
    keyed.until(&root, 200).await;
    let url = format!("{}/debug/cfg", keyed.stack.url);
    let ask = |key: &str| keyed.stack.client.get(&url).bearer_auth(key).send();
    assert_eq!(ask(&alice).await.unwrap().status(), 403);
    let shown = ask(&root).await.unwrap();
    assert_eq!(shown.headers()["content-type"], "application/yaml");
    let text = shown.text().await.unwrap();
    assert!(text.contains("mode: keys") && text.contains("max_in_flight: 1024"), "{text}");
    assert!(!text.contains(&root), "{text}");
}

#[tokio::test]
async fn keys_are_administered_over_the_api_by_those_who_may() {
    let (keyed, alice) = Keyed::start().await;
    let root = add(&keyed.path, "root", |record| record.scopes.admin = true);
    keyed.until(&root, 200).await;
    let send = |method: reqwest::Method, path: &str, key: &str, body: Value| {
        let request = keyed.stack.client.request(method, format!("{}{path}", keyed.stack.url));
        let request = request.bearer_auth(key).json(&body);
        async { request.send().await.unwrap() }
    };
    let (post, delete) = (reqwest::Method::POST, reqwest::Method::DELETE);
    envelope(send(post.clone(), "/v1/keys", &alice, json!({"name": "eve"})).await, 403, None).await;
    envelope(send(delete.clone(), "/v1/keys/root", &alice, json!({})).await, 403, None).await;
    envelope(keyed.get("/v1/keys", &alice).await, 403, None).await;
    for wrong in
        [json!({}), json!({"name": "two words"}), json!({"name": "a", "limits": {"jobs": "many"}}), json!([])]
    {
        envelope(send(post.clone(), "/v1/keys", &root, wrong).await, 400, None).await;
    }
    let wanted =
        json!({"name": "bob", "tier": "free", "scopes": {"dialects": ["openai"]}, "limits": {"jobs": 2}});
    let made: Value = send(post, "/v1/keys", &root, wanted).await.json().await.unwrap();
    let bob = made["value"].as_str().unwrap().to_owned();
    assert_eq!((&made["key"]["name"], &made["key"]["limits"]["jobs"]), (&json!("bob"), &json!(2)));
    assert_eq!(keyed.get("/v1/models", &bob).await.status(), 200, "it counts at once");
    let listed: Value = keyed.get("/v1/keys", &root).await.json().await.unwrap();
    assert_eq!(listed["data"].as_array().unwrap().len(), 3);
    assert!(!listed.to_string().contains("sha256"), "{listed}");
    let id = made["key"]["id"].as_str().unwrap();
    let revoked: Value =
        send(delete.clone(), &format!("/v1/keys/{id}"), &root, json!({})).await.json().await.unwrap();
    assert_eq!(revoked["count"], 1);
    envelope(keyed.get("/v1/models", &bob).await, 401, None).await;
    envelope(send(delete, &format!("/v1/keys/{id}"), &root, json!({})).await, 400, None).await;
    let kept = std::fs::read_to_string(&keyed.path).unwrap();
    assert!(kept.contains("sha256") && !kept.contains("bob"), "{kept}");
}
