//! The keys in force, found by their public part.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::config::Limits;
use crate::keys::file::{File, Record, Scopes};
use crate::keys::key::{self, Digest};

/// A key that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Holder {
    /// Its public part.
    pub id: String,
    /// Whose it is.
    pub name: Arc<str>,
    /// Its tier.
    pub tier: Option<String>,
    /// What it may do.
    pub scopes: Scopes,
    /// Limits of its own.
    pub limits: Limits,
    /// Unix time from which on it is refused, seconds.
    pub expires: Option<u64>,
    /// The hash of its text; a token has none.
    pub(super) hash: Option<Digest>,
}

/// Why a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is none such.
    Unknown,
    /// Its time is over.
    Expired,
}

/// The keys of a file.
#[derive(Clone, Debug, Default)]
pub struct Set {
    holders: HashMap<String, Arc<Holder>>,
}

impl Set {
    /// The keys of a file that was checked.
    pub fn of(file: File) -> Self {
        let holder = |record: Record| {
            Some(Arc::new(Holder {
                hash: Some(key::unhex(&record.sha256)?),
                id: record.id,
                name: record.name.into(),
                tier: record.tier,
                scopes: record.scopes,
                limits: record.limits,
                expires: record.expires.map(|at| u64::try_from(at.as_second()).unwrap_or(0)),
            }))
        };
        let holders = file.keys.into_iter().filter_map(holder);
        Self { holders: holders.map(|holder| (holder.id.clone(), holder)).collect() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// The key of that text at `now`, seconds of Unix time. How long it takes does not depend on the secret.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check(&self, text: &str, now: u64) -> Result<&Arc<Holder>, Refused> {
        let hash = key::hash(text);
        let holder = key::id(text).and_then(|id| self.holders.get(id)).ok_or(Refused::Unknown)?;
        let known = holder.hash.as_ref().ok_or(Refused::Unknown)?;
        verify_slices_are_equal(&hash, known).map_err(|_| Refused::Unknown)?;
        valid(holder, now)
    }

    /// The key of that public part at `now`, whatever its secret.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn by_id(&self, id: &str, now: u64) -> Result<&Arc<Holder>, Refused> {
        valid(self.holders.get(id).ok_or(Refused::Unknown)?, now)
    }
}

/// The holder, if its time is not over.
fn valid(holder: &Arc<Holder>, now: u64) -> Result<&Arc<Holder>, Refused> {
    if holder.expires.is_some_and(|expires| expires <= now) { Err(Refused::Expired) } else { Ok(holder) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_whole_key_counts_until_it_expires() {
        let made = key::make().unwrap();
        let text = format!(
            "keys: [{{id: \"{}\", name: alice, sha256: \"{}\", expires: 1970-01-01T00:01:40Z}}]",
            made.id,
            key::hex(&key::hash(&made.text))
        );
        let set = Set::of(File::parse(Path::new("keys.yaml"), &text).unwrap());
        assert_eq!(&*set.check(&made.text, 99).unwrap().name, "alice");
        assert_eq!(set.check(&made.text, 100), Err(Refused::Expired));
        let mut other = made.text.clone();
        other.pop();
        for wrong in [other.as_str(), &made.text[..23], "", "sk-1", &key::make().unwrap().text] {
            assert_eq!(set.check(wrong, 0), Err(Refused::Unknown), "{wrong}");
        }
    }
}
