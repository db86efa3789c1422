//! Evidence of what an engine's processes did, taken before they are killed: their threads, and what they printed last.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use contract::{Class, ProcessRecord};

use crate::guard::heal::output::LastWords;

mod threads;

/// What a record may take of the time until the kill.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Bytes of log lines in a record.
const LOG_BYTES: usize = 8 * 1024;

/// What is known of an instance that ended, or is about to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastRecord {
    /// For the incident.
    pub process: ProcessRecord,
    /// The known text that it printed last: class and signature.
    pub finding: Option<(Class, String)>,
}

/// Where an actuator leaves the record of the instance that it ended. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Records {
    last: Arc<Mutex<Option<(String, LastRecord)>>>,
}

impl Records {
    /// Leaves the record of the instance of that key.
    pub fn put(&self, key: &str, record: LastRecord) {
        *self.last.lock() = Some((key.to_owned(), record));
    }

    /// Takes the record of the instance of that key, if there is one.
    pub fn take(&self, key: &str) -> Option<LastRecord> {
        let taken = self.last.lock().take_if(|(of, _)| of == key);
        taken.map(|(_, record)| record)
    }
}

/// Records the threads of those processes. Without an answer of the kernel in time there are none.
pub async fn take(
    processes: impl FnOnce(&Path) -> Vec<i32> + Send + 'static,
    words: LastWords,
) -> LastRecord {
    let proc = PathBuf::from("/proc");
    let reading = tokio::task::spawn_blocking(move || threads::read(&proc, &processes(&proc)));
    let process = match tokio::time::timeout(TIMEOUT, reading).await {
        Ok(Ok(record)) => record,
        Ok(Err(_)) | Err(_) => ProcessRecord::default(),
    };
    with(process, words)
}

/// The record of processes that have ended: what they printed.
pub fn ended(words: LastWords) -> LastRecord {
    with(ProcessRecord::default(), words)
}

fn with(mut process: ProcessRecord, words: LastWords) -> LastRecord {
    process.log = newest(words.lines, LOG_BYTES);
    LastRecord { process, finding: words.finding }
}

/// The newest lines that fit.
fn newest(mut lines: Vec<String>, bytes: usize) -> Vec<String> {
    let mut left = bytes;
    let fitting = lines.iter().rev().take_while(|line| match left.checked_sub(line.len()) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    });
    lines.drain(..lines.len() - fitting.count());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept() {
        let lines = || ["aaa", "bb", "c"].map(str::to_owned).to_vec();
        assert_eq!(newest(lines(), 6), ["aaa", "bb", "c"]);
        assert_eq!(newest(lines(), 5), ["bb", "c"]);
        assert_eq!(newest(lines(), 0), [""; 0]);
        assert_eq!(newest(Vec::new(), 9), [""; 0]);
    }

    #[test]
    fn a_record_is_taken_once_and_by_its_own_instance() {
        let records = Records::default();
        records.put("1", ended(LastWords { lines: vec!["fatal".into()], ..LastWords::default() }));
        assert_eq!(records.take("2"), None);
        assert_eq!(records.take("1").unwrap().process.log, ["fatal"]);
        assert_eq!(records.take("1"), None);
    }

    #[tokio::test]
    async fn the_threads_of_a_running_process_are_recorded() {
        let own = i32::try_from(std::process::id()).unwrap();
        let record = take(move |_| vec![own], LastWords::default()).await.process;
        assert!(record.threads.unwrap().alive() >= 1);
        assert!(!record.dump.is_empty() && record.dump.iter().all(|thread| !thread.name.is_empty()));
    }
}
