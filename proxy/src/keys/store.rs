//! The keys in force: read from their file, and read anew when it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::time::{MissedTickBehavior, interval};
use twox_hash::XxHash3_64;

use crate::config::{Auth, Current};
use crate::keys::file::{Error, File, NewKey, Record};
use crate::keys::set::{Holder, Refused, Set};
use crate::keys::token::{self, Tokens};

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(2);

/// What is counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    reloads: IntCounterVec,
    keys: IntGauge,
}

impl Metrics {
    /// Makes them and registers them.
    ///
    /// # Errors
    /// When a metric of that name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Files of API keys that changed, by whether they were applied";
        let reloads =
            IntCounterVec::new(Opts::new("speechstack_gateway_keys_reloads_total", help), &["result"])?;
        let keys = IntGauge::new("speechstack_gateway_keys", "API keys in force")?;
        registry.register(Box::new(reloads.clone()))?;
        registry.register(Box::new(keys.clone()))?;
        Ok(Self { reloads, keys })
    }
}

/// The keys in force. Cloning shares them.
#[derive(Clone)]
pub struct Store {
    set: Arc<RwLock<Arc<Set>>>,
    tokens: Tokens,
    metrics: Metrics,
}

/// The file as it was read last.
#[derive(Default)]
struct Seen {
    path: Option<PathBuf>,
    hash: Option<u64>,
}

impl Store {
    /// Without keys.
    pub fn new(metrics: Metrics) -> Self {
        Self { set: Arc::default(), tokens: Tokens::default(), metrics }
    }

    /// The keys now.
    fn get(&self) -> Arc<Set> {
        Arc::clone(&self.set.read())
    }

    /// Whose key or token it is, at `now`, seconds of Unix time.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check(&self, auth: &Auth, text: &str, now: u64) -> Result<Arc<Holder>, Refused> {
        match &auth.jwt {
            Some(jwt) if token::is_token(text) => self.tokens.check(jwt, text, now),
            _ => self.get().check(text, now).cloned(),
        }
    }

    /// Whose client secret it is, at `now`, seconds of Unix time.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn signer(&self, text: &str, now: u64) -> Result<Arc<Holder>, Refused> {
        self.get().signer(text, now).cloned()
    }

    /// What is kept of the keys of the file, but for what they are checked by.
    ///
    /// # Errors
    /// [`Error`].
    pub fn list(&self, auth: &Auth) -> Result<Vec<Record>, Error> {
        let hidden = |record| Record { sha256: String::new(), ..record };
        Ok(File::read(path(auth)?)?.keys.into_iter().map(hidden).collect())
    }

    /// Adds a key to the file; it counts at once. Returns what is shown of it, and its text.
    ///
    /// # Errors
    /// [`Error`].
    pub fn add(&self, auth: &Auth, wanted: NewKey) -> Result<(Record, String), Error> {
        let (record, text) = wanted.make()?;
        let kept = record.clone();
        let file = File::change(path(auth)?, |file| {
            file.keys.push(kept);
            Ok(file.clone())
        })?;
        self.replace(Set::of(file));
        Ok((Record { sha256: String::new(), ..record }, text))
    }

    /// Revokes the key of that id, or all of that name, at once. Returns how many.
    ///
    /// # Errors
    /// [`Error`].
    pub fn revoke(&self, auth: &Auth, key: &str) -> Result<usize, Error> {
        let (count, file) = File::change(path(auth)?, |file| Ok((file.revoke(key)?, file.clone())))?;
        self.replace(Set::of(file));
        Ok(count)
    }

    /// Reads the file for the first time, if keys are asked for.
    ///
    /// # Errors
    /// When it cannot be read, or is invalid.
    pub fn open(&self, auth: &Auth) -> Result<(), Error> {
        if let Some(path) = auth.keys_file.as_ref().filter(|_| auth.is_on()) {
            self.replace(Set::of(File::read(path)?));
        }
        Ok(())
    }

    /// Follows the file and the identity provider that are configured, for ever.
    pub async fn follow(self, config: Current) {
        tokio::join!(self.tokens.clone().follow(config.clone()), self.follow_file(config));
    }

    /// Follows the file. An invalid one changes nothing.
    async fn follow_file(&self, config: Current) {
        let mut tick = interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = Seen::default();
        loop {
            tick.tick().await;
            let now = config.get();
            let auth = &now.gateway.auth;
            let Some(path) = auth.keys_file.as_ref().filter(|_| auth.is_on()) else { continue };
            // Absent for a moment is how some mounts change a file.
            let Ok(text) = tokio::fs::read_to_string(path).await else { continue };
            self.look(&mut seen, path, &text);
        }
    }

    fn look(&self, seen: &mut Seen, path: &Path, text: &str) {
        let hash = Some(XxHash3_64::oneshot(text.as_bytes()));
        if seen.hash == hash && seen.path.as_deref() == Some(path) {
            return;
        }
        *seen = Seen { path: Some(path.to_owned()), hash };
        let result = match File::parse(path, text) {
            Ok(file) => {
                self.replace(Set::of(file));
                tracing::info!(file = %path.display(), keys = self.get().len(), "API keys loaded");
                "applied"
            }
            Err(error) => {
                tracing::error!(%error, "unable to take over the API keys; the old ones stay in force");
                "invalid"
            }
        };
        self.metrics.reloads.with_label_values(&[result]).inc();
    }

    fn replace(&self, set: Set) {
        self.metrics.keys.set(i64::try_from(set.len()).unwrap_or(i64::MAX));
        *self.set.write() = Arc::new(set);
    }
}

fn path(auth: &Auth) -> Result<&Path, Error> {
    let none = || Error::Order("gateway.auth.keys_file is not set: there are no keys to change".into());
    auth.keys_file.as_deref().ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_file_changes_nothing() {
        let store = Store::new(Metrics::register(&Registry::new()).unwrap());
        let (path, mut seen) = (Path::new("keys.yaml"), Seen::default());
        let text = format!("keys: [{{id: 0123456789abcdef, name: a, sha256: \"{}\"}}]", "0".repeat(64));
        store.look(&mut seen, path, &text);
        assert_eq!(store.get().len(), 1);
        store.look(&mut seen, path, "keys: many");
        assert_eq!(store.get().len(), 1);
        store.look(&mut seen, path, "keys: []");
        assert_eq!(store.get().len(), 0);
    }
}
