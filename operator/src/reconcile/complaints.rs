//! What only Events tell (IO): volumes that cannot be attached or mounted, and pods that cannot be made.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use parking_lot::Mutex;

use super::{CALL_TIMEOUT, Context};
use crate::pods::EnginePod;

/// A pod that has a node and whose containers wait for so long has its Events read.
const WAITS: i64 = 45;
/// Pods of a stack whose Events are read in one pass.
const MOST: usize = 4;
/// How long the Events of a pod are used before they are read again.
const TTL: Duration = Duration::from_secs(25);
/// Reasons of Events that keep a pod from starting.
const REASONS: [&str; 3] = ["FailedMount", "FailedAttachVolume", "FailedMapVolume"];

/// What was read, by pod UID.
#[derive(Default)]
pub struct Heard(Mutex<HashMap<String, (Instant, Option<String>)>>);

/// The complaints about pods that wait, by their names. Events that cannot be read are left out.
pub async fn of(
    context: &Context,
    namespace: &str,
    pods: &[Arc<EnginePod>],
    now: Timestamp,
) -> HashMap<String, String> {
    let mut complaints = HashMap::new();
    for pod in pods.iter().filter(|pod| waits(pod, now)).take(MOST) {
        let known = context.heard.get(&pod.uid);
        let complaint = match known {
            Some(known) => known,
            None => {
                let read = read(context, namespace, pod).await;
                context.heard.keep(&pod.uid, read.clone());
                read
            }
        };
        complaints.extend(complaint.map(|complaint| (pod.name.to_string(), complaint)));
    }
    complaints
}

/// Whether a pod that has a node still waits for its volumes.
#[must_use]
pub fn waits(pod: &EnginePod, now: Timestamp) -> bool {
    let creating = |reason: Option<&str>| matches!(reason, Some("ContainerCreating" | "PodInitializing"));
    let waiting = pod.trouble.iter().flat_map(|trouble| &trouble.containers).any(|container| {
        container.state.waiting.as_ref().is_some_and(|waiting| creating(waiting.reason.as_deref()))
    });
    let since = pod.scheduled.is_some_and(|at| now.as_second() - at.as_second() >= WAITS);
    waiting && since && pod.deleted.is_none() && pod.running_since.is_none()
}

async fn read(context: &Context, namespace: &str, pod: &EnginePod) -> Option<String> {
    let events: Api<Event> = Api::namespaced(context.client.clone(), namespace);
    let of_pod =
        ListParams::default().fields(&format!("involvedObject.uid={},type=Warning", pod.uid)).limit(50);
    let call = tokio::time::timeout(CALL_TIMEOUT, events.list(&of_pod)).await;
    let found = match call {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::debug!(pod = %pod.name, %error, "unable to read Events");
            return None;
        }
        Err(_) => return None,
    };
    let tells = |event: &&Event| event.reason.as_deref().is_some_and(|reason| REASONS.contains(&reason));
    let newest = found.items.iter().filter(tells).max_by_key(|event| {
        event
            .last_timestamp
            .as_ref()
            .map(|time| time.0)
            .or_else(|| event.event_time.as_ref().map(|time| time.0))
    })?;
    Some(format!("{}: {}", newest.reason.as_deref()?, newest.message.as_deref()?))
}

impl Heard {
    fn get(&self, uid: &str) -> Option<Option<String>> {
        self.0.lock().get(uid).filter(|(at, _)| at.elapsed() < TTL).map(|(_, complaint)| complaint.clone())
    }

    fn keep(&self, uid: &str, complaint: Option<String>) {
        let mut known = self.0.lock();
        known.retain(|_, (at, _)| at.elapsed() < TTL);
        known.insert(uid.to_owned(), (Instant::now(), complaint));
    }
}
