//! A form whose file came before it, in parts.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::stored::storage;
use super::{Fields, Form, HEAD_BYTES, Seen};
use crate::error::{Error, UploadError};
use crate::job::input::InputHasher;
use crate::upstream::spool::{Replay, SpoolBudget};

/// Bytes that are read in one step.
const BLOCK: usize = 256 * 1024;

/// An upload that is the file of a form.
pub(super) struct Kept {
    id: String,
    path: PathBuf,
}

impl Form {
    /// A form whose file is the complete upload of that id at `path`, with those fields.
    ///
    /// # Errors
    /// What is wrong with the file; [`UploadError::NotFound`] when it was removed; [`Error::Storage`].
    pub async fn of_upload(
        (id, path): (&str, PathBuf),
        filename: Option<&str>,
        fields: Fields,
        budget: Arc<SpoolBudget>,
    ) -> Result<Self, Error> {
        let kept = Kept { id: id.to_owned(), path: path.clone() };
        let open = move || {
            let mut file = File::open(path)?;
            let (mut prefix, mut hasher) = (Vec::new(), InputHasher::default());
            file.by_ref().take(HEAD_BYTES).read_to_end(&mut prefix)?;
            hasher.push(&prefix);
            let mut block = vec![0; BLOCK];
            loop {
                match file.read(&mut block)? {
                    0 => break,
                    bytes => hasher.push(&block[..bytes]),
                }
            }
            Ok::<_, io::Error>((Replay::of_file(file, budget)?, prefix, hasher.finish()))
        };
        let opened = tokio::task::spawn_blocking(open).await.map_err(io::Error::other).flatten();
        let (bytes, prefix, input) = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => UploadError::NotFound.into(),
            _ => storage(&error),
        })?;
        if prefix.is_empty() {
            return Err(Error::param("file", "the file is empty"));
        }
        let form = Self::of_bytes(bytes, &prefix, filename, Seen { fields, input: Some(input) })?;
        Ok(Self { kept: Some(kept), ..form })
    }

    /// Whether its file is an upload that was there before it.
    pub fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Gives the file a second name, if it is an upload in parts and the disk can do that. Returns the upload's id.
    pub async fn link(&self, path: &Path) -> Option<&str> {
        let kept = self.kept.as_ref()?;
        match tokio::fs::hard_link(&kept.path, path).await {
            Ok(()) => Some(&kept.id),
            Err(error) => {
                tracing::debug!(%error, "an upload is copied, as it cannot be linked");
                None
            }
        }
    }
}
