//! What an error reply of an engine means, by its body first and its status second.

use http::StatusCode;
use memchr::memmem;

use contract::Class;

use crate::guard::path::signatures::Catalogue;

/// A fault that a reply shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its class.
    pub class: Class,
    /// Which signature was found; `None` when the status alone tells.
    pub signature: Option<String>,
}

/// The fault that a reply shows, if any. `body` may be cut short. `asked` gives what the request says: a text that stands there
/// too may be an echo, and tells nothing.
///
/// Engines hide CUDA errors behind any status, 422 too, so the text counts first. Without a known text, 500, 502 and 504
/// may be a fault, which a probe decides; [`is_busy`] statuses and all others are none.
pub fn classify(
    status: StatusCode,
    body: &[u8],
    asked: impl FnOnce() -> Vec<u8>,
    catalogue: &Catalogue,
) -> Option<Finding> {
    if status.as_u16() < 400 || (status.is_client_error() && is_validation_report(body)) {
        return None;
    }
    if catalogue.find(body).is_some()
        && let Some((class, signature)) = catalogue.find_new(body, &asked())
    {
        return Some(Finding { class, signature: Some(signature.to_owned()) });
    }
    match status {
        StatusCode::INTERNAL_SERVER_ERROR | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            Some(Finding { class: Class::Ambiguous, signature: None })
        }
        _ => None,
    }
}

/// Whether a status without a fault's signature says that the engine has too much to do.
pub fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
}

/// FastAPI's list of invalid fields repeats what the client sent, which may be any text.
fn is_validation_report(body: &[u8]) -> bool {
    let mut compact = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace());
    b"{\"detail\":[{".iter().all(|expected| compact.next() == Some(*expected))
        && memmem::find(body, b"\"loc\"").is_some()
}

#[cfg(test)]
mod tests;
