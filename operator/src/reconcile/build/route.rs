//! Ways to the gateway from outside the cluster.

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
    Some(Ingress {
        metadata: metadata::annotated(metadata::gateway(stack), &wanted.annotations),
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
    let mut spec = json!({
        "parentRefs": fingerprint::json(&wanted.parent_refs),
        "rules": [{"backendRefs": [backend]}],
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
