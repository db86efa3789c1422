//! How errors are sent over gRPC: a code, a message, and when a retry may help.

use http::StatusCode;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::error::Error;
use crate::net::body::late;

/// Milliseconds after which a client may try again, as gRPC's clients read it.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut metadata = MetadataMap::new();
        if let Some(after) = error.retry_after() {
            metadata.insert(PUSHBACK, (after.as_millis() as u64).into());
        }
        Self::with_metadata(code(&error), error.to_string(), metadata)
    }
}

/// The code of an error. The input's faults are INVALID_ARGUMENT: a retry is of no use.
fn code(error: &Error) -> Code {
    match error {
        Error::InvalidRequest { .. }
        | Error::Truncated
        | Error::UnsupportedFile { .. }
        | Error::KeyReused
        | Error::Undecodable { .. }
        | Error::PoisonInput => Code::InvalidArgument,
        Error::BodyTimeout | Error::Deadline { .. } => Code::DeadlineExceeded,
        Error::TooLarge { .. }
        | Error::TooManySessions { .. }
        | Error::TooManyJobs { .. }
        | Error::TooManyClips { .. }
        | Error::Overloaded { .. } => Code::ResourceExhausted,
        Error::ModelNotFound { .. }
        | Error::NotFound { .. }
        | Error::JobNotFound
        | Error::ClipNotFound { .. } => Code::NotFound,
        Error::JobCanceled => Code::Cancelled,
        Error::MethodNotAllowed { .. } | Error::NotSupported { .. } | Error::NoHandshake(_) => {
            Code::Unimplemented
        }
        Error::InvalidSecret => Code::Unauthenticated,
        Error::Refused(refused) => match refused.status() {
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            _ => Code::ResourceExhausted,
        },
        // gRPC has no uploads in parts.
        Error::KeysFile | Error::Upload(_) => Code::FailedPrecondition,
        Error::FormChanged => Code::Internal,
        Error::NoRoom { .. }
        | Error::NoEngine { .. }
        | Error::EngineWaking { .. }
        | Error::EngineFailed { .. }
        | Error::JobUnfinished { .. }
        | Error::Storage { .. } => Code::Unavailable,
        Error::EngineRefused { status, .. } => match *status {
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
            _ => Code::InvalidArgument,
        },
    }
}

/// A status with which reading a request ended: what the client sent is no fault of the server, and a message that is too large
/// has gRPC's usual code. `max` is the largest message in bytes.
pub(super) fn tidy(status: Status, max: usize) -> Status {
    match status.code() {
        _ if late(&status).is_some() => Error::BodyTimeout.into(),
        Code::OutOfRange => Status::resource_exhausted(format!(
            "Received message larger than max ({max} bytes); send the audio as FLAC or OGGOPUS or in several requests, or have \
             gateway.grpc.max_message raised"
        )),
        Code::Internal => Status::invalid_argument(status.message()),
        _ => status,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use contract::Capability;

    use super::*;

    #[test]
    fn errors_have_codes_and_say_when_to_come_back() {
        let busy =
            Error::Overloaded { capability: Capability::Stt, retry_after: Duration::from_millis(2300) };
        let status = Status::from(busy);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.metadata().get(PUSHBACK).unwrap(), "2300");
        let status = Status::from(Error::param("language_code", "no such language"));
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "no such language"));
        assert!(status.metadata().get(PUSHBACK).is_none());
        for (refusal, expected) in
            [(400, Code::InvalidArgument), (422, Code::InvalidArgument), (413, Code::ResourceExhausted)]
        {
            let error = Error::EngineRefused {
                capability: Capability::Stt,
                status: StatusCode::from_u16(refusal).unwrap(),
                message: String::new(),
            };
            assert_eq!(code(&error), expected, "{refusal}");
        }
    }

    #[test]
    fn what_a_client_sent_is_no_fault_of_the_server() {
        assert_eq!(tidy(Status::internal("failed to decode"), 1).code(), Code::InvalidArgument);
        let large = tidy(Status::out_of_range("length too large"), 7);
        assert_eq!(large.code(), Code::ResourceExhausted);
        assert!(large.message().contains("larger than max (7 bytes)"), "{}", large.message());
        assert_eq!(tidy(Status::unimplemented("x"), 1).code(), Code::Unimplemented);
    }
}
