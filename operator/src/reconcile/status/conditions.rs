//! Conditions and phase (pure).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use speechstack_crds::condition::{Judged as Verdict, condition_type, reason};
use speechstack_crds::{Capability, Phase, RepairStatus, Updates};

use super::engines::Judged;
use super::model_cache;
use crate::reconcile::apply::{self, AppliedObjects};
use crate::reconcile::build::metadata;
use crate::reconcile::failure::{self, Fault};
use crate::reconcile::observe::Observed;
use crate::reconcile::validate::{self, ValidStack};

/// All conditions.
pub fn judge(
    stack: &ValidStack,
    observed: &Observed,
    applied: Result<&AppliedObjects, &apply::Error>,
    engines: &[Judged],
    repair: Option<&RepairStatus>,
) -> Vec<Verdict> {
    let gateway = if stack.gateway.is_sidecar() { beside(stack, engines) } else { gateway(stack, observed) };
    let preflight = preflight(stack);
    let needed: Vec<Judged>;
    let needed = if engines.iter().any(|engine| engine.hosted) {
        needed = engines.iter().filter(|engine| !engine.hosted).cloned().collect();
        needed.as_slice()
    } else {
        engines
    };
    let [suspended, correlated] = super::repair::conditions(&stack.repair, repair);
    vec![
        ready(stack, applied, needed, &gateway, &preflight, &suspended),
        of_capability(condition_type::STT_READY, Capability::Stt, stack, needed),
        of_capability(condition_type::TTS_READY, Capability::Tts, stack, needed),
        of_capability(condition_type::LLM_READY, Capability::Llm, stack, needed),
        gateway,
        preflight,
        progressing(applied, engines),
        degraded(stack, engines),
        suspended,
        correlated,
        guards(observed),
        update_pending(stack, engines),
    ]
}

fn verdict(kind: &'static str, status: bool, reason: &'static str, message: impl Into<String>) -> Verdict {
    Verdict { kind, status: Some(status), reason, message: message.into() }
}

fn ready(
    stack: &ValidStack,
    applied: Result<&AppliedObjects, &apply::Error>,
    engines: &[Judged],
    gateway: &Verdict,
    preflight: &Verdict,
    repair: &Verdict,
) -> Verdict {
    let not = |reason, message: String| verdict(condition_type::READY, false, reason, message);
    if let Err(error) = applied {
        return not(reason::APPLY_FAILED, error.to_string());
    }
    if stack.suspend {
        return not(reason::SUSPENDED, "spec.suspend is true: no engine pod runs".into());
    }
    if engines.iter().any(|engine| engine.missing() > 0) {
        // The most telling of the reasons comes first.
        if repair.status == Some(true) {
            return not(repair.reason, repair.message.clone());
        }
        if preflight.status == Some(false) {
            return not(preflight.reason, preflight.message.clone());
        }
        let (reason, message) = why_missing(engines);
        return not(reason, message);
    }
    if gateway.status != Some(true) {
        return not(gateway.reason, gateway.message.clone());
    }
    verdict(condition_type::READY, true, reason::VERIFIED, "every engine is proven by inference")
}

/// Why replicas are missing: a failure, a wedge, or just the start.
fn why_missing(engines: &[Judged]) -> (&'static str, String) {
    let missing: Vec<_> = engines.iter().filter(|engine| engine.missing() > 0).collect();
    if let Some((engine, fault)) = missing.iter().find_map(|engine| Some((engine, engine.failing.as_ref()?)))
    {
        let failure = &fault.failure;
        let message = format!("engine {}, pod {}: {}", engine.status.name, failure.pod, failure.message);
        return (fault.reason, message);
    }
    let filling = |engine: &&&Judged| engine.status.prefill.is_some();
    if let Some(engine) = missing.iter().find(filling) {
        let prefill = engine.status.prefill.as_ref();
        let says = prefill.and_then(|prefill| prefill.message.as_deref());
        let says = says.map(|says| format!(": {says}")).unwrap_or_default();
        return (
            reason::FILLING_CACHE,
            format!("engine {}: a Job fills its cache{says}", engine.status.name),
        );
    }
    let counts = missing
        .iter()
        .map(|engine| format!("{} {}/{}", engine.status.name, engine.status.verified, engine.status.desired))
        .collect::<Vec<_>>()
        .join(", ");
    if missing.iter().any(|engine| engine.wedged > 0) {
        return (reason::REPAIRING, format!("wedged engines are being repaired; verified: {counts}"));
    }
    if missing.iter().all(|engine| engine.starting > 0 || engine.pods == 0) {
        let download = missing.iter().find_map(|engine| model_cache::of_pods(&engine.status.pods));
        let download = download.map_or_else(String::new, |words| format!("; {words}"));
        return (reason::STARTING, format!("engines start; verified: {counts}{download}"));
    }
    (reason::REPLICAS_MISSING, format!("verified: {counts}"))
}

fn of_capability(
    condition: &'static str,
    capability: Capability,
    stack: &ValidStack,
    engines: &[Judged],
) -> Verdict {
    if stack.of_capability(capability).next().is_none() {
        let message = format!("the spec has no {} engine", capability.as_str());
        return Verdict { kind: condition, status: None, reason: reason::NOT_REQUESTED, message };
    }
    if stack.suspend {
        return verdict(condition, false, reason::SUSPENDED, "spec.suspend is true");
    }
    let of_capability: Vec<_> =
        engines.iter().filter(|engine| engine.status.capability == capability).cloned().collect();
    let serving = |engine: &Judged| engine.status.verified > 0 || engine.status.desired == 0;
    if of_capability.iter().all(serving) {
        return verdict(condition, true, reason::VERIFIED, "proven by inference");
    }
    let (reason, message) = why_missing(&of_capability);
    verdict(condition, false, reason, message)
}

fn gateway(stack: &ValidStack, observed: &Observed) -> Verdict {
    let live = observed.workloads.get(&metadata::of_gateway(stack));
    let available = live.map_or(0, |live| live.available);
    if let Some(refusal) = live.filter(|_| available == 0).and_then(|live| live.refusal.as_deref()) {
        let (reason, message) = failure::refusal(refusal);
        return verdict(condition_type::GATEWAY_READY, false, reason, message);
    }
    if available > 0 {
        verdict(condition_type::GATEWAY_READY, true, reason::AVAILABLE, "the gateway answers")
    } else {
        verdict(
            condition_type::GATEWAY_READY,
            false,
            reason::STARTING,
            "no replica of the gateway is available",
        )
    }
}

/// The gateways beside the engines: a pod is ready when its gateway is, too.
fn beside(stack: &ValidStack, engines: &[Judged]) -> Verdict {
    let kind = condition_type::GATEWAY_READY;
    if stack.suspend {
        return verdict(kind, false, reason::SUSPENDED, "spec.suspend is true: no engine pod runs");
    }
    let silent = engines.iter().find(|engine| engine.status.ready == 0 && engine.status.desired > 0);
    match silent {
        None => verdict(kind, true, reason::AVAILABLE, "the gateway beside each engine answers"),
        Some(engine) => {
            let message = format!("no pod of engine {} is ready, with the gateway in it", engine.status.name);
            verdict(kind, false, reason::STARTING, message)
        }
    }
}

fn preflight(stack: &ValidStack) -> Verdict {
    match stack.concerns.first() {
        None => verdict(
            condition_type::PREFLIGHT_PASSED,
            true,
            reason::VERIFIED,
            "what the spec refers to exists, and nodes fit",
        ),
        Some(first) => {
            verdict(condition_type::PREFLIGHT_PASSED, false, first.reason, validate::join(&stack.concerns))
        }
    }
}

fn progressing(applied: Result<&AppliedObjects, &apply::Error>, engines: &[Judged]) -> Verdict {
    let kind = condition_type::PROGRESSING;
    if let Err(error) = applied {
        return verdict(kind, false, reason::APPLY_FAILED, error.to_string());
    }
    let rolling: Vec<_> = engines
        .iter()
        .filter(|engine| engine.rolling && !engine.status.update_pending)
        .map(|engine| engine.status.name.as_str())
        .collect();
    if rolling.is_empty() {
        verdict(kind, false, reason::ROLLED_OUT, "all pods have the current template")
    } else {
        verdict(kind, true, reason::ROLLING_OUT, format!("pods are made or replaced: {}", rolling.join(", ")))
    }
}

/// Something that did serve, or should, does not; a mere start is not it.
fn degraded(stack: &ValidStack, engines: &[Judged]) -> Verdict {
    let kind = condition_type::DEGRADED;
    if stack.suspend {
        return verdict(kind, false, reason::SUSPENDED, "spec.suspend is true");
    }
    if engines.iter().all(|engine| engine.missing() == 0) {
        return verdict(kind, false, reason::VERIFIED, "every engine is proven by inference");
    }
    let (why, message) = why_missing(engines);
    verdict(kind, ![reason::STARTING, reason::FILLING_CACHE].contains(&why), why, message)
}

/// Without its guard's word an engine is neither repaired by the operator nor known to be well.
fn guards(observed: &Observed) -> Verdict {
    let kind = condition_type::GUARD_UNREACHABLE;
    let [(pod, why), rest @ ..] = observed.unreached.as_slice() else {
        return verdict(kind, false, reason::NONE, "every guard answers");
    };
    let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
    let message = format!(
        "the operator does not reach the guard of pod {pod}{more} ({why}): check network policies, meshes and the guard's log; \
         its engine is repaired by the guard alone"
    );
    verdict(kind, true, reason::NO_ANSWER, message)
}

fn update_pending(stack: &ValidStack, engines: &[Judged]) -> Verdict {
    let kind = condition_type::UPDATE_PENDING;
    let waiting: Vec<_> = engines
        .iter()
        .filter(|engine| engine.status.update_pending)
        .map(|engine| engine.status.name.as_str())
        .collect();
    if waiting.is_empty() {
        return verdict(kind, false, reason::NONE, "pods have the operator's current template");
    }
    let of = waiting.join(", ");
    let message = match stack.updates {
        Updates::OnSpecChange => format!(
            "a new pod template of {of} waits for the next change of the spec; set spec.updates: Automatic to take it now"
        ),
        Updates::Automatic => format!(
            "a new pod template of {of} waits for spec.updateWindow, or until fewer other engines are updated or out of service"
        ),
    };
    verdict(kind, true, reason::NEW_DEFAULTS, message)
}

/// The stack in one word.
pub fn phase(stack: &ValidStack, engines: &[Judged], conditions: &[Condition]) -> Phase {
    let is =
        |kind: &str| conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True");
    let serves = |engine: &Judged| engine.status.verified > 0 || engine.status.desired == 0 || engine.hosted;
    // A pod without a node may get one by itself, from an autoscaler of nodes or when another pod ends.
    let needs_a_person = |fault: &Fault| fault.reason != reason::UNSCHEDULABLE;
    let failing = engines
        .iter()
        .any(|engine| engine.missing() > 0 && engine.failing.as_ref().is_some_and(needs_a_person));
    let waits = |engine: &Judged| engine.pods == 0 || engine.failing.is_some();
    match () {
        () if stack.suspend => Phase::Suspended,
        () if is(condition_type::READY) => Phase::Ready,
        () if engines.iter().all(serves) && is(condition_type::GATEWAY_READY) => Phase::Degraded,
        () if is(condition_type::REPAIR_SUSPENDED) && !stack.repair.hold => Phase::Failed,
        () if engines.iter().any(|engine| engine.wedged > 0) => Phase::Repairing,
        () if failing => Phase::Failed,
        () if engines.iter().all(waits) => Phase::Pending,
        () => Phase::Starting,
    }
}
