//! Who may reach engine pods: engines have no authentication of their own.

use contract::port;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata;
use crate::names::label;
use crate::reconcile::validate::{ValidEngine, ValidStack};

/// The stack's gateway reaches the guard; operator and Prometheus its admin port; nothing the engine itself.
pub fn engine(stack: &ValidStack, engine: &ValidEngine) -> NetworkPolicy {
    let anywhere = |labels| NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector::default()),
        pod_selector: Some(metadata::selector([(label::NAME, labels)])),
        ip_block: None,
    };
    let gateway = NetworkPolicyPeer {
        pod_selector: Some(metadata::gateway_selector(stack)),
        ..NetworkPolicyPeer::default()
    };
    NetworkPolicy {
        metadata: metadata::engine(stack, engine),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(metadata::engine_selector(stack, engine)),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(vec![
                rule(vec![gateway], &[port::GUARD, port::GUARD_ADMIN]),
                rule(vec![anywhere(label::OPERATOR), anywhere("prometheus")], &[port::GUARD_ADMIN]),
            ]),
            egress: None,
        }),
    }
}

fn rule(from: Vec<NetworkPolicyPeer>, ports: &[u16]) -> NetworkPolicyIngressRule {
    let ports = ports.iter().map(|port| NetworkPolicyPort {
        port: Some(IntOrString::Int((*port).into())),
        protocol: Some("TCP".into()),
        end_port: None,
    });
    NetworkPolicyIngressRule { from: Some(from), ports: Some(ports.collect()) }
}
