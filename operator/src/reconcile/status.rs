//! The status step: what was applied and what pods and guards say become a status; one patch if it changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use speechstack_crds::condition::{self, Judged, condition_type, reason};
use speechstack_crds::{EngineStatus, Phase, SpeechStack, SpeechStackStatus};
use tokio::time::Instant;

use super::apply::{self, AppliedObjects};
use super::observe::Observed;
use super::validate::{self, ValidEngine, ValidStack};
use super::{CALL_TIMEOUT, Context, complaints, events};
use crate::names::FIELD_MANAGER;
use crate::pods::EnginePod;

mod conditions;
mod engines;
pub mod model_cache;
mod repair;
#[cfg(test)]
mod tests;

/// Why a status could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error("unable to patch: {0}")]
    Patch(#[source] Box<kube::Error>),
    /// The API server did not answer in time.
    #[error("no answer to the patch")]
    TimedOut,
}

/// Least time between two writes of a stack's status: a guard that flaps costs no more than this. A new generation of the
/// spec does not wait.
pub(super) const SPACING: Duration = Duration::from_secs(5);

/// What was written of each stack, by UID.
#[derive(Default)]
pub struct Written {
    /// With its resource version. Without it a lagging watch would have times of conditions set anew.
    newest: Mutex<HashMap<String, (u64, Newest)>>,
    /// When it was last written.
    last: Mutex<HashMap<String, Instant>>,
}

/// The newest that is known of a stack.
enum Newest {
    /// Written, and not shown by the watch yet.
    Written(Box<SpeechStackStatus>),
    /// As the watch shows it; a reconcile may have begun before. It is the one that the watch keeps.
    Shown(Arc<SpeechStack>),
}

/// What follows from a look at a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Whether it will change with time alone.
    pub changes_with_time: bool,
    /// How long a change of it is held back; `None` when it was written or there was none.
    pub held_back: Option<Duration>,
}

impl Written {
    /// The status as it is: what was written or shown since `stack` was.
    fn current(&self, stack: &SpeechStack) -> Option<SpeechStackStatus> {
        let uid = stack.metadata.uid.as_deref().unwrap_or_default();
        let mut newest = self.newest.lock();
        let shown = version(stack);
        match newest.get(uid) {
            Some((version, Newest::Written(status))) if shown < *version => {
                // The healer writes its part; the newest word of it is in the watch or still under way.
                let repair = stack.status.as_ref().and_then(|status| status.repair.clone());
                Some(SpeechStackStatus { repair, ..(**status).clone() })
            }
            Some((version, Newest::Shown(newest))) if shown < *version => newest.status.clone(),
            _ => {
                newest.remove(uid);
                stack.status.clone()
            }
        }
    }

    fn keep(&self, stack: &SpeechStack, status: &SpeechStackStatus) {
        if let Some(uid) = stack.uid() {
            self.last.lock().insert(uid.clone(), Instant::now());
            self.newest.lock().insert(uid, (version(stack), Newest::Written(Box::new(status.clone()))));
        }
    }

    /// The watch shows a stack: what it has caught up with need not be kept twice.
    pub fn shown(&self, stack: &Arc<SpeechStack>) {
        let uid = stack.metadata.uid.as_deref().unwrap_or_default();
        let shown = version(stack);
        if let Some(newest) = self.newest.lock().get_mut(uid).filter(|(known, _)| *known <= shown) {
            *newest = (shown, Newest::Shown(Arc::clone(stack)));
        }
    }

    /// How long a write of the stack's status has to wait.
    fn wait(&self, stack: &SpeechStack, now: Instant) -> Option<Duration> {
        let last = self.last.lock().get(stack.metadata.uid.as_deref()?).copied()?;
        SPACING.checked_sub(now.saturating_duration_since(last)).filter(|wait| !wait.is_zero())
    }

    /// A stack is gone.
    pub fn forget(&self, uid: &str) {
        self.newest.lock().remove(uid);
        self.last.lock().remove(uid);
    }
}

fn version(stack: &SpeechStack) -> u64 {
    stack.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Judges, and writes what changed when it is time.
///
/// # Errors
/// When the patch fails.
pub async fn publish(
    context: &Context,
    stack: &SpeechStack,
    valid: &ValidStack,
    observed: &Observed,
    applied: Result<&AppliedObjects, &apply::Error>,
    now: Timestamp,
) -> Result<Published, Error> {
    let old = context.written.current(stack);
    let status = judge(valid, observed, applied, old.as_ref(), now);
    let turns = |pod: &EnginePod| pod.deleted.is_some() || complaints::waits(pod, now) || is_new(pod, now);
    let nameless = status.endpoints.as_ref().is_some_and(|endpoints| endpoints.external.is_none());
    // The Job's own conditions wake no stack.
    let fills = |engine: &EngineStatus| engine.prefill.is_some();
    let tires = |engine: &ValidEngine| engine.spec.idle.is_some();
    let changes_with_time = status.engines.iter().any(fills)
        || valid.engines.iter().any(tires)
        || observed.pods.iter().any(|(pod, _)| turns(pod))
        || (nameless && valid.gateway.is_outside());
    let asked_anew = old.as_ref().is_none_or(|old| old.observed_generation != status.observed_generation);
    if let Some(wait) = context.written.wait(stack, Instant::now()).filter(|_| !asked_anew)
        && old.as_ref() != Some(&status)
    {
        let (namespace, name) = (stack.namespace().unwrap_or_default(), stack.name_any());
        context.metrics.stacks().set(&namespace, &name, &status);
        return Ok(Published { changes_with_time, held_back: Some(wait) });
    }
    write(context, stack, old, status).await?;
    Ok(Published { changes_with_time, held_back: None })
}

/// Whether a pod came to its node so lately that its volumes may still turn out to be a problem.
fn is_new(pod: &EnginePod, now: Timestamp) -> bool {
    pod.running_since.is_none() && pod.scheduled.is_some_and(|at| now.as_second() - at.as_second() < 120)
}

/// Tells that the spec cannot be carried out; engines keep the status that they have.
///
/// # Errors
/// When the patch fails.
pub async fn refuse(context: &Context, stack: &SpeechStack, error: &validate::Error) -> Result<(), Error> {
    let old = context.written.current(stack);
    let status = refused(stack.metadata.generation, error, old.as_ref(), Timestamp::now());
    write(context, stack, old, status).await
}

/// The status of a stack whose spec cannot be carried out (pure).
fn refused(
    generation: Option<i64>,
    error: &validate::Error,
    old: Option<&SpeechStackStatus>,
    now: Timestamp,
) -> SpeechStackStatus {
    let old = old.cloned().unwrap_or_default();
    let message = error.message();
    let judged =
        |kind, status, reason| Judged { kind, status: Some(status), reason, message: message.clone() };
    let fresh = vec![
        judged(condition_type::READY, false, reason::INVALID_SPEC),
        judged(condition_type::PREFLIGHT_PASSED, false, reason::INVALID_SPEC),
        judged(condition_type::PROGRESSING, false, reason::INVALID_SPEC),
    ];
    let mut conditions = condition::merge(&old.conditions, fresh, generation, &Time(second(now)));
    // What runs goes on running as it was last judged.
    let kept = old.conditions.iter().filter(|kept| {
        ![condition_type::READY, condition_type::PREFLIGHT_PASSED, condition_type::PROGRESSING]
            .contains(&kept.type_.as_str())
    });
    conditions.extend(kept.cloned());
    SpeechStackStatus {
        observed_generation: generation,
        phase: Some(Phase::Failed),
        conditions,
        operator_version: Some(env!("CARGO_PKG_VERSION").into()),
        ..old
    }
}

/// The status of a valid stack (pure). `repair` is passed through: it is the healer's.
fn judge(
    stack: &ValidStack,
    observed: &Observed,
    applied: Result<&AppliedObjects, &apply::Error>,
    old: Option<&SpeechStackStatus>,
    now: Timestamp,
) -> SpeechStackStatus {
    let engines = engines::judge(stack, observed, applied.ok(), old, now);
    let repair = old.and_then(|old| old.repair.clone());
    let judged = conditions::judge(stack, observed, applied, &engines, repair.as_ref());
    let old_conditions = old.map(|old| old.conditions.as_slice()).unwrap_or_default();
    let conditions = condition::merge(old_conditions, judged, stack.generation, &Time(second(now)));
    SpeechStackStatus {
        observed_generation: stack.generation,
        phase: Some(conditions::phase(stack, &engines, &conditions)),
        conditions,
        endpoints: Some(engines::endpoints(stack, &observed.outside)),
        summary: Some(engines::summary(&engines)),
        engines: engines.into_iter().map(|engine| engine.status).collect(),
        orphaned_caches: engines::orphaned(stack, observed),
        repair,
        operator_version: Some(env!("CARGO_PKG_VERSION").into()),
    }
}

/// Times in status have whole seconds: that is what the API server keeps of them.
fn second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

async fn write(
    context: &Context,
    stack: &SpeechStack,
    old: Option<SpeechStackStatus>,
    new: SpeechStackStatus,
) -> Result<(), Error> {
    let (namespace, name) = (stack.namespace().unwrap_or_default(), stack.name_any());
    context.metrics.stacks().set(&namespace, &name, &new);
    if old.as_ref() == Some(&new) {
        return Ok(());
    }
    // The healer's field is left to it.
    let ours = SpeechStackStatus { repair: None, ..new.clone() };
    let body = json!({
        "apiVersion": SpeechStack::api_version(&()),
        "kind": SpeechStack::kind(&()),
        "metadata": {"name": name, "uid": stack.uid()},
        "status": ours,
    });
    let api = Api::<SpeechStack>::namespaced(context.client.clone(), &namespace);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(&body);
    let call = api.patch_status(&name, &parameters, &patch);
    let result = match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(written)) => {
            context.written.keep(&written, &new);
            Ok(())
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()), // deleted meanwhile
        Ok(Err(error)) => Err(Error::Patch(Box::new(error))),
        Err(_) => Err(Error::TimedOut),
    };
    context.metrics.patched(result.is_ok());
    result?;
    events::publish(&context.recorder, stack, events::between(old.as_ref(), &new)).await;
    Ok(())
}
