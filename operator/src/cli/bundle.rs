//! `bundle`: an archive for support, of what a stack is, did and logged. Secrets are not read; what may hold one, or words of a
//! user, is masked.

use std::io;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::Request;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, DynamicObject, ListParams, LogParams};
use kube::{Client, ResourceExt};
use serde::Serialize;
use speechstack_crds::SpeechStack;

use super::redact;
use crate::fingerprint;
use crate::names::{container, label};
use crate::owned::Owned;

/// Lines and bytes of each log.
const LOG_LINES: i64 = 2000;
const LOG_BYTES: i64 = 1024 * 1024;
/// Pods whose logs and reports are read.
const MOST_PODS: usize = 40;
/// Events of the namespace that are looked through.
const MOST_EVENTS: u32 = 2000;

/// A file of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path in the archive.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// Reads all that there is. What cannot be read is named in `README.txt`, and left out.
pub async fn gather(client: &Client, stack: &SpeechStack, now: Timestamp) -> Vec<File> {
    let mut gathering = Gathering { client, stack, files: Vec::new(), missing: Vec::new() };
    gathering.object("stack.yaml", stack);
    gathering.objects().await;
    gathering.events().await;
    gathering.pods().await;
    gathering.finish(now)
}

struct Gathering<'a> {
    client: &'a Client,
    stack: &'a SpeechStack,
    files: Vec<File>,
    missing: Vec<String>,
}

impl Gathering<'_> {
    fn namespace(&self) -> String {
        self.stack.namespace().unwrap_or_default()
    }

    fn of_stack(&self) -> ListParams {
        ListParams::default().labels(&format!("{}={}", label::STACK, self.stack.name_any()))
    }

    fn miss(&mut self, what: &str, error: &kube::Error) {
        self.missing.push(format!("{what}: {error}"));
    }

    fn object(&mut self, path: &str, object: &impl Serialize) {
        let mut object = fingerprint::json(object);
        redact::object(&mut object);
        match serde_saphyr::to_string(&object) {
            Ok(text) => self.files.push(File { path: path.to_owned(), text }),
            Err(error) => self.missing.push(format!("{path}: {error}")),
        }
    }

    async fn objects(&mut self) {
        for kind in Owned::BUILT_IN.into_iter().chain(Owned::OPTIONAL) {
            let api = Api::<DynamicObject>::namespaced_with(
                self.client.clone(),
                &self.namespace(),
                &kind.resource(),
            );
            match api.list(&self.of_stack()).await {
                Ok(found) => {
                    for object in found.items {
                        let path = format!("objects/{}-{}.yaml", kind.kind(), object.name_any());
                        self.object(&path, &object);
                    }
                }
                // A kind that the cluster does not have has no objects to lack.
                Err(kube::Error::Api(status)) if status.code == 404 && Owned::OPTIONAL.contains(&kind) => {}
                Err(error) => self.miss(kind.kind(), &error),
            }
        }
    }

    async fn events(&mut self) {
        let api = Api::<Event>::namespaced(self.client.clone(), &self.namespace());
        let found = match api.list(&ListParams::default().limit(MOST_EVENTS)).await {
            Ok(found) => found.items,
            Err(error) => return self.miss("Events", &error),
        };
        let name = self.stack.name_any();
        let ours = |event: &&Event| {
            let about = event.involved_object.name.as_deref().unwrap_or_default();
            about == name || about.strip_prefix(&name).is_some_and(|rest| rest.starts_with('-'))
        };
        let mut lines: Vec<String> = found.iter().filter(ours).map(line).collect();
        lines.sort();
        self.files.push(File { path: "events.txt".into(), text: lines.concat() });
    }

    async fn pods(&mut self) {
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.namespace());
        let found = match api.list(&self.of_stack()).await {
            Ok(found) => found.items,
            Err(error) => return self.miss("Pods", &error),
        };
        if found.len() > MOST_PODS {
            self.missing.push(format!("logs of {} more pods", found.len() - MOST_PODS));
        }
        for pod in found.iter().take(MOST_PODS) {
            self.object(&format!("pods/{}.yaml", pod.name_any()), pod);
            self.logs(&api, pod).await;
            if pod.labels().contains_key(label::ENGINE) {
                self.report(&pod.name_any()).await;
            }
        }
    }

    async fn logs(&mut self, api: &Api<Pod>, pod: &Pod) {
        let status = pod.status.iter();
        let containers = status.flat_map(|status| {
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        });
        for one in containers {
            // The log before the last restart tells of the fault, the one after it of the start.
            for previous in [false, true].into_iter().take(if one.restart_count > 0 { 2 } else { 1 }) {
                let parameters = LogParams {
                    container: Some(one.name.clone()),
                    previous,
                    tail_lines: Some(LOG_LINES),
                    limit_bytes: Some(LOG_BYTES),
                    timestamps: true,
                    ..LogParams::default()
                };
                let when = if previous { "-previous" } else { "" };
                let path = format!("logs/{}-{}{when}.log", pod.name_any(), one.name);
                match api.logs(&pod.name_any(), &parameters).await {
                    // Our own containers log no words of users.
                    Ok(log) if one.name == container::GUARD || one.name == container::GATEWAY => {
                        self.files.push(File { path, text: log });
                    }
                    Ok(log) => self.files.push(File { path, text: redact::log(&log) }),
                    Err(error) => self.miss(&path, &error),
                }
            }
        }
    }

    /// The guard's own report with its incidents, through the API server.
    async fn report(&mut self, pod: &str) {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{pod}:{}/proxy/state",
            self.namespace(),
            contract::port::GUARD_ADMIN
        );
        let request = match Request::get(path).body(Vec::new()) {
            Ok(request) => request,
            Err(error) => return self.missing.push(format!("report of {pod}: {error}")),
        };
        match self.client.request_text(request).await {
            Ok(text) => self.files.push(File { path: format!("guards/{pod}.json"), text }),
            Err(error) => self.miss(&format!("report of {pod}"), &error),
        }
    }

    fn finish(mut self, now: Timestamp) -> Vec<File> {
        let mut text = format!(
            "SpeechStack {}/{}, gathered {now} by version {}.\n\
             Secrets were not read. Values of secret names, credentials and quoted texts of engines' logs are masked as [...].\n",
            self.namespace(),
            self.stack.name_any(),
            env!("CARGO_PKG_VERSION"),
        );
        if !self.missing.is_empty() {
            text.push_str("\nWhat could not be read:\n");
            for missing in &self.missing {
                text.push_str(missing);
                text.push('\n');
            }
        }
        self.files.insert(0, File { path: "README.txt".into(), text });
        self.files
    }
}

/// An Event in a line.
fn line(event: &Event) -> String {
    let time = event
        .event_time
        .as_ref()
        .map(|time| time.0)
        .or_else(|| event.last_timestamp.as_ref().map(|time| time.0));
    let time = time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let of = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let about = &event.involved_object;
    format!(
        "{time}  {}  {}  {}/{}  {}\n",
        of(&event.type_),
        of(&event.reason),
        of(&about.kind),
        of(&about.name),
        of(&event.message)
    )
}

/// The files as a gzipped tar archive, below a folder of that name.
///
/// # Errors
/// When a path does not fit into an archive.
pub fn pack(folder: &str, files: &[File], now: Timestamp) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now.as_second().unsigned_abs());
        archive.append_data(&mut header, format!("{folder}/{}", file.path), file.text.as_bytes())?;
    }
    archive.into_inner()?.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use serde_json::{Value, json};

    use super::*;
    use crate::reconcile::testing::{self, Server};

    fn list(kind: &str, items: Value) -> Value {
        json!({"kind": kind, "apiVersion": "v1", "metadata": {}, "items": items})
    }

    /// A stack with a pod whose engine was restarted; the API server knows nothing else.
    fn server() -> Server {
        let server = Server::default();
        let root = "/api/v1/namespaces/speech";
        let status = |name: &str, restarts: i32| json!({"name": name, "image": "i", "imageID": "", "ready": true, "restartCount": restarts});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "demo-ears-1", "labels": {"speechstack.dev/stack": "demo", "speechstack.dev/engine": "ears"},
                "managedFields": [{"manager": "x"}]},
            "spec": {"containers": [{"name": "engine", "env": [
                {"name": "HF_TOKEN", "value": "hf_secretvalue"}, {"name": "NIM_TAGS_SELECTOR", "value": "mode=str"}]}]},
            "status": {"containerStatuses": [status("engine", 1)], "initContainerStatuses": [status("guard", 0)]},
        });
        server.put(&format!("{root}/pods"), list("PodList", json!([pod])));
        server.put(
            &format!("{root}/pods/demo-ears-1/log"),
            json!("spoken text: 'my secret words' token=abc123"),
        );
        server.put(&format!("{root}/pods/demo-ears-1:9401/proxy/state"), json!({"state": "healthy"}));
        let event = |about: &str| {
            json!({"metadata": {"name": about}, "involvedObject": {"kind": "Pod", "name": about},
                "reason": "BackOff", "type": "Warning", "message": "again"})
        };
        server.put(
            &format!("{root}/events"),
            list("EventList", json!([event("demo-ears-1"), event("demonstration")])),
        );
        server
    }

    fn unpacked(archive: &[u8]) -> Vec<(String, String)> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (path, text)
        });
        entries.collect()
    }

    #[tokio::test]
    async fn an_archive_has_what_is_there_names_what_is_not_and_tells_no_secret() {
        let spec = "stt: [{name: ears, preset: reference, env: [{name: API_KEY, value: sk-verysecret}]}]";
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let files = gather(&server().client(), &testing::stack(spec), now).await;
        let files = unpacked(&pack("bundle", &files, now).unwrap());
        let text = |path: &str| {
            let found = files.iter().find(|(one, _)| one == &format!("bundle/{path}"));
            found.unwrap_or_else(|| panic!("no {path}: {files:#?}")).1.clone()
        };
        assert!(text("stack.yaml").contains("preset: reference"));
        assert!(text("pods/demo-ears-1.yaml").contains("mode=str"));
        assert!(text("guards/demo-ears-1.json").contains("healthy"));
        assert!(text("events.txt").contains("demo-ears-1") && !text("events.txt").contains("demonstration"));
        let _both = (text("logs/demo-ears-1-engine.log"), text("logs/demo-ears-1-engine-previous.log"));
        assert!(text("README.txt").contains("Deployment: "), "what is missing is named");
        let all: String = files.iter().map(|(_, text)| text.as_str()).collect();
        for secret in ["hf_secretvalue", "sk-verysecret", "managedFields"] {
            assert!(!all.contains(secret), "{secret} in the archive");
        }
        let engine = text("logs/demo-ears-1-engine.log");
        assert!(!engine.contains("abc123") && !engine.contains("secret words"), "{engine}");
    }
}
