//! What `cargo bench` times of the edge: a caller's key, and a quota's check and settlement.

use std::sync::Arc;

use anyhow::Context;
use contract::header::REQUEST_ID;
use http::HeaderMap;
use prometheus::Registry;
use tempfile::TempDir;

use crate::config::{Auth, AuthMode, Config, Current, Limits};
use crate::edge::{Access, Peer, Principal, RequestId, request_id, unix_millis, unix_seconds};
use crate::error::Unit;
use crate::keys::{Metrics, NewKey, Store};
use crate::rng::Rng;

/// Keys in force.
const KEYS: usize = 100;

/// A gateway's door with 100 keys, and a caller of one of them who has every limit.
pub struct Door {
    store: Store,
    access: Access,
    config: Current,
    key: String,
    caller: Arc<Principal>,
    request: RequestId,
    _dir: TempDir,
}

impl Door {
    /// Opens one, with its keys in a folder of its own.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn new() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let registry = Registry::new();
        let keys_file = Some(dir.path().join("keys.yaml"));
        let mut config = Config::default();
        config.gateway.auth = Auth { mode: AuthMode::Keys, keys_file, ..Auth::default() };
        let store = Store::new(Metrics::register(&registry)?);
        let limits = Limits {
            requests_per_minute: Some(u32::MAX),
            jobs: Some(8),
            streams: Some(8),
            audio_minutes_per_day: Some(1e15),
            characters_per_day: Some(u64::MAX),
        };
        let mut key = None;
        for at in 0..KEYS {
            let (expires, tier, scopes) = (None, None, crate::keys::Scopes::default());
            let wanted = NewKey { name: format!("name-{at}"), expires, tier, scopes, limits };
            key = Some(store.add(&config.gateway.auth, wanted)?.1);
        }
        let key = key.context("there are no keys")?;
        let config = Current::new(config);
        let access = Access::new(store.clone(), config.clone(), &registry)?;
        let caller = access.session(&config.get(), "openai", &key, Peer::default(), unix_seconds());
        let caller = caller.map_err(|refused| anyhow::anyhow!("{}", refused.code()))?;
        let request = request_id(&HeaderMap::from_iter([(REQUEST_ID, "bench".parse()?)]), &Rng::new(1));
        request.called_by(Arc::clone(&caller));
        Ok(Self { store, access, config, key, caller, request, _dir: dir })
    }

    /// Checks the key alone. Returns whether it holds.
    pub fn key(&self) -> bool {
        self.store.check(&self.config.get().gateway.auth, &self.key, unix_seconds()).is_ok()
    }

    /// Finds the caller of the key, with its scopes, limits and account. Returns whether it is let in.
    pub fn caller(&self) -> bool {
        let config = self.config.get();
        self.access.session(&config, "openai", &self.key, Peer::default(), unix_seconds()).is_ok()
    }

    /// A request of a second of audio: counted, given a place, charged and settled. Returns whether it is granted.
    pub fn quota(&self) -> bool {
        let place = (self.caller.request(unix_millis()), self.caller.job(1024));
        let charge = self.request.charge_at_once(Unit::AudioSeconds, 1.0);
        let granted = place.0.is_ok() && place.1.is_ok();
        match charge {
            Ok(Some(charge)) => {
                charge.settle(1.0);
                granted
            }
            Ok(None) | Err(_) => false,
        }
    }
}
