//! The guards of all engine pods: one state stream each, and the orders sent to them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use parking_lot::RwLock;
use speechstack_crds::SpeechStack;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::pods::{EnginePod, Pods};

mod events;
pub mod order;
pub mod report;
mod stream;
mod wire;

pub use order::Refusal;
pub use report::Report;

/// How often the set of pods is compared with the set of streams.
const LOOK: Duration = Duration::from_millis(500);

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

/// What all guards say, by pod UID. Cheap to clone.
#[derive(Clone)]
pub struct Guards {
    seen: Arc<RwLock<HashMap<Arc<str>, Seen>>>,
    changes: broadcast::Sender<ObjectRef<SpeechStack>>,
    token_file: Arc<OnceLock<PathBuf>>,
}

impl Guards {
    /// No guard known yet.
    #[must_use]
    pub fn new() -> Self {
        Self { seen: Arc::default(), changes: broadcast::channel(1024).0, token_file: Arc::default() }
    }

    /// The last word of the guard in that pod.
    #[must_use]
    pub fn seen(&self, pod_uid: &str) -> Option<Seen> {
        self.seen.read().get(pod_uid).cloned()
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

    /// Guards whose stream is open, and guards whose stream is not.
    #[must_use]
    pub fn streams(&self) -> (usize, usize) {
        let seen = self.seen.read();
        let open = seen.values().filter(|seen| seen.connected).count();
        (open, seen.len() - open)
    }

    /// Notes what a guard said, and tells those who wait for changes when it matters.
    pub fn heard(&self, stack: &ObjectRef<SpeechStack>, pod_uid: &Arc<str>, report: Report, now: Timestamp) {
        let changed = {
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
                    all.insert(Arc::clone(pod_uid), seen);
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
        if self.seen.write().remove(pod_uid).is_some() {
            self.publish(stack);
        }
    }

    fn publish(&self, stack: &ObjectRef<SpeechStack>) {
        // No listener is no error.
        let _ = self.changes.send(stack.clone());
    }
}

impl Default for Guards {
    fn default() -> Self {
        Self::new()
    }
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

/// A guard that is followed.
struct Followed {
    stack: Arc<ObjectRef<SpeechStack>>,
    address: IpAddr,
    task: AbortHandle,
    /// The version of the pods in which it was there.
    version: u64,
}

/// Keeps one stream open to the guard of every engine pod that has an address, until cancelled.
pub async fn follow(guards: Guards, pods: Pods, token_file: PathBuf, cancel: CancellationToken) {
    let token_file = guards.token_file.get_or_init(|| token_file).clone();
    let token_file: Arc<std::path::Path> = token_file.into();
    let mut followed: HashMap<Arc<str>, Followed> = HashMap::new();
    let mut compared = None;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            _ = look.tick() => {}
        }
        let version = Some(pods.version());
        if compared != version {
            compare(&guards, &pods, &token_file, &mut followed);
            compared = version;
        }
    }
    for (uid, guard) in followed {
        guard.task.abort();
        guards.forget(&guard.stack, &uid);
    }
}

/// Starts and stops streams so that they match the pods.
fn compare(
    guards: &Guards,
    pods: &Pods,
    token_file: &Arc<std::path::Path>,
    followed: &mut HashMap<Arc<str>, Followed>,
) {
    let version = pods.version();
    pods.for_each(|stack, pod| {
        let Some(address) = guarded_at(pod) else { return };
        if let Some(known) = followed.get_mut(&pod.uid).filter(|known| known.address == address) {
            known.version = version;
            return;
        }
        let (stack, uid) = (Arc::clone(stack), Arc::clone(&pod.uid));
        let target = stream::Target { stack: Arc::clone(&stack), uid: Arc::clone(&uid), address };
        let (guards, token_file) = (guards.clone(), Arc::clone(token_file));
        // A block holds what it captures once, a function's future its arguments twice.
        let task = tokio::spawn(async move { stream::follow(&guards, &target, &token_file).await });
        let task = task.abort_handle();
        if let Some(old) = followed.insert(uid, Followed { stack, address, task, version }) {
            old.task.abort();
        }
    });
    followed.retain(|uid, guard| {
        let stays = guard.version == version;
        if !stays {
            guard.task.abort();
            guards.forget(&guard.stack, uid);
        }
        stays
    });
}

/// Where the guard of a pod that runs is reached.
fn guarded_at(pod: &EnginePod) -> Option<IpAddr> {
    pod.address.filter(|_| pod.deleted.is_none() && !pod.ended)
}

#[cfg(test)]
pub(crate) mod tests;
