//! What the kubelet says of a pod that does not run, in the API's reasons (pure).

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use speechstack_crds::Failure;
use speechstack_crds::condition::reason;

use super::last_words;
use crate::names::container as name;
use crate::pods::{Container, EnginePod, Terminated, Unscheduled};
use crate::workloads::LiveWorkload;

/// A pod still there this long after its grace period does not end by itself.
const STUCK_SECONDS: i64 = 60;
/// Longest message kept.
const MESSAGE_CHARS: usize = 256;

/// A failure of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// One of the API's reasons.
    pub reason: &'static str,
    /// What status says.
    pub failure: Failure,
    /// Whether it keeps the pod from running now; otherwise the pod went on after it.
    pub current: bool,
}

/// Reasons of pods that their node refused when they came to it. Others begin with `OutOf`, as in `OutOfnvidia.com/gpu`.
const REFUSED_BY_NODE: [&str; 4] = ["UnexpectedAdmissionError", "NodeAffinity", "NodeShutdown", "Terminated"];

fn fault(
    pod: &EnginePod,
    reason: &'static str,
    message: &str,
    time: Option<Timestamp>,
    exit_code: Option<i32>,
    current: bool,
) -> Fault {
    let failure = Failure {
        reason: reason.into(),
        message: shortened(message),
        exit_code,
        pod: pod.name.to_string(),
        node: pod.node.as_deref().map(str::to_owned),
        time: time.map(Time),
    };
    Fault { reason, failure, current }
}

/// What a pod that ended for good died of. Its controller has replaced it, so that nothing waits for it.
#[must_use]
pub fn of_ended(pod: &EnginePod, now: Timestamp) -> Option<Fault> {
    let trouble = pod.trouble.as_deref();
    let text = trouble.and_then(|trouble| trouble.message.as_deref()).unwrap_or_default();
    let (reason, message) = match trouble.and_then(|trouble| trouble.reason.as_deref()) {
        Some("Evicted") => (reason::EVICTED, text.to_owned()),
        Some("NodeLost") => (reason::NODE_NOT_READY, text.to_owned()),
        Some(why) if REFUSED_BY_NODE.contains(&why) || why.starts_with("OutOf") => {
            let message = format!(
                "the node refused the pod ({why}): {text}; look at its device plugin, or cordon the node while it is healed"
            );
            (reason::NODE_REFUSED, message)
        }
        _ => return None,
    };
    Some(fault(pod, reason, &message, Some(now), None, false))
}

/// The Job that fills the cache gave up, and the engine's pods wait for it.
#[must_use]
pub fn of_prefill(engine: &str, why: &str) -> Fault {
    let todo = "the cache could not be filled; correct what it says and change cache.prefill or the image, or delete the Job to try \
                again";
    of_engine(engine, reason::PREFILL_FAILED, &format!("{why} ({todo})"))
}

/// A fault of all pods of an engine.
fn of_engine(engine: &str, reason: &'static str, message: &str) -> Fault {
    Fault {
        reason,
        failure: Failure {
            reason: reason.into(),
            message: shortened(message),
            exit_code: None,
            pod: format!("(of {engine})"),
            node: None,
            time: None,
        },
        current: true,
    }
}

/// Why an engine has no pods, or not enough of them: what its workload's controller says.
#[must_use]
pub fn of_workload(
    engine: &str,
    live: Option<&LiveWorkload>,
    ended: Option<&Fault>,
    pods: usize,
    desired: i32,
) -> Option<Fault> {
    let live = live?;
    let of = |reason: &'static str, message: String| of_engine(engine, reason, &message);
    let missing = usize::try_from(desired).is_ok_and(|desired| pods < desired);
    if let (true, Some(refused)) = (missing, &live.refusal) {
        let (reason, message) = refusal(refused);
        return Some(of(reason, message));
    }
    // Pods that the node refuses are made again and again: none of them is there for long.
    if let (true, Some(ended)) = (pods == 0 && missing, ended) {
        return Some(Fault { current: true, ..ended.clone() });
    }
    let late = "pods are not available within startup.timeout and ten minutes; \
                the pods' own states say what they wait for";
    live.overdue.then(|| of(reason::PROGRESS_DEADLINE, late.to_owned()))
}

/// The API server's refusal to make a pod, in a reason and in words that say what to do.
#[must_use]
pub fn refusal(message: &str) -> (&'static str, String) {
    let lower = message.to_lowercase();
    let (reason, todo) = if lower.contains("exceeded quota") || lower.contains("failed quota") {
        (reason::QUOTA_EXCEEDED, "raise the namespace's ResourceQuota or lower replicas and resources")
    } else if lower.contains("violates podsecurity") {
        (
            reason::POD_SECURITY,
            "the namespace enforces a Pod Security Standard: change the securityContext, the cache or the namespace",
        )
    } else if ["maximum ", "minimum ", "max limit to request ratio"].iter().any(|word| lower.contains(word)) {
        (reason::LIMIT_RANGE, "set resources within the namespace's LimitRange")
    } else {
        (reason::PODS_REFUSED, "the API server refuses the pods")
    };
    (reason, format!("{todo}: {message}"))
}

/// A volume's complaint, in a reason and in words that say what to do.
fn of_volume(complaint: &str) -> (&'static str, String) {
    if complaint.contains("Multi-Attach") || complaint.contains("already exclusively attached") {
        let todo = "the cache's volume is attached to another node: use accessMode ReadWriteMany or a claim for each replica, or \
                    wait until the pod there has ended";
        (reason::VOLUME_IN_USE, format!("{todo}: {complaint}"))
    } else {
        (reason::MOUNT_FAILED, complaint.to_owned())
    }
}

/// The failure of a pod, if it has one. `complaint` is what Events say of its volumes, `words` what its engine logged before
/// it ended, where logs are read.
#[must_use]
pub fn of_pod(
    pod: &EnginePod,
    node_ready: bool,
    complaint: Option<&str>,
    words: Option<&str>,
    now: Timestamp,
) -> Option<Fault> {
    let found = |reason: &'static str, message: &str, time: Option<Timestamp>, exit_code, current| {
        Some(fault(pod, reason, message, time, exit_code, current))
    };
    if let Some(deleted) = pod.deleted {
        // The timestamp is when the grace period ends.
        let over = now.as_second() - deleted.as_second();
        let message = "the pod was told to end and still holds its GPU; it is not removed by force";
        return if over > STUCK_SECONDS {
            found(reason::TERMINATING_STUCK, message, Some(deleted), None, true)
        } else {
            None
        };
    }
    let trouble = pod.trouble.as_deref();
    if !node_ready {
        return found(reason::NODE_NOT_READY, "the pod's node is not ready", None, None, true);
    }
    let trouble = trouble?;
    if let Some(Unscheduled { message, since }) = &trouble.unscheduled {
        let text = message.as_deref().unwrap_or("no node can take the pod");
        return found(reason::UNSCHEDULABLE, text, *since, None, true);
    }
    if let Some(complaint) = complaint {
        let (reason, message) = of_volume(complaint);
        return found(reason, &message, None, None, true);
    }
    let containers = &trouble.containers;
    let words_of = |container: &Container| words.filter(|_| *container.name == *name::ENGINE);
    let of_containers = containers.iter().filter_map(|one| waiting(one, words_of(one)));
    let past = containers.iter().filter_map(|one| ended_before(one, words_of(one)));
    let (reason, message, exit_code, time, current) = of_containers.chain(past).next()?;
    found(reason, &message, time, exit_code, current)
}

type Said = (&'static str, String, Option<i32>, Option<Timestamp>, bool);

/// A container that cannot start, or is not started again yet.
fn waiting(container: &Container, words: Option<&str>) -> Option<Said> {
    if let Some(ended) = &container.state.terminated {
        return (ended.exit_code != 0).then(|| ended_with(ended, words, reason::CRASH_LOOP_BACK_OFF, true));
    }
    let waiting = container.state.waiting.as_ref()?;
    let message = waiting.message.as_deref().unwrap_or_default().to_owned();
    let said = match waiting.reason.as_deref()? {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "RegistryUnavailable"
        | "ImageInspectError" => {
            let reason = if is_forbidden(&message, &container.image) {
                reason::NGC_FORBIDDEN
            } else {
                reason::IMAGE_PULL_ERROR
            };
            (reason, format!("{}: {message}", container.image))
        }
        "CreateContainerConfigError" if message.contains("secret") => (reason::AUTH_SECRET_MISSING, message),
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "StartError"
        | "PreCreateHookError"
        | "PreStartHookError"
        | "PostStartHookError" => {
            let format = is_exec_format(&message);
            (if format { reason::ARCH_MISMATCH } else { reason::CONTAINER_START_ERROR }, message)
        }
        "CrashLoopBackOff" => {
            return Some(match &container.last_state.terminated {
                Some(ended) => ended_with(ended, words, reason::CRASH_LOOP_BACK_OFF, true),
                None => (reason::CRASH_LOOP_BACK_OFF, message, None, None, true),
            });
        }
        _ => return None, // ContainerCreating, PodInitializing: on its way
    };
    Some((said.0, said.1, None, None, true))
}

/// A running container whose last run ended in a way that a person should know of. Ends by signal are repairs and
/// stops; they are reported elsewhere.
fn ended_before(container: &Container, words: Option<&str>) -> Option<Said> {
    let ended = container.last_state.terminated.as_ref()?;
    let said = ended_with(ended, words, reason::CRASH_LOOP_BACK_OFF, false);
    (said.0 != reason::CRASH_LOOP_BACK_OFF).then_some(said)
}

fn ended_with(ended: &Terminated, words: Option<&str>, otherwise: &'static str, current: bool) -> Said {
    let text = ended.message.as_deref().unwrap_or_default();
    let reason = match ended.reason.as_deref() {
        Some("OOMKilled") => reason::OOM_KILLED,
        _ if is_exec_format(text) => reason::ARCH_MISMATCH,
        _ if is_forbidden(text, "") => reason::NGC_FORBIDDEN,
        Some("StartError" | "ContainerCannotRun") => reason::CONTAINER_START_ERROR,
        _ => otherwise,
    };
    let message = match reason {
        reason::OOM_KILLED => {
            "the container was killed for its memory: raise resources.limits.memory or use a smaller profile"
                .into()
        }
        _ => words
            .map(str::to_owned)
            .or_else(|| last_words::telling(text, str::to_owned))
            .unwrap_or_else(|| format!("the container ended with exit code {}", ended.exit_code)),
    };
    (reason, message, Some(ended.exit_code), ended.finished_at.as_ref().map(|time| time.0), current)
}

/// A refusal by NVIDIA's registry or model store. No restart cures it.
fn is_forbidden(text: &str, image: &str) -> bool {
    let lower = text.to_lowercase();
    let refused = ["401", "403", "unauthorized", "forbidden", "authentication required"]
        .iter()
        .any(|word| lower.contains(word));
    let nvidia =
        ["nvcr.io", "ngc", "nvidia"].iter().any(|word| lower.contains(word)) || image.starts_with("nvcr.io/");
    refused && nvidia
}

fn is_exec_format(text: &str) -> bool {
    text.to_lowercase().contains("exec format error")
}

/// The message within its bounds, whitespace folded.
fn shortened(message: &str) -> String {
    let folded = message.split_whitespace().collect::<Vec<_>>().join(" ");
    folded.chars().take(MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reason_of(status: Value) -> Option<(String, bool)> {
        let pod =
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": []}, "status": status});
        let pod: EnginePod = serde_json::from_value(pod).unwrap();
        let fault = of_pod(&pod, true, None, None, Timestamp::from_second(1000).unwrap())?;
        Some((fault.failure.reason, fault.current))
    }

    fn container(rest: Value) -> Value {
        let mut status = json!({"name": "engine", "image": "nvcr.io/nim/x", "imageID": "", "ready": false, "restartCount": 3});
        status.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({ "containerStatuses": [status] })
    }

    fn waiting(reason: &str, message: &str) -> Value {
        container(json!({"state": {"waiting": {"reason": reason, "message": message}}}))
    }

    fn crashed(reason: &str, code: i32, message: &str) -> Value {
        let ended = json!({"exitCode": code, "reason": reason, "message": message});
        container(json!({
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
            "lastState": {"terminated": ended},
        }))
    }

    #[test]
    fn each_failure_has_its_reason() {
        let now = |reason: &str| Some((reason.to_owned(), true));
        for (status, expected) in [
            (waiting("ImagePullBackOff", "not found"), now(reason::IMAGE_PULL_ERROR)),
            (waiting("ErrImagePull", "failed: 403 Forbidden"), now(reason::NGC_FORBIDDEN)),
            (
                waiting("CreateContainerConfigError", "secret \"ngc\" not found"),
                now(reason::AUTH_SECRET_MISSING),
            ),
            (waiting("CreateContainerError", "device gone"), now(reason::CONTAINER_START_ERROR)),
            (waiting("RunContainerError", "exec /x: exec format error"), now(reason::ARCH_MISMATCH)),
            (waiting("ContainerCreating", ""), None),
            (crashed("Error", 1, "boom"), now(reason::CRASH_LOOP_BACK_OFF)),
            (crashed("OOMKilled", 137, ""), now(reason::OOM_KILLED)),
            (crashed("Error", 1, "ERROR NGC download: 401 Unauthorized"), now(reason::NGC_FORBIDDEN)),
            (crashed("Error", 255, "exec /opt/x: exec format error"), now(reason::ARCH_MISMATCH)),
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]}),
                now(reason::UNSCHEDULABLE),
            ),
            (json!({}), None),
        ] {
            assert_eq!(reason_of(status.clone()), expected, "{status}");
        }
    }

    #[test]
    fn a_pod_that_ended_says_why_and_holds_nothing_up() {
        let ended = |why: &str| {
            let status = json!({"phase": "Failed", "reason": why, "message": "no healthy devices present"});
            let pod: EnginePod =
                serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap();
            of_ended(&pod, Timestamp::UNIX_EPOCH).map(|fault| (fault.reason, fault.current))
        };
        assert_eq!(ended("Evicted"), Some((reason::EVICTED, false)));
        for why in ["UnexpectedAdmissionError", "OutOfnvidia.com/gpu", "NodeShutdown"] {
            assert_eq!(ended(why), Some((reason::NODE_REFUSED, false)), "{why}");
        }
        assert_eq!(ended("Completed"), None);
    }

    #[test]
    fn what_keeps_pods_from_being_made_has_a_reason_and_says_what_to_do() {
        for (message, expected) in [
            (
                "pods \"a\" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1",
                reason::QUOTA_EXCEEDED,
            ),
            (
                "pods \"a\" is forbidden: maximum memory usage per Container is 4Gi, but limit is 8Gi",
                reason::LIMIT_RANGE,
            ),
            (
                "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": hostPath volumes",
                reason::POD_SECURITY,
            ),
            ("admission webhook denied the request", reason::PODS_REFUSED),
        ] {
            let (reason, words) = refusal(message);
            assert_eq!(reason, expected);
            assert!(words.len() > message.len() + 10 && words.ends_with(message), "{words}");
        }
        let (reason, _) = of_volume("FailedAttachVolume: Multi-Attach error for volume \"pvc-1\"");
        assert_eq!(reason, reason::VOLUME_IN_USE);
        assert_eq!(of_volume("FailedMount: timed out").0, reason::MOUNT_FAILED);
    }

    #[test]
    fn a_repair_is_no_failure_and_a_survived_oom_is_a_past_one() {
        let running = |reason: &str| {
            container(json!({
                "state": {"running": {"startedAt": null}},
                "lastState": {"terminated": {"exitCode": 137, "reason": reason}},
            }))
        };
        assert_eq!(reason_of(running("Error")), None);
        assert_eq!(reason_of(running("OOMKilled")), Some((reason::OOM_KILLED.into(), false)));
    }

    #[test]
    fn a_pod_that_does_not_end_is_reported_after_its_grace() {
        let pod = |deleted: i64| -> EnginePod {
            let time = Timestamp::from_second(deleted).unwrap().to_string();
            serde_json::from_value(json!({"metadata": {"name": "p", "deletionTimestamp": time}})).unwrap()
        };
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(of_pod(&pod(990), true, None, None, now), None);
        assert_eq!(
            of_pod(&pod(900), true, None, None, now).unwrap().failure.reason,
            reason::TERMINATING_STUCK
        );
    }

    #[test]
    fn the_line_that_names_the_fault_is_shown_whatever_was_printed_after_it() {
        let said = |words: Option<&str>| {
            let log = "RuntimeError: CUDA error: misaligned address\nTraceback (most recent call last)\nbye";
            let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": []}, "status": crashed("Error", 1, log)});
            let pod: EnginePod = serde_json::from_value(pod).unwrap();
            of_pod(&pod, true, None, words, Timestamp::UNIX_EPOCH).unwrap().failure.message
        };
        assert!(said(None).starts_with("class A (misaligned_address): RuntimeError"), "{}", said(None));
        assert_eq!(said(Some("no model at /models")), "no model at /models");
    }

    #[test]
    fn a_lost_node_explains_its_pods() {
        let pod: EnginePod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {}})).unwrap();
        let fault = of_pod(&pod, false, None, None, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(fault.failure.reason, reason::NODE_NOT_READY);
    }
}
