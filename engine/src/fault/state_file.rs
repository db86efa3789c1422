//! Faults that outlive the process: a JSON file in the state directory.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::arming::Arming;

/// An armed fault as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// As it was armed.
    pub arming: Arming,
    /// It had set in.
    pub tripped: bool,
    /// Process starts that it still survives; `None` for all.
    pub starts_left: Option<u32>,
}

/// Where they are kept.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file `faults.json` in `directory`, which is made when there is something to keep.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { path: directory.join("faults.json") }
    }

    /// What a new process has to take over. This start is counted: a fault that has survived its starts is left out,
    /// and the caller saves the rest.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn load(&self) -> io::Result<Vec<Kept>> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let entries: Vec<Value> = serde_json::from_slice(&text)?;
        let mut kept = Vec::new();
        for entry in entries {
            let arming = Arming::parse(entry["arming"].to_string().as_bytes()).map_err(io::Error::other)?;
            let starts_left = match entry["starts_left"].as_u64() {
                Some(0) => continue,
                Some(left) => Some(u32::try_from(left - 1).unwrap_or(u32::MAX)),
                None => None,
            };
            kept.push(Kept { arming, tripped: entry["tripped"] == true, starts_left });
        }
        Ok(kept)
    }

    /// Replaces the file in one step; removes it when nothing is to be kept.
    ///
    /// # Errors
    /// When the directory is not writable.
    pub fn save(&self, kept: &[Kept]) -> io::Result<()> {
        if kept.is_empty() {
            return match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let entries: Vec<Value> = kept
            .iter()
            .map(|fault| {
                json!({
                    "arming": fault.arming.to_json(),
                    "tripped": fault.tripped,
                    "starts_left": fault.starts_left,
                })
            })
            .collect();
        let fresh = self.path.with_extension("json.new");
        std::fs::write(&fresh, serde_json::to_vec_pretty(&entries)?)?;
        std::fs::rename(fresh, &self.path)
    }
}
