//! Whether an engine's Deployment is applied now: what the user did not ask for waits.

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use speechstack_crds::Updates;

use crate::names::annotation;

/// What runs, by the annotations of its Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Fingerprint of what the user had written.
    pub spec_hash: String,
    /// Fingerprint of the template that was built of it.
    pub template_hash: String,
    /// Pods wanted.
    pub replicas: i32,
}

/// Whether a Deployment is applied now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// It is.
    Apply,
    /// Its new template comes from the operator alone and waits for the next change of the spec.
    Pending,
}

/// Decides for one engine. Where no pod runs, nothing is disturbed.
#[must_use]
pub fn decide(updates: Updates, live: Option<Live>, desired: &Deployment) -> Update {
    let Some(live) = live else { return Update::Apply };
    let of = |key: &str| desired.annotations().get(key);
    let asked_for = of(annotation::SPEC) != Some(&live.spec_hash);
    let changed = of(annotation::TEMPLATE) != Some(&live.template_hash);
    let stops = desired.spec.as_ref().and_then(|spec| spec.replicas) == Some(0);
    match updates {
        Updates::OnSpecChange if changed && !asked_for && live.replicas > 0 && !stops => Update::Pending,
        Updates::OnSpecChange | Updates::Automatic => Update::Apply,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::DeploymentSpec;
    use kube::api::ObjectMeta;

    use super::*;

    fn desired(spec: &str, template: &str, replicas: Option<i32>) -> Deployment {
        let annotations = [(annotation::SPEC, spec), (annotation::TEMPLATE, template)];
        Deployment {
            metadata: ObjectMeta {
                annotations: Some(annotations.map(|(key, value)| (key.into(), value.into())).into()),
                ..ObjectMeta::default()
            },
            spec: Some(DeploymentSpec { replicas, ..DeploymentSpec::default() }),
            status: None,
        }
    }

    fn live(replicas: i32) -> Option<Live> {
        Some(Live { spec_hash: "s1".into(), template_hash: "t1".into(), replicas })
    }

    #[test]
    fn new_defaults_wait_for_the_users_next_change() {
        use Update::{Apply, Pending};
        let on_change = Updates::OnSpecChange;
        assert_eq!(decide(on_change, live(2), &desired("s1", "t2", Some(2))), Pending);
        assert_eq!(decide(on_change, live(2), &desired("s2", "t2", Some(2))), Apply);
        assert_eq!(decide(on_change, live(2), &desired("s1", "t1", Some(2))), Apply);
        assert_eq!(decide(on_change, None, &desired("s1", "t2", Some(2))), Apply);
        assert_eq!(decide(on_change, live(2), &desired("s1", "t2", None)), Pending, "under an autoscaler");
    }

    #[test]
    fn automatic_and_stopped_engines_take_them_at_once() {
        assert_eq!(decide(Updates::Automatic, live(2), &desired("s1", "t2", Some(2))), Update::Apply);
        assert_eq!(decide(Updates::OnSpecChange, live(0), &desired("s1", "t2", Some(2))), Update::Apply);
        assert_eq!(decide(Updates::OnSpecChange, live(2), &desired("s1", "t2", Some(0))), Update::Apply);
    }
}
