//! Where model files are, and that they are the published ones.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::Error;

/// Hash and name of every file, as the fetch step checks them: of `make models`, and of `make voices`.
const SUMS: [&str; 2] = [include_str!("../../models/SHA256SUMS"), include_str!("../../voices/SHA256SUMS")];
/// No model file is larger.
const MAX_BYTES: u64 = 512 << 20;

/// What can be done with files of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Speech to text.
    Whisper,
    /// Where speakers change.
    Segmentation,
    /// Whose voice it is.
    Voiceprint,
    /// Text to speech.
    Hibari,
    /// Text to speech in more voices and languages.
    Kokoro,
}

impl Model {
    /// The folder of its files.
    fn folder(self) -> &'static str {
        match self {
            Self::Whisper => "whisper-base/",
            Self::Segmentation => "segmentation-3.0/",
            Self::Voiceprint => "campplus/",
            Self::Hibari => "hibari/",
            Self::Kokoro => "kokoro/",
        }
    }

    /// Its files that are not in the folder of models.
    #[must_use]
    pub fn missing(self, models: &Path) -> Vec<&'static str> {
        let mine = names().filter(|name| name.starts_with(self.folder()));
        mine.filter(|name| !models.join(name).is_file()).collect()
    }
}

/// The names of all files.
pub fn names() -> impl Iterator<Item = &'static str> {
    sums().map(|(_, name)| name)
}

fn sums() -> impl Iterator<Item = (&'static str, &'static str)> {
    SUMS.iter().flat_map(|sums| sums.lines()).filter_map(|line| line.split_once("  "))
}

/// The SHA-256 that a file should have, in hexadecimal.
pub fn published(name: &str) -> Option<&'static str> {
    sums().find(|(_, known)| *known == name).map(|(sum, _)| sum)
}

/// The whole content of a published file.
///
/// # Errors
/// [`Error::Io`] when it cannot be read, [`Error::Hash`] when it is another one than was published.
pub fn read(models: &Path, name: &str) -> Result<Vec<u8>, Error> {
    let path = models.join(name);
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(Error::io(&path))?;
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(Error::io(&path))?;
    if published(name) == Some(hex(&Sha256::digest(&bytes)).as_str()) {
        Ok(bytes)
    } else {
        Err(Error::Hash { path })
    }
}

/// The text of a published file that is compressed with gzip, of at most `limit` bytes.
///
/// # Errors
/// As [`read`], and [`Error::Format`] when it is no such text.
pub fn gunzip(models: &Path, name: &'static str, limit: u64) -> Result<String, Error> {
    let packed = read(models, name)?;
    let mut text = String::new();
    let read = flate2::read::GzDecoder::new(packed.as_slice()).take(limit + 1).read_to_string(&mut text);
    match read {
        Ok(length) if length as u64 <= limit => Ok(text),
        Ok(_) => Err(Error::Format { file: name, reason: "longer than expected" }),
        Err(_) => Err(Error::Format { file: name, reason: "not compressed text" }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn every_file_has_a_hash_and_a_changed_one_is_refused() {
        assert!(names().all(|name| published(name).is_some_and(|sum| sum.len() == 64)));
        let folder = tempfile();
        std::fs::create_dir_all(folder.join("hibari")).unwrap();
        std::fs::write(folder.join("hibari/vocab.json"), "{}").unwrap();
        assert!(matches!(read(&folder, "hibari/vocab.json"), Err(Error::Hash { .. })));
        assert!(matches!(read(&folder, "hibari/oov.json"), Err(Error::Io { .. })));
        assert!(!Model::Hibari.missing(&folder).contains(&"hibari/vocab.json"));
        assert!(Model::Whisper.missing(&folder).contains(&"whisper-base/model.bin"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    fn tempfile() -> PathBuf {
        std::env::temp_dir().join(format!("speechstack-models-{}", std::process::id()))
    }
}
