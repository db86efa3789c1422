//! Condition types, their reasons, and the merge of old and new.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Condition types of a SpeechStack. Positive but for the last six, which are true when something is wrong.
pub mod condition_type {
    /// Every engine kind serves with all desired replicas verified, and the gateway too.
    pub const READY: &str = "Ready";
    /// Speech to text is verified.
    pub const STT_READY: &str = "SttReady";
    /// Text to speech is verified.
    pub const TTS_READY: &str = "TtsReady";
    /// Language models are verified.
    pub const LLM_READY: &str = "LlmReady";
    /// The gateway is available.
    pub const GATEWAY_READY: &str = "GatewayReady";
    /// What the spec refers to exists, and a node can hold the engines.
    pub const PREFLIGHT_PASSED: &str = "PreflightPassed";
    /// Something is being rolled out.
    pub const PROGRESSING: &str = "Progressing";
    /// Fewer engines serve than desired.
    pub const DEGRADED: &str = "Degraded";
    /// Repair of an engine stopped; a person must look.
    pub const REPAIR_SUSPENDED: &str = "RepairSuspended";
    /// Several replicas wedged together.
    pub const CORRELATED_FAILURE: &str = "CorrelatedFailure";
    /// The guard of a pod cannot be reached by the operator.
    pub const GUARD_UNREACHABLE: &str = "GuardUnreachable";
    /// A new template waits for the next change of the spec.
    pub const UPDATE_PENDING: &str = "UpdatePending";
}

/// Reasons of conditions and failures.
pub mod reason {
    /// All is as desired.
    pub const VERIFIED: &str = "Verified";
    /// Nothing of this kind is in the spec.
    pub const NOT_REQUESTED: &str = "NotRequested";
    /// Pods start.
    pub const STARTING: &str = "Starting";
    /// Fewer replicas are verified than desired.
    pub const REPLICAS_MISSING: &str = "ReplicasMissing";
    /// A golden probe fails.
    pub const PROBE_FAILING: &str = "ProbeFailing";
    /// An engine is being repaired.
    pub const REPAIRING: &str = "Repairing";
    /// The stack is suspended by its spec.
    pub const SUSPENDED: &str = "Suspended";
    /// The spec cannot be carried out; the message says why.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The API server refused an object.
    pub const APPLY_FAILED: &str = "ApplyFailed";
    /// The image cannot be pulled.
    pub const IMAGE_PULL_ERROR: &str = "ImagePullError";
    /// The Secret, or its key, does not exist.
    pub const AUTH_SECRET_MISSING: &str = "AuthSecretMissing";
    /// NVIDIA's registry or model store refuses the key.
    pub const NGC_FORBIDDEN: &str = "NgcForbidden";
    /// No node can take the pod.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// No node has a GPU with enough memory.
    pub const INSUFFICIENT_GPU_MEMORY: &str = "InsufficientGpuMemory";
    /// No node has the image's architecture.
    pub const ARCH_MISMATCH: &str = "ArchMismatch";
    /// The claim of the cache does not exist.
    pub const CACHE_CLAIM_MISSING: &str = "CacheClaimMissing";
    /// A Job fills the cache of models before the first start.
    pub const FILLING_CACHE: &str = "FillingCache";
    /// The Job that fills the cache of models gave up.
    pub const PREFILL_FAILED: &str = "PrefillFailed";
    /// The container was killed for its memory.
    pub const OOM_KILLED: &str = "OOMKilled";
    /// The container ends again and again.
    pub const CRASH_LOOP_BACK_OFF: &str = "CrashLoopBackOff";
    /// The container could not be started.
    pub const CONTAINER_START_ERROR: &str = "ContainerStartError";
    /// A volume of the pod cannot be attached or mounted.
    pub const MOUNT_FAILED: &str = "MountFailed";
    /// The volume of the pod is attached to another node.
    pub const VOLUME_IN_USE: &str = "VolumeInUse";
    /// The node refused the pod when it came to it, such as for a GPU that its device plugin could not give.
    pub const NODE_REFUSED: &str = "NodeRefused";
    /// A quota of the namespace keeps pods from being made.
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    /// A LimitRange of the namespace keeps pods from being made.
    pub const LIMIT_RANGE: &str = "LimitRangeRefused";
    /// The namespace's Pod Security Standard keeps pods from being made.
    pub const POD_SECURITY: &str = "PodSecurityRefused";
    /// The API server refuses to make the pods, for another reason.
    pub const PODS_REFUSED: &str = "PodsRefused";
    /// The rollout takes longer than the start-up time allows.
    pub const PROGRESS_DEADLINE: &str = "ProgressDeadlineExceeded";
    /// The pod was evicted.
    pub const EVICTED: &str = "Evicted";
    /// The pod's node is not ready.
    pub const NODE_NOT_READY: &str = "NodeNotReady";
    /// A pod or process does not end.
    pub const TERMINATING_STUCK: &str = "TerminatingStuck";
    /// The engine says that it cannot run here.
    pub const CONFIG_ERROR: &str = "ConfigError";
    /// Restarts did not help.
    pub const FUTILE: &str = "Futile";
    /// The budget is used up.
    pub const BUDGET_EXHAUSTED: &str = "BudgetExhausted";
    /// Wedges are confined to one pod template.
    pub const ROLLOUT_SUSPECT: &str = "RolloutSuspect";
    /// Several replicas wedged within a minute.
    pub const CORRELATED: &str = "Correlated";
    /// The guard does not answer, or not to the operator.
    pub const NO_ANSWER: &str = "NoAnswer";
    /// A person asked to hold.
    pub const HELD: &str = "Held";
    /// Nothing of the kind.
    pub const NONE: &str = "None";
    /// A new operator version would change the pods.
    pub const NEW_DEFAULTS: &str = "NewDefaults";
    /// The rollout is complete.
    pub const ROLLED_OUT: &str = "RolledOut";
    /// The rollout goes on.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// The gateway has available replicas.
    pub const AVAILABLE: &str = "Available";
}

/// Longest message of a condition; the API server takes 32768, people read less.
const MESSAGE_CHARS: usize = 1024;

/// A condition as just judged; [`merge`] gives it its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// One of [`condition_type`].
    pub kind: &'static str,
    /// True, False or, without a judgement, Unknown.
    pub status: Option<bool>,
    /// One of [`reason`].
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// The new conditions: each with the time of its last change of status, taken from `old` when the status stayed.
#[must_use]
pub fn merge(old: &[Condition], judged: Vec<Judged>, generation: Option<i64>, now: &Time) -> Vec<Condition> {
    let fresh = judged.into_iter().map(|judged| {
        let status = match judged.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let before =
            old.iter().find(|condition| condition.type_ == judged.kind && condition.status == status);
        Condition {
            type_: judged.kind.to_owned(),
            status: status.to_owned(),
            reason: judged.reason.to_owned(),
            message: judged.message.chars().take(MESSAGE_CHARS).collect(),
            observed_generation: generation,
            last_transition_time: before
                .map_or_else(|| now.clone(), |before| before.last_transition_time.clone()),
        }
    });
    fresh.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: bool, message: &str) -> Vec<Judged> {
        vec![Judged {
            kind: condition_type::READY,
            status: Some(status),
            reason: reason::VERIFIED,
            message: message.into(),
        }]
    }

    #[test]
    fn time_moves_only_with_the_status() {
        let at = |second| Time(jiff::Timestamp::from_second(second).unwrap());
        let first = merge(&[], judged(false, "a"), Some(1), &at(10));
        let same = merge(&first, judged(false, "b"), Some(2), &at(20));
        assert_eq!((same[0].last_transition_time.clone(), same[0].observed_generation), (at(10), Some(2)));
        assert_eq!(same[0].message, "b");
        let turned = merge(&same, judged(true, "b"), Some(2), &at(30));
        assert_eq!(turned[0].last_transition_time, at(30));
    }
}
