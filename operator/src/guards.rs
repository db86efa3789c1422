//! The guards of all engine pods: one state stream each, and the orders sent to them.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use parking_lot::RwLock;
use speechstack_crds::SpeechStack;
use tokio::sync::broadcast;

mod events;
mod follow;
pub mod order;
pub mod report;
mod set;
mod stream;
pub mod tokens;
mod wire;

pub use follow::follow;
pub use order::Refusal;
pub use report::Report;
pub use tokens::Tokens;

/// A guard that was not reached for so long, seconds, is reported: a pod that starts or a network that falters is not.
const UNREACHED: i64 = 60;

/// The last word of a guard.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// What it said.
    pub report: Report,
    /// Since when the engine is in this state.
    pub since: Timestamp,
    /// Since when it is doubted or worse; over all states until it is verified again.
    pub ailing: Option<Timestamp>,
    /// Whether its stream is open now.
    pub connected: bool,
}

/// A guard that cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// Since when.
    pub since: Timestamp,
    /// Why, at the last try.
    pub why: String,
    told: bool,
}

/// What all guards say, by pod UID. Cheap to clone.
#[derive(Clone)]
pub struct Guards {
    /// Boxed, as a map is up to twice as large as what is in it.
    seen: Arc<RwLock<HashMap<Arc<str>, Box<Seen>>>>,
    unreached: Arc<RwLock<HashMap<Arc<str>, Unreached>>>,
    changes: broadcast::Sender<ObjectRef<SpeechStack>>,
    tokens: Tokens,
}

impl Guards {
    /// No guard known yet; those that are met get these tokens.
    #[must_use]
    pub fn new(tokens: Tokens) -> Self {
        Self { seen: Arc::default(), unreached: Arc::default(), changes: broadcast::channel(1024).0, tokens }
    }

    /// The last word of the guard in that pod.
    #[must_use]
    pub fn seen(&self, pod_uid: &str) -> Option<Seen> {
        self.seen.read().get(pod_uid).map(|seen| (**seen).clone())
    }

    /// Stacks of which a guard said something new that matters for status or repair.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<ObjectRef<SpeechStack>> {
        self.changes.subscribe()
    }

    /// Whether the guard in that pod asks for nothing and sees nothing amiss, or is not known.
    #[must_use]
    pub fn is_calm(&self, pod_uid: &str) -> bool {
        let seen = self.seen.read();
        seen.get(pod_uid).is_none_or(|seen| seen.ailing.is_none() && seen.report.repair.is_none())
    }

    /// Guards whose stream is open, and guards whose stream is not, whether it ever was or not.
    #[must_use]
    pub fn streams(&self) -> (usize, usize) {
        let (seen, unreached) = (self.seen.read(), self.unreached.read());
        let open = seen.values().filter(|seen| seen.connected).count();
        let never = unreached.keys().filter(|uid| !seen.contains_key(*uid)).count();
        (open, seen.len() - open + never)
    }

    /// Why the guard in that pod has not been reached for long.
    #[must_use]
    pub fn unreached(&self, pod_uid: &str, now: Timestamp) -> Option<Unreached> {
        let unreached = self.unreached.read().get(pod_uid).cloned();
        unreached.filter(|unreached| is_long(unreached, now))
    }

    /// Notes that a stream could not be opened, or broke.
    fn failed(&self, target: &stream::Target, error: &stream::Error) {
        self.missed(&target.stack, &target.uid, error.words(), Timestamp::now());
        let error: &dyn std::error::Error = error;
        tracing::debug!(pod_uid = %target.uid, error, "unable to follow the guard");
    }

    /// Notes that a guard could not be reached, and tells those who wait for changes once that lasts.
    fn missed(&self, stack: &ObjectRef<SpeechStack>, pod_uid: &Arc<str>, why: String, now: Timestamp) {
        let turned = {
            let mut all = self.unreached.write();
            let fresh = || Unreached { since: now, why: String::new(), told: false };
            let unreached = all.entry(Arc::clone(pod_uid)).or_insert_with(fresh);
            unreached.why = why;
            is_long(unreached, now) && !std::mem::replace(&mut unreached.told, true)
        };
        if turned {
            self.publish(stack);
        }
    }

    /// Notes what a guard said, and tells those who wait for changes when it matters.
    pub fn heard(&self, stack: &ObjectRef<SpeechStack>, pod_uid: &Arc<str>, report: Report, now: Timestamp) {
        let was_missed = self.unreached.write().remove(pod_uid).is_some_and(|unreached| unreached.told);
        let changed = was_missed | {
            let mut all = self.seen.write();
            match all.get_mut(pod_uid) {
                Some(seen) if seen.connected && seen.report == report => false,
                Some(seen) => {
                    if seen.report.state != report.state {
                        seen.since = now;
                    }
                    seen.ailing = ailing(seen.ailing, &report, now);
                    seen.report = report;
                    seen.connected = true;
                    true
                }
                None => {
                    let ailing = ailing(None, &report, now);
                    let seen = Seen { report, since: now, ailing, connected: true };
                    all.insert(Arc::clone(pod_uid), Box::new(seen));
                    true
                }
            }
        };
        if changed {
            self.publish(stack);
        }
    }

    /// Notes that the stream of a guard is closed.
    fn lost(&self, stack: &ObjectRef<SpeechStack>, pod_uid: &str) {
        let was_open = self
            .seen
            .write()
            .get_mut(pod_uid)
            .is_some_and(|seen| std::mem::replace(&mut seen.connected, false));
        if was_open {
            self.publish(stack);
        }
    }

    fn forget(&self, stack: &ObjectRef<SpeechStack>, pod_uid: &str) {
        let missed = self.unreached.write().remove(pod_uid).is_some();
        if self.seen.write().remove(pod_uid).is_some() | missed {
            self.publish(stack);
        }
    }

    /// Has the stack looked at anew.
    pub fn publish(&self, stack: &ObjectRef<SpeechStack>) {
        // No listener is no error.
        let _ = self.changes.send(stack.clone());
    }
}

fn is_long(unreached: &Unreached, now: Timestamp) -> bool {
    now.as_second() - unreached.since.as_second() >= UNREACHED
}

fn ailing(before: Option<Timestamp>, report: &Report, now: Timestamp) -> Option<Timestamp> {
    if report.is_doubted() {
        before.or(Some(now))
    } else if report.is_verified() {
        None
    } else {
        before
    }
}

#[cfg(test)]
pub(crate) mod tests;
