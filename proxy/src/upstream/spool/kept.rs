//! What is kept of one body: a small one as it came; of a larger one copies in blocks, those before the last written to a file.
//!
//! A chunk of a connection pins the whole buffer that it was read into. Blocks are copied so that such buffers are free at once;
//! they come from a pool, so that a body's memory does not depend on how it came.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::upstream::spool::SpoolBudget;

/// Bytes of a block, the size of a read and of a write.
pub(super) const BLOCK: usize = 32 * 1024;
/// A body up to this is kept in the chunks it came in.
const SMALL: usize = 64 * 1024;
/// What the file may lag behind the stream.
pub(super) const WRITE_BEHIND: usize = BLOCK;
/// Blocks that one write-behind takes at once.
const BATCH: usize = 8;
/// Bookkeeping of one chunk: a body of tiny chunks costs more than its bytes.
const CHUNK_OVERHEAD: usize = 64;

/// The body from its first byte to the last one pulled.
pub(super) struct Kept {
    budget: Arc<SpoolBudget>,
    /// Bytes kept, wherever.
    len: u64,
    /// All of a small body, each chunk with its offset; else nothing.
    chunks: Vec<(u64, Bytes)>,
    /// Bytes and bookkeeping of the chunks.
    cost: usize,
    /// The body after `written`; all blocks but the last are full.
    blocks: VecDeque<Arc<Block>>,
    pub(super) file: Option<Arc<File>>,
    /// Bytes of the body that are in the file: whole blocks.
    written: u64,
    /// Bytes of the disk budget taken.
    reserved: u64,
    /// Whether it is with the writers.
    pub(super) writing: bool,
    spilling: bool,
}

/// Where the bytes at an offset are.
pub(super) enum Stored {
    Memory(Bytes),
    File(Arc<File>, usize),
}

/// Up to [`BLOCK`] bytes, whose memory goes back to the pool.
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    budget: Arc<SpoolBudget>,
}

impl Block {
    fn new(budget: &Arc<SpoolBudget>) -> Self {
        let free = budget.blocks.lock().pop();
        Self { bytes: free.unwrap_or_else(|| Vec::with_capacity(BLOCK)), budget: Arc::clone(budget) }
    }

    fn room(&self) -> usize {
        BLOCK - self.bytes.len()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        /// Blocks that wait for their next use.
        const MOST_FREE: usize = 64;
        let mut free = self.budget.blocks.lock();
        if free.len() < MOST_FREE {
            self.bytes.clear();
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Kept {
    pub(super) fn new(budget: Arc<SpoolBudget>) -> Self {
        Self {
            budget,
            len: 0,
            chunks: Vec::new(),
            cost: 0,
            blocks: VecDeque::new(),
            file: None,
            written: 0,
            reserved: 0,
            writing: false,
            spilling: false,
        }
    }

    /// All of a file that stays where it is.
    pub(super) fn of_file(file: File, len: u64, budget: Arc<SpoolBudget>) -> Self {
        budget.held.add(len as i64);
        let mut kept = Self::new(budget);
        (kept.len, kept.written, kept.file) = (len, len, Some(Arc::new(file)));
        kept
    }

    pub(super) fn push(&mut self, offset: u64, chunk: Bytes) {
        self.budget.held.add(chunk.len() as i64);
        self.len += chunk.len() as u64;
        let is_small = self.blocks.is_empty() && self.written == 0;
        self.cost += chunk.len() + CHUNK_OVERHEAD;
        if is_small && self.cost <= SMALL.min(self.budget.memory_per_request) {
            self.chunks.push((offset, chunk));
            return;
        }
        for (_, chunk) in std::mem::take(&mut self.chunks) {
            self.copy(&chunk);
        }
        self.copy(&chunk);
        self.spilling |= self.in_memory() > self.budget.memory_per_request;
    }

    fn copy(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A block with room is not shared: only full ones are written.
            let last = self.blocks.back_mut().and_then(Arc::get_mut).filter(|block| block.room() > 0);
            let Some(block) = last else {
                self.blocks.push_back(Arc::new(Block::new(&self.budget)));
                continue;
            };
            let (now, rest) = bytes.split_at(bytes.len().min(block.room()));
            block.bytes.extend_from_slice(now);
            bytes = rest;
        }
    }

    /// Bytes of the body in memory.
    pub(super) fn in_memory(&self) -> usize {
        usize::try_from(self.len - self.written).unwrap_or(usize::MAX)
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

    /// Whether it must go to the writers; if so it counts as gone.
    pub(super) fn start_writing(&mut self) -> bool {
        let start = self.spilling && !self.writing && self.full().next().is_some();
        self.writing |= start;
        start
    }

    /// Whether the stream is too far ahead of the file.
    pub(super) fn is_behind(&self) -> bool {
        self.writing && self.in_memory() > self.budget.memory_per_request.saturating_add(WRITE_BEHIND)
    }

    fn full(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.blocks.iter().take_while(|block| block.room() == 0)
    }

    /// What is stored at `offset`, which must lie before the end.
    pub(super) fn at(&self, offset: u64) -> Option<Stored> {
        if offset < self.written {
            let len = usize::try_from(self.written - offset).unwrap_or(BLOCK).min(BLOCK);
            return self.file.clone().map(|file| Stored::File(file, len));
        }
        if self.blocks.is_empty() {
            let after = self.chunks.partition_point(|(start, _)| *start <= offset);
            let (start, chunk) = self.chunks.get(after.checked_sub(1)?)?;
            let within = usize::try_from(offset - start).ok().filter(|within| *within < chunk.len())?;
            return Some(Stored::Memory(chunk.slice(within..)));
        }
        let ahead = usize::try_from(offset - self.written).ok()?;
        let bytes =
            self.blocks.get(ahead / BLOCK)?.bytes.get(ahead % BLOCK..).filter(|bytes| !bytes.is_empty())?;
        Some(Stored::Memory(Bytes::copy_from_slice(bytes)))
    }

    /// The blocks to write next, or `None` when none is full.
    pub(super) fn batch(&self) -> Option<(u64, Vec<Arc<Block>>)> {
        let blocks: Vec<_> = self.full().take(BATCH).cloned().collect();
        (!blocks.is_empty()).then_some((self.written, blocks))
    }

    /// Takes so much of the disk budget, unless that was taken before.
    pub(super) fn reserve(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.reserved - self.written);
        let granted = self.budget.reserve(more);
        self.reserved += if granted { more } else { 0 };
        granted
    }

    pub(super) fn wrote(&mut self, blocks: usize) {
        self.blocks.drain(..blocks.min(self.blocks.len()));
        self.written += (blocks * BLOCK) as u64;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget.held.sub(self.len as i64);
        self.budget.release(self.reserved);
    }
}

/// Reads `len` bytes at `offset`. Blocks.
pub(super) fn read(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut block = vec![0; len];
    file.read_exact_at(&mut block, offset)?;
    Ok(block.into())
}
