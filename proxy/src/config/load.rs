//! Reads the configuration file and applies overrides.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::Config;

/// Why a configuration is refused. Every message names the place and the field.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("unable to read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// Not YAML, an unknown field, or a value of the wrong type; the message has line and column.
    #[error("{}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The reader's message.
        message: String,
    },
    /// A well-formed value that cannot be.
    #[error("{field} {reason}")]
    Invalid {
        /// Path of the field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An override that does not fit.
    #[error("--set {assignment}: {reason}")]
    Override {
        /// The override as given.
        assignment: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads the text of `path`. Each override is `field.field[index].field=value`, the value in YAML.
pub(super) fn parse(path: &Path, text: &str, overrides: &[String]) -> Result<Config, Error> {
    let refused = |error: serde_saphyr::Error| Error::Parse { path: path.into(), message: error.to_string() };
    // Typed first: only this reading knows lines, so it is the one that judges the file.
    let config: Config = serde_saphyr::from_str(text).map_err(refused)?;
    if overrides.is_empty() {
        return Ok(config);
    }
    let mut tree: Value = serde_saphyr::from_str(text).map_err(refused)?;
    for assignment in overrides {
        let wrong = |reason: &str| Error::Override { assignment: assignment.clone(), reason: reason.into() };
        let (field, value) = assignment.split_once('=').ok_or_else(|| wrong("expected field=value"))?;
        let value: Value = serde_saphyr::from_str(value).map_err(|error| wrong(&error.to_string()))?;
        *place(&mut tree, field).ok_or_else(|| wrong("no such place in the file"))? = value;
    }
    serde_json::from_value(tree)
        .map_err(|error| Error::Override { assignment: overrides.join(" "), reason: error.to_string() })
}

/// The node at `a.b[0].c`, maps made on the way.
fn place<'tree>(tree: &'tree mut Value, field: &str) -> Option<&'tree mut Value> {
    let mut node = tree;
    for step in field.split('.') {
        let (name, index) = match step.split_once('[') {
            Some((name, rest)) => (name, Some(rest.strip_suffix(']')?.parse::<usize>().ok()?)),
            None => (step, None),
        };
        if node.is_null() {
            *node = Value::Object(serde_json::Map::new());
        }
        node = node.as_object_mut()?.entry(name).or_insert(Value::Null);
        if let Some(index) = index {
            node = node.as_array_mut()?.get_mut(index)?;
        }
    }
    Some(node)
}
