//! Whether a request's caller is known and may do what it asks for.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::Request;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use crate::config::{Config, Current};
use crate::edge::AUDIT;
use crate::edge::account::Accounts;
use crate::edge::credential;
use crate::edge::need::Need;
use crate::edge::principal::{Principal, Usage};
use crate::edge::shared::Shared;
use crate::edge::tries::Tries;
use crate::edge::usage::Export;
use crate::error::Refused;
use crate::keys::{self, Store};

/// What the short-lived keys of browsers begin with. They open sessions and nothing else.
pub const EPHEMERAL: &str = "ek_";
/// Longest key that is looked at, bytes: a session fits into one.
const KEY_BYTES: usize = 16 * 1024;

/// The address at the other end of a request's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl Default for Peer {
    fn default() -> Self {
        Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

/// A request for a session whose caller is refused: its dialect says so in its own way.
#[derive(Clone, Debug)]
pub struct Denied {
    /// Why.
    pub refused: Refused,
    /// From where it came.
    pub peer: Peer,
}

/// Who is let in. Cloning shares it.
#[derive(Clone)]
pub struct Access {
    keys: Store,
    tries: Arc<Tries>,
    accounts: Arc<Accounts>,
    export: Arc<Export>,
    checks: IntCounterVec,
    accepted: IntCounter,
}

impl Access {
    /// Takes the keys of that store.
    ///
    /// # Errors
    /// When its metrics are registered already.
    pub fn new(keys: Store, config: Current, registry: &Registry) -> prometheus::Result<Self> {
        let help = "Requests to routes that need an API key, by what came of the key";
        let checks =
            IntCounterVec::new(Opts::new("speechstack_gateway_key_checks_total", help), &["result"])?;
        registry.register(Box::new(checks.clone()))?;
        let accepted = checks.with_label_values(&["accepted"]);
        let redis = config.get().gateway.quotas.redis.clone();
        let shared = redis.map(|redis| Shared::new(redis, registry)).transpose()?;
        let store = shared.as_ref().map(|(store, _)| Arc::clone(store));
        let accounts = Arc::new(Accounts::new(registry, store)?);
        if let Some((shared, changes)) = shared {
            tokio::spawn(shared.follow(Arc::downgrade(&accounts), changes));
        }
        let export = Arc::new(Export::start(config, registry)?);
        Ok(Self { keys, tries: Arc::default(), accounts, export, checks, accepted })
    }

    /// The caller of a request; `None` where none is needed and no key was given.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn admit<B>(
        &self,
        config: &Config,
        need: Need,
        request: &Request<B>,
        peer: Peer,
        now: u64,
    ) -> Result<Option<Arc<Principal>>, Refused> {
        if need == Need::Nothing {
            return Ok(None);
        }
        match credential::of(&config.gateway.auth, request) {
            None if need == Need::Lists && config.gateway.auth.anonymous_models => Ok(None),
            None => Err(self.counted(Refused::Missing)),
            Some(key) => self.check(config, need, &key, peer, now).map(Some),
        }
    }

    /// The caller whose key came in a session's first message.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn session(
        &self,
        config: &Config,
        dialect: &'static str,
        key: &str,
        peer: Peer,
        now: u64,
    ) -> Result<Arc<Principal>, Refused> {
        self.check(config, Need::Session(dialect), key, peer, now)
    }

    fn check(
        &self,
        config: &Config,
        need: Need,
        key: &str,
        Peer(address): Peer,
        now: u64,
    ) -> Result<Arc<Principal>, Refused> {
        let auth = &config.gateway.auth;
        let opens = matches!(need, Need::Session("realtime")) && key.starts_with(EPHEMERAL);
        let holder = match key.len() {
            ..=KEY_BYTES if opens => self.keys.signer(key, now),
            ..=KEY_BYTES => self.keys.check(auth, key, now),
            _ => Err(keys::Refused::Unknown),
        };
        let checked = match holder {
            Ok(holder) => {
                let limits = config.gateway.quotas.of(holder.tier.as_deref(), holder.limits);
                let account = self.accounts.of(&holder.name, now * 1000);
                let principal = Principal::new(holder, limits, account, Arc::clone(&self.export));
                need.dialect()
                    .map_or(Ok(()), |dialect| principal.may_speak(dialect))
                    .map(|()| Arc::new(principal))
            }
            // A good key is never made to wait for the wrong ones of others behind the same address.
            Err(refused) => Err(match self.tries.wait(address, auth.failed_tries, now) {
                Some(retry_after) => Refused::TooManyTries { retry_after },
                None => {
                    self.tries.failed(address, now);
                    let masked = keys::masked(key);
                    tracing::warn!(target: AUDIT, key = masked, peer = %address, reason = ?refused, "key refused");
                    match refused {
                        keys::Refused::Unknown => Refused::Wrong { masked },
                        keys::Refused::Expired => Refused::Expired { masked },
                    }
                }
            }),
        };
        match checked {
            Ok(principal) => {
                self.accepted.inc();
                Ok(principal)
            }
            Err(refused) => Err(self.counted(refused)),
        }
    }

    /// The keys.
    pub fn keys(&self) -> &Store {
        &self.keys
    }

    /// What all names have used.
    pub fn usage(&self) -> Vec<(Arc<str>, Usage)> {
        self.accounts.all().into_iter().map(|(name, account)| (name, Usage::of(&account))).collect()
    }

    fn counted(&self, refused: Refused) -> Refused {
        self.checks.with_label_values(&[refused.code()]).inc();
        refused
    }
}
