//! gRPC's framing: messages with a length before each, and the status that ends a call.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

/// What the text of a status has escaped, beside what is not ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// Content-Type of requests and replies.
pub const CONTENT_TYPE: &str = "application/grpc";
/// Bytes before each message: a flag and the message's length, big-endian.
pub const PREFIX_LEN: usize = 5;
/// Longest message that is read: no reply of an engine to one job is longer.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// The bytes before a message of `len` bytes that is not compressed.
#[must_use]
pub fn frame_prefix(len: u32) -> [u8; PREFIX_LEN] {
    let [a, b, c, d] = len.to_be_bytes();
    [0, a, b, c, d]
}

/// The prefix of a message and its first bytes, `start`, which `rest` more bytes complete.
///
/// # Errors
/// [`FrameError::TooLong`] from 4 GiB.
pub fn open_frame(start: &[u8], rest: u64) -> Result<Bytes, FrameError> {
    let len = rest.saturating_add(start.len() as u64);
    let limit = u64::from(u32::MAX);
    let framed = u32::try_from(len).map_err(|_| FrameError::TooLong { len, limit })?;
    let mut frame = Vec::with_capacity(PREFIX_LEN + start.len());
    frame.extend_from_slice(&frame_prefix(framed));
    frame.extend_from_slice(start);
    Ok(frame.into())
}

/// Takes a body in chunks of any size apart into its messages.
#[derive(Debug, Default)]
pub struct Deframer {
    /// What came after the last whole message.
    partial: BytesMut,
}

impl Deframer {
    /// Takes the next bytes; gives the messages that they complete, without their prefixes.
    ///
    /// # Errors
    /// [`FrameError::Flag`] and [`FrameError::TooLong`]; the body cannot be read on after either.
    pub fn push(&mut self, data: Bytes) -> Result<Vec<Bytes>, FrameError> {
        let flagged = self.push_flagged(data, 0)?;
        Ok(flagged.into_iter().map(|(_, message)| message).collect())
    }

    /// As [`Deframer::push`] for messages whose flags, up to `most`, mean something.
    ///
    /// # Errors
    /// As [`Deframer::push`].
    pub fn push_flagged(&mut self, data: Bytes, most: u8) -> Result<Vec<(u8, Bytes)>, FrameError> {
        self.partial.extend_from_slice(&data);
        let mut messages = Vec::new();
        while let Some((&[flag, a, b, c, d], rest)) = self.partial.split_first_chunk::<PREFIX_LEN>() {
            if flag > most {
                return Err(FrameError::Flag { flag });
            }
            let len = u32::from_be_bytes([a, b, c, d]) as usize;
            if len > MAX_MESSAGE_BYTES {
                return Err(FrameError::TooLong { len: len as u64, limit: MAX_MESSAGE_BYTES as u64 });
            }
            if rest.len() < len {
                break;
            }
            let mut frame = self.partial.split_to(PREFIX_LEN + len);
            messages.push((flag, frame.split_off(PREFIX_LEN).freeze()));
        }
        Ok(messages)
    }

    /// The end of the body.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when it is inside a message.
    pub fn finish(self) -> Result<(), FrameError> {
        if self.partial.is_empty() { Ok(()) } else { Err(FrameError::Truncated) }
    }
}

/// The messages of a whole body without their prefixes, one after the other. Messages of one type that follow each other read as
/// one with all their repeated fields (Protocol Buffers, encoding: last one wins).
///
/// # Errors
/// As [`Deframer::push`] and [`Deframer::finish`]; [`FrameError::Truncated`] also when there is none.
pub fn joined(body: Bytes) -> Result<Bytes, FrameError> {
    let mut deframer = Deframer::default();
    let messages = deframer.push(body)?;
    deframer.finish()?;
    match <[Bytes; 1]>::try_from(messages) {
        Ok([message]) => Ok(message),
        Err(messages) if messages.is_empty() => Err(FrameError::Truncated),
        Err(messages) => Ok(messages.concat().into()),
    }
}

/// Why frames cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message is compressed (1), which is never asked for, or no gRPC.
    #[error("a gRPC message has the flag {flag}")]
    Flag {
        /// The first byte of its prefix.
        flag: u8,
    },
    /// The message is longer than it may be.
    #[error("a gRPC message of {len} bytes exceeds {limit} bytes")]
    TooLong {
        /// Its length in bytes.
        len: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The body ended inside a message.
    #[error("the body ended inside a gRPC message")]
    Truncated,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What kind of end it was.
    pub code: Code,
    /// The server's text, percent-decoded; may be empty.
    pub message: String,
}

impl Status {
    /// Reads `grpc-status` and `grpc-message` of trailers, or of the headers of a reply that has no trailers.
    ///
    /// `None` without a `grpc-status`; one that is no known number counts as [`Code::Unknown`].
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let number = headers.get("grpc-status")?;
        let code = number.to_str().ok().and_then(Code::parse).unwrap_or(Code::Unknown);
        let message =
            headers.get("grpc-message").map(|text| percent_decode(text.as_bytes()).decode_utf8_lossy());
        Some(Self { code, message: message.unwrap_or_default().into_owned() })
    }

    /// The trailers that [`Status::read`] reads.
    #[must_use]
    pub fn trailers(&self) -> HeaderMap {
        let message = utf8_percent_encode(&self.message, ESCAPED).to_string();
        let mut trailers = HeaderMap::with_capacity(2);
        trailers.insert("grpc-status", HeaderValue::from(self.code as u16));
        if let Ok(message) = HeaderValue::try_from(message) {
            trailers.insert("grpc-message", message);
        }
        trailers
    }

    /// Whether a message was larger than the server takes: by the words of gRPC's C core, of Go and of tonic.
    fn is_size(&self) -> bool {
        ["larger than max", "length too large"].iter().any(|words| self.message.contains(words))
    }

    /// The HTTP status that says the same.
    #[must_use]
    pub fn http(&self) -> StatusCode {
        match self.code {
            Code::Ok => StatusCode::OK,
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::NotFound | Code::Unimplemented => StatusCode::NOT_FOUND,
            Code::ResourceExhausted | Code::OutOfRange if self.is_size() => StatusCode::PAYLOAD_TOO_LARGE,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            // "Client closed request", which is not registered but widely used.
            Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            Code::Unknown
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal
            | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The codes of gRPC, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Success.
    Ok = 0,
    /// The caller left.
    Cancelled = 1,
    /// An error without a better code.
    Unknown = 2,
    /// The request is wrong by itself.
    InvalidArgument = 3,
    /// The time ran out.
    DeadlineExceeded = 4,
    /// What was named does not exist.
    NotFound = 5,
    /// What was to be made exists.
    AlreadyExists = 6,
    /// The caller is known and not permitted.
    PermissionDenied = 7,
    /// A quota or a size limit is exceeded.
    ResourceExhausted = 8,
    /// The server is not in the state that the call needs.
    FailedPrecondition = 9,
    /// The call met a conflict.
    Aborted = 10,
    /// A value is beyond the valid range.
    OutOfRange = 11,
    /// The server has no such call.
    Unimplemented = 12,
    /// The server failed.
    Internal = 13,
    /// The server cannot serve now.
    Unavailable = 14,
    /// Data is lost or corrupted.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

impl Code {
    /// All of them, in the order of their numbers.
    const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    fn parse(number: &str) -> Option<Self> {
        Self::ALL.get(number.parse::<usize>().ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(code: &str, message: &str) -> Status {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", code.parse().unwrap());
        headers.insert("grpc-message", message.parse().unwrap());
        Status::read(&headers).unwrap()
    }

    #[test]
    fn a_status_is_read_and_has_an_http_status() {
        assert_eq!(Status::read(&HeaderMap::new()), None);
        let read = status("3", "Error: Unavailable model%3A 100%25, d%C3%A9j%C3%A0 %zz");
        assert_eq!(read.message, "Error: Unavailable model: 100%, déjà %zz");
        assert_eq!((read.code, read.http()), (Code::InvalidArgument, StatusCode::BAD_REQUEST));
        for (code, http) in [("0", 200), ("1", 499), ("4", 504), ("5", 404), ("7", 403), ("8", 429)] {
            assert_eq!(status(code, "").http(), http, "{code}");
        }
        let size = "Received message larger than max (5000000 vs. 4194304)";
        assert_eq!(status("8", size).http(), 413, "waiting does not help");
        for (code, http) in [("12", 404), ("13", 500), ("14", 503), ("16", 401), ("99", 500), ("x", 500)] {
            assert_eq!(status(code, "").http(), http, "{code}");
        }
    }

    #[test]
    fn codes_are_in_the_order_of_their_numbers() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number);
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let push = |data: &'static [u8]| Deframer::default().push(Bytes::from_static(data));
        assert_eq!(push(b"\x01\0\0\0\x01x"), Err(FrameError::Flag { flag: 1 }));
        assert_eq!(push(b"<html>"), Err(FrameError::Flag { flag: b'<' }));
        assert!(matches!(push(b"\0\x04\0\0\x01"), Err(FrameError::TooLong { len: 0x400_0001, .. })));
        assert!(matches!(open_frame(b"ab", u64::MAX), Err(FrameError::TooLong { .. })));
        assert!(matches!(open_frame(b"ab", u64::from(u32::MAX) - 1), Err(FrameError::TooLong { .. })));
        let mut cut = Deframer::default();
        assert_eq!(cut.push(Bytes::from_static(b"\0\0\0\0\x02a")), Ok(vec![]));
        assert_eq!(cut.finish(), Err(FrameError::Truncated));
    }

    proptest! {
        #[test]
        fn messages_come_back_from_chunks_of_any_size(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            size in 1usize..30,
        ) {
            let frames: Vec<Bytes> = messages.iter().map(|message| open_frame(message, 0).unwrap()).collect();
            let mut deframer = Deframer::default();
            let mut read = Vec::new();
            for chunk in frames.concat().chunks(size) {
                read.extend(deframer.push(Bytes::copy_from_slice(chunk)).unwrap());
            }
            prop_assert_eq!(read, messages);
            prop_assert_eq!(deframer.finish(), Ok(()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Deframer::default().push(data.into());
        }
    }
}
