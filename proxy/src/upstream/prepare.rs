//! The file in the form that an engine takes: as the client sent it, or converted off the threads that move bytes.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};

use super::Upstreams;
use super::outgoing::Upload;
use super::spool::Replay;
use crate::audio::{convert, wav};
use crate::error::Error;
use crate::protocol::Intake;

/// Longest audio that is converted, a day: a small file can hold more silence than any engine takes.
pub(super) const MAX_SECONDS: f64 = 86_400.0;
/// Converted bytes that wait to be kept, in chunks of about 64 KiB.
const CHUNKS: usize = 4;

/// A file that is ready to be sent.
pub(super) struct Prepared {
    /// What comes first: a header, when the file has none of its own or a wrong one.
    pub(super) header: Bytes,
    /// The bytes, of which so many first ones are left out.
    pub(super) bytes: Replay,
    pub(super) skip: u64,
    /// Length of header and bytes, once known.
    pub(super) len: Option<u64>,
}

impl Upstreams {
    /// The file as `form`; `whole` when its length must be known.
    ///
    /// # Errors
    /// What is wrong with the client's file or upload, or that there is no room to keep it.
    pub(super) async fn prepare(&self, file: &Upload, form: Intake, whole: bool) -> Result<Prepared, Error> {
        match form {
            Intake::AsSent => {
                if whole || file.audio.open_header.is_some() {
                    self.complete(file).await?;
                }
                let bytes = file.bytes.clone();
                let len = bytes.len();
                let open = file.audio.open_header.as_ref();
                let header =
                    open.zip(len).and_then(|(header, len)| wav::patch(header, len)).unwrap_or_default();
                Ok(Prepared { len, skip: header.len() as u64, header, bytes })
            }
            Intake::Wav | Intake::Pcm => {
                let bytes = file.pcm.get_or_try_init(|| self.convert(file)).await?.clone();
                let samples = bytes.len().unwrap_or(0);
                let header = match form {
                    Intake::Wav => Bytes::copy_from_slice(&wav::header(convert::RATE, 1, Some(samples))),
                    Intake::Pcm | Intake::AsSent => Bytes::new(),
                };
                Ok(Prepared { len: Some(header.len() as u64 + samples), header, bytes, skip: 0 })
            }
        }
    }

    /// Resolves when all of the file is there and kept.
    pub(super) async fn complete(&self, file: &Upload) -> Result<(), Error> {
        if !file.bytes.is_complete() {
            file.bytes.fill().await;
            file.bytes.failure().map_or(Ok(()), Err)?;
        }
        if file.bytes.is_replayable() {
            Ok(())
        } else {
            Err(Error::NoRoom { retry_after: self.retry_after_busy() })
        }
    }

    /// Converts the whole file. The work ends with the future.
    pub(super) async fn convert(&self, file: &Upload) -> Result<Replay, Error> {
        self.complete(file).await?;
        file.gate.check()?;
        let source =
            file.bytes.blocking().ok_or_else(|| Error::NoRoom { retry_after: self.retry_after_busy() })?;
        let (sender, receiver) = mpsc::channel::<Result<Bytes, Error>>(CHUNKS);
        let container = file.audio.container;
        let stop = StopOnDrop::default();
        let limits = convert::Limits { max_seconds: MAX_SECONDS, rate: convert::RATE, stop: stop.flag() };
        let work = tokio::task::spawn_blocking(move || {
            let mut out = Chunks { sender, chunk: Vec::with_capacity(CHUNK_BYTES) };
            let converted = convert::to_pcm(source, container, &limits, &mut out);
            converted.and_then(|_| out.flush().map_err(convert::Error::Write))
        });
        let converted = Replay::new(receiver.boxed(), None, self.budget());
        let ((), done) = futures::join!(converted.fill(), work);
        match done {
            Ok(Ok(())) if converted.is_replayable() => Ok(converted),
            Ok(Ok(())) => Err(Error::NoRoom { retry_after: self.retry_after_busy() }),
            Ok(Err(convert::Error::UnsupportedCodec { codec })) => self.convert_foreign(file, &codec).await,
            Ok(Err(error)) => Err(undecodable(&error)),
            Err(error) => {
                tracing::error!(%error, "the conversion of a file ended early");
                Err(Error::Undecodable { message: "the file cannot be decoded".into() })
            }
        }
    }
}

/// What is wrong with a client's file.
pub(super) fn undecodable(error: &convert::Error) -> Error {
    Error::Undecodable { message: error.to_string() }
}

/// Ends a conversion that is not waited for any more.
#[derive(Default)]
pub(super) struct StopOnDrop(Arc<AtomicBool>);

impl StopOnDrop {
    /// What is set then.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Bytes of one chunk of converted audio.
const CHUNK_BYTES: usize = 64 * 1024;

/// Gathers what a conversion writes and hands it on; the end of its reader ends the conversion.
struct Chunks {
    sender: mpsc::Sender<Result<Bytes, Error>>,
    chunk: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        let sent = futures::executor::block_on(self.sender.send(Ok(chunk.into())));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}
