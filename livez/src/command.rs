//! The command line: a pure function from words to what to do.

use std::path::PathBuf;
use std::time::Duration;

/// Shared by the guard and the engine's container.
const DEFAULT_DIR: &str = "/run/speechstack";
/// Longest wait; the kubelet's own grace ends it long before.
const MOST_SECONDS: u64 = 3600;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Answer the kubelet's liveness probe.
    Probe {
        /// The shared folder.
        dir: PathBuf,
    },
    /// Wait until the guard has drained the engine.
    Drain {
        /// The shared folder.
        dir: PathBuf,
        /// How long at most.
        limit: Duration,
    },
}

impl Command {
    /// Reads the words after the program's name.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut words = words;
        let mut dir = PathBuf::from(DEFAULT_DIR);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--dir" => dir = words.next().ok_or("--dir needs a folder")?.into(),
                "drain" => {
                    let seconds = words.next().ok_or("drain needs a number of seconds")?;
                    let seconds: u64 =
                        seconds.parse().map_err(|_| format!("drain: {seconds:?} is no number of seconds"))?;
                    return match words.next() {
                        Some(word) => Err(format!("unexpected argument {word:?}")),
                        None => {
                            Ok(Self::Drain { dir, limit: Duration::from_secs(seconds.min(MOST_SECONDS)) })
                        }
                    };
                }
                _ => return Err(format!("unexpected argument {word:?}")),
            }
        }
        Ok(Self::Probe { dir })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Command::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn both_commands_take_a_folder() {
        assert_eq!(parse(""), Ok(Command::Probe { dir: DEFAULT_DIR.into() }));
        assert_eq!(parse("--dir /d"), Ok(Command::Probe { dir: "/d".into() }));
        let limit = Duration::from_secs(30);
        assert_eq!(parse("drain 30"), Ok(Command::Drain { dir: DEFAULT_DIR.into(), limit }));
        assert_eq!(parse("--dir /d drain 30"), Ok(Command::Drain { dir: "/d".into(), limit }));
    }

    #[test]
    fn waits_are_bounded_and_mistakes_named() {
        let limit = Duration::from_secs(MOST_SECONDS);
        assert_eq!(parse("drain 99999999"), Ok(Command::Drain { dir: DEFAULT_DIR.into(), limit }));
        for (line, named) in [
            ("drain", "seconds"),
            ("drain soon", "soon"),
            ("drain 3 4", "\"4\""),
            ("--dir", "folder"),
            ("x", "x"),
        ] {
            assert!(parse(line).unwrap_err().contains(named), "{line}");
        }
    }
}
