//! Encoded audio on its way from an engine to a client that may read slowly: bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::Error;

/// Bytes that may wait for the client. The longest piece of text fits, so that an engine never waits for a client.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that may wait when the next piece is asked for.
const LOW_BYTES: usize = 2 * 1024 * 1024;

/// A pair of ends.
pub(super) fn buffer() -> (Writer, Reader) {
    let shared = Arc::new(Shared::default());
    (Writer { shared: Arc::clone(&shared) }, Reader { shared })
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    filled: Notify,
    drained: Notify,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    failure: Option<Error>,
    ended: bool,
}

/// The end that encoded audio is written to. Dropping it ends the audio.
pub(super) struct Writer {
    shared: Arc<Shared>,
}

/// The end that the client reads.
pub(super) struct Reader {
    shared: Arc<Shared>,
}

impl Writer {
    /// Adds audio, once there is room.
    pub(super) async fn send(&self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.room(MAX_BYTES).await;
        let mut state = self.shared.state.lock();
        state.bytes += bytes.len();
        state.chunks.push_back(bytes);
        drop(state);
        self.shared.filled.notify_one();
    }

    /// Resolves when so little waits that the next piece is due.
    pub(super) async fn wait_for_room(&self) {
        self.room(LOW_BYTES).await;
    }

    async fn room(&self, below: usize) {
        loop {
            let drained = self.shared.drained.notified();
            if self.shared.state.lock().bytes < below {
                return;
            }
            drained.await;
        }
    }

    /// Ends the audio with an error.
    pub(super) fn fail(&self, error: Error) {
        self.shared.state.lock().failure = Some(error);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.filled.notify_one();
    }
}

impl Reader {
    /// The next bytes, or the error that the audio ends with; `None` at its end.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            let filled = self.shared.filled.notified();
            {
                let mut state = self.shared.state.lock();
                if let Some(bytes) = state.chunks.pop_front() {
                    state.bytes -= bytes.len();
                    drop(state);
                    self.shared.drained.notify_one();
                    return Some(Ok(bytes));
                }
                if state.ended {
                    return state.failure.take().map(Err);
                }
            }
            filled.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn audio_arrives_in_order_and_an_error_comes_last() {
        let (writer, mut reader) = buffer();
        writer.send(Bytes::from_static(b"a")).await;
        writer.send(Bytes::new()).await;
        writer.send(Bytes::from_static(b"b")).await;
        writer.fail(Error::Truncated);
        drop(writer);
        assert_eq!(reader.next().await.unwrap().unwrap(), "a");
        assert_eq!(reader.next().await.unwrap().unwrap(), "b");
        assert_eq!(reader.next().await.unwrap(), Err(Error::Truncated));
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_reader_stops_the_writer_only_when_the_buffer_is_full() {
        let (writer, mut reader) = buffer();
        writer.send(vec![0; MAX_BYTES].into()).await;
        let late = tokio::time::timeout(Duration::from_millis(50), writer.send(Bytes::from_static(b"x")));
        assert!(late.await.is_err());
        reader.next().await.unwrap().unwrap();
        writer.send(Bytes::from_static(b"x")).await;
        assert_eq!(reader.next().await.unwrap().unwrap(), "x");
    }
}
