//! A readable source as symphonia wants it, which ends with an error when a flag is set.

use std::io::{Error as IoError, ErrorKind, Read, Result, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use symphonia::core::io::MediaSource;

use crate::audio::convert::Error;

/// What became of a source, seen from outside of the demuxer that owns it.
#[derive(Clone)]
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    failure: Arc<Mutex<Option<IoError>>>,
}

impl Watch {
    /// Why the source ended early, if it did.
    pub(super) fn check(&self) -> std::result::Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        self.failure.lock().take().map_or(Ok(()), |failure| Err(Error::Read(failure)))
    }
}

/// A source with a few bytes of its own behind those of the reader.
pub(super) struct Source<R> {
    reader: R,
    /// Bytes of the reader.
    len: u64,
    tail: &'static [u8],
    /// The demuxer is to read from the begin to the end, and not to know the length.
    is_stream: bool,
    /// Position of the next byte.
    at: u64,
    watch: Watch,
}

impl<R: Read + Seek> Source<R> {
    pub(super) fn new(mut reader: R, stop: Arc<AtomicBool>) -> std::result::Result<Self, Error> {
        let len = reader.seek(SeekFrom::End(0)).map_err(Error::Read)?;
        reader.seek(SeekFrom::Start(0)).map_err(Error::Read)?;
        let watch = Watch { stop, failure: Arc::default() };
        watch.check()?;
        Ok(Self { reader, len, tail: &[], is_stream: false, at: 0, watch })
    }

    /// Puts `tail` behind the reader's bytes.
    pub(super) fn append(&mut self, tail: &'static [u8]) {
        self.tail = tail;
    }

    /// Hides the length and the way back from the demuxer.
    pub(super) fn make_stream(&mut self) {
        self.is_stream = true;
    }

    pub(super) fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Bytes in all.
    pub(super) fn len(&self) -> u64 {
        self.len + self.tail.len() as u64
    }

    /// Reads until `buffer` is full or the source ends. Returns how many bytes that are.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> std::result::Result<usize, Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(filled)
    }

    /// Reads `len` bytes, or those that are left.
    pub(super) fn take_bytes(&mut self, len: u64) -> std::result::Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.by_ref().take(len).read_to_end(&mut bytes).map_err(|error| self.failed(error))?;
        Ok(bytes)
    }

    fn failed(&self, error: IoError) -> Error {
        self.watch.check().err().unwrap_or(Error::Read(error))
    }

    /// Goes to `position`.
    pub(super) fn go_to(&mut self, position: u64) -> std::result::Result<(), Error> {
        self.seek(SeekFrom::Start(position)).map(drop).map_err(Error::Read)
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if let Some(into_tail) = self.at.checked_sub(self.len) {
            let tail = usize::try_from(into_tail).ok().and_then(|at| self.tail.get(at..)).unwrap_or_default();
            let count = tail.len().min(buffer.len());
            buffer[..count].copy_from_slice(&tail[..count]);
            return Ok(count);
        }
        let room = usize::try_from(self.len - self.at).unwrap_or(usize::MAX).min(buffer.len());
        loop {
            match self.reader.read(&mut buffer[..room]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl<R: Read + Seek> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.watch.stop.load(Ordering::Relaxed) {
            return Err(IoError::other("cancelled"));
        }
        match self.try_read(buffer) {
            Ok(count) => {
                self.at += count as u64;
                Ok(count)
            }
            Err(error) => {
                let kind = error.kind();
                *self.watch.failure.lock() = Some(error);
                Err(kind.into())
            }
        }
    }
}

impl<R: Read + Seek> Seek for Source<R> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
            SeekFrom::End(offset) => self.len().checked_add_signed(offset),
        };
        let position = position.ok_or(ErrorKind::InvalidInput)?;
        self.reader.seek(SeekFrom::Start(position.min(self.len)))?;
        self.at = position;
        Ok(position)
    }
}

impl<R: Read + Seek + Send + Sync> MediaSource for Source<R> {
    fn is_seekable(&self) -> bool {
        !self.is_stream
    }

    fn byte_len(&self) -> Option<u64> {
        (!self.is_stream).then_some(self.len())
    }
}
