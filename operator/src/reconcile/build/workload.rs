//! What runs an engine's pods: a Deployment, or a StatefulSet where each replica has a cache of its own.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment, StatefulSet, StatefulSetSpec,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use serde_json::Value;
use speechstack_crds::Strategy;

use super::update::{self, Update, When};
use super::{engine, metadata, template};
use crate::fingerprint;
use crate::names::annotation;
use crate::owned::Owned;
use crate::reconcile::validate::{Replicas, ValidEngine, ValidStack};
use crate::workloads::LiveWorkload;

/// What runs an engine's pods.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The engine's name in the spec.
    pub engine: String,
    /// Its object, without the number of replicas.
    pub object: Object,
    /// Pods that the stack asks for; `None` when a scaler owns the number.
    pub replicas: Option<i32>,
    /// Pods of a new one.
    pub first: i32,
    /// Fingerprint of what the user wrote that renders the template.
    pub inputs: String,
    /// Fingerprint of the template.
    pub revision: String,
    /// Name of the ConfigMap that pods of this template read.
    pub config_map: String,
    /// Whether it is applied now.
    pub update: Update,
    /// What is there under its name.
    pub live: Option<LiveWorkload>,
}

impl Workload {
    /// The name of its object.
    #[must_use]
    pub fn name(&self, stack: &str) -> String {
        format!("{stack}-{}", self.engine)
    }

    /// What decides on its update.
    #[must_use]
    pub fn desired(&self) -> update::Desired<'_> {
        update::Desired {
            kind: self.object.kind(),
            inputs: &self.inputs,
            revision: &self.revision,
            stops: self.replicas == Some(0),
        }
    }

    /// The object as it is made.
    #[must_use]
    pub fn created(&self) -> Value {
        let mut object = self.object.json();
        object["spec"]["replicas"] = Value::from(self.replicas.unwrap_or(self.first));
        object
    }

    /// The kind that a scaler finds under the workload's name.
    #[must_use]
    pub fn target(&self, live: Option<&LiveWorkload>) -> Owned {
        live.filter(|_| self.update != Update::Apply).map_or_else(|| self.object.kind(), |live| live.kind)
    }

    /// What is written of a live workload beside its template: the number of its replicas, and the note by which the
    /// user's next change is seen.
    #[must_use]
    pub fn scale(&self, live: &LiveWorkload) -> Scale {
        Scale {
            replicas: self.replicas.unwrap_or(live.replicas),
            inputs: live.inputs.clone().unwrap_or_else(|| self.inputs.clone()),
            differs: live.inputs.is_none() || self.replicas.is_some_and(|wanted| wanted != live.replicas),
        }
    }
}

/// What is written of a workload beside its template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Pods.
    pub replicas: i32,
    /// Fingerprint of what the user wrote that rendered the template that runs.
    pub inputs: String,
    /// Whether the live workload has another number or no note.
    pub differs: bool,
}

/// The object of a workload.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// Pods that share a cache, or have none.
    Deployment(Box<Deployment>),
    /// Pods with a claim each.
    StatefulSet(Box<StatefulSet>),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Owned {
        match self {
            Self::Deployment(_) => Owned::Deployment,
            Self::StatefulSet(_) => Owned::StatefulSet,
        }
    }

    /// Its JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        match self {
            Self::Deployment(object) => fingerprint::json(object),
            Self::StatefulSet(object) => fingerprint::json(object),
        }
    }
}

/// Builds one engine's, without pods while it is held back. The template names its ConfigMap by its own fingerprint, so that pods of an older template keep
/// the file that was written for them.
pub fn build(
    stack: &ValidStack,
    engine: &ValidEngine,
    live: Option<&LiveWorkload>,
    held: bool,
    now: Timestamp,
) -> Workload {
    let unnamed = template::template(stack, engine, String::new());
    let revision = fingerprint::of(&fingerprint::json(&unnamed));
    let config_map =
        format!("{}-{}", metadata::of_engine(stack, engine), revision.get(..8).unwrap_or(&revision));
    let template = template::template(stack, engine, config_map.clone());
    let annotations = [(annotation::INPUTS, engine.inputs.clone()), (annotation::REVISION, revision.clone())];
    let mut metadata = metadata::engine(stack, engine);
    let all = metadata.annotations.get_or_insert_default();
    all.extend(annotations.map(|(key, value)| (key.to_owned(), value)));
    let (replicas, first) = match &engine.replicas {
        _ if stack.suspend || held => (Some(0), 0),
        Replicas::Fixed(replicas) => (Some(*replicas), *replicas),
        // An autoscaler does not move what is at zero, such as after a suspension.
        Replicas::Autoscaled { min, .. } if live.is_some_and(|live| live.replicas == 0) => (Some(*min), *min),
        Replicas::Autoscaled { min, .. } => (None, *min),
        Replicas::External { first } => (None, *first),
    };
    let object = match engine::claim_template(stack, engine) {
        Some(claim) => {
            Object::StatefulSet(Box::new(stateful_set(stack, engine, metadata, template, claim, live)))
        }
        None => Object::Deployment(Box::new(deployment(stack, engine, metadata, template))),
    };
    let mut workload = Workload {
        engine: engine.spec.name.clone(),
        object,
        replicas,
        first,
        inputs: engine.inputs.clone(),
        revision,
        config_map,
        update: Update::Apply,
        live: live.cloned(),
    };
    let when = When { updates: stack.updates, window: stack.update_window.as_ref(), now };
    workload.update = update::decide(when, live, workload.desired());
    workload
}

fn deployment(
    stack: &ValidStack,
    engine: &ValidEngine,
    metadata: ObjectMeta,
    template: PodTemplateSpec,
) -> Deployment {
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            selector: metadata::engine_selector(stack, engine),
            strategy: Some(strategy(engine)),
            revision_history_limit: Some(3),
            // A first start downloads models and builds engines; the verdict on it is the guard's.
            progress_deadline_seconds: Some(
                i32::try_from(engine.startup.0.as_secs() + 600).unwrap_or(i32::MAX),
            ),
            template,
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// Its pods start and end at the same time; a new template replaces one after the other.
fn stateful_set(
    stack: &ValidStack,
    engine: &ValidEngine,
    metadata: ObjectMeta,
    template: PodTemplateSpec,
    claim: PersistentVolumeClaim,
    live: Option<&LiveWorkload>,
) -> StatefulSet {
    // The API server refuses another template of claims.
    let claims = live.and_then(|live| live.claim_templates.clone()).unwrap_or_else(|| vec![claim]);
    StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec {
            selector: metadata::engine_selector(stack, engine),
            service_name: Some(metadata::of_engine(stack, engine)),
            pod_management_policy: Some("Parallel".into()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".into()),
                ..StatefulSetUpdateStrategy::default()
            }),
            revision_history_limit: Some(3),
            template,
            volume_claim_templates: Some(claims),
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

fn strategy(engine: &ValidEngine) -> DeploymentStrategy {
    let rollout = &engine.spec.rollout;
    match rollout.strategy {
        Strategy::Recreate => DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None },
        Strategy::RollingUpdate => DeploymentStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(rollout.max_surge.clone().unwrap_or(IntOrString::Int(0))),
                max_unavailable: Some(rollout.max_unavailable.clone().unwrap_or(IntOrString::Int(1))),
            }),
        },
    }
}
