//! `spec.gateway`: the public API in front of all engines of a stack.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{GatewayAuth, Image, Quotas, Span, Storage, Tracing, schema};

/// The gateway: Deployment, Service and how clients reach it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("!(has(self.replicas) && has(self.autoscaling))",
     "set either gateway.replicas or gateway.autoscaling: an autoscaler owns the number of replicas"),
    ("!(has(self.ingress) && has(self.httpRoute))",
     "set either gateway.ingress or gateway.httpRoute"),
    ("self.mode != 'Sidecar' || !(has(self.replicas) || has(self.autoscaling) || has(self.ingress) || has(self.httpRoute) || has(self.storage))",
     "gateway.mode: Sidecar has no gateway in front of all engines: remove gateway.replicas, autoscaling, ingress, httpRoute and storage, or use mode: Service"),
    ("self.mode != 'Sidecar' || !(has(self.nodeSelector) || has(self.tolerations) || has(self.affinity) || has(self.priorityClassName) || has(self.podLabels) || has(self.podAnnotations) || has(self.topologySpreadConstraints) || has(self.runtimeClassName) || has(self.serviceAccountName) || has(self.dnsPolicy) || has(self.dnsConfig) || has(self.volumes) || has(self.volumeMounts) || has(self.podSecurityContext) || has(self.podTemplatePatch) || has(self.drainTimeout))",
     "gateway.mode: Sidecar runs the gateway in the engines' pods: set fields of pods, volumes and drain of each engine in place of those of spec.gateway"),
    ("!has(self.quotas) || has(self.auth)",
     "gateway.quotas are those of API keys: set gateway.auth too"),
    ("!has(self.tls) || (has(self.tls.port) ? self.tls.port : 443) != (has(self.service) && has(self.service.port) ? self.service.port : 80)",
     "gateway.tls.port and gateway.service.port must differ"),
    ("!(has(self.tls) && has(self.tls.http) && !self.tls.http && (has(self.ingress) || has(self.httpRoute)))",
     "gateway.tls.http: false closes the port that gateway.ingress and gateway.httpRoute lead to: leave it on, or remove the route"),
    ("!has(self.storage) || (has(self.storage.jobs) && !self.storage.jobs) || has(self.storage.redis) || (!has(self.autoscaling) && (!has(self.replicas) || self.replicas <= 1))",
     "gateway.storage.jobs are those of one gateway pod: set storage.redis, gateway.replicas: 1 without gateway.autoscaling, or storage.jobs: false"),
    ("!has(self.storage) || has(self.storage.existingClaim) || (has(self.storage.pvc) && has(self.storage.pvc.accessMode) && self.storage.pvc.accessMode == 'ReadWriteMany') || (!has(self.autoscaling) && (!has(self.replicas) || self.replicas <= 1))",
     "gateway.storage is a volume of one gateway pod: set gateway.replicas: 1 without gateway.autoscaling, or storage.pvc.accessMode: ReadWriteMany"),
])))]
pub struct GatewaySpec {
    /// Where it runs: `Service` in pods of its own in front of all engines, `Sidecar` beside each engine, with a Service for each.
    pub mode: GatewayMode,
    /// Pods; when neither this nor autoscaling is set 2, or 1 where only one can use `storage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: Option<i32>,
    /// A HorizontalPodAutoscaler in place of a fixed number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<GatewayAutoscaling>,
    /// Image in place of the operator's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// CPU and memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// The Service that clients use.
    pub service: Service,
    /// An Ingress to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// An HTTPRoute (Gateway API) to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRoute>,
    /// API keys of clients; unset serves every client that reaches the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<GatewayAuth>,
    /// What API keys may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quotas: Option<Quotas>,
    /// HTTPS of the gateway itself; plain HTTP alone when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<GatewayTls>,
    /// Where traces of requests and repairs go; they are only passed on when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// Where jobs and recordings of voices are kept; without it there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Limits on what clients send.
    pub limits: Limits,
    /// Further names of models: client's name onto a model's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub model_aliases: BTreeMap<String, String>,
    /// Client voice names onto engine voice names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub voice_aliases: BTreeMap<String, String>,
    /// The engine voice when a client names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_voice: Option<String>,
    /// Longest wait for requests in flight when a pod ends; limits.longestJob when unset. A pod without requests ends at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<Span>,
    /// Nodes that may run it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Pod affinity, as in a pod's spec; unset spreads replicas over nodes where possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_object")]
    pub affinity: Option<Value>,
    /// Priority class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// Further pod labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,
    /// Further pod annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_annotations: BTreeMap<String, String>,
    /// Topology spread constraints, as in a pod's spec, in place of the spread over nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::open_objects")]
    pub topology_spread_constraints: Vec<Value>,
    /// Runtime class; unset uses the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// Service account in place of the stack's own; it gets the right to read EndpointSlices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// DNS policy: ClusterFirst, ClusterFirstWithHostNet, Default or None.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_policy: Option<String>,
    /// DNS configuration, as in a pod's spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_object")]
    pub dns_config: Option<Value>,
    /// Further environment of the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,
    /// Further volumes of the pod, as in a pod's spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::open_objects")]
    pub volumes: Vec<Value>,
    /// Further mounts of the container, as in a container's spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::open_objects")]
    pub volume_mounts: Vec<Value>,
    /// Pod security context, as in a pod's spec, in place of the restricted default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_object")]
    pub pod_security_context: Option<Value>,
    /// Security context of the container in place of the restricted default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_object")]
    pub security_context: Option<Value>,
    /// Strategic merge patch of the pod template, applied last. It may not touch labels of the selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_object")]
    pub pod_template_patch: Option<Value>,
}

/// Where the gateway runs.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum GatewayMode {
    /// In pods of its own, in front of all engines.
    #[default]
    Service,
    /// Beside each engine, whose requests alone it serves.
    Sidecar,
}

/// HTTPS of the gateway.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GatewayTls {
    /// A Secret of type kubernetes.io/tls, such as cert-manager makes. A new certificate in it is served without a restart.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// The Service's port for HTTPS.
    #[serde(default = "https")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Whether service.port stays, with plain HTTP, such as for clients in the cluster. Without it port 50051, for clients of Riva,
    /// speaks TLS as well.
    #[serde(default = "yes")]
    pub http: bool,
}

/// A HorizontalPodAutoscaler of the gateway's Deployment, by CPU and, if asked for, by requests in flight.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("self.minReplicas <= self.maxReplicas",
     "gateway.autoscaling.minReplicas is above maxReplicas: lower the one or raise the other"),
])))]
pub struct GatewayAutoscaling {
    /// Least replicas.
    #[schemars(range(min = 1, max = 100))]
    pub min_replicas: i32,
    /// Most replicas.
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: i32,
    /// Mean CPU use aimed at, percent of the request.
    #[serde(default = "seventy")]
    #[schemars(range(min = 1, max = 100))]
    pub cpu_percent: i32,
    /// Mean requests in flight of a pod aimed at too, which tell of slow uploads and long replies before the CPU does; needs an
    /// adapter that serves the metric speechstack_gateway_in_flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub in_flight: Option<i32>,
}

/// The Service that clients use.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// ClusterIP, NodePort or LoadBalancer.
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    /// Port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Annotations, such as a cloud's load balancer settings.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Address families: `PreferDualStack` takes IPv4 and IPv6 where the cluster has both, and the one that it has otherwise.
    pub ip_family_policy: IpFamilyPolicy,
}

impl Default for Service {
    fn default() -> Self {
        let (service_type, ip_family_policy) = (ServiceType::default(), IpFamilyPolicy::default());
        Self { service_type, port: 80, annotations: BTreeMap::new(), ip_family_policy }
    }
}

/// Address families of a Service, as Kubernetes names them.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum IpFamilyPolicy {
    /// The cluster's first one.
    SingleStack,
    /// Both where the cluster has both.
    #[default]
    PreferDualStack,
    /// Both; a cluster of one refuses the Service.
    RequireDualStack,
}

impl IpFamilyPolicy {
    /// Its name in a Service's spec.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SingleStack => "SingleStack",
            Self::PreferDualStack => "PreferDualStack",
            Self::RequireDualStack => "RequireDualStack",
        }
    }
}

/// How a Service is reached.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum ServiceType {
    /// From within the cluster.
    #[default]
    ClusterIP,
    /// On a port of each node.
    NodePort,
    /// Through a load balancer.
    LoadBalancer,
}

impl ServiceType {
    /// Its name in a Service's spec.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// An Ingress to the gateway.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// Host name.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Ingress class; the cluster's default when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Secret with the certificate of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret_name: Option<String>,
    /// Annotations. Those of the two NGINX controllers that let long audio through are set unless given here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An HTTPRoute to the gateway.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// Gateways that it attaches to.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<ParentRef>,
    /// Host names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub hostnames: Vec<String>,
    /// Ask the Gateway for no time limit of its own (timeouts.request: 0s): the stack's gateway has its own, and a transcript of
    /// long audio is silent until it is done. Set it to false for Gateways that refuse the field, such as GKE's.
    #[serde(default = "yes")]
    pub unlimited_time: bool,
}

/// A Gateway of the Gateway API.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// Name.
    pub name: String,
    /// Namespace; the stack's when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Listener; all when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// Limits on what clients send.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Largest upload; beyond it 413.
    pub max_upload: Quantity,
    /// Requests in flight of each gateway pod; beyond it 429.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_in_flight: u32,
    /// Longest wait of a short request for an engine that is coming back.
    pub queue_timeout: Span,
    /// Longest time that a request may take: what a stopping gateway waits for, and the time limit of its Ingress.
    pub longest_job: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_upload: Quantity("2Gi".into()),
            max_in_flight: 1024,
            queue_timeout: Span::seconds(20),
            longest_job: Span::minutes(15),
        }
    }
}

fn https() -> i32 {
    443
}

fn yes() -> bool {
    true
}

fn seventy() -> i32 {
    70
}
