//! ffmpeg, where it is installed, for what has no codec in this program: AAC towards clients, and AMR, CAF and rare codecs from them.
//!
//! It runs as a process of its own, reads standard input and writes standard output: it opens no other files and no network.
//! It is killed once its output is not waited for.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// How long it may take to give the next bytes of a file that it has, or the last of a stream that has ended.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Bit rate of AAC: transparent for mono speech.
const AAC_BITS_PER_SECOND: &str = "64k";

/// Why ffmpeg gave no audio.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be started.
    #[error("unable to start ffmpeg")]
    Start(#[source] io::Error),
    /// Its pipes broke: it ended early.
    #[error("ffmpeg ended early")]
    Pipe(#[source] io::Error),
    /// It gave nothing for 30 s.
    #[error("ffmpeg gave no audio for 30 s")]
    Silent,
    /// It ended with an error.
    #[error("ffmpeg failed: {0}")]
    Failed(ExitStatus),
}

/// The program that the setting `gateway.ffmpeg` names: `off`, `auto` (on PATH) or a path.
#[must_use]
pub fn find(setting: &str) -> Option<PathBuf> {
    match setting {
        "off" => None,
        "auto" => std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|folder| folder.join("ffmpeg"))
            .find(|program| program.is_file()),
        path => Some(PathBuf::from(path)),
    }
}

/// A process, and the ends of its pipes.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

impl Process {
    fn start(program: &Path, args: &[&str]) -> Result<Self, Error> {
        let mut child = Command::new(program)
            .args(["-nostdin", "-hide_banner", "-loglevel", "quiet", "-protocol_whitelist", "cache,pipe"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::Start)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| Error::Start(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { child, stdin, stdout })
    }

    /// The next bytes; empty at the end.
    async fn read(&mut self) -> Result<Bytes, Error> {
        let mut bytes = BytesMut::with_capacity(CHUNK_BYTES);
        let read = timeout(PATIENCE, self.stdout.read_buf(&mut bytes)).await;
        read.map_err(|_| Error::Silent)?.map_err(Error::Pipe)?;
        Ok(bytes.freeze())
    }

    async fn ended(&mut self) -> Result<(), Error> {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        let status = ended.map_err(|_| Error::Silent)?.map_err(Error::Pipe)?;
        if status.success() { Ok(()) } else { Err(Error::Failed(status)) }
    }
}

/// Decodes a file of whatever ffmpeg knows, given in order, to 16-bit mono samples at `rate` Hz, at most `max_seconds` of them.
///
/// A file that breaks off gives what it has: an error ends the stream only when nothing came before it.
///
/// # Errors
/// When ffmpeg cannot be started.
pub fn decode(
    program: &Path,
    file: BoxStream<'static, Bytes>,
    rate: u32,
    max_seconds: f64,
) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
    let (rate, seconds) = (rate.to_string(), max_seconds.to_string());
    // The index of an MP4 may stand at its end.
    let input = ["-read_ahead_limit", "-1", "-i", "cache:pipe:0"];
    let output = ["-vn", "-t", &seconds, "-ac", "1", "-ar", &rate, "-f", "s16le", "pipe:1"];
    let mut process = Process::start(program, &[&input[..], &output].concat())?;
    let stdin = process.stdin.take();
    let feeding = AbortOnDropHandle::new(tokio::spawn(feed(stdin, file)));
    let samples = stream::unfold(Some((process, feeding, false)), |state| async move {
        let (mut process, feeding, some) = state?;
        match process.read().await {
            Ok(bytes) if !bytes.is_empty() => Some((Ok(bytes), Some((process, feeding, true)))),
            _ if some => None,
            Ok(_) => process.ended().await.err().map(|error| (Err(error), None)),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(samples.boxed())
}

/// Ends early when the process reads no more: it has enough, or cannot read the file, and says so at the end of its output.
async fn feed(stdin: Option<ChildStdin>, mut file: BoxStream<'static, Bytes>) {
    let Some(mut stdin) = stdin else { return };
    while let Some(bytes) = file.next().await {
        if stdin.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Encodes one stream of 16-bit mono samples to AAC in ADTS frames.
pub struct Aac(Process);

impl Aac {
    /// An encoder of samples at `rate` Hz.
    ///
    /// # Errors
    /// When ffmpeg cannot be started.
    pub fn start(program: &Path, rate: u32) -> Result<Self, Error> {
        let rate = rate.to_string();
        let input = ["-f", "s16le", "-ar", &rate, "-ac", "1", "-i", "pipe:0"];
        let output =
            ["-c:a", "aac", "-b:a", AAC_BITS_PER_SECOND, "-flush_packets", "1", "-f", "adts", "pipe:1"];
        Process::start(
            program,
            &[&["-probesize", "32", "-analyzeduration", "0"][..], &input, &output].concat(),
        )
        .map(Self)
    }

    /// Encodes the next samples. Returns what is ready to leave, often nothing yet.
    ///
    /// # Errors
    /// When ffmpeg ended or takes no samples.
    pub async fn encode(&mut self, pcm: &[i16]) -> Result<Bytes, Error> {
        let samples: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let Some(mut stdin) = self.0.stdin.take() else { return Ok(Bytes::new()) };
        let mut encoded = BytesMut::new();
        {
            let write = timeout(PATIENCE, stdin.write_all(&samples));
            let mut write = std::pin::pin!(write);
            loop {
                encoded.reserve(CHUNK_BYTES);
                tokio::select! {
                    biased;
                    written = &mut write => {
                        written.map_err(|_| Error::Silent)?.map_err(Error::Pipe)?;
                        break;
                    }
                    read = self.0.stdout.read_buf(&mut encoded) => {
                        if read.map_err(Error::Pipe)? == 0 {
                            return Err(Error::Pipe(io::ErrorKind::BrokenPipe.into()));
                        }
                    }
                }
            }
        }
        self.0.stdin = Some(stdin);
        while let Some(Ok(1..)) = self.0.stdout.read_buf(&mut encoded).now_or_never() {
            encoded.reserve(CHUNK_BYTES);
        }
        Ok(encoded.freeze())
    }

    /// Ends the stream and returns the rest of it.
    ///
    /// # Errors
    /// When ffmpeg failed or does not end.
    pub async fn finish(mut self) -> Result<Bytes, Error> {
        drop(self.0.stdin.take());
        let mut rest = BytesMut::new();
        loop {
            let bytes = self.0.read().await?;
            if bytes.is_empty() {
                break;
            }
            rest.extend_from_slice(&bytes);
        }
        self.0.ended().await?;
        Ok(rest.freeze())
    }
}
