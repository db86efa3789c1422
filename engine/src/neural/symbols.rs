//! The numbers of phonemes, which hibari and Kokoro share.

use std::collections::HashMap;
use std::path::Path;

use super::{Error, files};

const FILE: &str = "hibari/vocab.json";

/// The number of each symbol.
pub struct Symbols(HashMap<char, i32>);

impl Symbols {
    /// Loads the published table of a folder.
    ///
    /// # Errors
    /// When it cannot be read, is not the published one, or malformed.
    pub fn open(models: &Path) -> Result<Self, Error> {
        let malformed = |_| Error::Format { file: FILE, reason: "not of the expected form" };
        Ok(Self(serde_json::from_slice(&files::read(models, FILE)?).map_err(malformed)?))
    }

    /// Phonemes as numbers, with a 0 at either end; symbols without a number are left out. `None` when none is left.
    pub fn numbers(&self, sounds: &str) -> Option<Vec<i32>> {
        let known = sounds.chars().filter_map(|sound| self.0.get(&sound).copied());
        let numbers: Vec<i32> = std::iter::once(0).chain(known).chain(std::iter::once(0)).collect();
        (numbers.len() > 2).then_some(numbers)
    }
}
