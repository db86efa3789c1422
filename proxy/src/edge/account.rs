//! What the keys of one name have used, and what runs for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Mutex, RwLock};
use prometheus::{Counter, CounterVec, IntCounter, IntCounterVec, Opts, Registry};

use crate::edge::quota::{Bucket, Ledger, Used};
use crate::edge::shared::Shared;
use crate::net::permits::{Permit, Permits};

/// Names with series of their own; the rest share one, so that metrics stay few.
const MAX_LABELS: usize = 200;
/// The label of the rest.
const OTHERS: &str = "others";
/// Names that are remembered; beyond it those at rest are forgotten.
const MAX_ACCOUNTS: usize = 100_000;

/// What the keys of one name have used.
pub(super) struct Account {
    pub(super) name: Arc<str>,
    pub(super) state: Mutex<State>,
    pub(super) jobs: Permits,
    pub(super) streams: Permits,
    pub(super) series: Series,
    /// Where other gateways count as well.
    pub(super) shared: Option<Arc<Shared>>,
    /// It waits to be written there.
    pub(super) waits: AtomicBool,
    /// Held by who writes it there.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Account {
    /// Has its state written to where other gateways see it.
    pub(super) fn changed(self: &Arc<Self>) {
        if let Some(shared) = &self.shared {
            shared.changed(self);
        }
    }

    /// What is set aside, and what was used today.
    pub(super) fn held(&self, now: u64) -> (Used, Used) {
        self.state.lock().ledger.held(now)
    }

    /// Whether something runs for it.
    pub(super) fn holds(&self) -> bool {
        self.jobs.taken() + self.streams.taken() > 0 || self.held(0).0 != Used::default()
    }

    /// Whether nothing runs for it and nothing was used today.
    pub(super) fn is_at_rest(&self, now: u64) -> bool {
        !self.holds() && self.state.lock().ledger.is_at_rest(now)
    }
}

/// A place among the requests or sessions of a name; dropping it frees it.
pub struct Place {
    permit: Option<Permit>,
    account: Arc<Account>,
}

impl Place {
    pub(super) fn new(permit: Permit, account: &Arc<Account>) -> Self {
        Self { permit: Some(permit), account: Arc::clone(account) }
    }

    /// Whether other gateways count as well.
    pub(super) fn is_shared(&self) -> bool {
        self.account.shared.is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.permit = None;
        self.account.changed();
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) bucket: Bucket,
    pub(super) ledger: Ledger,
}

/// What is counted of a name.
#[derive(Clone)]
pub(super) struct Series {
    pub(super) requests: IntCounter,
    pub(super) audio_seconds: Counter,
    pub(super) characters: Counter,
    /// Refusals by quota, of all names.
    pub(super) refusals: IntCounterVec,
}

/// All names.
pub(super) struct Accounts {
    accounts: RwLock<HashMap<Arc<str>, Arc<Account>>>,
    requests: IntCounterVec,
    audio_seconds: CounterVec,
    characters: CounterVec,
    refusals: IntCounterVec,
    shared: Option<Arc<Shared>>,
}

impl Accounts {
    /// None yet.
    ///
    /// # Errors
    /// When its metrics are registered already.
    pub(super) fn new(registry: &Registry, shared: Option<Arc<Shared>>) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(name, help);
        let requests = IntCounterVec::new(
            opts(
                "speechstack_gateway_key_requests_total",
                "Requests that cost engine time, and sessions, by key",
            ),
            &["key"],
        )?;
        let audio_seconds = CounterVec::new(
            opts("speechstack_gateway_key_audio_seconds_total", "Seconds of audio that were heard, by key"),
            &["key"],
        )?;
        let characters = CounterVec::new(
            opts("speechstack_gateway_key_characters_total", "Characters that were spoken, by key"),
            &["key"],
        )?;
        let refusals = IntCounterVec::new(
            opts(
                "speechstack_gateway_quota_refusals_total",
                "Work that was refused because a quota was used up",
            ),
            &["quota"],
        )?;
        registry.register(Box::new(refusals.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(audio_seconds.clone()))?;
        registry.register(Box::new(characters.clone()))?;
        Ok(Self { accounts: RwLock::default(), requests, audio_seconds, characters, refusals, shared })
    }

    /// That of a name.
    pub(super) fn of(&self, name: &Arc<str>, now: u64) -> Arc<Account> {
        if let Some(account) = self.accounts.read().get(name) {
            return Arc::clone(account);
        }
        let mut accounts = self.accounts.write();
        if accounts.len() >= MAX_ACCOUNTS {
            accounts.retain(|_, account| {
                Arc::strong_count(account) > 1 || !account.state.lock().ledger.is_at_rest(now)
            });
        }
        let label = if accounts.len() < MAX_LABELS { &**name } else { OTHERS };
        let account = accounts.entry(Arc::clone(name)).or_insert_with(|| {
            Arc::new(Account {
                name: Arc::clone(name),
                state: Mutex::default(),
                jobs: Permits::default(),
                streams: Permits::default(),
                series: Series {
                    requests: self.requests.with_label_values(&[label]),
                    audio_seconds: self.audio_seconds.with_label_values(&[label]),
                    characters: self.characters.with_label_values(&[label]),
                    refusals: self.refusals.clone(),
                },
                shared: self.shared.clone(),
                waits: AtomicBool::new(false),
                turn: tokio::sync::Mutex::default(),
            })
        });
        Arc::clone(account)
    }

    /// All of them by name, in the order of names.
    pub(super) fn all(&self) -> Vec<(Arc<str>, Arc<Account>)> {
        let mut all: Vec<_> = self
            .accounts
            .read()
            .iter()
            .map(|(name, account)| (Arc::clone(name), Arc::clone(account)))
            .collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }
}
