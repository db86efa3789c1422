//! What a client says of its upload: names with values in base64.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::error::Error;

/// Longest header.
const MAX_BYTES: usize = 4096;
/// The header, as errors name it.
const PARAM: &str = "Upload-Metadata";

/// Metadata as it came and as it is read.
pub(super) struct Metadata {
    text: String,
    values: BTreeMap<String, String>,
}

impl Metadata {
    /// Reads the header.
    ///
    /// # Errors
    /// A 400 that says what is wrong with it.
    pub(super) fn of(header: Option<&HeaderValue>) -> Result<Self, Error> {
        let Some(header) = header else { return Ok(Self::kept("")) };
        if header.len() > MAX_BYTES {
            return Err(Error::param(PARAM, format!("{PARAM} must have at most {MAX_BYTES} bytes")));
        }
        let wrong = || {
            let message =
                "Upload-Metadata must be pairs of a name and a value in base64, with commas between them";
            Error::param(PARAM, message)
        };
        let text = header.to_str().map_err(|_| wrong())?.trim();
        let mut values = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|_| !text.is_empty()) {
            let (name, value) = pair.split_once(' ').unwrap_or((pair, ""));
            let value = STANDARD.decode(value.trim()).map_err(|_| wrong())?;
            let value = String::from_utf8_lossy(&value).into_owned();
            if name.is_empty() || values.insert(name.to_owned(), value).is_some() {
                return Err(wrong());
            }
        }
        Ok(Self { text: text.to_owned(), values })
    }

    /// What was read before and kept.
    pub(super) fn kept(text: &str) -> Self {
        let read = HeaderValue::try_from(text).ok().and_then(|header| Self::of(Some(&header)).ok());
        read.unwrap_or_else(|| Self { text: String::new(), values: BTreeMap::new() })
    }

    /// As the client sent it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Names and values.
    pub(super) fn values(self) -> BTreeMap<String, String> {
        self.values
    }

    /// The file's name, as most clients of tus send it.
    pub(super) fn filename(&self) -> Option<String> {
        self.values.get("filename").or_else(|| self.values.get("name")).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Result<Metadata, Error> {
        Metadata::of(Some(&HeaderValue::from_static(text)))
    }

    #[test]
    fn names_and_values_are_read_as_clients_send_them() {
        let metadata = read("filename w6QubXAz, filetype YXVkaW8vbXBlZw==,is_confidential").unwrap();
        assert_eq!(metadata.filename().unwrap(), "ä.mp3");
        assert_eq!(metadata.text(), "filename w6QubXAz, filetype YXVkaW8vbXBlZw==,is_confidential");
        let values = Metadata::kept(metadata.text()).values();
        assert_eq!((values["filetype"].as_str(), values["is_confidential"].as_str()), ("audio/mpeg", ""));
        assert_eq!(read("name YS53YXY=").unwrap().filename().unwrap(), "a.wav");
        assert!(read("").unwrap().values().is_empty());
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        for wrong in ["filename no-base64!", ",", "a YQ==,", "a YQ==,a YQ=="] {
            assert_eq!(read(wrong).err().unwrap().param_name(), Some("Upload-Metadata"), "{wrong:?}");
        }
        let long = HeaderValue::try_from("a".repeat(5000)).unwrap();
        assert!(Metadata::of(Some(&long)).err().unwrap().to_string().contains("4096"));
    }
}
