//! A time limit that does not blame a counterpart for time in which this process did not run.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::timeout;

/// Time after a limit in which an answer that has arrived already is still found. A process that was stopped for longer
/// than the limit finds the limit over and the answer in the socket.
const UNREAD: Duration = Duration::from_millis(100);

/// What a future resolves to within a limit; `None` when it takes longer. It may be awaited further.
pub async fn within<F: Future>(limit: Duration, future: &mut Pin<&mut F>) -> Option<F::Output> {
    if let Ok(output) = timeout(limit, future.as_mut()).await {
        return Some(output);
    }
    timeout(UNREAD, future.as_mut()).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_arrived_while_the_process_stood_still_is_found() {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let future = std::pin::pin!(answered);
        let sender = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let _ = answer.send(());
        });
        let mut future = future;
        let waiting = within(Duration::from_millis(30), &mut future);
        // The only thread of the runtime stands still beyond the limit.
        let stop = async { std::thread::sleep(Duration::from_millis(60)) };
        let (output, ()) = tokio::join!(waiting, stop);
        assert_eq!(output, Some(Ok(())));
        sender.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_longer_may_be_awaited_further() {
        let mut future = std::pin::pin!(tokio::time::sleep(Duration::from_secs(5)));
        assert_eq!(within(Duration::from_secs(1), &mut future).await, None);
        future.await;
    }
}
