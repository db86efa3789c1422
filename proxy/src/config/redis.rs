//! A Redis that several gateways share.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};

use crate::net::redis::Server;

/// A Redis, or what speaks its protocol, that several gateways share. A change counts from the next start on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redis {
    /// `redis://host:6379/0`, or `rediss://` for TLS, without a password.
    pub url: Option<String>,
    /// A file with that URL, which may have a password; it is read at every connect.
    pub url_file: Option<PathBuf>,
    /// What its keys begin with.
    pub prefix: String,
    /// How long an answer may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// How long what a gateway holds is its own after its last sign of life.
    #[serde(with = "duration")]
    pub ttl: Duration,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            prefix: "speechstack:".into(),
            timeout: Duration::from_millis(250),
            ttl: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Redis").field("url_file", &self.url_file).finish_non_exhaustive()
    }
}

impl Redis {
    /// The server to connect to.
    pub fn server(&self) -> Server<'_> {
        Server { url: self.url.as_deref(), url_file: self.url_file.as_deref(), timeout: self.timeout }
    }

    /// What of it cannot be, in words.
    pub(super) fn fault(&self) -> Option<&'static str> {
        match (&self.url, &self.url_file) {
            (None, None) => return Some("has no url and no url_file: set one"),
            (Some(_), Some(_)) => return Some("has both url and url_file: keep one"),
            (Some(url), None) if url.contains('@') => {
                return Some(
                    "has a url with a user or a password: put it into a file and name that in url_file",
                );
            }
            (Some(url), None) if !url.starts_with("redis://") && !url.starts_with("rediss://") => {
                return Some("has a url that is not of the form redis://host:6379/0 or rediss://host:6379/0");
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        if self.timeout.is_zero() || self.ttl < Duration::from_secs(1) {
            return Some("needs a timeout above 0 and a ttl of 1s or more");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_has_one_address_and_no_password_in_the_open() {
        let of = |url: Option<&str>, file: Option<&str>| {
            let redis =
                Redis { url: url.map(str::to_owned), url_file: file.map(PathBuf::from), ..Redis::default() };
            assert!(!format!("{redis:?}").contains("secret"));
            redis.fault().is_some()
        };
        assert_eq!((of(Some("redis://redis:6379"), None), of(None, Some("/run/redis-url"))), (false, false));
        for (url, file) in [
            (None, None),
            (Some("redis://a"), Some("b")),
            (Some("redis://:secret@a"), None),
            (Some("http://a"), None),
        ] {
            assert!(of(url, file), "{url:?} {file:?}");
        }
    }
}
