//! What of gRPC the guard must read and write itself: the status of a call, and the prefix of a message.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode};

/// Content-Type of gRPC requests and replies.
pub const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
/// Number of a call's status.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Text of a call's status, percent-encoded.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// How long the client waits; the guard has deadlines of its own.
pub const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Bytes before a message: a flag for compression, and the length in four bytes.
const PREFIX_BYTES: usize = 5;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// gRPC's number; 0 is success.
    pub code: u32,
    /// The server's text, decoded.
    pub message: Vec<u8>,
}

impl Status {
    /// The status in headers or trailers; `None` when there is none. A number that cannot be read is UNKNOWN.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get(STATUS)?.to_str().ok().and_then(|code| code.parse().ok());
        let message = headers.get(MESSAGE).map(|text| percent_decode(text.as_bytes()));
        Some(Self { code: code.unwrap_or(2), message: message.unwrap_or_default() })
    }

    /// Whether the call succeeded.
    pub fn is_ok(&self) -> bool {
        self.code == 0
    }

    /// The HTTP status that says the same.
    pub fn http(&self) -> StatusCode {
        match self.code {
            0 => StatusCode::OK,
            // "Client closed request", which is widely used and not registered.
            1 => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            3 => StatusCode::BAD_REQUEST,
            4 => StatusCode::GATEWAY_TIMEOUT,
            5 | 12 => StatusCode::NOT_FOUND,
            7 => StatusCode::FORBIDDEN,
            8 => StatusCode::TOO_MANY_REQUESTS,
            14 => StatusCode::SERVICE_UNAVAILABLE,
            16 => StatusCode::UNAUTHORIZED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Whether a request is a gRPC call by its Content-Type.
pub fn is_call<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(CONTENT_TYPE.as_bytes()))
}

/// The only message of a complete reply, without its prefix; `None` when it is compressed, cut or one of several.
pub fn message(reply: &[u8]) -> Option<&[u8]> {
    let (&[flag, a, b, c, d], message) = reply.split_first_chunk::<PREFIX_BYTES>()?;
    let length = u32::from_be_bytes([a, b, c, d]);
    (flag == 0 && message.len() == length as usize).then_some(message)
}

/// Undoes percent-encoding; what is not encoded stays.
pub fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) if *byte == b'%' => {
                decoded.push(value);
                rest = &after[2..];
            }
            _ => {
                decoded.push(*byte);
                rest = after;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_with_its_text() {
        assert_eq!(Status::read(&HeaderMap::new()), None);
        let mut headers = HeaderMap::new();
        headers.insert(STATUS, HeaderValue::from_static("13"));
        headers.insert(MESSAGE, HeaderValue::from_static("CUDA error%3A 100%25 %zz%"));
        let status = Status::read(&headers).unwrap();
        assert_eq!(status.message, b"CUDA error: 100% %zz%");
        assert_eq!((status.http(), status.is_ok()), (StatusCode::INTERNAL_SERVER_ERROR, false));
        headers.insert(STATUS, HeaderValue::from_static("x"));
        assert_eq!(Status::read(&headers).unwrap().code, 2);
    }

    #[test]
    fn only_one_whole_message_is_taken() {
        assert_eq!(message(b"\0\0\0\0\x02ab"), Some(&b"ab"[..]));
        assert_eq!(message(b"\0\0\0\0\0"), Some(&b""[..]));
        for reply in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x02a", b"\x01\0\0\0\x01a", b"\0\0\0\0\x01ab"] {
            assert_eq!(message(reply), None);
        }
    }
}
