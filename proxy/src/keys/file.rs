//! The file of keys: names, hashes and what each key may do. It holds no key.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Limits;
use crate::keys::key;

/// Most characters of a name.
const NAME_CHARACTERS: usize = 64;
/// Most keys of a file.
const MAX_KEYS: usize = 100_000;
/// The client dialects that a key may be limited to.
pub const DIALECTS: [&str; 11] = [
    "openai",
    "realtime",
    "azure",
    "nim",
    "riva",
    "deepgram",
    "tldw",
    "parakeet_fastapi",
    "spark",
    "gemma",
    "bridge",
];

/// Why there are no keys to use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("unable to read the keys file {}: {source}", path.display())]
    Read {
        /// As configured.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("unable to write the keys file {}: {source}", path.display())]
    Write {
        /// As given.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// It is not YAML of this form; the message has line and column.
    #[error("the keys file {}: {message}", path.display())]
    Parse {
        /// As configured.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A well-formed value that cannot be.
    #[error("the keys file {}: keys[{id}].{field} {reason}", path.display())]
    Invalid {
        /// As configured.
        path: PathBuf,
        /// Of that key.
        id: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An order that cannot be carried out.
    #[error("{0}")]
    Order(String),
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The keys.
    #[serde(default)]
    pub keys: Vec<Record>,
}

/// What is kept of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its public part.
    pub id: String,
    /// Whose it is. Keys of one name share quotas and usage, so that one can take the other's place.
    pub name: String,
    /// The SHA-256 of its text, in hexadecimal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// From when on it is refused; never when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Its tier of `gateway.quotas.tiers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// What it may do.
    #[serde(default, skip_serializing_if = "Scopes::is_default")]
    pub scopes: Scopes,
    /// Limits that come before those of its tier.
    #[serde(default, skip_serializing_if = "is_unlimited")]
    pub limits: Limits,
}

fn is_unlimited(limits: &Limits) -> bool {
    *limits == Limits::default()
}

/// What a key may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scopes {
    /// The client dialects it may speak; all when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dialects: Vec<String>,
    /// The models it may name, by their ids in `/v1/models`; all when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Whether it may see the usage of all names and change keys.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// Whether its work stays on one's own engines, and is refused rather than given to those of others.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub own_engines: bool,
}

impl Scopes {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A key to make.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// Whose key it is.
    pub name: String,
    /// As of a record.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// As of a record.
    #[serde(default)]
    pub tier: Option<String>,
    /// As of a record.
    #[serde(default)]
    pub scopes: Scopes,
    /// As of a record.
    #[serde(default)]
    pub limits: Limits,
}

impl NewKey {
    /// The record of the key, and its text.
    ///
    /// # Errors
    /// [`Error::Order`]: a field that cannot be.
    pub fn make(self) -> Result<(Record, String), Error> {
        let made = key::make().ok_or_else(|| Error::Order("the system has no random numbers".into()))?;
        let record = Record {
            sha256: key::hex(&key::hash(&made.text)),
            id: made.id,
            name: self.name,
            created: Timestamp::from_second(Timestamp::now().as_second()).ok(),
            expires: self.expires,
            tier: self.tier,
            scopes: self.scopes,
            limits: self.limits,
        };
        match record.fault() {
            Some((field, reason)) => Err(Error::Order(format!("{field} {reason}"))),
            None => Ok((record, made.text)),
        }
    }
}

impl File {
    /// Removes the key of that id, or all of that name. Returns how many.
    ///
    /// # Errors
    /// [`Error::Order`]: there is none.
    pub fn revoke(&mut self, key: &str) -> Result<usize, Error> {
        let before = self.keys.len();
        self.keys.retain(|record| record.id != key && record.name != key);
        match before - self.keys.len() {
            0 => Err(Error::Order(format!("there is no key of the id or name {key:?}"))),
            count => Ok(count),
        }
    }

    /// Reads and checks the text of the file `path`.
    ///
    /// # Errors
    /// [`Error::Parse`], [`Error::Invalid`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let parse = |message: String| Error::Parse { path: path.into(), message };
        let file: Self = serde_saphyr::from_str(text).map_err(|error| parse(error.to_string()))?;
        if file.keys.len() > MAX_KEYS {
            return Err(parse(format!("has {} keys; {MAX_KEYS} is the most", file.keys.len())));
        }
        let mut ids = std::collections::HashSet::new();
        for record in &file.keys {
            let fault =
                if ids.insert(&record.id) { record.fault() } else { Some(("id", "is there twice".into())) };
            if let Some((field, reason)) = fault {
                return Err(Error::Invalid { path: path.into(), id: record.id.clone(), field, reason });
            }
        }
        Ok(file)
    }

    /// Reads the file of that path.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
        Self::parse(path, &text)
    }

    /// Changes the file in one step: others see it as it was or as it is then, and no two changes at a time get lost. It is
    /// made when missing, for its owner alone.
    ///
    /// # Errors
    /// [`Error`]; the file is then as it was.
    pub fn change<T>(path: &Path, change: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let unwritable = |source| Error::Write { path: path.into(), source };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let lock = fs::File::open(dir).map_err(unwritable)?;
        lock.lock().map_err(unwritable)?;
        let mut file = match Self::read(path) {
            Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Self::default(),
            read => read?,
        };
        let changed = change(&mut file)?;
        let text = serde_saphyr::to_string(&file)
            .map_err(|error| unwritable(io::Error::other(error.to_string())))?;
        Self::parse(path, &text)?;
        // Its mode is 0600.
        let mut new = tempfile::NamedTempFile::new_in(dir).map_err(unwritable)?;
        new.write_all(text.as_bytes()).map_err(unwritable)?;
        new.as_file().sync_all().map_err(unwritable)?;
        new.persist(path).map_err(|error| unwritable(error.error))?;
        lock.sync_all().map_err(unwritable)?;
        Ok(changed)
    }
}

impl Record {
    /// What of it cannot be: the field and the reason.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        if !key::is_id(&self.id) {
            return Some(("id", "must be 16 hexadecimal digits".into()));
        }
        if !is_name(&self.name) {
            let reason = format!("must be 1 to {NAME_CHARACTERS} letters, digits, `-`, `_`, `.`, `@` or `+`");
            return Some(("name", reason));
        }
        if key::unhex(&self.sha256).is_none() {
            return Some(("sha256", "must be 64 hexadecimal digits".into()));
        }
        if let Some(dialect) =
            self.scopes.dialects.iter().find(|dialect| !DIALECTS.contains(&dialect.as_str()))
        {
            return Some(("scopes.dialects", format!("has {dialect:?}; there are {}", DIALECTS.join(", "))));
        }
        self.limits.fault().map(|(field, reason)| ("limits", format!("{field} {reason}")))
    }
}

/// Whether a text can be a name: logs and metrics carry it.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_CHARACTERS).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn record(id: &str) -> Record {
        Record {
            id: id.into(),
            name: "alice".into(),
            sha256: "00".repeat(32),
            created: None,
            expires: None,
            tier: None,
            scopes: Scopes::default(),
            limits: Limits::default(),
        }
    }

    #[test]
    fn a_change_is_written_for_the_owner_alone_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.yaml");
        let full = Record {
            expires: Some("2027-01-02T03:04:05Z".parse().unwrap()),
            tier: Some("free".into()),
            scopes: Scopes {
                dialects: vec!["tldw".into()],
                models: vec!["parakeet".into()],
                admin: true,
                own_engines: true,
            },
            limits: Limits { audio_minutes_per_day: Some(1.5), ..Limits::default() },
            ..record("0123456789abcdef")
        };
        File::change(&path, |file| {
            file.keys.push(full.clone());
            Ok(())
        })
        .unwrap();
        File::change(&path, |file| {
            file.keys.push(record("0123456789abcde0"));
            Ok(())
        })
        .unwrap();
        assert_eq!(File::read(&path).unwrap().keys, [full, record("0123456789abcde0")]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::read_to_string(&path).unwrap();
        let twice = File::change(&path, |file| {
            file.keys.push(record("0123456789abcde0"));
            Ok(())
        });
        assert!(matches!(twice, Err(Error::Invalid { field: "id", .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let path = Path::new("keys.yaml");
        assert_eq!(File::parse(path, " \n").unwrap(), File::default());
        let text = |id: &str, name: &str, more: &str| {
            format!("keys:\n- id: \"{id}\"\n  name: \"{name}\"\n  sha256: \"{}\"\n{more}", "0".repeat(64))
        };
        let id = "0123456789abcdef";
        assert!(File::parse(path, &text(id, "a", "  tier: free\n")).is_ok());
        for (wrong, field) in [
            (text("1", "a", ""), "id"),
            (text(id, "a b", ""), "name"),
            (text(id, "a", "  scopes: {dialects: [morse]}\n"), "morse"),
            (text(id, "a", "  limits: {requests_per_minute: 0}\n"), "requests_per_minute"),
            (text(id, "a", "  key: x\n"), "key"),
        ] {
            let message = File::parse(path, &wrong).unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }
}
