//! The API key that an engine asks for.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;

/// A key that changes is taken over within this time.
const KEY_TTL: Duration = Duration::from_secs(60);

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("unable to read the key file {path}", path = path.display())]
    Read {
        /// As configured.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The file's text is not what a header can carry.
    #[error("the key file {path} holds no key: one line of visible ASCII", path = path.display())]
    Text {
        /// As configured.
        path: PathBuf,
    },
}

/// A key in a file, sent as a bearer token (RFC 6750). The file is read again now and then, so that it can be rotated.
pub struct Key {
    path: PathBuf,
    read: Mutex<(Instant, HeaderValue)>,
}

impl Key {
    /// Reads the key for the first time.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let read = Mutex::new((Instant::now(), bearer(path)?));
        Ok(Self { path: path.to_owned(), read })
    }

    /// The value of the Authorization header.
    pub fn bearer(&self) -> HeaderValue {
        let mut read = self.read.lock();
        if read.0.elapsed() >= KEY_TTL {
            read.0 = Instant::now();
            match bearer(&self.path) {
                Ok(value) => read.1 = value,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "the engine's key stays the old one");
                }
            }
        }
        read.1.clone()
    }
}

fn bearer(path: &Path) -> Result<HeaderValue, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let key = text.trim();
    let visible = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::try_from(format!("Bearer {key}")).ok().filter(|_| visible);
    let mut value = value.ok_or_else(|| Error::Text { path: path.into() })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_line_and_is_read_again_when_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(matches!(Key::open(&path), Err(Error::Read { .. })));
        for wrong in ["", " \n", "two words", "two\nlines", "schlüssel"] {
            std::fs::write(&path, wrong).unwrap();
            assert!(matches!(Key::open(&path), Err(Error::Text { .. })), "{wrong:?}");
        }
        std::fs::write(&path, "sk-one\n").unwrap();
        let key = Key::open(&path).unwrap();
        assert_eq!(key.bearer(), "Bearer sk-one");
        std::fs::write(&path, "sk-two").unwrap();
        assert_eq!(key.bearer(), "Bearer sk-one", "not yet");
        key.read.lock().0 = Instant::now().checked_sub(KEY_TTL).unwrap();
        assert_eq!(key.bearer(), "Bearer sk-two");
        std::fs::write(&path, "").unwrap();
        key.read.lock().0 = Instant::now().checked_sub(KEY_TTL).unwrap();
        assert_eq!(key.bearer(), "Bearer sk-two", "a file that is being written changes nothing");
        assert!(!format!("{:?}", key.bearer()).contains("sk-two"));
    }
}
