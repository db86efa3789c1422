//! Where clients put their keys.

use std::borrow::Cow;

use http::{HeaderMap, Request, header};
use percent_encoding::percent_decode_str;

use crate::config::Auth;

/// Azure's header, which its clients cannot change.
const API_KEY: &str = "api-key";
/// What the subprotocols of browsers begin with that carry a key: OpenAI's and a NIM's.
const PROTOCOLS: [&str; 2] = ["openai-insecure-api-key.", "realtime-token."];
/// Deepgram's browsers offer one of these, and the key behind it.
const NAMED: [&str; 2] = ["token", "bearer"];
/// Parameters of the URL, where they are allowed.
const PARAMETERS: [&str; 3] = ["api_key", "token", "access_token"];

/// The key that a request carries. Two keys in one request: the first of them in the order of this function counts.
pub(super) fn of<'a, B>(auth: &Auth, request: &'a Request<B>) -> Option<Cow<'a, str>> {
    let headers = request.headers();
    let named = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let found = bearer(headers).or_else(|| named(&auth.header)).or_else(|| named(API_KEY));
    let found = found.or_else(|| protocol(headers)).filter(|key| !key.is_empty());
    match found {
        Some(key) => Some(Cow::Borrowed(key)),
        None if auth.query => parameter(request.uri().query()?).map(Cow::Owned),
        None => None,
    }
}

/// The key of the Authorization header, whatever scheme of two words it has: `Bearer`, or Deepgram's `Token`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.trim().split_once(' ')?;
    NAMED.iter().any(|name| scheme.eq_ignore_ascii_case(name)).then_some(key.trim())
}

fn protocol(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    let offered =
        values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim);
    let mut before = None;
    for token in offered {
        if let Some(key) = PROTOCOLS.iter().find_map(|prefix| token.strip_prefix(prefix)) {
            return Some(key);
        }
        if before.is_some_and(|before: &str| NAMED.contains(&before)) {
            return Some(token);
        }
        before = Some(token);
    }
    None
}

fn parameter(query: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) =
        pairs.into_iter().find(|(name, value)| PARAMETERS.contains(name) && !value.is_empty())?;
    percent_decode_str(value).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(auth: &Auth, uri: &str, headers: &[(&'static str, &str)]) -> Option<String> {
        let mut request = Request::get(uri).body(()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        of(auth, &request).map(Cow::into_owned)
    }

    #[test]
    fn a_key_is_found_where_clients_put_it() {
        let auth = Auth::default();
        for (name, value) in [
            ("authorization", "Bearer k-1"),
            ("authorization", "bearer  k-1 "),
            ("authorization", "Token k-1"),
            ("x-api-key", "k-1"),
            ("api-key", "k-1"),
            ("sec-websocket-protocol", "realtime, openai-insecure-api-key.k-1, openai-beta.realtime-v1"),
            ("sec-websocket-protocol", "realtime-token.k-1"),
            ("sec-websocket-protocol", "token, k-1"),
        ] {
            assert_eq!(found(&auth, "/", &[(name, value)]).as_deref(), Some("k-1"), "{name}: {value}");
        }
        for (name, value) in [
            ("authorization", "Basic azE6"),
            ("authorization", "Bearer "),
            ("authorization", "k-1"),
            ("x-gateway-key", "k-1"),
            ("sec-websocket-protocol", "realtime"),
            ("cookie", "api_key=k-1"),
        ] {
            assert_eq!(found(&auth, "/?api_key=k-1", &[(name, value)]), None, "{name}: {value}");
        }
        let named = Auth { header: "X-Gateway-Key".into(), ..Auth::default() };
        assert_eq!(found(&named, "/", &[("x-gateway-key", "k-1")]).as_deref(), Some("k-1"));
        assert_eq!(found(&named, "/", &[("x-api-key", "k-1")]), None);
    }

    #[test]
    fn a_key_in_the_url_counts_only_where_that_is_set() {
        let auth = Auth { query: true, ..Auth::default() };
        for uri in ["/?api_key=k%2D1", "/?a=b&token=k-1", "/?access_token=k-1"] {
            assert_eq!(found(&auth, uri, &[]).as_deref(), Some("k-1"), "{uri}");
        }
        for uri in ["/", "/?token", "/?token=", "/?token=%ff"] {
            assert_eq!(found(&auth, uri, &[]), None, "{uri}");
        }
    }
}
