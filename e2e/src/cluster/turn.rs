//! One test's turn at the cluster: how many are at work at a time, and when the next one may begin.

use std::sync::Arc;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Tests at work at a time: the cluster has the cores of a small machine, and each stack wants one.
const WORKING: u32 = 2;
/// Tests beside them that mostly wait.
const WAITING: u32 = 1;

/// How a test gets on with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Others run beside it.
    Working,
    /// It takes minutes in which it does next to nothing.
    Waiting,
    /// It runs by itself.
    Alone,
}

/// The turns of all tests of a suite; each kind gets them in the order in which it asks.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Turns {
    pub(super) fn new() -> Self {
        let permits = |count: u32| Arc::new(Semaphore::new(count as usize));
        Self { working: permits(WORKING), waiting: permits(WAITING) }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// Never, as long as no semaphore is closed.
    pub(super) async fn take(&self, kind: Kind) -> Result<Turn> {
        let permits = |from: &Arc<Semaphore>, count| Arc::clone(from).acquire_many_owned(count);
        let held = async {
            Ok::<_, tokio::sync::AcquireError>(match kind {
                Kind::Working => vec![permits(&self.working, 1).await?],
                Kind::Waiting => vec![permits(&self.waiting, 1).await?],
                Kind::Alone => {
                    vec![permits(&self.working, WORKING).await?, permits(&self.waiting, WAITING).await?]
                }
            })
        };
        Ok(Turn(Arc::new(Mutex::new(held.await.context("there are no turns")?))))
    }
}

/// A test's turn, which ends by [`Turn::end`] or with its last copy.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Arc<Mutex<Vec<OwnedSemaphorePermit>>>);

impl Turn {
    /// Lets another test begin while this one still waits, for what it made to go.
    pub(super) fn end(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// A turn, if there is one at once.
    fn now(turns: &Turns, kind: Kind) -> Option<Turn> {
        turns.take(kind).now_or_never().map(Result::unwrap)
    }

    #[test]
    fn a_test_that_waits_takes_no_place_of_those_at_work() {
        let turns = Turns::new();
        let held = [Kind::Waiting, Kind::Working, Kind::Working].map(|kind| now(&turns, kind).unwrap());
        assert!(now(&turns, Kind::Working).is_none() && now(&turns, Kind::Waiting).is_none());
        drop(held);
        assert!(now(&turns, Kind::Working).is_some());
    }

    #[test]
    fn a_turn_that_ended_is_another_tests_while_its_own_goes_on() {
        let turns = Turns::new();
        let [first, _second] = [(), ()].map(|()| now(&turns, Kind::Working).unwrap());
        let copy = first.clone();
        copy.end();
        assert!(now(&turns, Kind::Working).is_some());
    }

    #[test]
    fn a_test_that_is_alone_waits_for_all_and_all_for_it() {
        let turns = Turns::new();
        for kind in [Kind::Working, Kind::Waiting] {
            let one = now(&turns, kind).unwrap();
            assert!(now(&turns, Kind::Alone).is_none(), "beside {kind:?}");
            drop(one);
        }
        let alone = now(&turns, Kind::Alone).unwrap();
        for kind in [Kind::Working, Kind::Waiting, Kind::Alone] {
            assert!(now(&turns, kind).is_none(), "{kind:?} beside one that is alone");
        }
        alone.end();
        assert!(now(&turns, Kind::Working).is_some());
    }
}
