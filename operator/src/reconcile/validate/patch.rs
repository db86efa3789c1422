//! The one escape hatch, `podTemplatePatch`: what it may not touch.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::check::Check;
use crate::names::{self, container, volume};

const FIELD: &str = "podTemplatePatch";

/// The gateway's patch, when it leaves alone what selection depends on.
pub fn of_gateway(patch: Option<&Value>, check: &mut Check<'_>) -> Option<PodTemplateSpec> {
    let template: PodTemplateSpec = check.parsed(FIELD, patch)?;
    labels(&template, check);
    Some(template)
}

fn labels(template: &PodTemplateSpec, check: &mut Check<'_>) {
    let labels = template.metadata.iter().flat_map(|metadata| metadata.labels.iter().flatten());
    for (label, _) in labels {
        if names::is_own_label(label) {
            check.problem(FIELD, format!("the label {label} belongs to the operator: use another one"));
        }
    }
}

/// An engine's patch, when it leaves alone what repair and selection depend on.
pub fn validate(patch: Option<&Value>, check: &mut Check<'_>) -> Option<PodTemplateSpec> {
    let template: PodTemplateSpec = check.parsed(FIELD, patch)?;
    labels(&template, check);
    let Some(spec) = &template.spec else { return Some(template) };
    let init = spec.init_containers.iter().flatten();
    for (list, patched) in
        [("containers", spec.containers.iter().collect::<Vec<_>>()), ("initContainers", init.collect())]
    {
        for patched in patched {
            if patched.name.is_empty() {
                check.problem(FIELD, format!("an entry of {list} has no name: lists merge by name"));
            }
            if patched.name == container::GUARD {
                check.problem(FIELD, "the guard container cannot be patched: use spec.guard");
            }
            if patched.name == container::ENGINE && list == "initContainers" {
                check.problem(FIELD, "the engine is a container, not an init container");
            }
            if patched.name == container::ENGINE && patched.liveness_probe.is_some() {
                check.problem(FIELD, "the engine's liveness probe carries out repair: it cannot be patched");
            }
            if patched.name == container::ENGINE && patched.startup_probe.is_some() {
                check.problem(FIELD, "the guard minds the engine's start: use startup.timeout");
            }
        }
    }
    for patched in spec.volumes.iter().flatten() {
        if [volume::RUN, volume::CONFIG, volume::IDENTITY].contains(&patched.name.as_str()) {
            check.problem(
                FIELD,
                format!("the volume {} belongs to the guard: use another name", patched.name),
            );
        }
    }
    if spec.restart_policy.as_deref().is_some_and(|policy| policy != "Always") {
        check.problem(FIELD, "restartPolicy must stay Always: repair restarts containers");
    }
    Some(template)
}
