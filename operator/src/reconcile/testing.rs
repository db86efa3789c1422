//! For tests: stacks from minimal YAML, and an API server in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::client::Body;
use kube::runtime::events::Reporter;
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use parking_lot::Mutex;
use prometheus::Registry;
use serde_json::{Value, json};
use speechstack_crds::SpeechStack;

use super::Context;
use super::observe::Observed;
use super::validate::{self, Defaults, ValidStack};
use crate::guards::Guards;
use crate::metrics::Metrics;
use crate::names::FIELD_MANAGER;
use crate::owned::{Index, Owned};
use crate::pods::Pods;
use crate::watch::{Optional, OptionalKinds};
use crate::workloads::Workloads;

/// The smallest stack of both kinds.
pub const MINIMAL: &str = "
stt: [{name: ears, preset: parakeet-tdt-0.6b-v3}]
tts: [{name: mouth, preset: magpie-multilingual}]
";

/// A stack named demo in namespace speech with this spec.
pub fn stack(spec: &str) -> SpeechStack {
    let spec = serde_saphyr::from_str(spec).unwrap();
    let mut stack = SpeechStack::new("demo", spec);
    stack.metadata.namespace = Some("speech".into());
    stack.metadata.uid = Some("stack-uid".into());
    stack.metadata.generation = Some(1);
    stack.metadata.resource_version = Some("1".into());
    stack
}

/// The operator's settings.
pub fn defaults() -> Defaults {
    Defaults {
        proxy_image: "speechstack/proxy:1".into(),
        engine_image: None,
        subject: "system:serviceaccount:speechstack-system:speechstack-operator".into(),
        presets: crate::preset::Presets::shipped().unwrap(),
        image_registry: None,
        image_pull_secrets: Vec::new(),
        fixed_user: true,
    }
}

/// The stack through the real validate step, with all optional kinds known.
pub fn valid(spec: &str) -> ValidStack {
    validate::validate(&stack(spec), &observed(), &defaults()).unwrap()
}

/// An empty cluster that knows all optional kinds.
pub fn observed() -> Observed {
    Observed { optional: all_kinds(), ..Observed::default() }
}

fn all_kinds() -> Optional {
    Optional { http_route: true, pod_monitor: true, prometheus_rule: true }
}

/// An API server in memory. It applies by replacing, and counts generations and resource versions.
#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    calls: Vec<String>,
    patches: Vec<(String, String, Value)>,
    version: u64,
    posts: Vec<Value>,
    answers: BTreeMap<String, Value>,
    refuse: Option<String>,
}

impl Server {
    /// A client of it.
    pub fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let kind =
                    parts.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
                let merge = kind.contains("merge-patch");
                if parts.method == Method::PATCH {
                    let manager = parts.uri.query().unwrap_or_default().split('&');
                    let manager = manager.filter_map(|pair| pair.strip_prefix("fieldManager=")).next();
                    let manager = manager.unwrap_or_default().to_owned();
                    server.0.lock().patches.push((parts.uri.path().to_owned(), manager, body.clone()));
                }
                let (status, answer) = server.answer(&parts.method, parts.uri.path(), body, merge);
                let answer = Full::new(Bytes::from(answer.to_string()));
                let response = Response::builder().status(status).header("content-type", "application/json");
                Ok::<_, std::convert::Infallible>(response.body(answer).unwrap())
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, path: &str, body: Value, merge: bool) -> (u16, Value) {
        let mut state = self.0.lock();
        state.calls.push(format!("{method} {path}"));
        if state.refuse.as_ref().is_some_and(|text| path.contains(text)) && *method != Method::GET {
            return failure(422, "Invalid");
        }
        if path.contains("/events.k8s.io/") {
            return (201, body);
        }
        if *method == Method::POST
            && let Some(answer) = state.answers.get(path).cloned()
        {
            state.posts.push(body);
            return (201, answer);
        }
        let key = path.trim_end_matches("/status").to_owned();
        match *method {
            Method::GET => match state.objects.get(&key) {
                Some(object) => (200, object.clone()),
                None => failure(404, "NotFound"),
            },
            Method::PATCH => {
                state.version += 1;
                let version = state.version;
                let old = state.objects.get(&key).cloned();
                let mut new = match (&old, path.ends_with("/status")) {
                    (Some(old), true) => {
                        let mut new = old.clone();
                        new["status"] = body["status"].clone();
                        new
                    }
                    (Some(old), false) if merge => {
                        let mut new = old.clone();
                        merge_into(&mut new, &body);
                        new
                    }
                    _ => body.clone(),
                };
                let same =
                    old.as_ref().is_some_and(|old| old["spec"] == new["spec"] && old["data"] == new["data"]);
                let generation = old.as_ref().and_then(|old| old["metadata"]["generation"].as_u64());
                let generation = generation.unwrap_or(0) + u64::from(!same);
                new["metadata"]["generation"] = json!(generation);
                new["metadata"]["uid"] = old
                    .as_ref()
                    .map_or_else(|| json!(format!("uid-{version}")), |old| old["metadata"]["uid"].clone());
                new["metadata"]["resourceVersion"] = json!(version.to_string());
                state.objects.insert(key, new.clone());
                (200, new)
            }
            Method::DELETE => match state.objects.remove(&key) {
                Some(_) => {
                    (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
                }
                None => failure(404, "NotFound"),
            },
            _ => failure(405, "MethodNotAllowed"),
        }
    }

    /// Puts the stack there.
    pub fn hold(&self, stack: &SpeechStack) {
        let key = "/apis/speechstack.dev/v1alpha1/namespaces/speech/speechstacks/demo";
        self.0.lock().objects.insert(key.into(), serde_json::to_value(stack).unwrap());
    }

    /// Puts any object there.
    pub fn put(&self, path: &str, object: Value) {
        self.0.lock().objects.insert(path.into(), object);
    }

    /// The stack as the server has it.
    pub fn stack(&self) -> SpeechStack {
        let key = "/apis/speechstack.dev/v1alpha1/namespaces/speech/speechstacks/demo";
        serde_json::from_value(self.0.lock().objects[key].clone()).unwrap()
    }

    /// Answers posts to that path so.
    pub fn answer_posts(&self, path: &str, answer: Value) {
        self.0.lock().answers.insert(path.into(), answer);
    }

    /// Bodies of the posts that were answered.
    pub fn posts(&self) -> Vec<Value> {
        self.0.lock().posts.clone()
    }

    /// An object as the server has it.
    pub fn object(&self, path: &str) -> Value {
        self.0.lock().objects[path].clone()
    }

    /// Field managers and bodies of the patches of an object since the calls were last asked for.
    pub fn patches(&self, path: &str) -> Vec<(String, Value)> {
        let state = self.0.lock();
        let of_path = state.patches.iter().filter(|(of, ..)| of == path);
        of_path.map(|(_, manager, body)| (manager.clone(), body.clone())).collect()
    }

    /// Refuses writes to paths with this text.
    pub fn refuse(&self, text: Option<&str>) {
        self.0.lock().refuse = text.map(str::to_owned);
    }

    /// The calls since the last time this was asked, without Events.
    pub fn calls(&self) -> Vec<String> {
        let mut state = self.0.lock();
        state.patches.clear();
        let calls = std::mem::take(&mut state.calls);
        calls.into_iter().filter(|call| !call.contains("events.k8s.io")).collect()
    }
}

fn merge_into(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    under.remove(key);
                    continue;
                }
                merge_into(under.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (under, Value::Object(_)) => {
            *under = json!({});
            merge_into(under, over);
        }
        (under, over) => *under = over.clone(),
    }
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
        "message": reason, "code": code, "metadata": {}});
    (code, status)
}

/// Lets so much time pass that a status may be written again.
pub async fn later() {
    tokio::time::pause();
    tokio::time::advance(super::status::SPACING).await;
    tokio::time::resume();
}

/// A context on that server. Its watches see nothing but what `apply` itself answers.
pub fn context(server: &Server) -> Arc<Context> {
    let client = server.client();
    let reporter = Reporter { controller: FIELD_MANAGER.into(), instance: Some("test".into()) };
    Arc::new(Context {
        client: client.clone(),
        defaults: defaults(),
        workloads: Workloads::default(),
        heard: super::complaints::Heard::default(),
        pods: Pods::default(),
        nodes: empty(),
        owned: Arc::new(Index::default()),
        guards: Guards::new(crate::guards::Tokens::fixed("token")),
        optional: Arc::new(OptionalKinds::of(all_kinds())),
        metrics: Metrics::register(&Registry::new()).unwrap(),
        recorder: super::events::Recorder::new(client, reporter),
        check_secrets: true,
        read_logs: false,
        last_words: super::last_words::Read::default(),
        uses: crate::uses::Uses::default(),
        found: super::observe::TtlCache::default(),
        outside: super::outside::Cache::default(),
        rollouts: super::rollouts::Rollouts::new(1),
        written: super::status::Written::default(),
        errors: Mutex::default(),
    })
}

/// The same context, whose watch has shown that Deployment.
pub fn knowing(context: &Arc<Context>, deployment: Deployment) -> Arc<Context> {
    let workloads = Workloads::default();
    workloads.apply(Owned::Deployment, &Event::Apply(deployment));
    Arc::new(Context {
        client: context.client.clone(),
        defaults: context.defaults.clone(),
        workloads,
        heard: super::complaints::Heard::default(),
        pods: Pods::default(),
        nodes: empty(),
        owned: context.owned.clone(),
        guards: Guards::new(crate::guards::Tokens::fixed("token")),
        optional: context.optional.clone(),
        metrics: context.metrics.clone(),
        recorder: context.recorder.clone(),
        check_secrets: true,
        read_logs: false,
        last_words: super::last_words::Read::default(),
        uses: crate::uses::Uses::default(),
        found: super::observe::TtlCache::default(),
        outside: super::outside::Cache::default(),
        rollouts: super::rollouts::Rollouts::new(1),
        written: super::status::Written::default(),
        errors: Mutex::default(),
    })
}

fn empty<K>() -> reflector::Store<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitDone);
    store
}

/// Path of an object of the stack's namespace.
pub fn path(kind: Owned, name: &str) -> String {
    let resource = kind.resource();
    let root = if resource.group.is_empty() { "/api" } else { "/apis" };
    format!("{root}/{}/namespaces/speech/{}/{name}", resource.api_version, resource.plural)
}
