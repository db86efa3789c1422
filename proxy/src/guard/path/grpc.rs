//! What of gRPC the guard reads and writes beside a call's status: names of headers, and the only message of a reply.

use http::Request;
use http::header::{self, HeaderName, HeaderValue};

use crate::grpc::{CONTENT_TYPE, PREFIX_LEN};

/// Content-Type of the guard's own replies.
pub const REPLY_TYPE: HeaderValue = HeaderValue::from_static(CONTENT_TYPE);
/// Number of a call's status.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Text of a call's status, percent-encoded.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// How long the client waits; the guard has deadlines of its own.
pub const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Whether a request is a gRPC call by its Content-Type.
pub fn is_call<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(CONTENT_TYPE.as_bytes()))
}

/// The only message of a complete reply, without its prefix; `None` when it is compressed, cut or one of several.
pub fn message(reply: &[u8]) -> Option<&[u8]> {
    let (&[flag, a, b, c, d], message) = reply.split_first_chunk::<PREFIX_LEN>()?;
    let length = u32::from_be_bytes([a, b, c, d]);
    (flag == 0 && message.len() == length as usize).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_whole_message_is_taken() {
        assert_eq!(message(b"\0\0\0\0\x02ab"), Some(&b"ab"[..]));
        assert_eq!(message(b"\0\0\0\0\0"), Some(&b""[..]));
        for reply in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x02a", b"\x01\0\0\0\x01a", b"\0\0\0\0\x01ab"] {
            assert_eq!(message(reply), None);
        }
    }
}
