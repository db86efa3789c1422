//! Log lines on standard error, written by a thread of their own: a slow reader of the log holds up no request.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use anyhow::Context;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::LogFormat;

/// Lines that wait for the log's reader; beyond it new ones are dropped.
const MAX_LINES: usize = 8_192;

/// After each write, how long lines gather for the next one: a thread woken for each line costs more than the line.
const GATHER: Duration = Duration::from_millis(10);

/// Starts logging; lines carry fields, never audio or text of users. Dropping what is returned writes the lines that wait.
///
/// # Errors
/// When the filter cannot be read.
pub fn start(filter: &str, format: LogFormat) -> anyhow::Result<WorkerGuard> {
    let targets: Targets = filter.parse().with_context(|| format!("--log {filter:?}"))?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_LINES)
        .lossy(true)
        .finish(Gathering(BufWriter::new(io::stderr())));
    let lines = fmt::layer().with_writer(writer);
    let registry = tracing_subscriber::registry().with(targets);
    match format {
        LogFormat::Text => registry.with(lines).init(),
        LogFormat::Json => registry.with(lines.json()).init(),
    }
    Ok(guard)
}

/// Writes many lines at a time. Its thread flushes when no line waits; the lines that come while it then sleeps wake nothing.
struct Gathering<W: Write>(BufWriter<W>);

impl<W: Write> Write for Gathering<W> {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.write(lines)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.0.flush();
        std::thread::sleep(GATHER);
        flushed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::time::Instant;

    use parking_lot::Mutex;

    use super::*;

    /// Each write as one entry.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<String>>>);

    impl Write for Writes {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            self.0.lock().push(String::from_utf8_lossy(lines).into_owned());
            Ok(lines.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_first_line_is_written_at_once_and_those_that_follow_together() {
        let writes = Writes::default();
        let mut sink = Gathering(BufWriter::new(writes.clone()));
        let (lines, waiting) = mpsc::channel();
        lines.send("one\n").unwrap();
        let writer = std::thread::spawn(move || {
            while let Ok(line) = waiting.recv() {
                sink.write_all(line.as_bytes()).unwrap();
                while let Ok(line) = waiting.try_recv() {
                    sink.write_all(line.as_bytes()).unwrap();
                }
                sink.flush().unwrap();
            }
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        while writes.0.lock().is_empty() {
            assert!(Instant::now() < deadline, "the first line is not written");
            std::thread::yield_now();
        }
        for _ in 0..100 {
            lines.send("more\n").unwrap();
        }
        drop(lines);
        writer.join().unwrap();
        let writes = writes.0.lock();
        assert_eq!(writes.concat().lines().count(), 101);
        assert!(writes[0] == "one\n" && writes.len() < 50, "{} writes", writes.len());
    }
}
