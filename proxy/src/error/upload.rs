//! Why a file that comes in parts is refused, and the reply to it.

use std::time::Duration;

use http::StatusCode;

/// When another request may have ended.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why an upload in parts is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// No such upload, or it is another client's.
    #[error("no such upload; uploads are forgotten some time after their last byte: begin a new one")]
    NotFound,
    /// The client speaks no version of tus that is known here.
    #[error("send Tus-Resumable: 1.0.0, the version of tus that is spoken here")]
    Version,
    /// A part is of another media type than tus has.
    #[error("send parts with Content-Type: application/offset+octet-stream")]
    ContentType,
    /// A part does not begin where the last one ended.
    #[error("{offset} bytes have arrived: go on from there")]
    Offset {
        /// Bytes that are kept.
        offset: u64,
    },
    /// Another request is adding to it.
    #[error("another request is adding to this upload; retry when it has ended")]
    Busy,
    /// A part is longer than what is missing.
    #[error("the part goes beyond the {length} bytes of the upload, and nothing of it was kept")]
    Beyond {
        /// Bytes of the whole file, as announced.
        length: u64,
    },
    /// It is asked for before all of it is there.
    #[error("the upload is not complete: {offset} of {length} bytes have arrived")]
    Incomplete {
        /// Bytes that are kept.
        offset: u64,
        /// Bytes of the whole file, as announced.
        length: u64,
    },
    /// The caller has as many uploads as it may.
    #[error("{limit} uploads are kept for this caller, which is the limit; DELETE those that are not needed")]
    TooMany {
        /// Uploads of a caller.
        limit: usize,
        /// When a retry may help.
        retry_after: Duration,
    },
    /// There are as many bytes of uploads as may be kept.
    #[error(
        "there is no room for another upload of this size; retry later, or DELETE uploads and jobs that are not needed"
    )]
    NoRoom {
        /// When a retry may help.
        retry_after: Duration,
    },
}

impl UploadError {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Version => StatusCode::PRECONDITION_FAILED,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Offset { .. } | Self::Incomplete { .. } => StatusCode::CONFLICT,
            Self::Busy => StatusCode::LOCKED,
            Self::Beyond { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany { .. } | Self::NoRoom { .. } => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// Machine-readable reason.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "upload_not_found",
            Self::Version => "unsupported_version",
            Self::ContentType => "invalid_content_type",
            Self::Offset { .. } => "upload_offset_mismatch",
            Self::Busy => "upload_locked",
            Self::Beyond { .. } => "content_too_large",
            Self::Incomplete { .. } => "upload_incomplete",
            Self::TooMany { .. } | Self::NoRoom { .. } => "too_many_uploads",
        }
    }

    /// The parameter or header to blame.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::NotFound | Self::Incomplete { .. } => Some("upload_id"),
            Self::Version => Some("Tus-Resumable"),
            Self::ContentType => Some("Content-Type"),
            Self::Offset { .. } => Some("Upload-Offset"),
            Self::Busy | Self::Beyond { .. } | Self::TooMany { .. } | Self::NoRoom { .. } => None,
        }
    }

    /// When a retry may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy => Some(BUSY_RETRY_AFTER),
            Self::TooMany { retry_after, .. } | Self::NoRoom { retry_after } => Some(*retry_after),
            Self::NotFound
            | Self::Version
            | Self::ContentType
            | Self::Offset { .. }
            | Self::Beyond { .. }
            | Self::Incomplete { .. } => None,
        }
    }
}
