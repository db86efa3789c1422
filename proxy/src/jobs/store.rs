//! Jobs on disk: records and results in one embedded database, uploads as files beside it.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::record::Record;

const JOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("jobs");
const RESULTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("results");

/// Why jobs cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a file of it.
    #[error("unable to use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The database.
    #[error("unable to use the database of jobs; one gateway alone may use its folder")]
    Database(#[source] Box<redb::Error>),
    /// What is stored is no record.
    #[error("the database of jobs has what is no record")]
    Record(#[source] serde_json::Error),
}

impl Error {
    fn database(error: impl Into<redb::Error>) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// The store. All of it blocks.
#[derive(Debug)]
pub struct Store {
    database: Database,
    uploads: PathBuf,
}

impl Store {
    /// Opens or makes the store in a folder, with the records in it. Uploads that belong to no unfinished job are removed.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(dir: &Path) -> Result<(Self, Vec<Record>), Error> {
        let uploads = dir.join("uploads");
        let at = |path: &Path| {
            let path = path.to_owned();
            |source| Error::File { path, source }
        };
        std::fs::create_dir_all(&uploads).map_err(at(&uploads))?;
        let database = Database::create(dir.join("jobs.redb")).map_err(Error::database)?;
        let store = Self { database, uploads };
        let records = store.records()?;
        for entry in std::fs::read_dir(&store.uploads).map_err(at(&store.uploads))? {
            let entry = entry.map_err(at(&store.uploads))?;
            let name = entry.file_name();
            let wanted = records.iter().any(|record| !record.status.is_final() && *record.id == *name);
            if !wanted {
                std::fs::remove_file(entry.path()).map_err(at(&entry.path()))?;
            }
        }
        Ok((store, records))
    }

    fn records(&self) -> Result<Vec<Record>, Error> {
        let write = self.database.begin_write().map_err(Error::database)?;
        let mut records = Vec::new();
        {
            write.open_table(RESULTS).map_err(Error::database)?;
            let jobs = write.open_table(JOBS).map_err(Error::database)?;
            for entry in jobs.iter().map_err(Error::database)? {
                let (_, record) = entry.map_err(Error::database)?;
                records.push(serde_json::from_slice(record.value()).map_err(Error::Record)?);
            }
        }
        write.commit().map_err(Error::database)?;
        Ok(records)
    }

    /// Where the upload of a job is.
    pub fn upload(&self, id: &str) -> PathBuf {
        self.uploads.join(id)
    }

    /// Keeps a record, and with it a result if there is one. It is on disk when this returns.
    ///
    /// # Errors
    /// [`Error`].
    pub fn put(&self, record: &Record, result: Option<&[u8]>) -> Result<(), Error> {
        let json = serde_json::to_vec(record).map_err(Error::Record)?;
        let write = self.database.begin_write().map_err(Error::database)?;
        {
            let mut jobs = write.open_table(JOBS).map_err(Error::database)?;
            jobs.insert(record.id.as_str(), json.as_slice()).map_err(Error::database)?;
            if let Some(result) = result {
                let mut results = write.open_table(RESULTS).map_err(Error::database)?;
                results.insert(record.id.as_str(), result).map_err(Error::database)?;
            }
        }
        write.commit().map_err(Error::database)?;
        if record.status.is_final() {
            self.remove_upload(&record.id);
        }
        Ok(())
    }

    /// The result of a job.
    ///
    /// # Errors
    /// [`Error`].
    pub fn result(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        let read = self.database.begin_read().map_err(Error::database)?;
        let results = read.open_table(RESULTS).map_err(Error::database)?;
        let found = results.get(id).map_err(Error::database)?;
        Ok(found.map(|found| found.value().to_vec()))
    }

    /// Removes all of a job.
    ///
    /// # Errors
    /// [`Error`].
    pub fn remove(&self, id: &str) -> Result<(), Error> {
        let write = self.database.begin_write().map_err(Error::database)?;
        {
            write.open_table(JOBS).map_err(Error::database)?.remove(id).map_err(Error::database)?;
            write.open_table(RESULTS).map_err(Error::database)?.remove(id).map_err(Error::database)?;
        }
        write.commit().map_err(Error::database)?;
        self.remove_upload(id);
        Ok(())
    }

    fn remove_upload(&self, id: &str) {
        // It may never have been there.
        let _ = std::fs::remove_file(self.upload(id));
    }
}
