//! Whose a job or a recording is: what one caller keeps here, no other sees.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::edge::RequestId;

/// Headers with a credential.
static CREDENTIALS: [HeaderName; 3] =
    [header::AUTHORIZATION, HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key")];

/// Whose something is. Most requests keep nothing here, so that the digest is made only when it is asked for.
#[derive(Clone, Copy)]
pub enum Owner<'a> {
    /// Who sent the request, with the credential that it has.
    Sender(&'a RequestId, Option<&'a HeaderValue>),
    /// The digest is known.
    Digest(&'a str),
}

impl Owner<'_> {
    /// The digest, as [`owner_by`] makes it.
    pub fn digest(&self) -> Cow<'_, str> {
        match self {
            Self::Sender(request_id, credential) => owner_by(request_id, *credential).into(),
            Self::Digest(digest) => (*digest).into(),
        }
    }
}

/// A digest of who asks, by the headers of a request.
pub fn owner(request_id: &RequestId, headers: &HeaderMap) -> String {
    owner_by(request_id, credential(headers))
}

/// A digest of who asks: the name of the API key. Where no key is asked for, the credential that the request has all the same;
/// without one all are the same.
pub fn owner_by(request_id: &RequestId, credential: Option<&HeaderValue>) -> String {
    let caller = request_id.caller().map(|caller| format!("name {}", caller.name()));
    let bytes = caller.as_ref().map(String::as_bytes).or_else(|| credential.map(HeaderValue::as_bytes));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes.unwrap_or_default());
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The credential of a request.
pub fn credential(headers: &HeaderMap) -> Option<&HeaderValue> {
    // A name that is text would be read anew for each request.
    CREDENTIALS.iter().find_map(|name| headers.get(name))
}
