//! Lets short requests wait for an engine to come back instead of failing at once.

use tokio::time::{Instant, timeout_at};
use trace::Kind;

use crate::upstream::outgoing::Outgoing;
use crate::upstream::send::Tried;
use crate::upstream::{Metrics, Upstreams};

impl Upstreams {
    /// Waits until some endpoint can be picked; `false` when the request may not wait, or waited in vain.
    pub(super) async fn wait(&self, outgoing: &Outgoing, tried: &mut Tried) -> bool {
        let config = self.inner.config.get();
        let limits = &config.gateway.wait;
        let fits = outgoing
            .file
            .as_ref()
            .and_then(|file| file.bytes.len())
            .is_none_or(|bytes| bytes <= limits.max_body.as_u64());
        if !outgoing.may_wait || !fits || limits.max_wait.is_zero() {
            return false;
        }
        let now = Instant::now();
        let until = *tried.wait_until.get_or_insert(now + limits.max_wait);
        // Waiting for what is known to come too late only keeps the client from going elsewhere.
        let known_late = |seconds: f64| seconds > until.saturating_duration_since(now).as_secs_f64();
        if self.opens_in(&outgoing.route).is_some_and(known_late) {
            return false;
        }
        let Some(_place) = self.inner.waiting.take(limits.max_requests) else { return false };
        let _waiting = Waiting::new(&self.inner.metrics);
        let mut span = outgoing.asker.trace.span("engine wait", Kind::Internal);
        let improved = timeout_at(until, self.improvement(outgoing, tried)).await.is_ok();
        span.set("speechstack.engine_came", improved);
        improved
    }

    /// Resolves when an endpoint can be picked that could not be, or has improved since it failed.
    async fn improvement(&self, outgoing: &Outgoing, tried: &Tried) {
        let mut improved = self.inner.improved.subscribe();
        let work = (&outgoing.work, outgoing.audio_seconds);
        while self.pick(&outgoing.route, Some(work), outgoing.wish(), tried).is_none() {
            if improved.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }
}

/// A request that waits, counted until dropped: its client may go away meanwhile.
struct Waiting<'a>(&'a Metrics);

impl<'a> Waiting<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.waits_total.inc();
        metrics.waiting.inc();
        Self(metrics)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.dec();
    }
}
