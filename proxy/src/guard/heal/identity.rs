//! Who gives orders: checks a service account's token against the API server's public keys.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use crate::config;

mod api_server;
#[cfg(test)]
pub(in crate::guard) mod tests;

pub use api_server::ApiServer;

/// Least time between two fetches of keys, whatever tokens arrive.
const LEAST_REFETCH: Duration = Duration::from_secs(10);
/// Keys older than this are fetched anew: those that were withdrawn must not count for ever.
const FRESH: Duration = Duration::from_secs(3600);
/// For clocks that differ, seconds.
const LEEWAY: u64 = 10;
const ALGORITHMS: [Algorithm; 2] = [Algorithm::RS256, Algorithm::ES256];

/// What the API server publishes of itself.
#[derive(Clone, Debug)]
pub struct Published {
    /// The issuer of its tokens.
    pub issuer: String,
    /// Its public keys, as JSON; what cannot be read is left out.
    pub keys: Vec<serde_json::Value>,
}

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not in a cluster, or no token and CA mounted.
    #[error("no way to the API server")]
    Config(#[source] kube::config::InClusterError),
    /// The API server's answer is none, or a refusal.
    #[error("unable to ask the API server for {path}")]
    Ask {
        /// What was asked for.
        path: &'static str,
        /// The reason.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("no answer from the API server")]
    Silent(#[source] tokio::time::error::Elapsed),
    /// The request cannot be made.
    #[error("bad request")]
    Request(#[source] http::Error),
    /// The client cannot be made.
    #[error("unable to make a client")]
    Client(#[source] Box<kube::Error>),
}

/// Where public keys come from.
pub trait Keys: Send + Sync {
    /// Asks for the present ones.
    fn fetch(&self) -> BoxFuture<'_, Result<Published, FetchError>>;
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a token that the API server issued and that is valid now.
    #[error("{0}")]
    Invalid(&'static str),
    /// A valid token of somebody else, or for somebody else.
    #[error("{0}")]
    Forbidden(&'static str),
}

/// A token that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Unix time at which it ends, seconds.
    pub expires: u64,
}

/// Checks tokens.
pub struct Identity {
    wanted: Box<dyn Fn() -> Option<config::Operator> + Send + Sync>,
    keys: Box<dyn Keys>,
    known: tokio::sync::Mutex<Known>,
}

#[derive(Default)]
struct Known {
    issuer: String,
    keys: HashMap<String, Arc<DecodingKey>>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: u64,
    #[serde(default)]
    nbf: u64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Identity {
    /// Takes tokens of whom `wanted` names at the time, signed by one of `keys`. Asks for nothing before the first token.
    pub fn new(
        wanted: impl Fn() -> Option<config::Operator> + Send + Sync + 'static,
        keys: Box<dyn Keys>,
    ) -> Self {
        Self { wanted: Box::new(wanted), keys, known: tokio::sync::Mutex::default() }
    }

    /// Checks a token at `now`, seconds of Unix time.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn verify(&self, token: &str, now: u64) -> Result<Verified, Refused> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refused::Invalid("not a token"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Refused::Invalid("signed in a way that is not accepted"));
        }
        let kid = header.kid.ok_or(Refused::Invalid("no key is named"))?;
        let (key, issuer) = self.key(&kid).await.ok_or(Refused::Invalid("signed with an unknown key"))?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &signature_alone(header.alg));
        let claims = claims.map_err(|error| {
            tracing::debug!(%error, "token refused");
            Refused::Invalid("the signature or the claims are wrong")
        })?;
        let wanted = (self.wanted)().ok_or(Refused::Forbidden("no operator is configured any more"))?;
        check(&claims.claims, &issuer, &wanted, now)
    }

    /// The key of that id and the issuer; asks the API server when it is unknown or old.
    async fn key(&self, kid: &str) -> Option<(Arc<DecodingKey>, String)> {
        let mut known = self.known.lock().await;
        let now = Instant::now();
        if known.is_due(kid, now) {
            known.tried = Some(now);
            match self.keys.fetch().await {
                Ok(published) => known.take(published, now),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "unable to fetch the API server's keys"
                    );
                }
            }
        }
        Some((known.keys.get(kid)?.clone(), known.issuer.clone()))
    }
}

impl Known {
    fn is_due(&self, kid: &str, now: Instant) -> bool {
        let older = |at: Option<Instant>, than| at.is_none_or(|at| now.saturating_duration_since(at) >= than);
        (!self.keys.contains_key(kid) || older(self.fetched, FRESH)) && older(self.tried, LEAST_REFETCH)
    }

    fn take(&mut self, published: Published, now: Instant) {
        let readable = published.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        self.keys = readable
            .filter_map(|jwk| {
                let key = DecodingKey::from_jwk(&jwk).ok()?;
                Some((jwk.common.key_id?, Arc::new(key)))
            })
            .collect();
        self.issuer = published.issuer;
        self.fetched = Some(now);
    }
}

/// The claims are checked by [`check`], which tells what is wrong and takes the clock.
fn signature_alone(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

/// Whether a signed token is valid now and is the wanted one.
fn check(claims: &Claims, issuer: &str, wanted: &config::Operator, now: u64) -> Result<Verified, Refused> {
    let audience = match &claims.aud {
        Audience::One(audience) => *audience == wanted.audience,
        Audience::Many(audiences) => audiences.contains(&wanted.audience),
    };
    if claims.iss != issuer {
        Err(Refused::Invalid("of another issuer"))
    } else if now >= claims.exp.saturating_add(LEEWAY) {
        Err(Refused::Invalid("expired"))
    } else if now.saturating_add(LEEWAY) < claims.nbf {
        Err(Refused::Invalid("not valid yet"))
    } else if !audience {
        Err(Refused::Forbidden("the token is meant for another audience"))
    } else if claims.sub != wanted.subject {
        Err(Refused::Forbidden("the token is somebody else's"))
    } else {
        Ok(Verified { expires: claims.exp })
    }
}
