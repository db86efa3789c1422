//! Transcription jobs that run in the background.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};

use super::Redis;

/// Where jobs are kept, and how many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jobs {
    /// Folder of their records, uploads and results; without it there are no jobs. It is of one gateway alone without `redis`.
    pub dir: Option<PathBuf>,
    /// Where several gateways, which all have `dir`, keep the records.
    pub redis: Option<Redis>,
    /// Jobs that run at a time.
    pub running: usize,
    /// Jobs that are kept, ended ones too; beyond it 429.
    pub max: usize,
    /// Bytes of the uploads that wait or run, and of those that come in parts; beyond it 429.
    pub disk: ByteSize,
    /// How long an ended job is kept.
    #[serde(with = "duration")]
    pub ttl: Duration,
    /// How often a job is begun that engines fail or a restart ends.
    pub attempts: u32,
    /// Messages about ended jobs.
    pub webhooks: Webhooks,
    /// Files that come in parts.
    pub uploads: Uploads,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            dir: None,
            redis: None,
            running: 2,
            max: 1000,
            disk: ByteSize::gib(16),
            ttl: Duration::from_secs(24 * 3600),
            attempts: 5,
            webhooks: Webhooks::default(),
            uploads: Uploads::default(),
        }
    }
}

/// Files that come in parts, over several requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Uploads {
    /// Largest file; beyond it, or beyond half of `jobs.disk`, 413.
    pub max_size: ByteSize,
    /// Files that a caller may have here, complete ones too; beyond it 429.
    pub per_key: usize,
    /// How long one is kept after its last byte.
    #[serde(with = "duration")]
    pub ttl: Duration,
}

impl Default for Uploads {
    fn default() -> Self {
        Self { max_size: ByteSize::gib(8), per_key: 100, ttl: Duration::from_secs(24 * 3600) }
    }
}

/// Which webhooks may be called when jobs end, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webhooks {
    /// Origins that may be called, `https://hooks.example.com` or `https://*.example.com`; none by default.
    pub allow: Vec<String>,
    /// File with the key of signatures, `whsec_` and base64; needed with `allow`.
    pub secret_file: Option<PathBuf>,
    /// Longest wait for an answer.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Deliveries that are tried, the first included.
    pub attempts: u32,
    /// Wait before the second one; each further wait is three times as long, up to an hour.
    #[serde(with = "duration")]
    pub retry_after: Duration,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            secret_file: None,
            timeout: Duration::from_secs(15),
            attempts: 10,
            retry_after: Duration::from_secs(5),
        }
    }
}

impl Jobs {
    /// Most bytes of uploads in parts, of all callers together: the rest of the disk is for jobs.
    pub fn upload_bytes(&self) -> u64 {
        self.disk.as_u64() / 2
    }

    /// Largest file that may come in parts, bytes.
    pub fn largest_upload(&self) -> u64 {
        self.uploads.max_size.as_u64().min(self.upload_bytes())
    }

    /// What of these cannot be: the field and the reason.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        for (field, zero) in [
            ("running", self.running == 0),
            ("max", self.max == 0),
            ("attempts", self.attempts == 0),
            ("uploads.per_key", self.uploads.per_key == 0),
        ] {
            if zero {
                return Some((field, "must be at least 1".into()));
            }
        }
        for (field, ttl) in [("ttl", self.ttl), ("uploads.ttl", self.uploads.ttl)] {
            if ttl.is_zero() {
                return Some((field, "must be longer than 0".into()));
            }
        }
        if let Some(reason) = self.redis.as_ref().and_then(Redis::fault) {
            return Some(("redis", reason.into()));
        }
        if self.redis.is_some() && self.dir.is_none() {
            return Some(("redis", "needs gateway.jobs.dir too, a folder that all gateways share".into()));
        }
        let origin = |text: &&String| {
            let uri = text.parse::<http::Uri>().ok();
            uri.is_some_and(|uri| {
                let path = matches!(uri.path(), "" | "/") && uri.query().is_none();
                path && matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
            }) || text
                .strip_prefix("https://*.")
                .is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '*']))
        };
        if let Some(wrong) = self.webhooks.allow.iter().find(|text| !origin(text)) {
            let reason = format!("has {wrong:?}, which is no origin such as https://hooks.example.com");
            return Some(("webhooks.allow", reason));
        }
        if !self.webhooks.allow.is_empty() && self.webhooks.secret_file.is_none() {
            return Some((
                "webhooks.secret_file",
                "is needed with webhooks.allow: receivers check signatures".into(),
            ));
        }
        (self.webhooks.attempts == 0).then(|| ("webhooks.attempts", "must be at least 1".into()))
    }
}
