//! What was used, as lines of JSON in a file: one for each piece of work that was settled.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use jiff::Timestamp;
use prometheus::{IntCounter, Registry};
use serde::Serialize;

use crate::config::Current;
use crate::error::Unit;

/// Lines that wait to be written; beyond it they are lost, and counted.
const MAX_WAITING: usize = 8192;

/// A line of the file.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) time: Timestamp,
    pub(super) request_id: String,
    pub(super) key: String,
    pub(super) key_id: String,
    #[serde(flatten)]
    pub(super) amount: Amount,
}

/// What was used.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Amount {
    AudioSeconds(f64),
    Characters(f64),
}

impl Amount {
    pub(super) fn of(unit: Unit, amount: f64) -> Self {
        match unit {
            // As exact as the clock of a session.
            Unit::AudioSeconds => Self::AudioSeconds((amount * 1000.0).round() / 1000.0),
            Unit::Characters => Self::Characters(amount),
        }
    }
}

/// Takes lines for the file that is configured. Nothing waits for the disk.
pub(super) struct Export {
    config: Current,
    lines: SyncSender<Line>,
    lost: IntCounter,
}

impl Export {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// When its metric is registered already.
    pub(super) fn start(config: Current, registry: &Registry) -> prometheus::Result<Self> {
        let help = "Lines of the usage file that were lost, because the disk was too slow or refused them";
        let lost = IntCounter::new("speechstack_gateway_usage_lines_lost_total", help)?;
        registry.register(Box::new(lost.clone()))?;
        let (lines, waiting) = sync_channel(MAX_WAITING);
        let (current, counter) = (config.clone(), lost.clone());
        std::thread::Builder::new()
            .name("usage".into())
            .spawn(move || write(&waiting, &current, &counter))
            .map_err(|error| prometheus::Error::Msg(error.to_string()))?;
        Ok(Self { config, lines, lost })
    }

    /// Passes a line on, if there is a file for it.
    pub(super) fn send(&self, line: impl FnOnce() -> Line) {
        if self.config.get().gateway.usage.file.is_some() && self.lines.try_send(line()).is_err() {
            self.lost.inc();
        }
    }
}

/// Writes what waits, until no more can come. The file is opened for each batch, so that it can be moved away.
fn write(waiting: &Receiver<Line>, config: &Current, lost: &IntCounter) {
    let mut is_broken = false;
    while let Ok(first) = waiting.recv() {
        let lines: Vec<Line> = std::iter::once(first).chain(waiting.try_iter().take(MAX_WAITING)).collect();
        let Some(path) = config.get().gateway.usage.file.clone() else { continue };
        match append(&path, &lines) {
            Ok(()) => is_broken = false,
            Err(error) => {
                lost.inc_by(lines.len() as u64);
                if !is_broken {
                    tracing::error!(%error, file = %path.display(), "unable to write the usage file");
                }
                is_broken = true;
            }
        }
    }
}

fn append(path: &Path, lines: &[Line]) -> std::io::Result<()> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    OpenOptions::new().create(true).append(true).open(path)?.write_all(&text)
}
