//! How clients outside of the cluster reach the gateway, as load balancers and Gateways say (IO; choosing is pure).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::Value;
use speechstack_crds::{ParentRef, ServiceType, SpeechStack};

use super::CALL_TIMEOUT;

/// How long an answer is kept: an address changes rarely, and a stack is looked at with each change of a pod.
const TTL: Duration = Duration::from_secs(60);

/// What other controllers wrote about the way to a stack's gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// Host name or IP address of the Service's load balancer.
    pub load_balancer: Option<String>,
    /// Listeners of the Gateways that the HTTPRoute attaches to, in their order.
    pub listeners: Vec<Listener>,
}

/// A listener of a Gateway that the HTTPRoute may attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The listener's own host name, without a wildcard.
    pub host: Option<String>,
    /// The Gateway's first address.
    pub address: Option<String>,
    /// Port.
    pub port: i64,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// What was read of each stack, by UID.
#[derive(Default)]
pub struct Cache(Mutex<HashMap<String, (Instant, Outside)>>);

impl Cache {
    fn get(&self, uid: &str, now: Instant) -> Option<Outside> {
        let known = self.0.lock();
        let (at, outside) = known.get(uid)?;
        (now.saturating_duration_since(*at) < TTL).then(|| outside.clone())
    }

    /// A stack is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

/// Reads what is said of a stack's gateway; nothing for stacks that are reached by a ClusterIP or an Ingress, whose
/// address is in the spec. What cannot be read is not known: the status then lacks an address, and no more.
pub async fn read(client: &Client, cache: &Cache, stack: &SpeechStack) -> Outside {
    let gateway = &stack.spec.gateway;
    let balanced = gateway.service.service_type == ServiceType::LoadBalancer;
    if !balanced && gateway.http_route.is_none() {
        return Outside::default();
    }
    let uid = stack.uid().unwrap_or_default();
    if let Some(known) = cache.get(&uid, Instant::now()) {
        return known;
    }
    let namespace = stack.namespace().unwrap_or_default();
    let mut outside = Outside::default();
    if balanced {
        let services = Api::<Service>::namespaced(client.clone(), &namespace);
        let name = format!("{}-gateway", stack.name_any());
        outside.load_balancer = found(services.get_opt(&name)).await.and_then(|service| balancer(&service));
    }
    for parent in gateway.http_route.iter().flat_map(|route| &route.parent_refs) {
        let at = parent.namespace.as_deref().unwrap_or(&namespace);
        let gateways = Api::<DynamicObject>::namespaced_with(client.clone(), at, &resource());
        if let Some(gateway) = found(gateways.get_opt(&parent.name)).await {
            outside.listeners.extend(listeners(&gateway.data, parent));
        }
    }
    let complete = (!balanced || outside.load_balancer.is_some())
        && (gateway.http_route.is_none() || outside.listeners.iter().any(|one| one.address.is_some()));
    if complete {
        cache.0.lock().insert(uid, (Instant::now(), outside.clone()));
    }
    outside
}

fn resource() -> ApiResource {
    ApiResource {
        group: "gateway.networking.k8s.io".into(),
        version: "v1".into(),
        api_version: "gateway.networking.k8s.io/v1".into(),
        kind: "Gateway".into(),
        plural: "gateways".into(),
    }
}

async fn found<T>(call: impl Future<Output = kube::Result<Option<T>>>) -> Option<T> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::debug!(%error, "unable to read an address of the gateway");
            None
        }
        Err(_) => None,
    }
}

/// The first address of a load balancer.
fn balancer(service: &Service) -> Option<String> {
    let given = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
    given.hostname.clone().or_else(|| given.ip.clone())
}

/// The listeners of a Gateway that a parent reference names: one of them, or all.
fn listeners(gateway: &Value, parent: &ParentRef) -> Vec<Listener> {
    let address = gateway.pointer("/status/addresses/0/value").and_then(Value::as_str).map(str::to_owned);
    let all = gateway.pointer("/spec/listeners").and_then(Value::as_array);
    let text = |of: &Value, key: &str| of[key].as_str().map(str::to_owned);
    let named = |listener: &&Value| {
        parent.section_name.as_ref().is_none_or(|name| listener["name"].as_str() == Some(name))
    };
    let speaks = |listener: &&Value| matches!(listener["protocol"].as_str(), Some("HTTP" | "HTTPS"));
    let listeners = all.into_iter().flatten().filter(named).filter(speaks).map(|listener| Listener {
        host: text(listener, "hostname").filter(|host| !host.starts_with('*')),
        address: address.clone(),
        port: listener["port"].as_i64().unwrap_or(80),
        tls: listener["protocol"] == "HTTPS",
    });
    listeners.collect()
}

/// The URL of a listener for a route with these host names: TLS before plain, a name before an address.
pub fn of_route(listeners: &[Listener], hostnames: &[String]) -> Option<String> {
    let best = listeners.iter().find(|listener| listener.tls).or_else(|| listeners.first());
    let Some(listener) = best else {
        return hostnames.first().map(|host| url(false, host, 80));
    };
    let host = hostnames.first().or(listener.host.as_ref()).or(listener.address.as_ref())?;
    Some(url(listener.tls, host, listener.port))
}

/// The base URL of a host: port only when it is not the scheme's own, IPv6 addresses in brackets.
pub fn url(tls: bool, host: &str, port: i64) -> String {
    let (scheme, usual) = if tls { ("https", 443) } else { ("http", 80) };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let port = if port == usual { String::new() } else { format!(":{port}") };
    format!("{scheme}://{host}{port}/v1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reconcile::testing::{self, Server};

    fn gateway() -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "edge", "namespace": "net"},
            "spec": {"listeners": [
                {"name": "web", "protocol": "HTTP", "port": 80, "hostname": "*.example.com"},
                {"name": "secure", "protocol": "HTTPS", "port": 8443, "hostname": "speech.example.com"},
                {"name": "raw", "protocol": "TCP", "port": 9}]},
            "status": {"addresses": [{"type": "IPAddress", "value": "192.0.2.7"}]},
        })
    }

    fn parent(section: Option<&str>) -> ParentRef {
        ParentRef { name: "edge".into(), namespace: None, section_name: section.map(str::to_owned) }
    }

    #[test]
    fn a_route_is_reached_by_its_best_listener() {
        let all = listeners(&gateway(), &parent(None));
        assert_eq!(all.len(), 2);
        assert_eq!(of_route(&all, &[]).unwrap(), "https://speech.example.com:8443/v1");
        assert_eq!(of_route(&all, &["a.example.com".into()]).unwrap(), "https://a.example.com:8443/v1");
        let web = listeners(&gateway(), &parent(Some("web")));
        assert_eq!(of_route(&web, &[]).unwrap(), "http://192.0.2.7/v1");
        assert_eq!(of_route(&[], &["a.example.com".into()]).unwrap(), "http://a.example.com/v1");
        assert_eq!(of_route(&[], &[]), None);
        assert_eq!(url(false, "2001:db8::1", 8080), "http://[2001:db8::1]:8080/v1");
    }

    #[tokio::test]
    async fn addresses_are_read_once_a_minute_and_only_where_there_may_be_one() {
        let server = Server::default();
        let (client, cache) = (server.client(), Cache::default());
        let inside = testing::stack(testing::MINIMAL);
        assert_eq!(read(&client, &cache, &inside).await, Outside::default());
        assert!(server.calls().is_empty());

        let spec = format!(
            "{}\ngateway: {{service: {{type: LoadBalancer}}, httpRoute: {{parentRefs: [{{name: edge, namespace: net}}]}}}}",
            testing::MINIMAL
        );
        let stack = testing::stack(&spec);
        assert_eq!(read(&client, &cache, &stack).await, Outside::default(), "neither is there yet");
        assert_eq!(server.calls().len(), 2);
        server.put("/apis/gateway.networking.k8s.io/v1/namespaces/net/gateways/edge", gateway());
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "demo-gateway", "namespace": "speech"},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}},
        });
        server.put("/api/v1/namespaces/speech/services/demo-gateway", service);
        let outside = read(&client, &cache, &stack).await;
        assert_eq!(outside.load_balancer.as_deref(), Some("192.0.2.9"));
        assert_eq!(outside.listeners.len(), 2);
        assert_eq!(server.calls().len(), 2);
        assert_eq!(read(&client, &cache, &stack).await, outside);
        assert!(server.calls().is_empty(), "it is known for a minute");
    }
}
