//! Carries out acts: the calls to guards and to the API server, each with a timeout, in tasks beside the loop.

use std::future::Future;
use std::time::Duration;

use http::StatusCode;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Taint};
use kube::api::{Api, DeleteParams, EvictParams, Patch, PatchParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};
use serde_json::json;
use speechstack_crds::{RepairStatus, SpeechStack};
use tokio::time::timeout;

use super::events::{Events, Note};
use super::node;
use super::plan::{Act, Avoid, Deferral};
use contract::{RepairOrder, Verb};

use crate::guards::{Guards, Refusal};
use crate::names::{REPAIR_FIELD_MANAGER, annotation};

mod worker;

pub(super) use worker::{Done, Record, Worker};

/// For one call to the API server.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For a pod whose engine cannot serve: there is nothing to drain.
const GRACE_SECONDS: u32 = 5;
/// A reset is not repeated by the record, so it is tried so often at once.
const RESETS: usize = 3;
const RESET_SPACING: Duration = Duration::from_secs(1);

/// Why an act came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the guard refused")]
    Guard(#[source] Refusal),
    #[error("unable to {what}")]
    Api {
        what: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("unable to {0} in time")]
    Silent(&'static str),
}

impl Error {
    /// Whether what it was meant for is gone: nothing was done, and nothing need be.
    pub(super) fn is_outdated(&self) -> bool {
        match self {
            Self::Guard(refusal) => matches!(refusal, Refusal::Outdated { .. }),
            Self::Api { source, .. } => status(source)
                .is_some_and(|code| code == StatusCode::NOT_FOUND || code == StatusCode::CONFLICT),
            Self::Silent(_) => false,
        }
    }
}

fn status(error: &kube::Error) -> Option<StatusCode> {
    match error {
        kube::Error::Api(status) => StatusCode::from_u16(status.code).ok(),
        _ => None,
    }
}

async fn call<T>(what: &'static str, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match timeout(TIMEOUT, call).await {
        Ok(result) => result.map_err(|error| Error::Api { what, source: Box::new(error) }),
        Err(_) => Err(Error::Silent(what)),
    }
}

/// Reads the newest record of a stack; what a watch shows may be older.
pub(super) async fn read(client: &Client, stack: &SpeechStack) -> Result<RepairStatus, Error> {
    let api = stacks(client, stack);
    let newest = call("read the stack", api.get_opt(&stack.name_any())).await?;
    Ok(newest.and_then(|stack| stack.status?.repair).unwrap_or_default())
}

/// Writes the record of a stack, and nothing else of it. A stack that was made anew under the name is left alone.
pub(super) async fn write(client: &Client, stack: &SpeechStack, status: &RepairStatus) -> Result<(), Error> {
    let patch = json!({
        "apiVersion": <SpeechStack as kube::Resource>::api_version(&()),
        "kind": <SpeechStack as kube::Resource>::kind(&()),
        "metadata": {"name": stack.name_any(), "uid": stack.metadata.uid},
        "status": {"repair": status},
    });
    let params = PatchParams::apply(REPAIR_FIELD_MANAGER).force();
    let api = stacks(client, stack);
    call("record a repair", api.patch_status(&stack.name_any(), &params, &Patch::Apply(&patch)))
        .await
        .map(drop)
}

fn stacks(client: &Client, stack: &SpeechStack) -> Api<SpeechStack> {
    Api::namespaced(client.clone(), &stack.namespace().unwrap_or_default())
}

/// Carries out an act of a stack.
pub(super) async fn act(
    client: &Client,
    guards: &Guards,
    events: &Events,
    stack: &ObjectRef<SpeechStack>,
    act: &Act,
) -> Result<(), Error> {
    match act {
        Act::Grant { key, address } => {
            let order = RepairOrder {
                order: Verb::Grant,
                instance: key.instance.clone(),
                attempt: key.attempt,
                reason: key.rung.as_str().to_owned(),
                seconds: 0,
            };
            guards.order(stack, *address, &order).await.map(drop).map_err(Error::Guard)
        }
        Act::Reset { address } => {
            let order = RepairOrder {
                order: Verb::Reset,
                // Whatever instance is there by now.
                instance: String::new(),
                attempt: 0,
                reason: "reset by a person".to_owned(),
                seconds: 0,
            };
            for _ in 1..RESETS {
                if guards.order(stack, *address, &order).await.is_ok() {
                    return Ok(());
                }
                tokio::time::sleep(RESET_SPACING).await;
            }
            guards.order(stack, *address, &order).await.map(drop).map_err(Error::Guard)
        }
        Act::Replace { key, pod, evict, avoid } => {
            if let Some(avoid) = avoid {
                label(client, avoid).await?;
            }
            replace(client, stack.namespace.as_deref().unwrap_or_default(), pod, &key.pod_uid, *evict).await
        }
        Act::ReportNode { node, label, expiry, message, .. } => {
            report(client, node, Some(node::mark(label, *expiry))).await?;
            events.tell(Note {
                regarding: node_reference(node),
                warning: true,
                reason: "GpuSuspect",
                action: "ReportNode",
                text: message.clone(),
                pod: None,
            });
            Ok(())
        }
        Act::TaintNode { node, label, expiry, .. } => taint(client, node, &node::mark(label, *expiry)).await,
        Act::Readmit { node, label } => {
            unlabel(client, node, std::slice::from_ref(label)).await?;
            let found = untaint(client, node, |taint| node::is_taint_of(taint, label)).await?;
            match found.is_some_and(|found| node::is_report_of(&found, label)) {
                true => report(client, node, None).await,
                false => Ok(()),
            }
        }
    }
}

/// Tells a guard to hold its request.
pub(super) async fn defer(
    guards: &Guards,
    stack: &ObjectRef<SpeechStack>,
    deferral: &Deferral,
) -> Result<(), Error> {
    let Some(address) = deferral.address else { return Ok(()) };
    let order = RepairOrder {
        order: Verb::Defer,
        instance: deferral.instance.clone(),
        attempt: deferral.attempt,
        reason: deferral.held.as_str().to_owned(),
        seconds: deferral.seconds,
    };
    guards.order(stack, address, &order).await.map(drop).map_err(Error::Guard)
}

/// Deletes the pod of that UID. With other replicas serving it is evicted, which respects their budget.
async fn replace(client: &Client, namespace: &str, pod: &str, uid: &str, evict: bool) -> Result<(), Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { grace_period_seconds: Some(GRACE_SECONDS), ..DeleteParams::default() }
        .preconditions(preconditions);
    if evict {
        let params = EvictParams { delete_options: Some(params), ..EvictParams::default() };
        call("evict the pod", pods.evict(pod, &params)).await.map(drop)
    } else {
        call("delete the pod", pods.delete(pod, &params)).await.map(drop)
    }
}

async fn label(client: &Client, avoid: &Avoid) -> Result<(), Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = json!({"metadata": {"labels": {&avoid.label: avoid.expiry.to_string()}}});
    call("label the node", nodes.patch(&avoid.node, &manager(), &Patch::Merge(patch))).await.map(drop)
}

/// Removes labels of a node.
async fn unlabel(client: &Client, node: &str, labels: &[String]) -> Result<(), Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let gone: serde_json::Map<_, _> =
        labels.iter().map(|label| (label.clone(), serde_json::Value::Null)).collect();
    let patch = json!({"metadata": {"labels": gone}});
    call("remove the node's label", nodes.patch(node, &manager(), &Patch::Merge(patch))).await.map(drop)
}

/// Removes what is stale of a node.
pub(super) async fn sweep(client: &Client, name: &str, stale: &node::Stale) -> Result<(), Error> {
    if !stale.labels.is_empty() {
        unlabel(client, name, &stale.labels).await?;
    }
    if stale.taint {
        untaint(client, name, |taint| taint.key == node::TAINT).await?;
    }
    if stale.report {
        report(client, name, None).await?;
    }
    Ok(())
}

/// Writes our report of a node, or removes it.
async fn report(client: &Client, node: &str, mark: Option<String>) -> Result<(), Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = json!({"metadata": {"annotations": {annotation::SUSPECT: mark}}});
    call("annotate the node", nodes.patch(node, &manager(), &Patch::Merge(patch))).await.map(drop)
}

/// Removes taints, against the version of the node that was read. Returns the node as it was, if it is there.
async fn untaint(client: &Client, name: &str, goes: impl Fn(&Taint) -> bool) -> Result<Option<Node>, Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let Some(found) = call("read the node", nodes.get_opt(name)).await? else { return Ok(None) };
    let version = found.resource_version();
    let taints = found.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let kept: Vec<_> = taints.clone().filter(|taint| !goes(taint)).collect();
    if kept.len() < taints.count() {
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": kept}});
        call("take back the taint", nodes.patch(name, &manager(), &Patch::Merge(patch))).await?;
    }
    Ok(Some(found))
}

/// Adds our taint. Taints are one list, so it is written against the version that was read.
async fn taint(client: &Client, name: &str, value: &str) -> Result<(), Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let found = call("read the node", nodes.get(name)).await?;
    let version = found.resource_version();
    let mut taints = found.spec.and_then(|spec| spec.taints).unwrap_or_default();
    if taints.iter().any(|taint| taint.key == node::TAINT) {
        return Ok(());
    }
    taints.push(Taint {
        key: node::TAINT.into(),
        value: Some(value.into()),
        effect: "NoSchedule".into(),
        ..Taint::default()
    });
    let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
    call("taint the node", nodes.patch(name, &manager(), &Patch::Merge(patch))).await.map(drop)
}

fn manager() -> PatchParams {
    PatchParams { field_manager: Some(REPAIR_FIELD_MANAGER.into()), ..PatchParams::default() }
}

fn node_reference(node: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(node.into()),
        // Nodes' Events are found by this, as the kubelet writes them.
        uid: Some(node.into()),
        ..ObjectReference::default()
    }
}
