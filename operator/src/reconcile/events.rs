//! Events of a stack: one for each transition of a condition, none for each pass.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{self, Event, EventType, Reporter};
use kube::{Client, Resource};
use parking_lot::Mutex;
use speechstack_crds::condition::{condition_type, reason};
use speechstack_crds::{SpeechStack, SpeechStackStatus};

use super::CALL_TIMEOUT;

/// Events that a recorder of kube remembers, so that an Event that comes again within minutes is counted in the one that is
/// there: it keeps each as a whole object, of all stacks.
const REMEMBERED: usize = 64;

/// Writes Events. Cloning shares it.
#[derive(Clone)]
pub struct Recorder {
    client: Client,
    reporter: Reporter,
    /// A recorder, and how many Events it got.
    current: Arc<Mutex<(events::Recorder, usize)>>,
}

impl Recorder {
    /// In the name of that reporter.
    #[must_use]
    pub fn new(client: Client, reporter: Reporter) -> Self {
        let current = Mutex::new((events::Recorder::new(client.clone(), reporter.clone()), 0));
        Self { client, reporter, current: Arc::new(current) }
    }

    /// The recorder for the next Event.
    fn next(&self) -> events::Recorder {
        let mut current = self.current.lock();
        let (recorder, count) = &mut *current;
        if *count == REMEMBERED {
            *recorder = events::Recorder::new(self.client.clone(), self.reporter.clone());
            *count = 0;
        }
        *count += 1;
        recorder.clone()
    }
}

/// What to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether a person should look.
    pub warning: bool,
    /// CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Conditions whose changes become Events, and whether True is the good status.
const TOLD: [(&str, bool); 6] = [
    (condition_type::READY, true),
    (condition_type::PREFLIGHT_PASSED, true),
    (condition_type::DEGRADED, false),
    (condition_type::REPAIR_SUSPENDED, false),
    (condition_type::CORRELATED_FAILURE, false),
    (condition_type::UPDATE_PENDING, false),
];

/// What changed from one status to the next.
#[must_use]
pub fn between(old: Option<&SpeechStackStatus>, new: &SpeechStackStatus) -> Vec<Note> {
    let nothing = SpeechStackStatus::default();
    let old = old.unwrap_or(&nothing);
    let mut notes = Vec::new();
    for (kind, good) in TOLD {
        let good = if good { "True" } else { "False" };
        let Some(now) = find(&new.conditions, kind) else { continue };
        let before = find(&old.conditions, kind);
        let was_good = before.is_none_or(|before| before.status == good);
        let is_good = now.status == good;
        let turned = match before {
            // A new stack is not ready at first, which is no news.
            None => !is_good && kind == condition_type::PREFLIGHT_PASSED,
            Some(before) => {
                was_good != is_good
                    || (!is_good && kind == condition_type::PREFLIGHT_PASSED && before.message != now.message)
            }
        };
        if turned {
            let name = if kind == condition_type::READY && is_good {
                "Ready".to_owned()
            } else {
                name(kind, is_good, now)
            };
            // Work that waits is no fault.
            let warning =
                !is_good && kind != condition_type::UPDATE_PENDING && now.reason != reason::SUSPENDED;
            notes.push(Note { warning, reason: name, message: now.message.clone() });
        }
    }
    for engine in &new.engines {
        let before = old.engines.iter().find(|before| before.name == engine.name);
        let Some(failure) = &engine.last_failure else { continue };
        let same = before.and_then(|before| before.last_failure.as_ref()).is_some_and(|before| {
            (&before.reason, &before.pod, before.exit_code)
                == (&failure.reason, &failure.pod, failure.exit_code)
        });
        if !same {
            notes.push(Note {
                warning: true,
                reason: failure.reason.clone(),
                message: format!("engine {}, pod {}: {}", engine.name, failure.pod, failure.message),
            });
        }
    }
    notes
}

fn name(kind: &str, is_good: bool, condition: &Condition) -> String {
    match (kind, is_good) {
        (condition_type::READY, _) => "NotReady".into(),
        (condition_type::PREFLIGHT_PASSED, false) => condition.reason.clone(),
        (condition_type::DEGRADED, true) => "Recovered".into(),
        (condition_type::REPAIR_SUSPENDED, true) => "RepairResumed".into(),
        (condition_type::CORRELATED_FAILURE, true) => "CorrelatedFailureCleared".into(),
        (condition_type::UPDATE_PENDING, true) => "Updated".into(),
        (kind, _) => kind.to_owned(),
    }
}

fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Publishes them. An Event that cannot be written is not worth failing for.
pub async fn publish(recorder: &Recorder, stack: &SpeechStack, notes: Vec<Note>) {
    let reference = stack.object_ref(&());
    for note in notes {
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason,
            note: Some(note.message.chars().take(1000).collect()),
            action: "Reconcile".into(),
            secondary: None,
        };
        match tokio::time::timeout(CALL_TIMEOUT, recorder.next().publish(&event, &reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "unable to publish an event"),
            Err(_) => tracing::debug!("no answer to an event"),
        }
    }
}

/// What is said when a stack is gone, as its claims are not.
#[must_use]
pub fn caches_kept(stack: &SpeechStack, claims: &[String]) -> Option<Note> {
    let name = stack.metadata.name.as_deref().unwrap_or_default();
    (!claims.is_empty()).then(|| Note {
        warning: false,
        reason: "CacheKept".into(),
        message: format!(
            "stack {name} is deleted, its claims (model caches, jobs and recordings) are kept: {}. To remove them: \
             kubectl delete pvc -l speechstack.dev/stack={name}",
            claims.join(", ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::testing::Server;

    #[tokio::test]
    async fn few_events_are_remembered() {
        let reporter = Reporter { controller: "c".into(), instance: None };
        let recorder = Recorder::new(Server::default().client(), reporter);
        (0..REMEMBERED).for_each(|_| drop(recorder.next()));
        assert_eq!(recorder.current.lock().1, REMEMBERED);
        recorder.next();
        assert_eq!(recorder.current.lock().1, 1, "another recorder");
    }
}
