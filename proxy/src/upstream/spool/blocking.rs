//! A kept body as a file for code that blocks, such as a decoder.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;

use super::Shared;
use super::kept::{self, Stored};

/// A complete body, readable from any place. To be used on a thread that may block.
pub struct Blocking {
    shared: Arc<Shared>,
    len: u64,
    position: u64,
    /// What was read last and where it begins.
    block: (u64, Bytes),
}

impl Blocking {
    pub(super) fn new(shared: Arc<Shared>, len: u64) -> Self {
        Self { shared, len, position: 0, block: (0, Bytes::new()) }
    }

    /// The bytes at the position, from the last block if they are in it.
    fn here(&mut self) -> io::Result<Bytes> {
        let within = |block: &(u64, Bytes), position: u64| {
            let at = usize::try_from(position.checked_sub(block.0)?).ok()?;
            (at < block.1.len()).then(|| block.1.slice(at..))
        };
        if let Some(bytes) = within(&self.block, self.position) {
            return Ok(bytes);
        }
        let stored = self.shared.state.lock().kept.as_ref().and_then(|kept| kept.at(self.position));
        let bytes = match stored {
            Some(Stored::Memory(bytes)) => bytes,
            Some(Stored::File(file, len)) => kept::read(&file, self.position, len)?,
            None => return Err(io::Error::other("the upload is no longer kept")),
        };
        self.block = (self.position, bytes.clone());
        Ok(bytes)
    }
}

impl Read for Blocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.len || buffer.is_empty() {
            return Ok(0);
        }
        let bytes = self.here()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Blocking {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.len.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
