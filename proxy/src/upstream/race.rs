//! One attempt, and a hedge when its answer is overdue: the same job on an idle engine beside it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use futures::future::{Either, select};

use super::exchange::Stop;
use super::hedge::{self, Alarm};
use super::metrics::Hedged;
use super::outgoing::Outgoing;
use super::reply::Reply;
use super::send::{Picked, Served, Tried};
use super::{Upstreams, balance};

/// How a race of an attempt and its hedge ended.
enum Raced<T> {
    /// The outcome of the first attempt counts.
    First(Result<T, Stop>),
    /// The outcome of the hedge counts.
    Hedge(Result<T, Stop>),
    /// Neither has a definite one.
    Neither { first: Result<T, Stop>, hedge: Result<T, Stop> },
}

impl Upstreams {
    /// One attempt on the picked endpoint. When its answer is overdue, another one runs on an idle endpoint; the first
    /// definite outcome counts, and the other call is dropped. When neither has one, that of the picked endpoint counts.
    pub(super) async fn attempt_hedged<T, R, F>(
        &self,
        picked: &Picked,
        outgoing: &Outgoing,
        read: &R,
        tried: &mut Tried,
    ) -> Result<Served<T>, Stop>
    where
        R: Fn(Reply) -> F,
        F: Future<Output = Result<T, Stop>>,
    {
        let count = |hedged| self.inner.metrics.hedge(outgoing.route.capability, hedged);
        let alarm = Alarm::new(!tried.is_hedged());
        let span = self.span(picked, outgoing, tried.failures.len(), false);
        let mut first = pin!(self.attempt(picked, outgoing, read, &alarm, span));
        let mut denied = false;
        let other = loop {
            if let Some(outcome) = until_overdue(first.as_mut(), &alarm).await {
                if denied {
                    count(Hedged::Denied);
                }
                return outcome.map(|value| picked.served(value));
            }
            match self.pick_idle(picked, outgoing, tried) {
                Some(other) => break other,
                None => denied = true,
            }
        };
        tried.hedge();
        tracing::info!(
            engine = %picked.endpoint.name, second = %other.endpoint.name, request_id = ?outgoing.asker.request_id,
            "answer overdue, sending the job to a second engine"
        );
        let unarmed = Alarm::new(false);
        let span = self.span(&other, outgoing, tried.failures.len(), true);
        let second = Box::pin(self.attempt(&other, outgoing, read, &unarmed, span));
        match race(first.as_mut(), second).await {
            Raced::Hedge(outcome) => {
                count(Hedged::Won);
                outcome.map(|value| Served { hedged: true, ..other.served(value) })
            }
            Raced::First(outcome) => {
                count(Hedged::Lost);
                outcome.map(|value| picked.served(value))
            }
            Raced::Neither { first, hedge } => {
                count(Hedged::Lost);
                if let Err(Stop::Failed(failure)) = hedge {
                    tried.fail_hedge(&other, failure);
                }
                first.map(|value| picked.served(value))
            }
        }
    }

    /// An idle endpoint for the hedge of a job that the picked one has, if the body is kept and the budget allows it.
    fn pick_idle(&self, picked: &Picked, outgoing: &Outgoing, tried: &Tried) -> Option<Picked> {
        if !outgoing.is_replayable() {
            return None;
        }
        let work = (&outgoing.work, outgoing.audio_seconds);
        let (mut picks, candidates) =
            self.routable(&outgoing.route, Some(work), tried, |endpoint, candidate| {
                hedge::has_room(candidate, outgoing.is_live())
                    && endpoint.budget.is_none()
                    && !Arc::ptr_eq(endpoint, &picked.endpoint)
                    && outgoing.avoid.as_ref() != Some(&endpoint.name)
            });
        let at = balance::pick(&candidates, self.inner.rng.roll())?;
        (at < picks.len() && self.inner.hedges.withdraw()).then(|| picks.swap_remove(at))
    }
}

/// Polls the attempt to its end, or until the alarm rings: then `None`.
async fn until_overdue<F: Future>(mut attempt: Pin<&mut F>, alarm: &Alarm) -> Option<F::Output> {
    poll_fn(|context| match attempt.as_mut().poll(context) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending if alarm.rang() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Runs both until one has a definite outcome, or both have ended.
async fn race<T, F, H>(first: Pin<&mut F>, hedge: Pin<Box<H>>) -> Raced<T>
where
    F: Future<Output = Result<T, Stop>>,
    H: Future<Output = Result<T, Stop>>,
{
    let (first, hedge) = match select(first, hedge).await {
        Either::Left((outcome, _)) if hedge::is_definite(&outcome) => return Raced::First(outcome),
        Either::Right((outcome, _)) if hedge::is_definite(&outcome) => return Raced::Hedge(outcome),
        Either::Left((outcome, hedge)) => (outcome, hedge.await),
        Either::Right((outcome, first)) => (first.await, outcome),
    };
    if hedge::is_definite(&first) {
        Raced::First(first)
    } else if hedge::is_definite(&hedge) {
        Raced::Hedge(hedge)
    } else {
        Raced::Neither { first, hedge }
    }
}
