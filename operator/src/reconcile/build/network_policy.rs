//! Who may reach the stack's pods, and whom they may reach: engines have no authentication of their own.

use contract::port;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use speechstack_crds::External;

use super::{external, metadata};
use crate::names::label;
use crate::reconcile::validate::{ValidEngine, ValidStack};

/// Of name servers.
const DNS: u16 = 53;
/// Model stores and registries, and the API server behind its Service or as it listens itself.
const HTTPS: [u16; 2] = [443, 6443];

/// The stack's gateway reaches the guard, or clients the gateway beside it; operator and scrapers admin ports; nothing the engine itself.
pub fn engine(stack: &ValidStack, engine: &ValidEngine) -> NetworkPolicy {
    let operator = anywhere(label::OPERATOR);
    let mut admin = scrapers(stack);
    admin.push(operator);
    let ingress = if stack.gateway.is_sidecar() {
        vec![
            from(clients(stack), &public(stack)),
            from(Some(admin), &[port::GUARD_ADMIN, port::GATEWAY_ADMIN]),
        ]
    } else {
        vec![
            from(Some(vec![gateway_pods(stack)]), &[port::GUARD, port::GUARD_ADMIN]),
            from(Some(admin), &[port::GUARD_ADMIN]),
        ]
    };
    NetworkPolicy {
        metadata: metadata::engine(stack, engine),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(metadata::engine_selector(stack, engine)),
            policy_types: Some(types(stack)),
            ingress: Some(ingress),
            egress: stack.network.egress.then(|| {
                let server = engine.spec.external.as_ref().and_then(to_server);
                let beside = stack.gateway.is_sidecar().then(|| to_redis(stack)).flatten();
                everywhere().into_iter().chain(server).chain(beside).chain(to_collector(stack)).collect()
            }),
        }),
    }
}

/// Clients reach the gateway; scrapers its admin port.
pub fn gateway(stack: &ValidStack) -> NetworkPolicy {
    let engines = NetworkPolicyPeer {
        pod_selector: Some(metadata::selector([
            (label::STACK, stack.name.as_str()),
            (label::COMPONENT, "engine"),
        ])),
        ..NetworkPolicyPeer::default()
    };
    let to_engines = NetworkPolicyEgressRule {
        to: Some(vec![engines]),
        ports: Some(ports("TCP", &[port::GUARD, port::GUARD_ADMIN])),
    };
    let mut admin = scrapers(stack);
    // It asks when engines were last used.
    admin.extend(
        stack.engines.iter().any(|engine| engine.spec.idle.is_some()).then(|| anywhere(label::OPERATOR)),
    );
    let further = [to_redis(stack), to_collector(stack)].into_iter().flatten();
    let egress = || everywhere().into_iter().chain([to_engines]).chain(further).collect();
    NetworkPolicy {
        metadata: metadata::gateway(stack),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(metadata::gateway_selector(stack)),
            policy_types: Some(types(stack)),
            ingress: Some(vec![
                from(clients(stack), &public(stack)),
                from(Some(admin), &[port::GATEWAY_ADMIN]),
            ]),
            egress: stack.network.egress.then(egress),
        }),
    }
}

/// Who may call gateways; all when unset.
fn clients(stack: &ValidStack) -> Option<Vec<NetworkPolicyPeer>> {
    (!stack.network.clients.is_empty()).then(|| stack.network.clients.clone())
}

/// Where gateways are called.
fn public(stack: &ValidStack) -> Vec<u16> {
    let plain = stack.gateway.is_plain().then_some(port::GATEWAY);
    let https = stack.gateway.spec.tls.as_ref().map(|_| port::GATEWAY_TLS);
    plain.into_iter().chain(https).collect()
}

fn types(stack: &ValidStack) -> Vec<String> {
    let egress = stack.network.egress.then_some("Egress");
    std::iter::once("Ingress").chain(egress).map(str::to_owned).collect()
}

fn gateway_pods(stack: &ValidStack) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(metadata::gateway_selector(stack)),
        ..NetworkPolicyPeer::default()
    }
}

fn scrapers(stack: &ValidStack) -> Vec<NetworkPolicyPeer> {
    match stack.network.scrapers.as_slice() {
        [] => vec![anywhere("prometheus")],
        own => own.to_vec(),
    }
}

/// Pods of that application in any namespace.
fn anywhere(name: &str) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector::default()),
        pod_selector: Some(metadata::selector([(label::NAME, name)])),
        ip_block: None,
    }
}

/// Name look-ups and HTTPS, wherever they go.
fn everywhere() -> Vec<NetworkPolicyEgressRule> {
    let mut names = ports("UDP", &[DNS]);
    names.extend(ports("TCP", &[DNS]));
    [names, ports("TCP", &HTTPS)].map(|ports| NetworkPolicyEgressRule { to: None, ports: Some(ports) }).into()
}

/// The port of a server that runs elsewhere, wherever that is.
fn to_server(server: &External) -> Option<NetworkPolicyEgressRule> {
    let port = external::port(server.url())?;
    Some(NetworkPolicyEgressRule { to: None, ports: Some(ports("TCP", &[port])) })
}

/// The ports of the Redis where gateways count quotas, and of that where they keep jobs, wherever those are.
fn to_redis(stack: &ValidStack) -> Option<NetworkPolicyEgressRule> {
    let spec = &stack.gateway.spec;
    let quotas = spec.quotas.as_ref().and_then(|quotas| quotas.redis.as_ref());
    let jobs = spec.storage.as_ref().and_then(|storage| storage.redis.as_ref());
    let mut to: Vec<u16> = quotas.into_iter().chain(jobs).map(|redis| redis.port).collect();
    to.dedup();
    (!to.is_empty()).then(|| NetworkPolicyEgressRule { to: None, ports: Some(ports("TCP", &to)) })
}

/// The port of the collector of traces, wherever that is.
fn to_collector(stack: &ValidStack) -> Option<NetworkPolicyEgressRule> {
    let port = external::port(&stack.gateway.spec.tracing.as_ref()?.endpoint)?;
    Some(NetworkPolicyEgressRule { to: None, ports: Some(ports("TCP", &[port])) })
}

fn from(peers: Option<Vec<NetworkPolicyPeer>>, to: &[u16]) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { from: peers, ports: Some(ports("TCP", to)) }
}

fn ports(protocol: &str, ports: &[u16]) -> Vec<NetworkPolicyPort> {
    let port = |port: &u16| NetworkPolicyPort {
        port: Some(IntOrString::Int((*port).into())),
        protocol: Some(protocol.to_owned()),
        end_port: None,
    };
    ports.iter().map(port).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::fingerprint;
    use crate::reconcile::build::{DesiredObjects, build};
    use crate::reconcile::testing::{self, MINIMAL};

    const REDIS: &str = "quotas: {redis: {urlSecretRef: {name: counts}, port: 6380}}";

    fn built(spec: &str) -> DesiredObjects {
        build(&testing::valid(spec), &testing::observed())
    }

    #[test]
    fn a_limited_egress_lets_gateways_reach_their_redis() {
        for (mode, of) in [("Service", "demo-gateway"), ("Sidecar", "demo-ears")] {
            let reaches = |quotas: &str| {
                let spec = format!(
                    "{MINIMAL}\ngateway: {{mode: {mode}, {quotas}}}\nnetworkPolicy: {{enabled: true, egress: true}}"
                );
                let policies =
                    built(&spec).network_policies.iter().map(fingerprint::json).collect::<Vec<_>>();
                let own = policies.into_iter().find(|policy| policy["metadata"]["name"] == of).unwrap();
                own["spec"]["egress"].to_string().contains("6380")
            };
            assert!(reaches(REDIS) && !reaches("quotas: {}"), "{mode}");
        }
        let jobs =
            "gateway: {storage: {existingClaim: kept, redis: {urlSecretRef: {name: jobs}, port: 6380}}}";
        let desired = built(&format!("{MINIMAL}\n{jobs}\nnetworkPolicy: {{enabled: true, egress: true}}"));
        let mut policies = desired.network_policies.iter().map(fingerprint::json);
        let own = policies.find(|policy| policy["metadata"]["name"] == "demo-gateway").unwrap();
        assert!(own["spec"]["egress"].to_string().contains("6380"));
    }

    #[test]
    fn a_limited_egress_lets_gateways_and_guards_reach_the_collector() {
        let ports = |tracing: &str| {
            let spec =
                format!("{MINIMAL}\ngateway: {{{tracing}}}\nnetworkPolicy: {{enabled: true, egress: true}}");
            let policies = built(&spec).network_policies;
            policies
                .iter()
                .map(|policy| fingerprint::json(policy)["spec"]["egress"].to_string())
                .collect::<Vec<_>>()
        };
        let all = ports("tracing: {endpoint: 'http://collector.traces:4318', sampleRatio: 0.5}");
        assert!(all.len() >= 2 && all.iter().all(|egress| egress.contains("4318")), "{all:?}");
        assert!(
            ports("tracing: {endpoint: 'http://collector.traces'}")
                .iter()
                .all(|egress| egress.contains(":80,"))
        );
        assert!(!ports("").iter().any(|egress| egress.contains("4318")));
    }

    #[test]
    fn the_url_of_a_redis_is_a_file_that_the_gateway_reads() {
        let desired = built(&format!("{MINIMAL}\ngateway: {{{REDIS}}}"));
        let config = desired.config_maps.iter().filter_map(|config| config.data.as_ref()?.get("config.yaml"));
        assert!(config.into_iter().any(|text| text.contains("/etc/speechstack-redis/url")));
        let pod = fingerprint::json(&desired.gateways[0]);
        let volumes = pod["spec"]["template"]["spec"]["volumes"].as_array().unwrap().clone();
        let secret = volumes.iter().find(|volume| volume["name"] == "speechstack-redis").unwrap();
        assert_eq!(
            secret["secret"],
            json!({"secretName": "counts", "items": [{"key": "url", "path": "url"}]})
        );
    }
}
