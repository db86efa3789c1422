use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use aws_lc_rs::{hmac, rand};
use serde_json::{Value, json};

use crate::guard::heal::identity::*;

const NOW: u64 = 1_700_000_000;
pub(in crate::guard) const OPERATOR: &str = "system:serviceaccount:speech:operator";

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.as_ref().chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * at)) as usize & 63]));
        }
    }
    text
}

pub(in crate::guard) struct Signer {
    kid: String,
    key: RsaKeyPair,
}

impl Signer {
    pub(in crate::guard) fn new(kid: &str) -> Self {
        Self { kid: kid.into(), key: RsaKeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    pub(in crate::guard) fn jwk(&self) -> Value {
        let public: PublicKeyComponents<Vec<u8>> = self.key.public_key().into();
        json!({
            "use": "sig", "kty": "RSA", "kid": self.kid, "alg": "RS256",
            "n": base64url(public.n), "e": base64url(public.e),
        })
    }

    pub(in crate::guard) fn sign(&self, claims: &Value) -> String {
        let message = message(&json!({"alg": "RS256", "kid": self.kid}), claims);
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = rand::SystemRandom::new();
        self.key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
        format!("{message}.{}", base64url(signature))
    }
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()))
}

pub(in crate::guard) fn claims() -> Value {
    json!({
        "iss": "https://kubernetes.default.svc", "sub": OPERATOR, "aud": ["speechstack-guard"],
        "exp": NOW + 3600, "nbf": NOW, "iat": NOW, "kubernetes.io": {"namespace": "speech"},
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

/// An API server that publishes keys, or is away.
#[derive(Clone, Default)]
pub(in crate::guard) struct Server {
    pub(in crate::guard) keys: Arc<parking_lot::Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Keys for Server {
    fn fetch(&self) -> BoxFuture<'_, Result<Published, FetchError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let keys = self.keys.lock().clone();
        Box::pin(std::future::ready(Ok(Published { issuer: "https://kubernetes.default.svc".into(), keys })))
    }
}

fn identity(keys: &[&Signer]) -> (Identity, Server) {
    let server = Server::default();
    // An unknown type of key must not spoil the others.
    *server.keys.lock() =
        keys.iter().map(|key| key.jwk()).chain([json!({"kty": "QUANTUM", "kid": "q"})]).collect();
    let wanted = config::Operator { audience: "speechstack-guard".into(), subject: OPERATOR.into() };
    (Identity::new(move || Some(wanted.clone()), Box::new(server.clone())), server)
}

#[tokio::test]
async fn the_operators_token_holds() {
    let signer = Signer::new("k1");
    let (identity, server) = identity(&[&signer]);
    for _ in 0..3 {
        let verified = identity.verify(&signer.sign(&claims()), NOW + 1).await;
        assert_eq!(verified, Ok(Verified { expires: NOW + 3600 }));
    }
    assert_eq!(server.asked.load(Ordering::Relaxed), 1);
    let one = with("aud", json!("speechstack-guard"));
    assert!(identity.verify(&signer.sign(&one), NOW).await.is_ok());
}

#[tokio::test]
async fn somebody_elses_token_is_forbidden() {
    let signer = Signer::new("k1");
    let (identity, _) = identity(&[&signer]);
    for wrong in [
        with("aud", json!(["https://kubernetes.default.svc"])),
        with("aud", json!([])),
        with("sub", json!("system:serviceaccount:speech:default")),
        with("sub", json!(format!("{OPERATOR}x"))),
    ] {
        let refused = identity.verify(&signer.sign(&wrong), NOW).await;
        assert!(matches!(refused, Err(Refused::Forbidden(_))), "{wrong}: {refused:?}");
    }
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_invalid() {
    let signer = Signer::new("k1");
    let (identity, _) = identity(&[&signer]);
    for wrong in [
        with("iss", json!("https://elsewhere")),
        with("exp", json!(NOW - LEEWAY)),
        with("nbf", json!(NOW + LEEWAY + 1)),
        with("exp", json!("later")),
        with("exp", Value::Null),
        json!({"iss": "https://kubernetes.default.svc"}),
        json!([]),
    ] {
        let refused = identity.verify(&signer.sign(&wrong), NOW).await;
        assert!(matches!(refused, Err(Refused::Invalid(_))), "{wrong}: {refused:?}");
    }
    for text in ["", "a.b.c", "Bearer", &"x".repeat(9999)] {
        assert!(identity.verify(text, NOW).await.is_err());
    }
}

#[tokio::test]
async fn only_the_api_servers_signature_counts() {
    let signer = Signer::new("k1");
    let (identity, _) = identity(&[&signer]);
    let good = signer.sign(&claims());
    let (message_of_good, signature) = good.rsplit_once('.').unwrap();
    // No signature, whatever the header calls that.
    for alg in ["none", "None", "NONE"] {
        let unsigned = message(&json!({"alg": alg, "kid": "k1"}), &claims());
        for token in [format!("{unsigned}."), format!("{unsigned}.{signature}")] {
            assert!(identity.verify(&token, NOW).await.is_err(), "{alg}");
        }
    }
    assert!(identity.verify(&format!("{message_of_good}."), NOW).await.is_err());
    // The public key as the secret of a symmetric signature.
    let public: PublicKeyComponents<Vec<u8>> = signer.key.public_key().into();
    let symmetric = message(&json!({"alg": "HS256", "kid": "k1"}), &claims());
    for secret in [public.n, signer.jwk()["n"].as_str().unwrap().as_bytes().to_vec()] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), symmetric.as_bytes());
        let refused = identity.verify(&format!("{symmetric}.{}", base64url(tag)), NOW).await;
        assert_eq!(refused, Err(Refused::Invalid("signed in a way that is not accepted")));
    }
    // The right name for another key, other claims under a good signature, an algorithm that does not fit the key.
    assert!(identity.verify(&Signer::new("k1").sign(&claims()), NOW).await.is_err());
    let other = message(&json!({"alg": "RS256", "kid": "k1"}), &with("sub", json!("x")));
    assert!(identity.verify(&format!("{other}.{signature}"), NOW).await.is_err());
    let elliptic = message(&json!({"alg": "ES256", "kid": "k1"}), &claims());
    assert!(identity.verify(&format!("{elliptic}.{signature}"), NOW).await.is_err());
    assert!(identity.verify(&good, NOW).await.is_ok());
}

#[tokio::test]
async fn unknown_keys_are_asked_for_but_not_for_each_token() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let (identity, server) = identity(&[&old]);
    assert!(identity.verify(&old.sign(&claims()), NOW).await.is_ok());
    server.keys.lock().push(new.jwk());
    for _ in 0..20 {
        let refused = identity.verify(&new.sign(&claims()), NOW).await;
        assert_eq!(refused, Err(Refused::Invalid("signed with an unknown key")));
    }
    assert_eq!(server.asked.load(Ordering::Relaxed), 1, "just asked");
    let earlier = Instant::now().checked_sub(LEAST_REFETCH).unwrap();
    identity.known.lock().await.tried = Some(earlier);
    assert!(identity.verify(&new.sign(&claims()), NOW).await.is_ok());
    assert_eq!(server.asked.load(Ordering::Relaxed), 2);
    assert!(identity.verify(&old.sign(&claims()), NOW).await.is_ok());
}

#[test]
fn withdrawn_keys_end_with_the_hour_and_keys_outlast_an_absent_server() {
    let now = Instant::now();
    let mut known = Known::default();
    assert!(known.is_due("a", now));
    known.take(Published { issuer: String::new(), keys: vec![Signer::new("a").jwk()] }, now);
    known.tried = Some(now);
    assert!(!known.is_due("a", now + FRESH / 2));
    assert!(known.is_due("a", now + FRESH));
    known.tried = Some(now + FRESH);
    assert!(!known.is_due("a", now + FRESH), "just tried, in vain");
    assert!(known.keys.contains_key("a"));
    known.take(Published { issuer: String::new(), keys: Vec::new() }, now + FRESH);
    assert!(!known.keys.contains_key("a"));
}

#[tokio::test]
async fn a_changed_subject_counts_without_a_restart() {
    let signer = Signer::new("a");
    let subject =
        std::sync::Arc::new(parking_lot::Mutex::new("system:serviceaccount:old:operator".to_owned()));
    let now_wanted = subject.clone();
    let wanted = move || {
        let subject = now_wanted.lock().clone();
        Some(config::Operator { audience: "speechstack-guard".into(), subject })
    };
    let server = Server::default();
    *server.keys.lock() = vec![signer.jwk()];
    let identity = Identity::new(wanted, Box::new(server));
    let token = signer.sign(&claims());
    assert!(matches!(identity.verify(&token, NOW).await, Err(Refused::Forbidden(_))));
    OPERATOR.clone_into(&mut subject.lock());
    assert!(identity.verify(&token, NOW).await.is_ok());
}
