//! The observe step (IO): what the stack refers to, and what exists of it already.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Secret};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use speechstack_crds::SpeechStack;

use super::outside::{self, Outside};
use super::{Context, complaints, last_words};
use crate::guards::Seen;
use crate::owned::Owned;
use crate::pods::EnginePod;
use crate::watch::Optional;
use crate::workloads::LiveWorkload;

mod fillings;

/// How long a Secret or claim that was found counts as there: bounds reads, not safety, as the kubelet looks
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
    /// When.
    pub now: jiff::Timestamp,
    /// The NGC key.
    pub ngc_secret: Found,
    /// The file with API keys.
    pub keys_secret: Found,
    /// The URL of the Redis where gateways count quotas.
    pub redis_secret: Found,
    /// The URL of the Redis where gateways keep jobs.
    pub jobs_redis_secret: Found,
    /// Headers for the collector of traces.
    pub tracing_secret: Found,
    /// The gateway's certificate.
    pub tls_secret: Found,
    /// The API keys of external servers, by the engines' names.
    pub api_key_secrets: BTreeMap<String, Found>,
    /// How long each engine that may sleep was not used, as far as gateways say.
    pub unused: HashMap<String, crate::uses::Unused>,
    /// How far Jobs that fill caches are, by their names.
    pub fillings: HashMap<String, Filling>,
    /// Claims that the stack names and that do not exist.
    pub missing_claims: BTreeSet<String>,
    /// Labels of all nodes.
    pub node_labels: Vec<BTreeMap<String, String>>,
    /// Nodes that their kubelets do not report as ready.
    pub nodes_not_ready: BTreeSet<String>,
    /// Which optional kinds the cluster knows.
    pub optional: Optional,
    /// The stack's Deployments and StatefulSets by name.
    pub workloads: HashMap<String, LiveWorkload>,
    /// The stack's claims.
    pub claims: BTreeSet<String>,
    /// Why volumes of pods cannot be attached or mounted, and why pods cannot be made, by the name of the pod or workload.
    pub complaints: HashMap<String, String>,
    /// What engines that ended badly logged, by the pods' names.
    pub last_words: HashMap<String, String>,
    /// How the gateway is reached from outside, as other controllers say.
    pub outside: Outside,
    /// Pods whose guard was not reached for long, and why.
    pub unreached: Vec<(String, String)>,
    /// The stack's engine pods, each with the last word of its guard.
    pub pods: Vec<(Arc<EnginePod>, Option<Seen>)>,
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

/// A Job that fills a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filling {
    /// It has not ended.
    Running {
        /// When it began.
        started: Option<jiff::Timestamp>,
        /// What its pod waits for, or last failed of.
        says: Option<String>,
    },
    /// The cache is filled.
    Complete,
    /// It gave up, and why.
    Failed(String),
}

/// Reads what the stack refers to. Secrets and claims by the names that the stack gives, all else from the watches.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn observe(context: &Context, stack: &SpeechStack) -> Result<Observed, Error> {
    let now = jiff::Timestamp::now();
    let namespace = stack.namespace().unwrap_or_default();
    let name = stack.name_any();
    let nodes = context.nodes.state();
    let pods = context.pods.of_stack(&ObjectRef::from_obj(stack));
    let workloads = context.workloads.of_stack(&namespace, &name);
    let ngc = stack.spec.auth.ngc_secret_ref.as_ref().map(|key| (&*key.name, &*key.key));
    let keys = stack.spec.gateway.auth.as_ref().map(|auth| &auth.keys_secret_ref);
    let keys = keys.map(|key| (&*key.name, &*key.key));
    let redis = stack.spec.gateway.quotas.as_ref().and_then(|quotas| quotas.redis.as_ref());
    let redis = redis.map(|redis| (&*redis.url_secret_ref.name, &*redis.url_secret_ref.key));
    let jobs_redis = stack.spec.gateway.storage.as_ref().and_then(|storage| storage.redis.as_ref());
    let jobs_redis = jobs_redis.map(|redis| (&*redis.url_secret_ref.name, &*redis.url_secret_ref.key));
    let headers = stack.spec.gateway.tracing.as_ref().and_then(|tracing| tracing.headers_secret_ref.as_ref());
    let headers = headers.map(|key| (&*key.name, &*key.key));
    let tls = stack.spec.gateway.tls.as_ref().map(|tls| (&*tls.secret_name, "tls.crt"));
    let mut api_key_secrets = BTreeMap::new();
    for (_, engine) in stack.spec.engines() {
        let key = engine.external.as_ref().and_then(|external| external.api_key_secret_ref.as_ref());
        if let Some(key) = key {
            let found = secret(context, Some((&key.name, &key.key)), &namespace).await?;
            api_key_secrets.insert(engine.name.clone(), found);
        }
    }
    Ok(Observed {
        now,
        ngc_secret: secret(context, ngc, &namespace).await?,
        keys_secret: secret(context, keys, &namespace).await?,
        redis_secret: secret(context, redis, &namespace).await?,
        jobs_redis_secret: secret(context, jobs_redis, &namespace).await?,
        tracing_secret: secret(context, headers, &namespace).await?,
        tls_secret: secret(context, tls, &namespace).await?,
        api_key_secrets,
        unused: context.uses.of(&ObjectRef::from_obj(stack)),
        fillings: fillings::of(context, stack, &namespace).await?,
        missing_claims: missing_claims(context, stack, &namespace).await?,
        nodes_not_ready: nodes.iter().filter(|node| !is_ready(node)).map(|node| node.name_any()).collect(),
        node_labels: nodes.iter().map(|node| node.labels().clone()).collect(),
        optional: context.optional.now(),
        workloads,
        claims: claims(context, &namespace, &name),
        complaints: complaints::of(context, &namespace, &pods, now).await,
        last_words: last_words::of(context, &namespace, &pods).await,
        outside: outside::read(&context.client, &context.outside, stack).await,
        unreached: unreached(context, &pods, now),
        pods: pods.into_iter().map(|pod| with_word(context, pod)).collect(),
    })
}

/// Whether there is a Secret of that name with that key.
async fn secret(context: &Context, wanted: Option<(&str, &str)>, namespace: &str) -> Result<Found, Error> {
    let Some((name, key)) = wanted.filter(|_| context.check_secrets) else {
        return Ok(Found::Yes);
    };
    let known = format!("secret/{namespace}/{name}/{key}");
    if context.found.knows(&known) {
        return Ok(Found::Yes);
    }
    let api = Api::<Secret>::namespaced(context.client.clone(), namespace);
    let found = match within("Secret", name, api.get_opt(name)).await? {
        None => Found::No,
        Some(secret) => {
            let data = secret.data.as_ref().is_some_and(|data| data.contains_key(key));
            if data { Found::Yes } else { Found::WithoutKey }
        }
    };
    if found == Found::Yes {
        context.found.learn(known);
    }
    Ok(found)
}

async fn missing_claims(
    context: &Context,
    stack: &SpeechStack,
    namespace: &str,
) -> Result<BTreeSet<String>, Error> {
    let caches = stack.spec.engines().filter_map(|(_, engine)| engine.cache.as_ref()?.existing_claim.clone());
    let storage = stack.spec.gateway.storage.as_ref().and_then(|storage| storage.existing_claim.clone());
    let named: BTreeSet<_> = caches.chain(storage).collect();
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

fn claims(context: &Context, namespace: &str, stack: &str) -> BTreeSet<String> {
    let objects = context.owned.of_stack(&(namespace.to_owned(), stack.to_owned()));
    objects.into_keys().filter(|(kind, _)| *kind == Owned::Claim).map(|(_, name)| name).collect()
}

fn unreached(context: &Context, pods: &[Arc<EnginePod>], now: jiff::Timestamp) -> Vec<(String, String)> {
    let running =
        pods.iter().filter(|pod| pod.running_since.is_some() && pod.deleted.is_none() && !pod.ended);
    let why =
        |pod: &Arc<EnginePod>| Some((pod.name.to_string(), context.guards.unreached(&pod.uid, now)?.why));
    running.filter_map(why).collect()
}

fn with_word(context: &Context, pod: Arc<EnginePod>) -> (Arc<EnginePod>, Option<Seen>) {
    let seen = context.guards.seen(&pod.uid);
    (pod, seen)
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
