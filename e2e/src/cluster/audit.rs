//! The API server's own account of what the operator asks of it, independent of the operator's metrics.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::layout::Layout;
use super::pki::write_json;

/// The operator's namespace; requests of its accounts are written down, and no others.
pub const NAMESPACE: &str = "speechstack-system";

/// One request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    stage: String,
    #[serde(rename = "requestURI")]
    uri: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch` or `delete`.
    pub verb: String,
    /// What it is about, unless that is no object.
    #[serde(default)]
    pub object_ref: ObjectReference,
    /// When it arrived.
    #[serde(rename = "requestReceivedTimestamp")]
    pub received: Timestamp,
}

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(default)]
pub struct ObjectReference {
    /// Kind, in plural.
    pub resource: String,
    /// Such as `status`.
    pub subresource: String,
    /// Namespace.
    pub namespace: String,
    /// Name; empty in creations.
    pub name: String,
}

impl Request {
    /// Whether it changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Whether it is how the leader stays the leader.
    #[must_use]
    pub fn is_of_lease(&self) -> bool {
        self.object_ref.resource == "leases"
    }

    /// Verb and address, for messages.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{} {}", self.verb, self.uri)
    }
}

/// Reads the account from where it was last read.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    read: u64,
}

impl Audit {
    /// Of what is asked from now on.
    ///
    /// # Errors
    /// When there is no account.
    pub fn from_now(layout: &Layout) -> Result<Self> {
        let mut audit = Self { path: log(layout), read: 0 };
        audit.take()?;
        Ok(audit)
    }

    /// The requests since the last time this was called; watches as they begin, all others as they end.
    ///
    /// # Errors
    /// When the account cannot be read.
    pub fn take(&mut self) -> Result<Vec<Request>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context("unable to read the audit log"),
        };
        file.seek(SeekFrom::Start(self.read))?;
        let mut lines = BufReader::new(file);
        let mut requests = Vec::new();
        loop {
            let mut line = String::new();
            let length = lines.read_line(&mut line)?;
            if !line.ends_with('\n') {
                return Ok(requests); // the rest is still being written
            }
            self.read += length as u64;
            let request: Request = serde_json::from_str(&line).context("unable to read the audit log")?;
            if request.stage == if request.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" } {
                requests.push(request);
            }
        }
    }
}

fn log(layout: &Layout) -> PathBuf {
    layout.run().join("audit.log")
}

fn policy(layout: &Layout) -> PathBuf {
    layout.run().join("audit-policy.yaml")
}

/// Writes which requests are written down.
///
/// # Errors
/// When it cannot be written.
pub fn write_policy(layout: &Layout) -> Result<()> {
    let operators =
        json!({"level": "Metadata", "userGroups": [format!("system:serviceaccounts:{NAMESPACE}")]});
    write_json(
        &policy(layout),
        &json!({
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [operators, {"level": "None"}],
        }),
    )
}

/// Flags of an API server that keeps the account.
pub fn flags(layout: &Layout) -> [String; 3] {
    [
        format!("--audit-policy-file={}", policy(layout).display()),
        format!("--audit-log-path={}", log(layout).display()),
        // One file, however long.
        "--audit-log-maxsize=1000000".to_owned(),
    ]
}
