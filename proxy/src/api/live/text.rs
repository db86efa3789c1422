//! Texts in which clients of all dialects give bytes and parameters.

use axum::extract::Request;
use bytes::Bytes;

use crate::api::form::Fields;

/// The value of a query parameter, percent-decoded.
pub fn query(request: &Request, name: &str) -> Option<String> {
    Fields::of_query(request.uri().query()?).ok()?.last(name).map(str::to_owned)
}

/// Bytes of base64 as clients write it: with or without padding, with white space, in either alphabet.
pub fn base64(text: &str) -> Option<Bytes> {
    use ::base64::Engine;
    use ::base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const PLAIN: GeneralPurpose = GeneralPurpose::new(&::base64::alphabet::STANDARD, LENIENT);
    const URL: GeneralPurpose = GeneralPurpose::new(&::base64::alphabet::URL_SAFE, LENIENT);
    let decode = |text: &[u8]| PLAIN.decode(text).or_else(|_| URL.decode(text)).ok().map(Bytes::from);
    if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        return decode(&text);
    }
    decode(text.as_bytes())
}

/// Base64 of bytes.
pub fn to_base64(bytes: &[u8]) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn base64_is_read_as_clients_write_it() {
        for text in ["AAH/", " AAH/\n", "AAH_"] {
            assert_eq!(base64(text).as_deref(), Some(&[0, 1, 255][..]), "{text:?}");
        }
        assert_eq!(base64("AAE").as_deref(), Some(&[0, 1][..]));
        assert_eq!(base64("AAE=").as_deref(), Some(&[0, 1][..]));
        assert_eq!(base64("").as_deref(), Some(&[][..]));
        for wrong in ["*", "A", "AAAAA", "é"] {
            assert_eq!(base64(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn query_parameters_are_decoded() {
        let request = Request::get("/v1/listen?language=en%2DUS&words&q=a+b").body(Body::empty()).unwrap();
        assert_eq!(query(&request, "language").as_deref(), Some("en-US"));
        assert_eq!(query(&request, "words").as_deref(), Some(""));
        assert_eq!(query(&request, "q").as_deref(), Some("a b"));
        assert_eq!(query(&request, "other"), None);
    }
}
