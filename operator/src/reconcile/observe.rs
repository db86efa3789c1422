//! The observe step (IO): what the stack refers to, and what exists of it already.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Secret};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use speechstack_crds::SpeechStack;

use super::Context;
use crate::guards::Seen;
use crate::names::{annotation, label};
use crate::pods::EnginePod;
use crate::watch::Optional;

/// How long a Secret or claim that was found is believed to be there: bounds reads, not safety, as the kubelet looks
/// by itself.
const FOUND_TTL: Duration = Duration::from_secs(600);

/// Why the cluster could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call to the API server failed.
    #[error("unable to read {what} {name}: {source}")]
    Read {
        /// Kind.
        what: &'static str,
        /// Name.
        name: String,
        /// The reason.
        #[source]
        source: kube::Error,
    },
    /// The API server did not answer in time.
    #[error("no answer while reading {what} {name}")]
    TimedOut {
        /// Kind.
        what: &'static str,
        /// Name.
        name: String,
    },
}

/// Whether a Secret has the key that the stack names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Found {
    /// It is there, or the stack names none.
    #[default]
    Yes,
    /// There is no such Secret.
    No,
    /// The Secret lacks the key.
    WithoutKey,
}

/// What exists.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The NGC key.
    pub ngc_secret: Found,
    /// Claims that the stack names and that do not exist.
    pub missing_claims: BTreeSet<String>,
    /// Labels of all nodes.
    pub node_labels: Vec<BTreeMap<String, String>>,
    /// Nodes that their kubelets do not report as ready.
    pub nodes_not_ready: BTreeSet<String>,
    /// Which optional kinds the cluster knows.
    pub optional: Optional,
    /// The stack's Deployments by name.
    pub deployments: HashMap<String, Arc<Deployment>>,
    /// The stack's engine pods, each with the last word of its guard.
    pub pods: Vec<(Arc<EnginePod>, Option<Seen>)>,
}

impl Observed {
    /// What matters for the decision on an update, of the Deployment of that name.
    #[must_use]
    pub fn live(&self, name: &str) -> Option<super::build::Live> {
        let deployment = self.deployments.get(name)?;
        let of = |key: &str| deployment.annotations().get(key).cloned();
        Some(super::build::Live {
            spec_hash: of(annotation::SPEC)?,
            template_hash: of(annotation::TEMPLATE)?,
            replicas: deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
        })
    }
}

/// Names found within a TTL, so that a busy stack does not read the same Secret at each change of a pod.
#[derive(Default)]
pub struct TtlCache(Mutex<HashMap<String, Instant>>);

impl TtlCache {
    fn knows(&self, key: &str) -> bool {
        self.0.lock().get(key).is_some_and(|at| at.elapsed() < FOUND_TTL)
    }

    fn learn(&self, key: String) {
        let mut known = self.0.lock();
        known.retain(|_, at| at.elapsed() < FOUND_TTL);
        known.insert(key, Instant::now());
    }
}

/// Reads what the stack refers to. Secrets and claims by the names that the stack gives, all else from the watches.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn observe(context: &Context, stack: &SpeechStack) -> Result<Observed, Error> {
    let namespace = stack.namespace().unwrap_or_default();
    let name = stack.name_any();
    let nodes = context.nodes.state();
    Ok(Observed {
        ngc_secret: secret(context, stack, &namespace).await?,
        missing_claims: missing_claims(context, stack, &namespace).await?,
        nodes_not_ready: nodes.iter().filter(|node| !is_ready(node)).map(|node| node.name_any()).collect(),
        node_labels: nodes.iter().map(|node| node.labels().clone()).collect(),
        optional: context.optional.now(),
        deployments: deployments(context, &namespace, &name),
        pods: pods(context, stack),
    })
}

async fn secret(context: &Context, stack: &SpeechStack, namespace: &str) -> Result<Found, Error> {
    let Some(wanted) = &stack.spec.auth.ngc_secret_ref else { return Ok(Found::Yes) };
    let key = format!("secret/{namespace}/{}/{}", wanted.name, wanted.key);
    if context.found.knows(&key) {
        return Ok(Found::Yes);
    }
    let api = Api::<Secret>::namespaced(context.client.clone(), namespace);
    let found = match within("Secret", &wanted.name, api.get_opt(&wanted.name)).await? {
        None => Found::No,
        Some(secret) => {
            let data = secret.data.as_ref().is_some_and(|data| data.contains_key(&wanted.key));
            if data { Found::Yes } else { Found::WithoutKey }
        }
    };
    if found == Found::Yes {
        context.found.learn(key);
    }
    Ok(found)
}

async fn missing_claims(
    context: &Context,
    stack: &SpeechStack,
    namespace: &str,
) -> Result<BTreeSet<String>, Error> {
    let engines = stack.spec.stt.iter().chain(&stack.spec.tts);
    let named: BTreeSet<_> =
        engines.filter_map(|engine| engine.cache.as_ref()?.existing_claim.clone()).collect();
    let api = Api::<PersistentVolumeClaim>::namespaced(context.client.clone(), namespace);
    let mut missing = BTreeSet::new();
    for claim in named {
        let key = format!("claim/{namespace}/{claim}");
        if context.found.knows(&key) {
            continue;
        }
        match within("PersistentVolumeClaim", &claim, api.get_metadata_opt(&claim)).await? {
            Some(_) => context.found.learn(key),
            None => {
                missing.insert(claim);
            }
        }
    }
    Ok(missing)
}

fn deployments(context: &Context, namespace: &str, stack: &str) -> HashMap<String, Arc<Deployment>> {
    let of_stack = |deployment: &Deployment| belongs(deployment, namespace, stack);
    let all = context.deployments.state_filter(of_stack);
    all.into_iter().map(|deployment| (deployment.name_any(), deployment)).collect()
}

fn pods(context: &Context, stack: &SpeechStack) -> Vec<(Arc<EnginePod>, Option<Seen>)> {
    let pods = context.pods.of_stack(&ObjectRef::from_obj(stack));
    let with_word = |pod: Arc<EnginePod>| {
        let seen = context.guards.seen(&pod.uid);
        (pod, seen)
    };
    pods.into_iter().map(with_word).collect()
}

fn belongs(object: &impl ResourceExt, namespace: &str, stack: &str) -> bool {
    object.meta().namespace.as_deref() == Some(namespace)
        && object.labels().get(label::STACK).is_some_and(|of| of == stack)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().all(|condition| condition.type_ != "Ready" || condition.status == "True")
}

async fn within<T>(
    what: &'static str,
    name: &str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    tokio::time::timeout(super::CALL_TIMEOUT, call)
        .await
        .map_err(|_| Error::TimedOut { what, name: name.into() })?
        .map_err(|source| Error::Read { what, name: name.into(), source })
}
