//! The audio of a session, kept as a file where the configuration has a folder and the client asks for it.

use std::io::{self, ErrorKind, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::fs::OpenOptions;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::audio::wav;
use crate::config::{Current, Recordings};
use crate::rng::Rng;
use crate::stream::Format;

/// Messages that may wait for the disk.
const WAITING: usize = 256;
/// Bytes that are written at a time.
const BLOCK: usize = 64 * 1024;
/// How often old recordings are looked for.
const SWEEP: Duration = Duration::from_secs(600);
/// What the names of recordings end with.
const EXTENSION: &str = "wav";

/// A recording that goes on. Dropping it ends it.
pub(super) struct Kept {
    path: PathBuf,
    audio: mpsc::Sender<Bytes>,
    failed: Arc<AtomicBool>,
}

impl Kept {
    /// Begins one of audio in that format; `None` where none are kept. It is a WAV file of 16 bits, which only this user may read.
    pub(super) fn begin(recordings: &Recordings, format: Format) -> Option<Self> {
        let dir = recordings.dir.clone()?;
        let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        let path = dir.join(format!("{stamp}-{:016x}.{EXTENSION}", Rng::random().roll()));
        let (audio, waiting) = mpsc::channel(WAITING);
        let failed = Arc::new(AtomicBool::new(false));
        let (writer, seen) =
            (write(dir, path.clone(), recordings.clone(), format, waiting), Arc::clone(&failed));
        tokio::spawn(async move {
            if let Err(error) = writer.await {
                seen.store(true, Ordering::Release);
                tracing::warn!(%error, "unable to keep the audio of a session");
            }
        });
        Some(Self { path, audio, failed })
    }

    /// Adds audio. A disk that is too slow for it fails the recording.
    pub(super) fn push(&self, audio: Bytes) {
        if self.audio.try_send(audio).is_err() {
            self.failed.store(true, Ordering::Release);
        }
    }

    /// Ends it. Returns its path, unless it failed.
    pub(super) fn end(self) -> Option<String> {
        (!self.failed.load(Ordering::Acquire)).then(|| self.path.to_string_lossy().into_owned())
    }
}

async fn write(
    dir: PathBuf,
    path: PathBuf,
    recordings: Recordings,
    format: Format,
    mut audio: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    tokio::fs::create_dir_all(&dir).await?;
    let used = tokio::task::spawn_blocking(move || sweep(&dir, recordings.ttl)).await??;
    let mut left = recordings.disk.as_u64().saturating_sub(used);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).await?;
    // Open until the end is known: what a crash leaves can be heard too.
    file.write_all(&wav::header(format.rate, 1, None)).await?;
    let (mut read, mut block, mut len) = (Vec::new(), Vec::with_capacity(BLOCK), 0);
    loop {
        let more = audio.recv().await;
        if let Some(bytes) = &more {
            read.clear();
            format.sample.read(bytes, &mut read);
            block.extend(read.iter().flat_map(|sample| ((sample * 32_768.0).round() as i16).to_le_bytes()));
        }
        if block.len() >= BLOCK || (more.is_none() && !block.is_empty()) {
            left = left.checked_sub(block.len() as u64).ok_or_else(|| {
                io::Error::new(ErrorKind::QuotaExceeded, "gateway.recordings.disk is used up")
            })?;
            file.write_all(&block).await?;
            len += block.len() as u64;
            block.clear();
        }
        if more.is_none() {
            file.seek(SeekFrom::Start(0)).await?;
            file.write_all(&wav::header(format.rate, 1, Some(len))).await?;
            return file.flush().await;
        }
    }
}

/// Removes old recordings for as long as the gateway runs.
pub async fn keep_tidy(config: Current) {
    loop {
        let recordings = config.get().gateway.recordings.clone();
        if let Some(dir) = recordings.dir {
            let swept = tokio::task::spawn_blocking(move || sweep(&dir, recordings.ttl)).await;
            if let Ok(Err(error)) = swept
                && error.kind() != ErrorKind::NotFound
            {
                tracing::warn!(%error, "unable to remove old recordings");
            }
        }
        tokio::time::sleep(SWEEP).await;
    }
}

/// Removes the recordings of a folder that were last written longer ago. Returns the bytes of the others.
fn sweep(dir: &Path, ttl: Duration) -> io::Result<u64> {
    let now = SystemTime::now();
    let mut used = 0;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        // Another gateway may have removed it.
        let Ok(metadata) = path.metadata() else { continue };
        let age = metadata.modified().ok().and_then(|written| now.duration_since(written).ok());
        if age.is_some_and(|age| age > ttl) {
            std::fs::remove_file(&path)?;
        } else {
            used += metadata.len();
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::audio::Sample;

    const FORMAT: Format = Format { sample: Sample::F32, rate: 16_000 };

    fn recordings(dir: &Path) -> Recordings {
        Recordings { dir: Some(dir.to_owned()), ..Recordings::default() }
    }

    fn second() -> Bytes {
        (0..16_000).flat_map(|at| (at as f32 / 32_768.0).to_le_bytes()).collect::<Vec<u8>>().into()
    }

    async fn until(what: impl Fn() -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while !what() {
            assert!(tokio::time::Instant::now() < deadline, "it does not come about");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_recording_is_a_file_of_all_its_audio() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::begin(&recordings(dir.path()), FORMAT).unwrap();
        kept.push(second());
        kept.push(second());
        let path = kept.end().unwrap();
        let header = wav::header(16_000, 1, Some(64_000));
        until(|| std::fs::read(&path).is_ok_and(|file| file.starts_with(&header))).await;
        let file = std::fs::read(&path).unwrap();
        assert_eq!(file.len(), wav::HEADER_LEN + 64_000);
        assert_eq!(file[wav::HEADER_LEN + 2000..][..2], 1000_i16.to_le_bytes());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Kept::begin(&Recordings::default(), FORMAT).is_none());
    }

    #[tokio::test]
    async fn no_more_is_kept_than_there_is_room_for() {
        let dir = tempfile::tempdir().unwrap();
        let few = Recordings { disk: bytesize::ByteSize::kib(100), ..recordings(dir.path()) };
        let kept = Kept::begin(&few, FORMAT).unwrap();
        for _ in 0..8 {
            kept.push(second());
        }
        until(|| kept.failed.load(Ordering::Acquire)).await;
        assert_eq!(kept.end(), None);
    }

    #[test]
    fn old_recordings_are_removed_and_other_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.wav", "b.wav", "notes.txt"] {
            std::fs::write(dir.path().join(name), "123").unwrap();
        }
        let long_ago = SystemTime::now() - Duration::from_secs(100);
        for name in ["a.wav", "notes.txt"] {
            std::fs::File::open(dir.path().join(name)).unwrap().set_modified(long_ago).unwrap();
        }
        assert_eq!(sweep(dir.path(), Duration::from_secs(50)).unwrap(), 3);
        let mut left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["b.wav", "notes.txt"]);
    }
}
