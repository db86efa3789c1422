//! The reconcile pipeline: five steps from a SpeechStack to its status.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use speechstack_crds::SpeechStack;

use crate::guards::Guards;
use crate::metrics::Metrics;
use crate::owned::Index;
use crate::pods::Pods;
use crate::watch::OptionalKinds;
use crate::workloads::Workloads;

pub mod apply;
pub mod build;
pub mod complaints;
pub mod events;
pub mod failure;
pub mod last_words;
pub mod observe;
pub mod outside;
pub mod quantity;
pub mod rollouts;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod validate;

/// Longest wait for one answer of the API server.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Waits after errors: doubled up to the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// How often problems are looked at again that end outside of what is watched.
const RECHECK: Duration = Duration::from_secs(30);
/// How often a stack is looked at though nothing happened.
const RESYNC: Duration = Duration::from_secs(3600);

/// What the steps share.
pub struct Context {
    /// Of the API server.
    pub client: Client,
    /// The operator's settings for every stack.
    pub defaults: validate::Defaults,
    /// All Deployments and StatefulSets with our labels.
    pub workloads: Workloads,
    /// What Events said of pods that wait.
    pub heard: complaints::Heard,
    /// All engine pods.
    pub pods: Pods,
    /// All nodes; empty when they may not be read.
    pub nodes: Store<Node>,
    /// All objects with our labels.
    pub owned: Arc<Index>,
    /// The guards' words.
    pub guards: Guards,
    /// Which optional kinds there are.
    pub optional: Arc<OptionalKinds>,
    /// Metrics.
    pub metrics: Metrics,
    /// Events.
    pub recorder: events::Recorder,
    /// Whether the Secrets that stacks name may be read.
    pub check_secrets: bool,
    /// Whether logs of engines that ended may be read.
    pub read_logs: bool,
    /// What they said.
    pub last_words: last_words::Read,
    /// When engines that may sleep were last used.
    pub uses: crate::uses::Uses,
    /// References that were found.
    pub found: observe::TtlCache,
    /// Updates that no user asked for, over all stacks.
    pub rollouts: rollouts::Rollouts,
    /// Addresses of gateways outside of the cluster.
    pub outside: outside::Cache,
    /// Statuses written that the watch has not shown yet.
    pub written: status::Written,
    /// Errors in a row of each stack.
    pub errors: Mutex<HashMap<ObjectRef<SpeechStack>, u32>>,
}

/// Why a stack could not be reconciled: a variant for each step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Observe.
    #[error("observe: {0}")]
    Observe(#[source] observe::Error),
    /// Validate: only a change of the spec helps.
    #[error("validate: {0}")]
    Validate(#[source] validate::Error),
    /// Apply.
    #[error("apply: {0}")]
    Apply(#[source] apply::Error),
    /// Status.
    #[error("status: {0}")]
    Status(#[source] status::Error),
}

impl Error {
    /// The step, for metrics and logs.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match self {
            Self::Observe(_) => "observe",
            Self::Validate(_) => "validate",
            Self::Apply(_) => "apply",
            Self::Status(_) => "status",
        }
    }
}

/// Makes the cluster what the stack says, and its status what the cluster is.
///
/// # Errors
/// When a step fails; [`error_policy`] knows what then.
pub async fn reconcile(stack: Arc<SpeechStack>, context: Arc<Context>) -> Result<Action, Error> {
    if stack.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change()); // whatever is made now would outlive the garbage collection
    }
    let started = Instant::now();
    let result = Box::pin(steps(&stack, &context)).await;
    context.metrics.reconciled(result.as_ref().err().map(Error::step), started.elapsed());
    let action = result?;
    context.errors.lock().remove(&ObjectRef::from_obj(&*stack));
    Ok(action)
}

async fn steps(stack: &SpeechStack, context: &Context) -> Result<Action, Error> {
    // 1. Observe (IO): what the stack refers to and what exists.
    let observed = observe::observe(context, stack).await.map_err(Error::Observe)?;
    // 2. Validate (pure): all defaults resolved, or reasons.
    let valid = match validate::validate(stack, &observed, &context.defaults) {
        Ok(valid) => valid,
        Err(error) => {
            status::refuse(context, stack, &error).await.map_err(Error::Status)?;
            return Err(Error::Validate(error));
        }
    };
    // 3. Build (pure): every object.
    let desired = build::build(&valid, &observed);
    // 4. Apply (IO): what differs, then prune what is too much.
    let applied = apply::apply(context, &valid, desired).await;
    // 5. Status (pure judgement, one patch if it changed).
    let now = Timestamp::now();
    let published = status::publish(context, stack, &valid, &observed, applied.as_ref(), now)
        .await
        .map_err(Error::Status)?;
    let waiting = applied.map_err(Error::Apply)?.waits_for_turn;
    let recheck = published.changes_with_time || waiting || !valid.concerns.is_empty();
    let usual = if recheck { RECHECK } else { RESYNC };
    Ok(Action::requeue(published.held_back.map_or(usual, |wait| wait.min(usual))))
}

/// An invalid spec waits for its change; all else is tried again, ever later.
pub fn error_policy(stack: Arc<SpeechStack>, error: &Error, context: Arc<Context>) -> Action {
    if let Error::Validate(error) = error {
        tracing::info!(stack = %ObjectRef::from_obj(&*stack), %error, "stack refused");
        return Action::await_change();
    }
    let mut errors = context.errors.lock();
    let count = errors.entry(ObjectRef::from_obj(&*stack)).or_default();
    let wait = backoff(*count);
    *count += 1;
    tracing::warn!(
        stack = stack.name_any(),
        namespace = stack.namespace(),
        step = error.step(),
        %error,
        retry_after = ?wait,
        "unable to reconcile"
    );
    Action::requeue(wait)
}

fn backoff(errors: u32) -> Duration {
    let (first, longest) = BACKOFF;
    first.saturating_mul(2_u32.saturating_pow(errors.min(16))).min(longest)
}
