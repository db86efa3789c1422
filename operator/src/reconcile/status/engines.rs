//! Engines and their pods, as kubelets and guards see them (pure).

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use speechstack_crds::{
    Capability, Endpoint, Endpoints, EngineStatus, Failure, PodStatus, PrefillPhase, SpeechStackStatus,
    Summary,
};

use super::{model_cache, second};
use contract::State;

use crate::guards::Seen;
use crate::pods::EnginePod;
use crate::reconcile::apply::AppliedObjects;
use crate::reconcile::build::metadata;
use crate::reconcile::build::{self, Update};
use crate::reconcile::failure::{self, Fault};
use crate::reconcile::observe::{Filling, Observed};
use crate::reconcile::outside::{self, Outside};
use crate::reconcile::validate::{Replicas, ValidEngine, ValidStack};

/// Most pods shown of an engine.
const PODS: usize = 20;

/// An engine's status, and what conditions need beside it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What is shown.
    pub status: EngineStatus,
    /// A failure that keeps a pod from running now.
    pub failing: Option<Fault>,
    /// Pods that are wedged or being repaired.
    pub wedged: usize,
    /// Pods of which the guard has a word, or that are on their way, without a fault.
    pub starting: usize,
    /// All pods that are not ending.
    pub pods: usize,
    /// The newest failure of a pod that ended for good.
    pub last_ended: Option<Fault>,
    /// Whether a rollout goes on.
    pub rolling: bool,
    /// Whether it is a last resort, without which the stack is ready all the same.
    pub hosted: bool,
}

impl Judged {
    /// Replicas that should serve and do not.
    pub fn missing(&self) -> i32 {
        (self.status.desired - self.status.verified).max(0)
    }
}

/// Every engine of the stack.
pub fn judge(
    stack: &ValidStack,
    observed: &Observed,
    applied: Option<&AppliedObjects>,
    old: Option<&SpeechStackStatus>,
    now: Timestamp,
) -> Vec<Judged> {
    stack.engines.iter().map(|engine| one(stack, engine, observed, applied, old, now)).collect()
}

fn one(
    stack: &ValidStack,
    engine: &ValidEngine,
    observed: &Observed,
    applied: Option<&AppliedObjects>,
    old: Option<&SpeechStackStatus>,
    now: Timestamp,
) -> Judged {
    let name = &engine.spec.name;
    let before = old.and_then(|old| old.engines.iter().find(|engine| engine.name == *name));
    let live = observed.workloads.get(&metadata::of_engine(stack, engine));
    let asleep = !stack.suspend && build::sleep::sleeps(stack, engine, observed);
    let desired = match engine.replicas {
        _ if stack.suspend || asleep => 0,
        Replicas::Fixed(replicas) => replicas,
        Replicas::Autoscaled { min: first, .. } | Replicas::External { first } => {
            live.map_or(first, |live| live.replicas)
        }
    };
    let mut judged = Judged {
        status: EngineStatus {
            name: name.clone(),
            capability: engine.capability,
            desired,
            ready: 0,
            verified: 0,
            updated: live.map_or(0, |live| live.updated),
            caution: engine.preset.caution.clone(),
            // Kept until a guard says otherwise: an operator that starts has not heard them yet.
            model: before.and_then(|before| before.model.clone()),
            profile: before.and_then(|before| before.profile.clone()),
            image_id: None,
            update_pending: match applied {
                Some(applied) => applied.engines.get(name) == Some(&Update::Pending),
                None => before.is_some_and(|before| before.update_pending),
            },
            asleep,
            prefill: build::prefill::filling(stack, engine, observed).map(Filling::status),
            pods: Vec::new(),
            last_failure: before.and_then(|before| before.last_failure.clone()),
        },
        failing: None,
        wedged: 0,
        starting: 0,
        pods: 0,
        last_ended: None,
        rolling: live.is_none_or(|live| !live.observed),
        hosted: engine.spec.hosted.is_some(),
    };
    let models = model_cache::expected(engine);
    for (pod, seen) in &observed.pods {
        if *pod.revision.engine == **name {
            add(&mut judged, pod, seen.as_ref(), observed, (before, models), now);
        }
    }
    if let Some(prefill) =
        judged.status.prefill.as_ref().filter(|prefill| prefill.phase == PrefillPhase::Failed)
    {
        let why = prefill.message.as_deref().unwrap_or_default();
        judged.failing = Some(failure::of_prefill(name, why));
    }
    if judged.failing.is_none() {
        judged.failing = failure::of_workload(name, live, judged.last_ended.as_ref(), judged.pods, desired);
    }
    judged.rolling |= judged.status.updated < desired || judged.pods > usize::try_from(desired).unwrap_or(0);
    // The pods in trouble come first, and are not those that are left out.
    judged.status.pods.sort_by(|a, b| trouble(a).cmp(&trouble(b)).then_with(|| a.name.cmp(&b.name)));
    judged.status.pods.truncate(PODS);
    judged
}

/// How early a pod is listed.
fn trouble(pod: &PodStatus) -> u8 {
    match pod.state.as_str() {
        state if is_wedged(state) || state == State::ConfigError.as_str() => 0,
        state if state == State::Healthy.as_str() => 2,
        _ => 1,
    }
}

/// What a pod was that is left out of a full list: in no more trouble than the last one in it, if that is in none.
fn least_troubled(before: &EngineStatus) -> Option<&PodStatus> {
    before.pods.last().filter(|last| before.pods.len() == PODS && last.state == State::Healthy.as_str())
}

fn add(
    judged: &mut Judged,
    pod: &EnginePod,
    seen: Option<&Seen>,
    observed: &Observed,
    (before, models): (Option<&EngineStatus>, Option<u64>),
    now: Timestamp,
) {
    if pod.ended {
        // It holds nothing and is replaced: only what it died of is of use.
        if let Some(fault) = failure::of_ended(pod, now) {
            remember(&mut judged.status.last_failure, fault.failure.clone(), now);
            judged.last_ended = Some(fault);
        }
        return;
    }
    let node = pod.node.as_deref().map(str::to_owned);
    let node_ready = node.as_ref().is_none_or(|node| !observed.nodes_not_ready.contains(node));
    let ending = pod.deleted.is_some();
    let ready = pod.ready && node_ready && !ending;
    // Readiness comes from the guard's golden probe, so it is the word of a guard that is not heard at the moment.
    let word = seen.filter(|seen| seen.connected);
    let verified = !ending && node_ready && word.map_or(ready, |seen| seen.report.is_verified());
    judged.status.ready += i32::from(ready);
    judged.status.verified += i32::from(verified);
    judged.pods += usize::from(!ending);

    let complaint = observed.complaints.get(&*pod.name).map(String::as_str);
    let words = observed.last_words.get(&*pod.name).map(String::as_str);
    let fault = failure::of_pod(pod, node_ready, complaint, words, now);
    let name = pod.name.to_string();
    let known = before.and_then(|before| before.pods.iter().find(|known| known.name == name));
    // An operator that starts has not heard the guards yet: what was last shown of a pod stays until its guard speaks,
    // unless the kubelet contradicts it.
    let unheard = known
        .or_else(|| least_troubled(before?))
        .filter(|known| seen.is_none() && !ending && (ready || is_wedged(&known.state)));
    let state = unheard.map_or_else(|| state(seen, ending), |known| known.state.clone());
    if is_wedged(&state) {
        judged.wedged += 1;
    } else if !verified && !ending && fault.as_ref().is_none_or(|fault| !fault.current) {
        judged.starting += 1;
    }
    if let Some(image) = &pod.revision.image
        && verified
    {
        judged.status.image_id = Some(image.to_string());
    }
    if let Some(report) = word.filter(|_| verified).map(|seen| &seen.report)
        && report.model.is_some()
    {
        judged.status.model = report.model.as_deref().map(str::to_owned);
        judged.status.profile = report.profile.as_deref().map(str::to_owned);
    }
    let since = match known.filter(|known| known.state == state) {
        Some(known) => known.since.clone(), // a state that looks the same from here has not begun anew
        None => seen.map(|seen| Time(second(seen.since))),
    };
    let class = unheard.map_or_else(
        || seen.and_then(|seen| seen.report.class).map(|class| class.as_str().to_owned()),
        |known| known.class.clone(),
    );
    let model_cache = seen
        .and_then(|seen| seen.report.model_cache.as_deref())
        .filter(|_| !verified && !ending)
        .map(|said| model_cache::shown(said, models, &name, before, now));
    judged.status.pods.push(PodStatus {
        name,
        model_cache,
        node,
        class: class.filter(|_| !verified),
        says: seen.and_then(|seen| seen.report.says.as_deref()).filter(|_| !verified).map(str::to_owned),
        restarts: pod.restarts,
        since,
        state,
    });
    if let Some(fault) = fault {
        if fault.current && judged.failing.is_none() {
            judged.failing = Some(fault.clone());
        }
        remember(&mut judged.status.last_failure, fault.failure, now);
    }
}

/// Keeps the newest failure; one without a time of its own gets the time at which it was first seen.
fn remember(last: &mut Option<Failure>, mut failure: Failure, now: Timestamp) {
    let same = last.as_ref().filter(|last| {
        (&last.reason, &last.pod, last.exit_code) == (&failure.reason, &failure.pod, failure.exit_code)
    });
    if failure.time.is_none() {
        failure.time = Some(same.map_or_else(
            || Time(second(now)),
            |same| same.time.clone().unwrap_or_else(|| Time(second(now))),
        ));
    }
    let newer = last.as_ref().is_none_or(|last| last.time <= failure.time);
    if newer {
        *last = Some(failure);
    }
}

/// The state shown: saturation comes and goes with load, and would have the status written with it.
fn state(seen: Option<&Seen>, ending: bool) -> String {
    match seen.map_or(State::Unknown, |seen| seen.report.state) {
        _ if ending => "terminating",
        State::Saturated => State::Healthy.as_str(),
        state => state.as_str(),
    }
    .to_owned()
}

/// Whether the engine is out of rotation for a fault.
fn is_wedged(state: &str) -> bool {
    matches!(state, "wedged" | "ejected" | "restarting" | "kill_stuck" | "exhausted")
}

/// Claims of the stack that no engine uses, nor will when it has as many replicas as it may have.
pub fn orphaned(stack: &ValidStack, observed: &Observed) -> Vec<String> {
    let used = |claim: &String| {
        stack.engines.iter().any(|engine| {
            build::engine::growth(stack, engine)
                .is_some_and(|(names, _)| build::engine::is_claim(&names, claim))
        })
    };
    let storage = stack.gateway.claim().map(|_| metadata::of_storage(stack));
    let unused = |claim: &&String| !used(claim) && storage.as_ref() != Some(*claim);
    observed.claims.iter().filter(unused).cloned().collect()
}

/// `verified/desired` of each capability, without its last resort.
pub fn summary(engines: &[Judged]) -> Summary {
    let of = |capability: Capability| {
        let counts = |engine: &&Judged| engine.status.capability == capability && !engine.hosted;
        let engines: Vec<_> = engines.iter().filter(counts).collect();
        if engines.is_empty() {
            return "-".to_owned();
        }
        let verified: i32 = engines.iter().map(|engine| engine.status.verified).sum();
        let desired: i32 = engines.iter().map(|engine| engine.status.desired).sum();
        format!("{verified}/{desired}")
    };
    Summary { stt: of(Capability::Stt), tts: of(Capability::Tts), llm: of(Capability::Llm) }
}

/// Where clients connect: within the cluster, and from outside by Ingress, HTTPRoute or load balancer, in this order.
pub fn endpoints(stack: &ValidStack, outside: &Outside) -> Endpoints {
    let spec = &stack.gateway.spec;
    let (https, port) = match &spec.tls {
        Some(tls) if !tls.http => (true, tls.port),
        _ => (false, spec.service.port),
    };
    let inside =
        |service: String| outside::url(https, &format!("{service}.{}.svc", stack.namespace), i64::from(port));
    if stack.gateway.is_sidecar() {
        let each = stack.engines.iter().map(|engine| Endpoint {
            name: engine.spec.name.clone(),
            openai_base_url: inside(metadata::of_api(stack, engine)),
        });
        let engines: Vec<_> = each.collect();
        let first = engines.first().map(|first| first.openai_base_url.clone());
        return Endpoints { openai_base_url: first.unwrap_or_default(), engines, external: None };
    }
    let ingress = spec.ingress.as_ref().map(|ingress| match ingress.tls_secret_name {
        Some(_) => outside::url(true, &ingress.host, 443),
        None => outside::url(false, &ingress.host, 80),
    });
    let route = spec.http_route.as_ref();
    let route = || route.and_then(|route| outside::of_route(&outside.listeners, &route.hostnames));
    // From outside HTTPS comes first.
    let (outer, outer_port) = spec.tls.as_ref().map_or((false, port), |tls| (true, tls.port));
    let balancer =
        || outside.load_balancer.as_ref().map(|host| outside::url(outer, host, i64::from(outer_port)));
    Endpoints {
        openai_base_url: inside(metadata::of_gateway(stack)),
        engines: Vec::new(),
        external: ingress.or_else(route).or_else(balancer),
    }
}
