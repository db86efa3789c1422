//! How far the Jobs are that fill caches (IO; reading what a pod says is pure).

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use speechstack_crds::{PrefillPhase, PrefillStatus, SpeechStack};

use super::{Error, Filling, within};
use crate::names::label;
use crate::reconcile::Context;

/// Longest message kept.
const MESSAGE_CHARS: usize = 256;

impl Filling {
    /// A Job that was just made.
    pub const BEGINS: Self = Self::Running { started: None, says: None };

    /// What status shows of it.
    #[must_use]
    pub fn status(&self) -> PrefillStatus {
        let (phase, message, started) = match self {
            Self::Running { started, says } => (PrefillPhase::Running, says.clone(), *started),
            Self::Complete => (PrefillPhase::Complete, None, None),
            Self::Failed(why) => (PrefillPhase::Failed, Some(why.clone()), None),
        };
        let started = started.map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
        PrefillStatus { phase, message, started }
    }
}

/// The Jobs of a stack by name; nothing is asked for stacks that fill no cache.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn of(
    context: &Context,
    stack: &SpeechStack,
    namespace: &str,
) -> Result<HashMap<String, Filling>, Error> {
    let fills = |engine: &speechstack_crds::EngineSpec| {
        engine.cache.as_ref().is_some_and(|cache| cache.prefill.is_some())
    };
    if !stack.spec.engines().any(|(_, engine)| fills(engine)) {
        return Ok(HashMap::new());
    }
    let labels = format!("{}={}", label::STACK, stack.name_any());
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), namespace);
    let found = within("Job", &labels, jobs.list(&ListParams::default().labels(&labels))).await?;
    let mut fillings = HashMap::new();
    for job in found {
        let name = job.name_any();
        let mut filling = of_job(&job);
        if !matches!(filling, Filling::Complete) {
            let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
            let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
            let pods = within("Pod", &name, pods.list(&of_job)).await?;
            let newest = pods.items.iter().max_by_key(|pod| pod.metadata.creation_timestamp.clone());
            filling = with_words(filling, newest.and_then(says));
        }
        fillings.insert(name, filling);
    }
    Ok(fillings)
}

/// What the Job's own conditions say.
fn of_job(job: &Job) -> Filling {
    let status = job.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is = |kind: &str| conditions.iter().find(|one| one.type_ == kind && one.status == "True");
    if is("Complete").is_some() {
        return Filling::Complete;
    }
    if let Some(failed) = is("Failed").or_else(|| is("FailureTarget")) {
        let reason = failed.reason.as_deref().unwrap_or("Failed");
        return Filling::Failed(format!("{reason}: {}", failed.message.as_deref().unwrap_or_default()));
    }
    let started = status.and_then(|status| status.start_time.as_ref()).map(|time| second(time.0));
    Filling::Running { started, says: None }
}

fn second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn with_words(filling: Filling, words: Option<String>) -> Filling {
    match (filling, words) {
        (Filling::Running { started, .. }, says) => Filling::Running { started, says },
        (Filling::Failed(why), Some(words)) => Filling::Failed(shortened(&format!("{why}; {words}"))),
        (filling, _) => filling,
    }
}

/// What its newest pod waits for, or what its containers last ended of.
fn says(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    let unscheduled = conditions.clone().find(|one| one.type_ == "PodScheduled" && one.status == "False");
    if let Some(unscheduled) = unscheduled {
        return Some(shortened(unscheduled.message.as_deref().unwrap_or("no node takes the pod")));
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    containers.into_iter().find_map(of_container).map(|words| shortened(&words))
}

fn of_container(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref();
    let ended = [state, container.last_state.as_ref()].into_iter().flatten();
    let ended = ended.filter_map(|state| state.terminated.as_ref()).find(|ended| ended.exit_code != 0);
    if let Some(ended) = ended {
        let log = ended.message.as_deref().unwrap_or_default();
        let line = log.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let line = contract::redact::redact(line.as_bytes());
        return Some(format!("{} ended with {}: {line}", container.name, ended.exit_code));
    }
    let waiting = state.and_then(|state| state.waiting.as_ref())?;
    let reason = waiting.reason.as_deref().filter(|reason| *reason != "PodInitializing")?;
    Some(
        format!("{}: {reason} {}", container.name, waiting.message.as_deref().unwrap_or_default())
            .trim_end()
            .into(),
    )
}

fn shortened(message: &str) -> String {
    message.chars().take(MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(status: Value) -> Filling {
        of_job(&serde_json::from_value(json!({"metadata": {"name": "fill"}, "status": status})).unwrap())
    }

    fn pod(status: Value) -> Option<String> {
        says(&serde_json::from_value(json!({"metadata": {"name": "fill-0"}, "status": status})).unwrap())
    }

    #[test]
    fn a_job_ends_by_its_conditions_alone() {
        let condition = |kind: &str| json!({"conditions": [{"type": kind, "status": "True", "reason": "DeadlineExceeded", "message": "too long"}]});
        assert_eq!(job(condition("Complete")), Filling::Complete);
        assert_eq!(job(condition("Failed")), Filling::Failed("DeadlineExceeded: too long".into()));
        assert_eq!(job(json!({"failed": 2})), Filling::BEGINS);
        let started = job(json!({"startTime": "2026-11-02T03:00:00Z"})).status();
        assert_eq!((started.phase, started.started.is_some()), (PrefillPhase::Running, true));
    }

    #[test]
    fn a_pod_says_what_it_waits_for_or_died_of() {
        let scheduled = json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes have a GPU"}]});
        assert_eq!(pod(scheduled).as_deref(), Some("0/2 nodes have a GPU"));
        let container = |state: Value| {
            json!({"initContainerStatuses": [{"name": "engine", "image": "", "imageID": "", "ready": false, "restartCount": 1,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": state}]})
        };
        let died =
            pod(container(json!({"terminated": {"exitCode": 1, "message": "loading\n403 Forbidden\n"}})));
        assert_eq!(died.as_deref(), Some("engine ended with 1: 403 Forbidden"));
        assert_eq!(pod(container(json!({}))).as_deref(), Some("engine: CrashLoopBackOff"));
        assert_eq!(pod(json!({"phase": "Running"})), None);
        let failed = with_words(Filling::Failed("BackoffLimitExceeded: ".into()), died);
        assert_eq!(
            failed,
            Filling::Failed("BackoffLimitExceeded: ; engine ended with 1: 403 Forbidden".into())
        );
    }
}
