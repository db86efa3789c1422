//! Writes full blocks into files. A few threads take turns among all bodies: a thread for each of many uploads would cost memory
//! and a change of threads for every block, and a disk that does not answer would take the threads that others need.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};

use crate::upstream::spool::kept::Block;
use crate::upstream::spool::{Shared, SpoolBudget};

/// Threads that write at a time.
const WRITERS: usize = 2;

/// The bodies with full blocks. One without readers is passed over.
#[derive(Debug, Default)]
pub(super) struct Writers {
    waiting: VecDeque<Weak<Shared>>,
    /// Threads that write.
    pub(super) running: usize,
}

/// Has the full blocks of a body written. It must not be among those that wait.
pub(super) fn write_behind(shared: &Arc<Shared>) {
    let mut writers = shared.budget.writers.lock();
    writers.waiting.push_back(Arc::downgrade(shared));
    if writers.running < WRITERS {
        writers.running += 1;
        let budget = Arc::clone(&shared.budget);
        tokio::task::spawn_blocking(move || work(&budget));
    }
}

/// Until no body waits: a batch of the one that has waited longest.
pub(super) fn work(budget: &SpoolBudget) {
    while let Some(next) = next_body(budget) {
        let Some(shared) = next.upgrade() else { continue };
        if write_batch(&shared) {
            budget.writers.lock().waiting.push_back(next);
        }
    }
}

/// The next body, or the end of this thread's work.
fn next_body(budget: &SpoolBudget) -> Option<Weak<Shared>> {
    let mut writers = budget.writers.lock();
    let next = writers.waiting.pop_front();
    writers.running -= usize::from(next.is_none());
    next
}

/// Moves some full blocks into the file, if there are any; else the body needs a writer no more.
fn write_batch(shared: &Shared) -> bool {
    let Some(batch) = next_batch(shared) else { return false };
    let outcome = write(&shared.budget, &batch);
    let mut state = shared.state.lock();
    match (outcome, &mut state.kept) {
        (Ok(file), Some(kept)) => {
            kept.file = Some(file);
            kept.wrote(batch.blocks.len());
        }
        (Ok(_), None) => {}
        (Err(error), _) => {
            tracing::warn!(%error, "unable to spool, the upload is not replayable");
            state.kept = None;
        }
    }
    state.wake();
    true
}

/// Full blocks on their way into the file, which is made for the first ones.
struct Batch {
    file: Option<Arc<File>>,
    offset: u64,
    blocks: Vec<Arc<Block>>,
}

/// Takes the next blocks and their share of the disk budget; gives the body up when there is none. The whole of a body whose
/// length is known is asked for at once: nothing is written of one that cannot be kept to its end.
fn next_batch(shared: &Shared) -> Option<Batch> {
    let mut state = shared.state.lock();
    let known_len = state.known_len;
    let kept = state.kept.as_mut()?;
    let Some((offset, blocks)) = kept.batch() else {
        kept.writing = false;
        return None;
    };
    let next = blocks.iter().map(|block| block.bytes.len() as u64).sum();
    if !kept.reserve(known_len.map_or(next, |len| next.max(len.saturating_sub(offset)))) {
        tracing::debug!("spool budget exhausted, the upload is not replayable");
        state.kept = None;
        state.wake();
        return None;
    }
    Some(Batch { file: kept.file.clone(), offset, blocks })
}

fn write(budget: &SpoolBudget, batch: &Batch) -> io::Result<Arc<File>> {
    let file = match (&batch.file, &budget.dir) {
        (Some(file), _) => Arc::clone(file),
        (None, Some(dir)) => Arc::new(tempfile::tempfile_in(dir)?),
        (None, None) => Arc::new(tempfile::tempfile()?),
    };
    let mut offset = batch.offset;
    for block in &batch.blocks {
        file.write_all_at(&block.bytes, offset)?;
        offset += block.bytes.len() as u64;
    }
    Ok(file)
}
