//! What an engine's container logged before it ended (IO; choosing the line is pure). Each end is read once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::redact::redact;
use contract::signature;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use parking_lot::Mutex;

use super::{CALL_TIMEOUT, Context};
use crate::names::container;
use crate::pods::{Container, EnginePod};

/// Lines and bytes that are read of the end of a log.
const LINES: i64 = 400;
const BYTES: i64 = 64 * 1024;
/// Pods of a stack whose logs are read in one pass.
const MOST: usize = 4;
/// How long the words of a pod are kept after they were last asked for.
const TTL: Duration = Duration::from_secs(3600);

/// What was read, by pod UID, with the number of restarts at that time.
#[derive(Default)]
pub struct Read(Mutex<HashMap<String, Entry>>);

struct Entry {
    restarts: i32,
    words: Option<String>,
    asked: Instant,
}

/// The telling line of each pod whose engine ended badly, by the pods' names; nothing when logs may not be read. Logs that
/// cannot be read are left out.
pub async fn of(context: &Context, namespace: &str, pods: &[Arc<EnginePod>]) -> HashMap<String, String> {
    let mut all = HashMap::new();
    if !context.read_logs {
        return all;
    }
    let ended = pods.iter().filter_map(|pod| Some((pod, ended(pod)?)));
    for (pod, ended) in ended.take(MOST) {
        let known = context.last_words.get(&pod.uid, ended.restarts, Instant::now());
        let words = match known {
            Some(known) => known,
            None => {
                let words = read(context, namespace, pod, &ended).await;
                context.last_words.keep(&pod.uid, ended.restarts, words.clone(), Instant::now());
                words
            }
        };
        all.extend(words.map(|words| (pod.name.to_string(), words)));
    }
    all
}

/// An engine container that ended badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ended {
    restarts: i32,
    /// Whether another one runs since, so that the log is that of the container before.
    runs_again: bool,
}

fn ended(pod: &EnginePod) -> Option<Ended> {
    let containers = &pod.trouble.as_deref()?.containers;
    let engine: &Container = containers.iter().find(|one| *one.name == *container::ENGINE)?;
    let last = engine.state.terminated.as_ref().or(engine.last_state.terminated.as_ref())?;
    (last.exit_code != 0)
        .then_some(Ended { restarts: engine.restart_count, runs_again: engine.state.running.is_some() })
}

async fn read(context: &Context, namespace: &str, pod: &EnginePod, ended: &Ended) -> Option<String> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let parameters = LogParams {
        container: Some(container::ENGINE.into()),
        previous: ended.runs_again,
        tail_lines: Some(LINES),
        limit_bytes: Some(BYTES),
        ..LogParams::default()
    };
    match tokio::time::timeout(CALL_TIMEOUT, pods.logs(&pod.name, &parameters)).await {
        Ok(Ok(log)) => telling(&log, |line| redact(line.as_bytes())),
        Ok(Err(error)) => {
            tracing::debug!(pod = %pod.name, %error, "unable to read the log of an engine that ended");
            None
        }
        Err(_) => None,
    }
}

/// The line that names a known fault, with the fault's class; without one the last line with words. `clean` is applied to the line.
#[must_use]
pub fn telling(log: &str, clean: impl Fn(&str) -> String) -> Option<String> {
    let lines = || log.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    match signature::find(log) {
        Some(known) => {
            let has = |line: &&str| signature::find(line).is_some_and(|found| found.id == known.id);
            let line = lines().find(has).unwrap_or(known.contains);
            Some(format!("class {} ({}): {}", known.class.as_str(), known.id, clean(line)))
        }
        None => lines().next().map(clean),
    }
}

impl Read {
    fn get(&self, uid: &str, restarts: i32, now: Instant) -> Option<Option<String>> {
        let mut known = self.0.lock();
        let entry = known.get_mut(uid).filter(|entry| entry.restarts == restarts)?;
        entry.asked = now;
        Some(entry.words.clone())
    }

    fn keep(&self, uid: &str, restarts: i32, words: Option<String>, asked: Instant) {
        let mut known = self.0.lock();
        known.retain(|_, entry| asked.saturating_duration_since(entry.asked) < TTL);
        known.insert(uid.to_owned(), Entry { restarts, words, asked });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::reconcile::testing::{self, Server};

    fn plain(log: &str) -> Option<String> {
        telling(log, str::to_owned)
    }

    #[test]
    fn a_known_fault_is_told_before_the_last_line() {
        let log = "INFO start\nRuntimeError: CUDA error: an illegal memory access was encountered\n  File \"x.py\"\nExiting\n\n";
        assert_eq!(
            plain(log).as_deref(),
            Some(
                "class A (illegal_address): RuntimeError: CUDA error: an illegal memory access was encountered"
            )
        );
        assert_eq!(plain("INFO start\nno model at /models\n").as_deref(), Some("no model at /models"));
        assert_eq!(plain("\n \n"), None);
    }

    fn pod(state: &Value, last: &Value, restarts: i32) -> EnginePod {
        let status = json!({"containerStatuses": [{"name": "engine", "image": "e", "imageID": "", "ready": false,
            "restartCount": restarts, "state": state, "lastState": last}]});
        let pod = json!({"metadata": {"name": "p", "uid": "u"}, "status": status});
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn only_bad_ends_are_looked_at() {
        let bad = json!({"terminated": {"exitCode": 1}});
        let good = json!({"terminated": {"exitCode": 0}});
        let waits = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let runs = json!({"running": {"startedAt": null}});
        let none = json!({});
        assert_eq!(ended(&pod(&waits, &bad, 3)), Some(Ended { restarts: 3, runs_again: false }));
        assert_eq!(ended(&pod(&bad, &none, 0)), Some(Ended { restarts: 0, runs_again: false }));
        assert_eq!(ended(&pod(&runs, &bad, 1)), Some(Ended { restarts: 1, runs_again: true }));
        assert_eq!(ended(&pod(&waits, &good, 1)), None);
        assert_eq!(ended(&pod(&runs, &none, 0)), None);
    }

    #[tokio::test]
    async fn each_end_is_read_once_and_none_without_the_right() {
        let server = Server::default();
        let crashed = |restarts| {
            let waits = json!({"waiting": {"reason": "CrashLoopBackOff"}});
            vec![Arc::new(pod(&waits, &json!({"terminated": {"exitCode": 1}}), restarts))]
        };
        let without = testing::context(&server);
        assert!(of(&without, "speech", &crashed(1)).await.is_empty());
        assert!(server.calls().is_empty());

        let with =
            Arc::new(Context { read_logs: true, ..Arc::into_inner(testing::context(&server)).unwrap() });
        server.put("/api/v1/namespaces/speech/pods/p/log", json!("CUDA_ERROR_NO_DEVICE"));
        let words = of(&with, "speech", &crashed(1)).await;
        assert!(words["p"].starts_with("class A'' (no_device)"), "{words:?}");
        assert_eq!(server.calls().len(), 1);
        assert_eq!(of(&with, "speech", &crashed(1)).await, words);
        assert!(server.calls().is_empty(), "this end was read");
        server.put("/api/v1/namespaces/speech/pods/p/log", json!("using token=abc123"));
        let words = of(&with, "speech", &crashed(2)).await;
        assert_eq!(server.calls().len(), 1, "another end");
        assert!(!words["p"].contains("abc123"), "{words:?}");
    }
}
