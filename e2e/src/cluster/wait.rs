//! Waits until something holds, and says what did not.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

/// How often a condition is looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// Waits until `look` succeeds and returns what it found; each look may take no longer than what is left.
///
/// # Errors
/// When it does not succeed within `timeout`; the message has `what` and the last error.
pub async fn await_condition<T>(
    what: &str,
    timeout: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let began = Instant::now();
    let mut last = anyhow::anyhow!("the first look at it did not end");
    loop {
        match tokio::time::timeout(timeout.saturating_sub(began.elapsed()), look()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => last = error,
            Err(_) => return Err(last).with_context(|| format!("waited {timeout:?} until {what}")),
        }
        if began.elapsed() + PERIOD > timeout {
            return Err(last).with_context(|| format!("waited {timeout:?} until {what}"));
        }
        tokio::time::sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_reason_is_reported() {
        let mut looks = 0;
        let error = await_condition("it is done", Duration::from_secs(1), async || {
            looks += 1;
            anyhow::bail!("looked {looks} times") as Result<()>
        });
        let text = format!("{:#}", error.await.unwrap_err());
        assert_eq!(text, "waited 1s until it is done: looked 11 times");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_cut_off() {
        let error = await_condition("it is done", Duration::from_secs(1), async || {
            std::future::pending::<()>().await;
            Ok(())
        });
        assert!(format!("{:#}", error.await.unwrap_err()).contains("did not end"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_is_returned() {
        let mut looks = 0;
        let found = await_condition("it is done", Duration::from_secs(1), async || {
            looks += 1;
            anyhow::ensure!(looks > 3, "too early");
            Ok(looks)
        });
        assert_eq!(found.await.unwrap(), 4);
    }
}
