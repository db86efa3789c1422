//! Where a collector is, and the headers that it asks for.

use std::path::PathBuf;
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

/// The path of traces below an endpoint for all signals.
const PATH: &str = "/v1/traces";

/// Why an export cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no URL of a collector.
    #[error("{0:?} is not a collector's URL such as http://collector:4318")]
    Endpoint(String),
    /// The file of headers cannot be read.
    #[error("unable to read the headers in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The file has a line that is no header. Its text is not shown, as it may be a secret.
    #[error("line {line} of {} is not NAME: VALUE", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// The HTTP client cannot be made.
    #[error("unable to make the HTTP client of the export: {0}")]
    Client(#[source] reqwest::Error),
    /// The metric cannot be made.
    #[error("unable to make the metric of the export: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The URL that spans are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// Whether it is reached over TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }

    pub(crate) fn url(&self) -> &str {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    /// Reads the URL of a collector; the path `/v1/traces` is added to one that does not end with it.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = || Error::Endpoint(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let is_url = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = uri.authority().filter(|authority| !authority.host().is_empty());
        // A user and a password belong into headers, which are not shown.
        if !is_url || uri.query().is_some() || host.is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(refused());
        }
        let base = text.trim_end_matches('/');
        Ok(Self(if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") }))
    }
}

/// A file of headers, one `NAME: VALUE` a line. It is read for each export, so that a key in it may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadersFile(pub PathBuf);

impl HeadersFile {
    /// Reads it.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Header`].
    pub fn read(&self) -> Result<HeaderMap, Error> {
        let text = std::fs::read_to_string(&self.0);
        let text = text.map_err(|source| Error::Read { path: self.0.clone(), source })?;
        let mut headers = HeaderMap::new();
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, mut value) =
                header(line).ok_or_else(|| Error::Header { path: self.0.clone(), line: at + 1 })?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(headers)
    }
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_traces_is_added_once() {
        for (given, url) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("https://collector:4318/", "https://collector:4318/v1/traces"),
            ("http://collector/otlp", "http://collector/otlp/v1/traces"),
            ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
        ] {
            assert_eq!(given.parse::<Endpoint>().unwrap().url(), url);
        }
        for wrong in
            ["", "collector:4318", "grpc://collector:4317", "http://", "http://a:b@c", "http://c/?k=v", "a b"]
        {
            let error = wrong.parse::<Endpoint>().unwrap_err();
            assert!(error.to_string().contains("http://collector:4318"), "{wrong}: {error}");
        }
    }

    #[test]
    fn headers_are_read_and_their_values_never_shown() {
        let path = std::env::temp_dir().join(format!("speechstack-headers-{}", std::process::id()));
        std::fs::write(&path, "# a key\nAuthorization: Bearer hidden:1\n\nx-tenant:a\n").unwrap();
        let headers = HeadersFile(path.clone()).read().unwrap();
        assert_eq!((headers.len(), headers["authorization"].to_str().unwrap()), (2, "Bearer hidden:1"));
        assert!(!format!("{headers:?}").contains("hidden"));
        std::fs::write(&path, "x-tenant: a\nhidden\n").unwrap();
        let error = HeadersFile(path.clone()).read().unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("hidden\n"), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(HeadersFile(path).read(), Err(Error::Read { .. })));
    }
}
