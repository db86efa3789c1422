//! What the driver keeps of one stack between two looks.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use speechstack_crds::{Outcome, RepairStatus};
use tokio::time::Instant;

use super::history;
use super::plan::{Act, Deferral, Held, Key, News, key};
use super::view::StackView;
use contract::{Class, State};

/// An act that shows no effect is repeated after this time.
const REPEAT: Duration = Duration::from_secs(5);
/// The order is repeated so long before a guard's deferral ends.
const AHEAD: Duration = Duration::from_secs(5);

/// One stack.
#[derive(Default)]
pub(super) struct Tracked {
    /// UID of the stack it is about.
    pub(super) uid: Option<String>,
    /// The record, as written last or read.
    pub(super) status: RepairStatus,
    /// What is being written.
    pub(super) planned: Option<RepairStatus>,
    /// Whether the newest record was read since this operator leads.
    pub(super) loaded: bool,
    /// Whether a task reads or writes the record.
    pub(super) busy: bool,
    /// No writes before; after one failed.
    pub(super) rest_until: Option<Instant>,
    /// What acts said of themselves and is to be recorded.
    pub(super) known: Vec<(Key, Outcome)>,
    sent: HashMap<Key, Sent>,
    answered: HashMap<String, Answered>,
    told: HashMap<String, Told>,
}

/// An act on its way.
struct Sent {
    at: Instant,
    times: u32,
    /// Ordered by this operator, not found.
    own: bool,
}

struct Answered {
    instance: String,
    attempt: u32,
    asked_unix_ms: u64,
    held: Held,
    until: Instant,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Told {
    wedged: bool,
    stuck: bool,
}

/// A transition of a pod that becomes an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It cannot serve; its fault's class.
    Wedged(String, String),
    /// Its process does not end.
    Stuck(String),
}

impl Tracked {
    /// The empty history of the stack of that UID.
    pub(super) fn new(uid: Option<String>) -> Self {
        Self { uid, ..Self::default() }
    }

    /// Whether nothing is going on that a look could further.
    pub(super) fn is_calm(&self) -> bool {
        !self.busy
            && self.rest_until.is_none()
            && self.known.is_empty()
            && self.told.is_empty()
            && self.status.stopped.is_empty()
            && self.status.correlated.is_empty()
            && self.status.records.iter().all(|record| record.outcome != Outcome::Pending)
    }

    /// Forgets acts that no pending record stands behind.
    pub(super) fn tidy(&mut self) {
        let pending: HashSet<Key> = self
            .status
            .records
            .iter()
            .chain(self.planned.iter().flat_map(|planned| &planned.records))
            .filter(|record| record.outcome == Outcome::Pending)
            .map(key)
            .collect();
        self.sent.retain(|key, _| pending.contains(key));
    }

    /// Takes those of the acts that are not on their way.
    pub(super) fn take(&mut self, acts: Vec<Act>, news: &[News], now: Instant) -> Vec<Act> {
        let own: HashSet<Key> = news
            .iter()
            .filter_map(|news| match news {
                News::Ordered(record) => Some(key(record)),
                _ => None,
            })
            .collect();
        acts.into_iter()
            .filter(|act| {
                let Some(key) = act.key() else { return true };
                match self.sent.get_mut(key) {
                    Some(sent) if now.duration_since(sent.at) < REPEAT => false,
                    Some(sent) => {
                        sent.at = now;
                        sent.times += 1;
                        true
                    }
                    None => {
                        let sent = Sent { at: now, times: 1, own: own.contains(key) };
                        self.sent.insert(key.clone(), sent);
                        true
                    }
                }
            })
            .collect()
    }

    /// Notes that acts were not done because their record was not written.
    pub(super) fn untake(&mut self, acts: &[Act]) {
        for key in acts.iter().filter_map(Act::key) {
            self.sent.remove(key);
        }
    }

    /// Whether a refusal proves that the act was never done: it was our own and went out once.
    pub(super) fn is_first(&self, key: &Key) -> bool {
        self.sent.get(key).is_some_and(|sent| sent.own && sent.times == 1)
    }

    /// Takes those of the deferrals that the guards do not know yet; with each, whether people should be told.
    pub(super) fn answer(&mut self, deferrals: Vec<Deferral>, now: Instant) -> Vec<(Deferral, bool)> {
        let waiting: HashSet<String> = deferrals.iter().map(|deferral| deferral.pod_uid.clone()).collect();
        self.answered.retain(|uid, _| waiting.contains(uid));
        let mut fresh = Vec::new();
        for deferral in deferrals {
            let known = self.answered.get(&deferral.pod_uid);
            let same = known.is_some_and(|known| {
                known.instance == deferral.instance
                    && known.attempt == deferral.attempt
                    && known.asked_unix_ms == deferral.asked_unix_ms
                    && known.held == deferral.held
            });
            if same && known.is_some_and(|known| now + AHEAD < known.until) {
                continue;
            }
            let answered = Answered {
                instance: deferral.instance.clone(),
                attempt: deferral.attempt,
                asked_unix_ms: deferral.asked_unix_ms,
                held: deferral.held,
                until: now + Duration::from_secs(deferral.seconds),
            };
            self.answered.insert(deferral.pod_uid.clone(), answered);
            fresh.push((deferral, !same));
        }
        fresh
    }

    /// Notes that a guard was not told; it is at the next look.
    pub(super) fn unanswer(&mut self, pod_uid: &str) {
        if let Some(answered) = self.answered.get_mut(pod_uid) {
            answered.until = Instant::now();
        }
    }

    /// What turned for the worse since the last look.
    pub(super) fn turns(&mut self, stack: &StackView, time: Timestamp) -> Vec<Turn> {
        let mut now = HashMap::new();
        let mut turns = Vec::new();
        for pod in stack.engines.iter().flat_map(|engine| &engine.pods) {
            let Some(seen) = &pod.guard else { continue };
            let before = self.told.get(&pod.uid).copied().unwrap_or_default();
            let mut repairs = self.status.records.iter().filter(|record| record.pod_uid == pod.uid);
            let told = Told {
                wedged: seen.report.is_wedged(),
                stuck: seen.report.state == State::KillStuck
                    || repairs.any(|record| history::outlives(pod, record, time)),
            };
            if told.wedged && !before.wedged {
                let class = seen.report.class.map_or("unknown", Class::as_str).to_owned();
                turns.push(Turn::Wedged(pod.name.clone(), class));
            }
            if told.stuck && !before.stuck {
                turns.push(Turn::Stuck(pod.name.clone()));
            }
            if told != Told::default() {
                now.insert(pod.uid.clone(), told);
            }
        }
        self.told = now;
        turns
    }
}
