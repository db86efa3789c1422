//! Stopping without losing work: not ready, stop accepting, finish, deadline, force.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Shared by all holders of work that a stop must wait for. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    announced: CancellationToken,
    begun: CancellationToken,
    forced: CancellationToken,
    work: TaskTracker,
}

impl Drain {
    /// A new one, not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a stop is coming or has begun: not ready any more.
    pub fn is_announced(&self) -> bool {
        self.announced.is_cancelled()
    }

    /// Tells that a stop is coming: not ready from now on, and still accepting.
    pub fn announce(&self) {
        self.announced.cancel();
    }

    /// Resolves when the stop begins.
    pub async fn begun(&self) {
        cancelled(&self.begun).await;
    }

    /// Resolves when waiting is over and what still runs must end.
    pub async fn forced(&self) {
        cancelled(&self.forced).await;
    }

    /// Runs work that a stop waits for; it is dropped when the deadline has passed.
    pub fn spawn<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let forced = self.forced.clone();
        self.work.spawn(async move {
            tokio::select! {
                () = work => {}
                () = cancelled(&forced) => {}
            }
        });
    }

    /// Work in flight.
    pub fn in_flight(&self) -> usize {
        self.work.len()
    }

    /// Begins the stop without waiting.
    pub fn begin(&self) {
        self.announce();
        self.begun.cancel();
        self.work.close();
    }

    /// Begins the stop, waits for the work until `deadline`, then drops it. Returns what was dropped.
    pub async fn finish(&self, deadline: Duration) -> usize {
        self.begin();
        let timely = tokio::time::timeout(deadline, self.work.wait()).await.is_ok();
        let dropped = if timely { 0 } else { self.work.len() };
        self.forced.cancel();
        self.work.wait().await;
        dropped
    }
}

/// As [`CancellationToken::cancelled`], and cheap to poll again: each poll of a token's own future takes locks that all tasks
/// share.
async fn cancelled(token: &CancellationToken) {
    let mut waiting = pin!(token.cancelled());
    let mut registered: Option<Waker> = None;
    poll_fn(|context| {
        if token.is_cancelled() {
            return Poll::Ready(());
        }
        if registered.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            return Poll::Pending;
        }
        registered = Some(context.waker().clone());
        waiting.as_mut().poll(context)
    })
    .await;
}

/// Resolves on SIGTERM or Ctrl-C.
pub async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "stopping"),
        _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "stopping"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_in_flight_ends_before_the_stop_does() {
        let drain = Drain::new();
        let (done, ended) = tokio::sync::oneshot::channel();
        drain.spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let _ = done.send(());
        });
        assert_eq!(drain.finish(Duration::from_secs(10)).await, 0);
        assert!(ended.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn work_beyond_the_deadline_is_dropped_and_counted() {
        let drain = Drain::new();
        drain.spawn(std::future::pending());
        assert_eq!(drain.finish(Duration::from_secs(10)).await, 1);
        assert_eq!(drain.in_flight(), 0);
    }
}
