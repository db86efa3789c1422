//! A job as it is kept: what it is to do, and how far it is.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::Error;
use crate::job::work::{Transcript, Turns};

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AudioJobStatus)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits for its turn.
    Queued,
    /// Engines work on it.
    Running,
    /// Its result is there.
    Succeeded,
    /// It came to nothing.
    Failed,
    /// Its client wants it no more.
    Canceled,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Canceled];

    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }
}

/// Everything that is known of a job but its upload and its result. Times are Unix times in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Unique, and not to be guessed.
    pub id: String,
    /// Digest of the credential that made it, under which alone it is seen.
    pub owner: String,
    /// How far it is.
    pub status: Status,
    /// When it was made.
    pub created: u64,
    /// When it last began.
    pub started: Option<u64>,
    /// When it ended.
    pub ended: Option<u64>,
    /// How often it has begun.
    pub attempts: u32,
    /// The text fields of its form.
    pub fields: Vec<(String, String)>,
    /// A name that fits the upload's container.
    pub filename: String,
    /// Bytes of the upload.
    pub bytes: u64,
    /// The upload in parts that it shares its bytes with.
    #[serde(default)]
    pub upload: Option<String>,
    /// Hash of the upload, hexadecimal.
    pub input: String,
    /// Seconds of audio, stated or estimated.
    pub seconds: f64,
    /// Seconds heard so far.
    #[serde(default)]
    pub heard: f64,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// The client's name for the request, so that it is not made twice.
    pub key: Option<String>,
    /// The webhook that is called at its end.
    pub webhook: Option<Webhook>,
    /// Counts the changes of the record.
    #[serde(default)]
    pub revision: u64,
    /// The gateway that runs it and, once it has ended, calls its webhook.
    #[serde(default)]
    pub gateway: Option<String>,
    /// Not to begin before.
    #[serde(default)]
    pub not_before: u64,
}

impl Record {
    #[cfg(test)]
    pub(super) fn example(id: &str) -> Self {
        Self {
            id: id.into(),
            owner: "owner".into(),
            status: Status::Queued,
            created: 0,
            started: None,
            ended: None,
            attempts: 0,
            fields: Vec::new(),
            filename: "a.wav".into(),
            bytes: 1,
            upload: None,
            input: String::new(),
            seconds: 1.0,
            heard: 0.0,
            failure: None,
            key: None,
            webhook: None,
            revision: 0,
            gateway: None,
            not_before: 0,
        }
    }

    /// Whether that gateway runs it.
    pub fn runs_at(&self, gateway: &str) -> bool {
        self.status == Status::Running && self.gateway.as_deref() == Some(gateway)
    }

    /// Whether its webhook is to be called.
    pub fn is_unannounced(&self) -> bool {
        self.status.is_final() && self.webhook.as_ref().is_some_and(|webhook| webhook.delivered.is_none())
    }

    /// Back in the queue.
    pub fn requeue(&mut self, not_before: u64) {
        (self.status, self.gateway, self.heard) = (Status::Queued, None, 0.0);
        self.not_before = not_before;
    }
}

/// Why a job failed: the reply that its client would have got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The HTTP status.
    pub status: u16,
    /// `error` of the envelope.
    pub error: Value,
}

impl Failure {
    /// That of an error.
    pub fn of(error: &Error) -> Self {
        Self { status: error.status().as_u16(), error: error.envelope() }
    }
}

/// The webhook of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Webhook {
    /// Where.
    pub url: String,
    /// Deliveries that were tried.
    pub attempts: u32,
    /// How that ended: `None` while more may follow.
    pub delivered: Option<bool>,
}

/// What engines heard, whatever format is asked for later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Words and text.
    pub transcript: Transcript,
    /// Speaker turns, if they were asked for.
    pub turns: Option<Turns>,
    /// Seconds of audio by the file, and whether the file states it.
    pub playing: (f64, bool),
}
