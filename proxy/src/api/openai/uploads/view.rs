//! An upload as its client sees it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde::Serialize;
use utoipa::ToSchema;

use super::metadata::Metadata;
use crate::jobs::{Upload, Uploads};

/// The upload object.
#[derive(Serialize, ToSchema)]
#[schema(as = AudioUpload)]
pub struct Shown {
    id: String,
    object: &'static str,
    /// `uploading` or `complete`.
    status: &'static str,
    /// Bytes of the whole file.
    bytes: u64,
    /// Bytes that have arrived.
    offset: u64,
    filename: Option<String>,
    /// What the client said of it.
    metadata: BTreeMap<String, String>,
    /// Unix time, seconds, as the other time.
    created_at: u64,
    expires_at: u64,
}

/// Uploads.
#[derive(Serialize, ToSchema)]
#[schema(as = AudioUploadList)]
pub struct List {
    object: &'static str,
    data: Vec<Shown>,
}

impl List {
    pub(super) fn new(data: Vec<Shown>) -> Self {
        Self { object: "list", data }
    }
}

/// Shows an upload of which so many bytes have arrived.
pub(super) fn shown(uploads: &Uploads, upload: &Upload, offset: u64) -> Shown {
    let metadata = Metadata::kept(&upload.metadata);
    Shown {
        id: upload.id.clone(),
        object: "audio.upload",
        status: if offset < upload.length { "uploading" } else { "complete" },
        bytes: upload.length,
        offset,
        filename: metadata.filename(),
        metadata: metadata.values(),
        created_at: upload.created / 1000,
        expires_at: uploads.expires(upload) / 1000,
    }
}

/// Unix milliseconds as HTTP writes a time.
pub(super) fn http_date(millis: u64) -> Option<String> {
    let time = Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()?;
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_http_has_them() {
        assert_eq!(http_date(784_111_777_000).unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(u64::MAX), None);
    }
}
