//! The model files of an engine that starts: a first start downloads tens of gigabytes before it serves.

use serde::{Deserialize, Serialize};

/// The model files of an engine, as its guard measured them. It changes at most twice a minute while they grow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCache {
    /// Bytes that they take on disk, with those of files that are not complete.
    pub bytes: u64,
    /// Whether there is more than was counted: too many files, or folders that the guard may not read.
    #[serde(default)]
    pub partial: bool,
    /// Growth of the last minute, bytes per second.
    pub bytes_per_second: u64,
    /// Unix time of the last growth, or of the first look if there was none since; milliseconds.
    pub unchanged_since_unix_ms: u64,
    /// What goes on.
    pub activity: CacheActivity,
}

/// What goes on in an engine that is not proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheActivity {
    /// The files grew within the last minute, or the first minute is not over.
    Growing,
    /// They do not grow, and the engine's processes compute or wait for the disk.
    Loading,
    /// They do not grow, and the engine's processes do nothing, or what they do is not known.
    Quiet,
    /// One that only a newer version knows.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_newer_guard_are_read_past() {
        let text =
            r#"{"bytes":1,"bytes_per_second":0,"unchanged_since_unix_ms":5,"activity":"dreaming","more":{}}"#;
        let read: ModelCache = serde_json::from_str(text).unwrap();
        assert_eq!((read.activity, read.partial), (CacheActivity::Other, false));
        let text = serde_json::to_string(&ModelCache { activity: CacheActivity::Loading, ..read }).unwrap();
        assert!(text.contains(r#""activity":"loading""#), "{text}");
    }
}
