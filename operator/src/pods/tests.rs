//! Tests of what is kept of a pod, and of finding pods by stack.

use serde_json::{Value, json};

use super::*;

fn watched(name: &str, stack: &str, more: &Value) -> WatchedPod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "7",
            "labels": {"speechstack.dev/stack": stack, "speechstack.dev/engine": "ears", "pod-template-hash": "1"}},
    });
    pod.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(pod).unwrap()
}

fn plain(name: &str, stack: &str) -> WatchedPod {
    watched(name, stack, &json!({}))
}

fn stack(name: &str) -> Stack {
    ObjectRef::new(name).within("ns")
}

fn names(pods: &Pods, name: &str) -> Vec<String> {
    pods.of_stack(&stack(name)).iter().map(|pod| pod.name.to_string()).collect()
}

#[test]
fn what_is_looked_at_is_read_and_the_rest_is_skipped() {
    let long = "x".repeat(5000) + " 403 é";
    let pod: EnginePod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "annotations": {"a": "b"},
            "labels": {"speechstack.dev/stack": "demo", "speechstack.dev/engine": "ears", "pod-template-hash": "1", "team": "x"},
            "managedFields": [{"manager": "kubelet"}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "engine"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1",
            "conditions": [
                {"type": "Ready", "status": "True", "lastProbeTime": null},
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ],
            "initContainerStatuses": [{"name": "guard", "state": {"running": {"startedAt": null}}}],
            "containerStatuses": [{"name": "engine", "image": "i", "imageID": "d", "ready": true, "restartCount": 2,
                "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1, "message": long}}}]},
    }))
    .unwrap();
    assert_eq!((&*pod.name, &*pod.uid, pod.node.as_deref()), ("p", "u", Some("n1")));
    assert_eq!(pod.address, Some("10.0.0.1".parse().unwrap()));
    let revision = Revision {
        engine: "ears".into(),
        template: Some("1".into()),
        owner: None,
        config_map: None,
        image: Some("d".into()),
    };
    assert_eq!(*pod.revision, revision);
    assert_eq!((pod.restarts, pod.ready, pod.ended, pod.restarting), (2, true, false, false));
    assert_eq!(pod.scheduled.unwrap().to_string(), "2026-01-01T00:00:00Z");
    let containers = pod.trouble.unwrap().containers;
    assert_eq!(containers.len(), 1, "only the one that ended before");
    let message = containers[0].last_state.terminated.as_ref().unwrap().message.as_ref().unwrap();
    assert!(message.len() <= 1024 && message.ends_with("403 é"), "the end of a log is kept");
}

#[test]
fn a_pod_without_trouble_is_small() {
    let status = json!({"phase": "Running", "containerStatuses": [{"name": "engine", "state": {"running": {}}, "lastState": {}}]});
    let pods = Pods::default();
    for name in ["a", "b"] {
        pods.apply(Event::Apply(watched(name, "s", &json!({"status": status}))));
    }
    let [a, b] = pods.of_stack(&stack("s")).try_into().unwrap();
    assert!(a.trouble.is_none() && Arc::ptr_eq(&a.revision, &b.revision));
    assert!(size_of::<EnginePod>() <= 160, "{}", size_of::<EnginePod>());
}

#[test]
fn the_kubelet_at_work_is_noticed() {
    let of = |state: Value| {
        let status = json!({"containerStatuses": [{"name": "engine", "state": state}]});
        watched("p", "s", &json!({"status": status})).pod.restarting
    };
    assert!(of(json!({"waiting": {"reason": "CrashLoopBackOff"}})));
    assert!(of(json!({"terminated": {"exitCode": 1}})));
    assert!(!of(json!({"waiting": {"reason": "ContainerCreating"}})));
    assert!(!of(json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})));
}

#[test]
fn pods_are_found_by_stack_and_each_change_wakes_it() {
    let pods = Pods::default();
    assert_eq!(pods.apply(Event::Apply(plain("b", "s"))), [stack("s")]);
    pods.apply(Event::Apply(plain("a", "s")));
    pods.apply(Event::Apply(plain("c", "other")));
    assert_eq!((names(&pods, "s"), names(&pods, "other")), (vec!["a".into(), "b".into()], vec!["c".into()]));
    let version = pods.version();
    assert_eq!(pods.apply(Event::Delete(plain("b", "s"))), [stack("s")]);
    assert_eq!(names(&pods, "s"), ["a"]);
    assert!(pods.version() > version);
}

#[test]
fn a_pod_whose_label_was_edited_moves() {
    let pods = Pods::default();
    pods.apply(Event::Apply(plain("a", "s")));
    assert_eq!(pods.apply(Event::Apply(plain("a", "other"))), [stack("s"), stack("other")]);
    assert_eq!((names(&pods, "s").len(), names(&pods, "other").len()), (0, 1));
}

#[test]
fn a_new_list_takes_the_place_of_what_was_known_once_complete() {
    let pods = Pods::default();
    pods.apply(Event::Apply(plain("a", "gone")));
    for event in [Event::Init, Event::InitApply(plain("b", "s"))] {
        assert!(pods.apply(event).is_empty());
    }
    assert_eq!((names(&pods, "gone").len(), names(&pods, "s").len()), (1, 0));
    let mut woken = pods.apply(Event::InitDone);
    woken.sort_by_key(|stack| stack.name.clone());
    assert_eq!(woken, [stack("gone"), stack("s")]);
    assert_eq!((names(&pods, "gone").len(), names(&pods, "s").len()), (0, 1));
}
