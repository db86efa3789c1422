//! Ceilings on what stays in the heap for each stack and each pod, 30 % above what was measured: 13,579 bytes for a stack, 3,285
//! for its objects, 766 for its workloads, 210 for its metrics, 357 for a pod and 527 for its guard.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use kube::api::ObjectMeta;
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use speechstack_crds::SpeechStack;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::guards::{self, Guards, Tokens};
use crate::metrics::Stacks;
use crate::owned::{Index, Owned};
use crate::owners::Owners;
use crate::pods::{Pods, WatchedPod};
use crate::reconcile::{self, testing};
use crate::watch::strip;
use crate::workloads::Workloads;

const STACKS: usize = 100;
/// Engines of each stack.
const ENGINES: [&str; 2] = ["parakeet", "magpie"];
/// Pods of each engine.
const PODS: usize = 5;

/// What a closure makes, and the bytes on the heap that it left allocated.
fn measured<T>(make: impl FnOnce() -> T) -> (T, i64) {
    let mut made = None;
    let info = allocation_counter::measure(|| made = Some(make()));
    (made.unwrap(), info.bytes_current)
}

/// Prints what each of `count` things takes, and fails if that is more than `most` bytes.
fn judge(what: &str, bytes: i64, count: usize, most: usize) {
    let each = usize::try_from(bytes).unwrap() / count;
    eprintln!("{what}: {each} bytes");
    assert!(each <= most, "{what}: {each} bytes, more than {most}");
}

/// As many stacks as JSON, each with its objects, as watches show them.
async fn fleet() -> Vec<(String, Vec<(Owned, String)>)> {
    let server = testing::Server::default();
    let spec = "{stt: [{name: parakeet, preset: reference}], tts: [{name: magpie, preset: reference}]}";
    server.hold(&testing::stack(spec));
    let context = testing::context(&server);
    reconcile::reconcile(Arc::new(server.stack()), context.clone()).await.unwrap();
    let objects = context.owned.of_stack(&("speech".into(), "demo".into()));
    let mut stack = serde_json::to_value(server.stack()).unwrap();
    for (at, engine) in ENGINES.iter().enumerate() {
        let pod = |number: usize| {
            json!({"name": format!("demo-{engine}-5d9c7b6f4-{number:05}"), "node": format!("node-{number}"),
                "state": "healthy", "restarts": 0, "since": "2026-01-01T00:00:00Z"})
        };
        stack["status"]["engines"][at]["pods"] = (0..PODS).map(pod).collect();
    }
    let objects: Vec<_> = objects
        .into_keys()
        .map(|(kind, name)| (kind, server.object(&testing::path(kind, &name)).to_string()))
        .collect();
    (0..STACKS)
        .map(|number| {
            let of = |text: &str| {
                text.replace("demo", &format!("stack-{number}")).replace("stack-uid", &uid(number))
            };
            (of(&stack.to_string()), objects.iter().map(|(kind, text)| (*kind, of(text))).collect())
        })
        .collect()
}

/// As long as those of the API server.
fn uid(number: usize) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

#[tokio::test]
async fn a_stack_without_pods_fits() {
    let fleet = fleet().await;
    let (_stacks, stacks) = measured(|| {
        let (store, mut writer) = reflector::store();
        writer.apply_watcher_event(&Event::Init);
        for (stack, _) in &fleet {
            let mut stack: SpeechStack = serde_json::from_str(stack).unwrap();
            strip::stack(&mut stack);
            writer.apply_watcher_event(&Event::InitApply(stack));
        }
        writer.apply_watcher_event(&Event::InitDone);
        (store, writer)
    });
    judge("a stack", stacks, STACKS, 17_600);
    let (_index, index) = measured(|| {
        let index = Index::default();
        for (kind, object) in fleet.iter().flat_map(|(_, objects)| objects) {
            let object: Value = serde_json::from_str(object).unwrap();
            let metadata: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap();
            index.see(*kind, &metadata).unwrap();
        }
        index
    });
    judge("its objects", index, STACKS, 4_300);
    let (_workloads, workloads) = measured(|| {
        let workloads = Workloads::default();
        for (kind, object) in fleet.iter().flat_map(|(_, objects)| objects) {
            if *kind == Owned::Deployment {
                workloads.apply(
                    *kind,
                    &Event::Apply(
                        serde_json::from_str::<k8s_openapi::api::apps::v1::Deployment>(object).unwrap(),
                    ),
                );
            }
        }
        workloads
    });
    judge("its workloads", workloads, STACKS, 1_000);
    let (_metrics, metrics) = measured(|| {
        let metrics = Stacks::default();
        for (number, (stack, _)) in fleet.iter().enumerate() {
            let stack: SpeechStack = serde_json::from_str(stack).unwrap();
            metrics.set("speech", &format!("stack-{number}"), stack.status.as_ref().unwrap());
        }
        metrics
    });
    judge("its metrics", metrics, STACKS, 280);
}

/// Healthy guards at one address, played by another thread, so that what they hold is not counted.
fn guards_at(address: Ipv4Addr) {
    let (bound, ready) = mpsc::channel();
    std::thread::spawn(move || {
        let serve = async {
            let listener =
                tokio::net::TcpListener::bind((address, contract::port::GUARD_ADMIN)).await.unwrap();
            bound.send(()).unwrap();
            let report =
                json!({"instance": "127.0.0.1/1800000000/7", "state": "healthy", "verdict": "serving"});
            let event = format!("event: report\ndata: {report}\n\n");
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let answer = format!("{head}{:x}\r\n{event}\r\n", event.len());
            let mut streams = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let length = stream.read(&mut [0; 4096]).await.unwrap();
                assert!(length > 0, "no request");
                stream.write_all(answer.as_bytes()).await.unwrap();
                streams.push(stream);
            }
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(serve);
    });
    ready.recv().unwrap();
}

fn pod(stack: usize, engine: &str, number: usize, address: Ipv4Addr) -> WatchedPod {
    let name = format!("stack-{stack}-{engine}-5d9c7b6f4-{number:05}");
    let owner = json!({"uid": uid(stack), "controller": true});
    let labels = json!({"speechstack.dev/stack": format!("stack-{stack}"), "speechstack.dev/engine": engine,
        "pod-template-hash": "5d9c7b6f4"});
    let digest = format!("docker.io/speechstack/engine@sha256:{:064x}", 7);
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "speech", "uid": uid(stack * 1000 + number) + engine, "labels": labels,
            "ownerReferences": [owner]},
        "spec": {"nodeName": format!("node-{number}")},
        "status": {"podIP": address.to_string(), "phase": "Running",
            "containerStatuses": [{"name": "engine", "imageID": digest, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]},
    }))
    .unwrap()
}

#[test]
fn a_pod_with_its_guard_fits() {
    let address = guards::tests::loopback();
    guards_at(address);
    let count = STACKS * ENGINES.len() * PODS;
    let (pods, size) = measured(|| {
        let pods = Pods::default();
        pods.apply(Event::Init);
        for stack in 0..STACKS {
            for engine in ENGINES {
                (0..PODS).for_each(|at| drop(pods.apply(Event::InitApply(pod(stack, engine, at, address)))));
            }
        }
        pods.apply(Event::InitDone);
        pods
    });
    judge("a pod", size, count, 465);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let guards = Guards::new(Tokens::fixed("token"));
    let (_, size) = measured(|| {
        runtime.block_on(async {
            let followed =
                guards::follow(guards.clone(), pods.clone(), Owners::any(), CancellationToken::new());
            tokio::spawn(followed);
            let open = async {
                while guards.streams().0 < count {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), open).await.unwrap();
        });
    });
    judge("its guard", size, count, 675);
}
