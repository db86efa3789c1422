//! What is kept of one body: its head in a file, its tail in memory, and the writer that moves one to the other.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::upstream::spool::{Shared, SpoolBudget};

/// What the file may lag behind the stream, and the largest write.
pub(super) const WRITE_BEHIND: usize = 256 * 1024;
/// Less is not worth a write, and the size of a read.
pub(super) const BLOCK: usize = 64 * 1024;
/// Bookkeeping of one chunk: a body of tiny chunks costs more than its bytes.
const CHUNK_OVERHEAD: usize = 64;

/// The body from its first byte to the last one pulled.
pub(super) struct Kept {
    budget: Arc<SpoolBudget>,
    file: Option<Arc<File>>,
    /// Bytes of the body that are in the file.
    written: u64,
    /// Bytes of the disk budget taken.
    reserved: u64,
    /// Chunks after `written`, each with its offset in the body.
    tail: VecDeque<(u64, Bytes)>,
    /// Bytes and bookkeeping of the tail.
    cost: usize,
    writing: bool,
    spilling: bool,
}

/// Where the bytes at an offset are.
pub(super) enum Stored {
    Memory(Bytes),
    File(Arc<File>, usize),
}

impl Kept {
    pub(super) fn new(budget: Arc<SpoolBudget>) -> Self {
        Self {
            budget,
            file: None,
            written: 0,
            reserved: 0,
            tail: VecDeque::new(),
            cost: 0,
            writing: false,
            spilling: false,
        }
    }

    pub(super) fn push(&mut self, offset: u64, chunk: Bytes) {
        self.budget.held.add(chunk.len() as i64);
        self.cost += chunk.len() + CHUNK_OVERHEAD;
        self.tail.push_back((offset, chunk));
        self.spilling |= self.cost > self.budget.memory_per_request;
    }

    /// Memory in use: bytes and bookkeeping.
    #[cfg(test)]
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    /// As a disk does that never answers.
    #[cfg(test)]
    pub(super) fn stall(&mut self) {
        self.writing = true;
    }

    /// Whether a writer runs.
    #[cfg(test)]
    pub(super) fn is_writing(&self) -> bool {
        self.writing
    }

    /// Whether a writer must be started; if so it counts as started.
    pub(super) fn start_writing(&mut self) -> bool {
        let start = self.spilling && !self.writing && self.cost >= BLOCK;
        self.writing |= start;
        start
    }

    /// Whether the stream is too far ahead of the file.
    pub(super) fn is_behind(&self) -> bool {
        self.writing && self.cost > self.budget.memory_per_request.saturating_add(WRITE_BEHIND)
    }

    /// What is stored at `offset`, which must lie before the end.
    pub(super) fn at(&self, offset: u64) -> Option<Stored> {
        if offset < self.written {
            let len = usize::try_from(self.written - offset).unwrap_or(BLOCK).min(BLOCK);
            return self.file.clone().map(|file| Stored::File(file, len));
        }
        let after = self.tail.partition_point(|(start, _)| *start <= offset);
        let (start, chunk) = self.tail.get(after.checked_sub(1)?)?;
        let within = usize::try_from(offset - start).ok().filter(|within| *within < chunk.len())?;
        Some(Stored::Memory(chunk.slice(within..)))
    }

    /// The chunks to write next, or `None` when there are too few.
    fn batch(&self) -> Option<(u64, Vec<Bytes>)> {
        if self.cost < BLOCK {
            return None;
        }
        let mut bytes = 0;
        let fits = |(_, chunk): &&(u64, Bytes)| {
            let first = bytes == 0;
            bytes += chunk.len();
            first || bytes <= WRITE_BEHIND
        };
        let chunks = self.tail.iter().take_while(fits).map(|(_, chunk)| chunk.clone()).collect();
        Some((self.written, chunks))
    }

    fn reserve(&mut self, bytes: u64) -> bool {
        let granted = self.budget.reserve(bytes);
        self.reserved += if granted { bytes } else { 0 };
        granted
    }

    fn wrote(&mut self, chunks: usize) {
        for (offset, chunk) in self.tail.drain(..chunks.min(self.tail.len())) {
            self.cost -= chunk.len() + CHUNK_OVERHEAD;
            self.written = offset + chunk.len() as u64;
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let in_memory: usize = self.tail.iter().map(|(_, chunk)| chunk.len()).sum();
        self.budget.held.sub(in_memory as i64 + self.written as i64);
        self.budget.release(self.reserved);
    }
}

/// Moves chunks into the file until few are left. Blocks; one at a time for each body.
pub(super) fn write_behind(shared: &Shared) {
    while let Some((file, offset, chunks)) = next_batch(shared) {
        let outcome = write(shared, file, offset, &chunks);
        let mut state = shared.state.lock();
        match (outcome, &mut state.kept) {
            (Ok(file), Some(kept)) => {
                kept.file = Some(file);
                kept.wrote(chunks.len());
            }
            (Ok(_), None) => {}
            (Err(error), _) => {
                tracing::warn!(%error, "unable to spool, the upload is not replayable");
                state.kept = None;
            }
        }
        state.wake();
    }
}

/// Takes the next chunks and their share of the disk budget; gives the body up when there is none.
fn next_batch(shared: &Shared) -> Option<(Option<Arc<File>>, u64, Vec<Bytes>)> {
    let mut state = shared.state.lock();
    let kept = state.kept.as_mut()?;
    let Some((offset, chunks)) = kept.batch() else {
        kept.writing = false;
        return None;
    };
    if !kept.reserve(chunks.iter().map(|chunk| chunk.len() as u64).sum()) {
        tracing::debug!("spool budget exhausted, the upload is not replayable");
        state.kept = None;
        state.wake();
        return None;
    }
    Some((kept.file.clone(), offset, chunks))
}

fn write(
    shared: &Shared,
    file: Option<Arc<File>>,
    mut offset: u64,
    chunks: &[Bytes],
) -> io::Result<Arc<File>> {
    let file = match (file, &shared.budget.dir) {
        (Some(file), _) => file,
        (None, Some(dir)) => Arc::new(tempfile::tempfile_in(dir)?),
        (None, None) => Arc::new(tempfile::tempfile()?),
    };
    for chunk in chunks {
        file.write_all_at(chunk, offset)?;
        offset += chunk.len() as u64;
    }
    Ok(file)
}

/// Reads `len` bytes at `offset`. Blocks.
pub(super) fn read(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut block = vec![0; len];
    file.read_exact_at(&mut block, offset)?;
    Ok(block.into())
}
