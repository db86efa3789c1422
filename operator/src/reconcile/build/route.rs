//! Ways to the gateway from outside the cluster.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, ServiceBackendPort,
};
use kube::api::{DynamicObject, ObjectMeta};
use serde_json::json;

use super::metadata;
use crate::fingerprint;
use crate::owned::Owned;
use crate::reconcile::validate::ValidStack;

/// What the NGINX controllers need to know of long audio: uploads of any size go through as they come, and replies may be
/// silent for as long as a job takes. The gateway has limits of its own. Other controllers ignore these.
fn for_long_audio(stack: &ValidStack) -> BTreeMap<String, String> {
    const MARGIN_SECONDS: u64 = 60;
    let seconds = stack.gateway.spec.limits.longest_job.0.as_secs() + MARGIN_SECONDS;
    let community = "nginx.ingress.kubernetes.io";
    let f5 = "nginx.org";
    [
        (community, "proxy-body-size", "0".to_owned()),
        (community, "proxy-buffering", "off".to_owned()),
        (community, "proxy-read-timeout", seconds.to_string()),
        (community, "proxy-request-buffering", "off".to_owned()),
        (community, "proxy-send-timeout", seconds.to_string()),
        (f5, "client-max-body-size", "0".to_owned()),
        (f5, "proxy-buffering", "False".to_owned()),
        (f5, "proxy-read-timeout", format!("{seconds}s")),
        (f5, "proxy-send-timeout", format!("{seconds}s")),
    ]
    .into_iter()
    .map(|(controller, name, value)| (format!("{controller}/{name}"), value))
    .collect()
}

/// The Ingress, if asked for.
pub fn ingress(stack: &ValidStack) -> Option<Ingress> {
    let wanted = stack.gateway.spec.ingress.as_ref()?;
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: metadata::of_gateway(stack),
            port: Some(ServiceBackendPort { name: Some("http".into()), number: None }),
        }),
        resource: None,
    };
    let mut annotations = for_long_audio(stack);
    annotations.extend(wanted.annotations.clone());
    Some(Ingress {
        metadata: metadata::annotated(metadata::gateway(stack), &annotations),
        spec: Some(IngressSpec {
            ingress_class_name: wanted.class_name.clone(),
            rules: Some(vec![IngressRule {
                host: Some(wanted.host.clone()),
                http: Some(HTTPIngressRuleValue {
                    paths: vec![HTTPIngressPath {
                        path: Some("/".into()),
                        path_type: "Prefix".into(),
                        backend,
                    }],
                }),
            }]),
            tls: wanted.tls_secret_name.as_ref().map(|secret| {
                vec![IngressTLS { hosts: Some(vec![wanted.host.clone()]), secret_name: Some(secret.clone()) }]
            }),
            default_backend: None,
        }),
        status: None,
    })
}

/// The HTTPRoute, if asked for.
pub fn http_route(stack: &ValidStack) -> Option<DynamicObject> {
    let wanted = stack.gateway.spec.http_route.as_ref()?;
    let backend = json!({"name": metadata::of_gateway(stack), "port": stack.gateway.spec.service.port});
    let mut rule = json!({ "backendRefs": [backend] });
    if wanted.unlimited_time {
        rule["timeouts"] = json!({"request": "0s"});
    }
    let mut spec = json!({
        "parentRefs": fingerprint::json(&wanted.parent_refs),
        "rules": [rule],
    });
    if !wanted.hostnames.is_empty() {
        spec["hostnames"] = json!(wanted.hostnames);
    }
    Some(dynamic(Owned::HttpRoute, metadata::gateway(stack), spec))
}

/// An object of an optional kind.
pub fn dynamic(kind: Owned, metadata: ObjectMeta, spec: serde_json::Value) -> DynamicObject {
    let mut object = DynamicObject::new("", &kind.resource()).data(json!({ "spec": spec }));
    object.metadata = metadata;
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::testing::valid;

    #[test]
    fn an_ingress_lets_long_audio_through_and_a_users_word_counts_more() {
        let spec = "
stt: [{name: ears, preset: reference}]
gateway:
  limits: {longestJob: 1h}
  ingress: {host: a.example, annotations: {nginx.ingress.kubernetes.io/proxy-body-size: 10m}}
";
        let annotations = ingress(&valid(spec)).unwrap().metadata.annotations.unwrap();
        let of = |name: &str| annotations.get(name).map(String::as_str);
        assert_eq!(of("nginx.ingress.kubernetes.io/proxy-read-timeout"), Some("3660"));
        assert_eq!(of("nginx.ingress.kubernetes.io/proxy-body-size"), Some("10m"));
        assert_eq!(of("nginx.org/proxy-read-timeout"), Some("3660s"));
    }

    #[test]
    fn a_route_has_no_time_limit_unless_its_gateway_refuses_the_field() {
        let route = |more: &str| {
            let spec = format!(
                "
stt: [{{name: ears, preset: reference}}]
gateway: {{httpRoute: {{parentRefs: [{{name: edge}}]{more}}}}}
"
            );
            http_route(&valid(&spec)).unwrap().data["spec"]["rules"][0].clone()
        };
        assert_eq!(route("")["timeouts"]["request"], "0s");
        assert!(route(", unlimitedTime: false").get("timeouts").is_none());
    }
}
