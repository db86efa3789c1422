//! Tokens of an identity provider (OpenID Connect): JWTs that are checked against its public keys.
//!
//! Keys are fetched in the background. A token is checked without waiting for the network: one that is signed with a key that is
//! not known yet is refused, and has the keys fetched.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Request, Uri};
use http_body_util::{BodyExt, Limited};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::{Current, Jwt, Limits};
use crate::keys::file::{DIALECTS, Scopes};
use crate::keys::key::{self, Digest};
use crate::keys::set::{Holder, Refused};
use crate::net::{Clients, Tls, TlsError};

/// Keys older than this are fetched anew: those that were withdrawn must not count for ever.
const FRESH: Duration = Duration::from_secs(600);
/// Least time between two fetches, whatever tokens arrive.
const LEAST_REFETCH: Duration = Duration::from_secs(10);
/// Longest fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest document of an identity provider, bytes.
const DOCUMENT_BYTES: usize = 1024 * 1024;
/// For clocks that differ, seconds.
const LEEWAY: u64 = 10;
/// Tokens whose signature is not checked again; beyond it all are forgotten.
const MAX_CHECKED: usize = 10_000;
/// Most characters of a name.
const NAME_CHARACTERS: usize = 128;
/// What names of tokens begin with, so that none is the name of a key.
const PREFIX: &str = "oidc:";
const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::ES256,
    Algorithm::EdDSA,
];

/// Why the keys of an identity provider cannot be had.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("unable to read the system's certificates")]
    Tls(#[from] TlsError),
    #[error("{0} is no http or https URL")]
    Url(String),
    #[error("no whole answer from {url}: {reason}")]
    Silent { url: String, reason: String },
    #[error("unable to read {path}")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0} has no keys")]
    Keys(String),
}

/// What is checked of tokens. Cloning shares it.
#[derive(Clone, Default)]
pub struct Tokens {
    keys: Arc<RwLock<Known>>,
    checked: Arc<Mutex<HashMap<Digest, Checked>>>,
    unknown: Arc<Notify>,
}

/// Public keys of the provider that is configured.
#[derive(Default)]
struct Known {
    keys: HashMap<String, Arc<DecodingKey>>,
    /// The configuration that they are of.
    of: Option<Jwt>,
}

/// A token whose signature holds.
#[derive(Clone)]
struct Checked {
    holder: Arc<Holder>,
    not_before: u64,
    /// The configuration that it was checked by.
    by: Jwt,
}

#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: u64,
    #[serde(default)]
    nbf: u64,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// What a token may do, in the claim that is configured for it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Grants {
    tier: Option<String>,
    dialects: Vec<String>,
    models: Vec<String>,
    admin: bool,
    own_engines: bool,
}

/// Whether a text looks like a token: three parts of base64url.
pub fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl Tokens {
    /// Whose token it is, at `now`, seconds of Unix time.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check(&self, jwt: &Jwt, token: &str, now: u64) -> Result<Arc<Holder>, Refused> {
        let hash = key::hash(token);
        let known = self.checked.lock().get(&hash).filter(|checked| checked.by == *jwt).cloned();
        let checked = match known {
            Some(checked) => checked,
            None => {
                let checked = self.verify(jwt, token)?;
                let mut all = self.checked.lock();
                if all.len() >= MAX_CHECKED {
                    all.clear();
                }
                all.insert(hash, checked.clone());
                checked
            }
        };
        let expires = checked.holder.expires.unwrap_or(0);
        if now >= expires.saturating_add(LEEWAY) {
            return Err(Refused::Expired);
        }
        if now.saturating_add(LEEWAY) < checked.not_before {
            return Err(Refused::Unknown);
        }
        Ok(checked.holder)
    }

    /// Checks a signature and what does not depend on the time.
    fn verify(&self, jwt: &Jwt, token: &str) -> Result<Checked, Refused> {
        let refused = |reason: &str| {
            tracing::debug!(reason, "token refused");
            Refused::Unknown
        };
        let header = jsonwebtoken::decode_header(token).map_err(|_| refused("not a token"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(refused("signed in a way that is not accepted"));
        }
        let kid = header.kid.unwrap_or_default();
        let known = self.keys.read();
        let key = known.keys.get(&kid).filter(|_| known.of.as_ref() == Some(jwt)).cloned();
        drop(known);
        let Some(key) = key else {
            self.unknown.notify_one();
            return Err(refused("signed with an unknown key"));
        };
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &signature_alone(header.alg));
        let claims = claims.map_err(|_| refused("the signature or the claims are wrong"))?.claims;
        let audience = match &claims.aud {
            Audience::One(audience) => *audience == jwt.audience,
            Audience::Many(audiences) => audiences.contains(&jwt.audience),
        };
        if claims.iss != jwt.issuer || !audience {
            return Err(refused("of another issuer, or for another audience"));
        }
        let name = claims.others.get(&jwt.name_claim).and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| refused("it names no caller"))?;
        let grants = match claims.others.get(&jwt.grants_claim) {
            None => Grants::default(),
            Some(grants) => Grants::deserialize(grants).map_err(|_| refused("its grants cannot be read"))?,
        };
        if grants.dialects.iter().any(|dialect| !DIALECTS.contains(&dialect.as_str())) {
            return Err(refused("it grants a dialect that there is not"));
        }
        let holder = Holder {
            id: "oidc".into(),
            name: format!("{PREFIX}{}", plain(name)).into(),
            tier: grants.tier,
            scopes: Scopes {
                dialects: grants.dialects,
                models: grants.models,
                admin: grants.admin,
                own_engines: grants.own_engines,
            },
            limits: Limits::default(),
            expires: Some(claims.exp),
            hash: None,
        };
        Ok(Checked { holder: Arc::new(holder), not_before: claims.nbf, by: jwt.clone() })
    }

    /// Fetches the keys of the provider that is configured, for ever. What cannot be fetched leaves the old ones in force.
    pub async fn follow(self, config: Current) {
        let mut changes = config.changes();
        loop {
            let jwt = changes.borrow_and_update().gateway.auth.jwt.clone();
            let begun = Instant::now();
            if let Some(jwt) = jwt {
                match fetch(&jwt).await {
                    Ok(keys) => {
                        self.checked.lock().clear();
                        *self.keys.write() = Known { keys, of: Some(jwt) };
                    }
                    Err(error) => {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(error, "unable to fetch the identity provider's keys");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(FRESH) => {}
                () = self.unknown.notified() => {
                    tokio::time::sleep(LEAST_REFETCH.saturating_sub(begun.elapsed())).await;
                }
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// A name that logs and metrics can carry.
fn plain(name: &str) -> String {
    let plain = |character: char| if character.is_ascii_graphic() { character } else { '_' };
    name.chars().take(NAME_CHARACTERS).map(plain).collect()
}

/// The claims are checked apart, with a clock that is passed in.
fn signature_alone(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

/// The keys that a provider publishes, by their ids.
async fn fetch(jwt: &Jwt) -> Result<HashMap<String, Arc<DecodingKey>>, Error> {
    let (from, document) = match (&jwt.jwks_file, &jwt.jwks_url) {
        (Some(path), _) => (path.display().to_string(), read(path).await?),
        (None, Some(url)) => (url.clone(), get(url).await?),
        (None, None) => {
            let url = format!("{}/.well-known/openid-configuration", jwt.issuer.trim_end_matches('/'));
            let about = get(&url).await?;
            let url =
                about.get("jwks_uri").and_then(Value::as_str).ok_or_else(|| Error::Keys(url.clone()))?;
            (url.to_owned(), get(url).await?)
        }
    };
    let keys = keys(&document);
    if keys.is_empty() { Err(Error::Keys(from)) } else { Ok(keys) }
}

/// The keys of a document; those that cannot be read are left out.
fn keys(document: &Value) -> HashMap<String, Arc<DecodingKey>> {
    let all = document.get("keys").and_then(Value::as_array).into_iter().flatten();
    let readable = all.filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
    readable
        .filter_map(|jwk| {
            let key = DecodingKey::from_jwk(&jwk).ok()?;
            Some((jwk.common.key_id.unwrap_or_default(), Arc::new(key)))
        })
        .collect()
}

async fn read(path: &Path) -> Result<Value, Error> {
    let failed = |source| Error::File { path: path.display().to_string(), source };
    let text = tokio::fs::read(path).await.map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| failed(error.into()))
}

async fn get(url: &str) -> Result<Value, Error> {
    let uri: Uri = url.parse().map_err(|_| Error::Url(url.to_owned()))?;
    let silent = |reason: String| Error::Silent { url: url.to_owned(), reason };
    let tls = match uri.scheme_str() {
        Some("https") => Some(Tls::system()?),
        Some("http") => None,
        _ => return Err(Error::Url(url.to_owned())),
    };
    let clients = Clients::fresh(tls.as_ref());
    let request = Request::get(uri).header(http::header::ACCEPT, "application/json").body(Body::empty());
    let request = request.map_err(|_| Error::Url(url.to_owned()))?;
    let answer = async {
        let response = clients.http.request(request).await.map_err(|error| silent(error.to_string()))?;
        if !response.status().is_success() {
            return Err(silent(format!("status {}", response.status())));
        }
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES).collect().await;
        Ok(body.map_err(|error| silent(error.to_string()))?.to_bytes())
    };
    let body = timeout(FETCH_TIMEOUT, answer).await.map_err(|_| silent("it took too long".into()))??;
    serde_json::from_slice(&body).map_err(|error| silent(error.to_string()))
}
