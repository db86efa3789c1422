//! Records and results of one gateway, in an embedded database.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::Error;
use crate::jobs::record::Record;

const JOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("jobs");
const RESULTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("results");

/// The database. All of it blocks, and what is written is on disk when a function returns.
#[derive(Debug)]
pub struct Embedded {
    database: Database,
}

fn database(error: impl Into<redb::Error>) -> Error {
    Error::Database(Box::new(error.into()))
}

impl Embedded {
    /// Opens or makes the database of a folder, with the records in it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(dir: &Path) -> Result<(Self, Vec<Record>), Error> {
        let store = Self { database: Database::create(dir.join("jobs.redb")).map_err(database)? };
        let write = store.database.begin_write().map_err(database)?;
        let mut records = Vec::new();
        {
            write.open_table(RESULTS).map_err(database)?;
            let jobs = write.open_table(JOBS).map_err(database)?;
            for entry in jobs.iter().map_err(database)? {
                let (_, record) = entry.map_err(database)?;
                records.push(serde_json::from_slice(record.value()).map_err(Error::Record)?);
            }
        }
        write.commit().map_err(database)?;
        Ok((store, records))
    }

    pub fn put(&self, record: &Record) -> Result<(), Error> {
        self.insert(JOBS, &record.id, &serde_json::to_vec(record).map_err(Error::Record)?)
    }

    pub fn put_result(&self, id: &str, result: &[u8]) -> Result<(), Error> {
        self.insert(RESULTS, id, result)
    }

    fn insert(&self, table: TableDefinition<'_, &str, &[u8]>, id: &str, value: &[u8]) -> Result<(), Error> {
        let write = self.database.begin_write().map_err(database)?;
        write.open_table(table).map_err(database)?.insert(id, value).map_err(database)?;
        write.commit().map_err(database)
    }

    pub fn result(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        let read = self.database.begin_read().map_err(database)?;
        let results = read.open_table(RESULTS).map_err(database)?;
        let found = results.get(id).map_err(database)?;
        Ok(found.map(|found| found.value().to_vec()))
    }

    /// Removes a record and its result.
    pub fn remove(&self, id: &str) -> Result<(), Error> {
        let write = self.database.begin_write().map_err(database)?;
        write.open_table(JOBS).map_err(database)?.remove(id).map_err(database)?;
        write.open_table(RESULTS).map_err(database)?.remove(id).map_err(database)?;
        write.commit().map_err(database)
    }
}
