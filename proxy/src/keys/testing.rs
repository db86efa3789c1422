//! Keys for tests.

use std::path::Path;

use crate::config::Limits;
use crate::keys::file::{File, Record, Scopes};
use crate::keys::key;

/// Adds a key to a file, as `edit` has it. Returns its text.
pub fn add(path: &Path, name: &str, edit: impl FnOnce(&mut Record)) -> String {
    let made = key::make().unwrap();
    let mut record = Record {
        sha256: key::hex(&key::hash(&made.text)),
        id: made.id,
        name: name.to_owned(),
        created: None,
        expires: None,
        tier: None,
        scopes: Scopes::default(),
        limits: Limits::default(),
    };
    edit(&mut record);
    File::change(path, |file| {
        file.keys.push(record);
        Ok(())
    })
    .unwrap();
    made.text
}

/// Removes all keys of a name.
pub fn revoke(path: &Path, name: &str) {
    File::change(path, |file| {
        file.keys.retain(|record| record.name != name);
        Ok(())
    })
    .unwrap();
}
