//! Whether a request's caller is known and may do what it asks for.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::Request;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use crate::config::Auth;
use crate::edge::credential;
use crate::edge::need::Need;
use crate::edge::principal::Principal;
use crate::edge::refused::Refused;
use crate::edge::tries::Tries;
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
    checks: IntCounterVec,
    accepted: IntCounter,
}

impl Access {
    /// Takes the keys of that store.
    ///
    /// # Errors
    /// When its metrics are registered already.
    pub fn new(keys: Store, registry: &Registry) -> prometheus::Result<Self> {
        let help = "Requests to routes that need an API key, by what came of the key";
        let checks =
            IntCounterVec::new(Opts::new("speechstack_gateway_key_checks_total", help), &["result"])?;
        registry.register(Box::new(checks.clone()))?;
        let accepted = checks.with_label_values(&["accepted"]);
        Ok(Self { keys, tries: Arc::default(), checks, accepted })
    }

    /// The caller of a request; `None` where none is needed and no key was given.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn admit<B>(
        &self,
        auth: &Auth,
        need: Need,
        request: &Request<B>,
        peer: Peer,
        now: u64,
    ) -> Result<Option<Arc<Principal>>, Refused> {
        if need == Need::Nothing {
            return Ok(None);
        }
        match credential::of(auth, request) {
            None if need == Need::Lists && auth.anonymous_models => Ok(None),
            None => Err(self.counted(Refused::Missing)),
            Some(key) => self.check(auth, need, &key, peer, now).map(Some),
        }
    }

    /// The caller whose key came in a session's first message.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn session(
        &self,
        auth: &Auth,
        dialect: &'static str,
        key: &str,
        peer: Peer,
        now: u64,
    ) -> Result<Arc<Principal>, Refused> {
        self.check(auth, Need::Session(dialect), key, peer, now)
    }

    fn check(
        &self,
        auth: &Auth,
        need: Need,
        key: &str,
        Peer(address): Peer,
        now: u64,
    ) -> Result<Arc<Principal>, Refused> {
        let set = self.keys.get();
        let opens = matches!(need, Need::Session("realtime")) && key.starts_with(EPHEMERAL);
        let holder = match key.len() {
            ..=KEY_BYTES if opens => set.signer(key, now),
            ..=KEY_BYTES => set.check(key, now),
            _ => Err(keys::Refused::Unknown),
        };
        let checked = match holder {
            Ok(holder) => {
                let principal = Principal::new(Arc::clone(holder));
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

    fn counted(&self, refused: Refused) -> Refused {
        self.checks.with_label_values(&[refused.code()]).inc();
        refused
    }
}
