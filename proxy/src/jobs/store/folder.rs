//! The files of jobs: uploads, and results where records are elsewhere.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Error;

/// A file without a record that is younger than this may be of a job that another gateway is about to keep.
const YOUNG: Duration = Duration::from_secs(24 * 3600);

/// The folder. All of it blocks, but the names of files.
#[derive(Clone, Debug)]
pub struct Folder {
    uploads: PathBuf,
    results: PathBuf,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::File { path, source }
}

impl Folder {
    /// Opens or makes it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let folder = Self { uploads: dir.join("uploads"), results: dir.join("results") };
        std::fs::create_dir_all(&folder.uploads).map_err(at(&folder.uploads))?;
        Ok(folder)
    }

    /// Where the upload of a job is.
    pub fn upload(&self, id: &str) -> PathBuf {
        self.uploads.join(id)
    }

    /// Keeps a result as a whole or not at all.
    pub fn put_result(&self, id: &str, result: &[u8]) -> Result<(), Error> {
        std::fs::create_dir_all(&self.results).map_err(at(&self.results))?;
        let mut file = tempfile::NamedTempFile::new_in(&self.results).map_err(at(&self.results))?;
        let path = self.results.join(id);
        let written = file.write_all(result).and_then(|()| file.as_file().sync_all());
        written.and_then(|()| file.persist(&path).map(drop).map_err(|error| error.error)).map_err(at(&path))
    }

    /// The result of a job.
    pub fn result(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.results.join(id);
        match std::fs::read(&path) {
            Ok(result) => Ok(Some(result)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { path, source }),
        }
    }

    pub fn remove_upload(&self, id: &str) {
        // It may never have been there.
        let _ = std::fs::remove_file(self.upload(id));
    }

    pub fn remove_result(&self, id: &str) {
        let _ = std::fs::remove_file(self.results.join(id));
    }

    /// Removes uploads that are of no unfinished job of this gateway.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn keep_uploads(&self, is_wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
        for entry in std::fs::read_dir(&self.uploads).map_err(at(&self.uploads))? {
            let entry = entry.map_err(at(&self.uploads))?;
            if !entry.file_name().to_str().is_some_and(&is_wanted) {
                std::fs::remove_file(entry.path()).map_err(at(&entry.path()))?;
            }
        }
        Ok(())
    }

    /// Removes old files that are of no job of any gateway.
    pub fn sweep(&self, is_known: impl Fn(&str) -> bool) {
        for folder in [&self.uploads, &self.results] {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let age = entry.metadata().and_then(|data| data.modified()).ok();
                let is_old = age.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > YOUNG);
                if is_old && !entry.file_name().to_str().is_some_and(&is_known) {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn old_files_of_no_job_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        for id in ["known", "unknown", "young"] {
            std::fs::write(folder.upload(id), "upload").unwrap();
            folder.put_result(id, b"result").unwrap();
            if id != "young" {
                for path in [folder.upload(id), folder.results.join(id)] {
                    let file = std::fs::File::options().write(true).open(path).unwrap();
                    file.set_modified(SystemTime::now() - YOUNG * 2).unwrap();
                }
            }
        }
        folder.sweep(|id| id == "known");
        for (id, is_there) in [("known", true), ("unknown", false), ("young", true)] {
            assert_eq!(folder.upload(id).exists(), is_there, "{id}");
            assert_eq!(folder.result(id).unwrap().is_some(), is_there, "{id}");
        }
        folder.put_result("known", b"another").unwrap();
        assert_eq!(folder.result("known").unwrap().unwrap(), b"another");
        assert_eq!(std::fs::read_dir(&folder.results).unwrap().count(), 2, "nothing unfinished is left");
    }
}
