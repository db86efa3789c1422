//! Names, labels and owner references of the objects of a stack.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::Resource;
use kube::api::ObjectMeta;
use speechstack_crds::SpeechStack;

use crate::names::{self, fitted, label};
use crate::reconcile::validate::{ValidEngine, ValidStack};

/// Name of an engine's workload, Service and disruption budget.
#[must_use]
pub fn of_engine(stack: &ValidStack, engine: &ValidEngine) -> String {
    format!("{}-{}", stack.name, engine.spec.name)
}

/// Name of the gateway's objects.
#[must_use]
pub fn of_gateway(stack: &ValidStack) -> String {
    format!("{}-gateway", stack.name)
}

/// Name of the Service of the gateway beside an engine, and of its ConfigMap.
#[must_use]
pub fn of_api(stack: &ValidStack, engine: &ValidEngine) -> String {
    fitted(format!("{}-{}-api", stack.name, engine.spec.name))
}

/// Name of the claim of the gateway's jobs and recordings.
#[must_use]
pub fn of_storage(stack: &ValidStack) -> String {
    format!("{}-gateway-storage", stack.name)
}

/// Name of the engines' service account.
#[must_use]
pub fn engine_account(stack: &ValidStack) -> String {
    format!("{}-engine", stack.name)
}

/// Name of the cache claim that an engine's replicas share.
#[must_use]
pub fn of_cache(stack: &ValidStack, engine: &ValidEngine) -> String {
    names::shared_cache(&stack.name, &engine.spec.name)
}

fn labels(stack: &ValidStack) -> BTreeMap<String, String> {
    let own = [
        (label::MANAGED_BY, label::OPERATOR),
        (label::NAME, "speechstack"),
        (label::INSTANCE, &stack.name),
        (label::STACK, &stack.name),
    ];
    let mut labels = stack.labels.clone();
    labels.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    labels
}

/// Labels of the gateway's objects.
#[must_use]
pub fn gateway_labels(stack: &ValidStack) -> BTreeMap<String, String> {
    let mut labels = labels(stack);
    labels.insert(label::COMPONENT.into(), "gateway".into());
    labels
}

/// Labels of an engine's objects.
#[must_use]
pub fn engine_labels(stack: &ValidStack, engine: &ValidEngine) -> BTreeMap<String, String> {
    let mut labels = labels(stack);
    labels.insert(label::COMPONENT.into(), "engine".into());
    labels.insert(label::ENGINE.into(), engine.spec.name.clone());
    labels.insert(label::CAPABILITY.into(), engine.capability.as_str().into());
    labels
}

/// Labels of the pods that fill an engine's cache. They are none of the engine's pods, so no selector of these takes them.
#[must_use]
pub fn prefill_labels(stack: &ValidStack) -> BTreeMap<String, String> {
    let mut labels = labels(stack);
    labels.insert(label::COMPONENT.into(), "prefill".into());
    labels
}

/// Labels by which the gateway's pods are selected: never more than these, as selectors cannot change.
#[must_use]
pub fn gateway_selector(stack: &ValidStack) -> LabelSelector {
    selector([(label::STACK, stack.name.as_str()), (label::COMPONENT, "gateway")])
}

/// Labels by which an engine's pods are selected.
#[must_use]
pub fn engine_selector(stack: &ValidStack, engine: &ValidEngine) -> LabelSelector {
    selector([(label::STACK, stack.name.as_str()), (label::ENGINE, engine.spec.name.as_str())])
}

/// A selector by labels.
pub fn selector<const N: usize>(labels: [(&str, &str); N]) -> LabelSelector {
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}

/// Metadata of an object that goes with the stack.
#[must_use]
pub fn owned(stack: &ValidStack, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta { owner_references: Some(vec![owner(stack)]), ..kept(stack, name, labels) }
}

/// Metadata of an object that outlives the stack.
#[must_use]
pub fn kept(stack: &ValidStack, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(stack.namespace.clone()),
        labels: Some(labels),
        annotations: (!stack.annotations.is_empty()).then(|| stack.annotations.clone()),
        ..ObjectMeta::default()
    }
}

/// Metadata with further annotations.
#[must_use]
pub fn annotated(mut metadata: ObjectMeta, more: &BTreeMap<String, String>) -> ObjectMeta {
    if !more.is_empty() {
        metadata.annotations.get_or_insert_default().extend(more.clone());
    }
    metadata
}

/// Metadata of gateway objects.
#[must_use]
pub fn gateway(stack: &ValidStack) -> ObjectMeta {
    owned(stack, of_gateway(stack), gateway_labels(stack))
}

/// Metadata of an engine's objects.
#[must_use]
pub fn engine(stack: &ValidStack, engine: &ValidEngine) -> ObjectMeta {
    owned(stack, of_engine(stack, engine), engine_labels(stack, engine))
}

/// Metadata of an object of the whole stack.
#[must_use]
pub fn whole(stack: &ValidStack) -> ObjectMeta {
    owned(stack, stack.name.clone(), labels(stack))
}

fn owner(stack: &ValidStack) -> OwnerReference {
    OwnerReference {
        api_version: SpeechStack::api_version(&()).into_owned(),
        kind: SpeechStack::kind(&()).into_owned(),
        name: stack.name.clone(),
        uid: stack.uid.clone(),
        controller: Some(true),
        // Blocking would need rights on the stack's finalizers, and deletion does not wait for us anyway.
        block_owner_deletion: Some(false),
    }
}
