//! Where requests to the engine go.

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

use crate::guard::path::forward::Error;

/// One side of the engine.
pub struct Target {
    scheme: Scheme,
    authority: Authority,
    /// Path of the base URL, without a slash at its end.
    base_path: String,
}

impl Target {
    /// The side at a base URL.
    ///
    /// # Errors
    /// [`Error::Url`] when it is no URL.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let error = || Error::Url { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| error())?;
        Ok(Self {
            scheme: uri.scheme().cloned().ok_or_else(error)?,
            authority: uri.authority().cloned().ok_or_else(error)?,
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Scheme and authority, with the path `/`.
    pub fn address(&self) -> Uri {
        self.uri(&Uri::default())
    }

    /// The same path and query here.
    pub fn uri(&self, uri: &Uri) -> Uri {
        let path = uri.path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let path = if self.base_path.is_empty() {
            path
        } else {
            // Two valid paths make a valid path.
            format!("{}{path}", self.base_path).parse().unwrap_or(path)
        };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).unwrap_or_default()
    }
}
