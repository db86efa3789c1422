//! What Prometheus finds: objects for its operator where that is installed, and metrics behind them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use serde_json::{Value, json};
use speechstack_e2e::cluster::wait::await_condition;
use speechstack_e2e::deployed;

use super::fixture::Fixture;
use super::healing::{START, clip, small};

/// The operator's own port for scrapes.
const OPERATOR: u16 = 8080;
const GROUP: &str = "monitoring.coreos.com";
/// A kind, its plural and its singular.
type Kind = (&'static str, &'static str, &'static str);
const POD_MONITOR: Kind = ("PodMonitor", "podmonitors", "podmonitor");
const PROMETHEUS_RULE: Kind = ("PrometheusRule", "prometheusrules", "prometheusrule");

/// The kinds of the Prometheus operator, as far as anybody here looks into them.
fn definitions() -> Result<String> {
    let mut yaml = String::new();
    for (kind, plural, singular) in [POD_MONITOR, PROMETHEUS_RULE] {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let version =
            json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{GROUP}")},
            "spec": {
                "group": GROUP, "scope": "Namespaced", "versions": [version],
                "names": {"kind": kind, "plural": plural, "singular": singular, "listKind": format!("{kind}List")},
            },
        });
        yaml += &format!("---\n{}\n", serde_json::to_string(&definition)?);
    }
    Ok(yaml)
}

/// With the Prometheus operator's kinds in the cluster a stack has a PodMonitor that selects ports which answer, and
/// rules whose metrics are there.
pub async fn prometheus_finds_the_stack(fixture: &Fixture) -> Result<()> {
    let apply = ["apply", "--server-side", "-f", "-"];
    fixture.space.cluster.kubectl_with_input(&apply, &definitions()?).await?;
    // Kinds are looked for at the start, and every few minutes after that.
    fixture.kill_operators().await?;
    let spec = json!({
        "stt": [{"name": "parakeet", "preset": "reference", "resources": small()}],
        "monitoring": {"labels": {"release": "prometheus"}},
        "gateway": {"replicas": 1},
    });
    let stack = fixture.stack(&spec).await?;
    stack.ready(START).await?;

    let monitor = object(fixture, POD_MONITOR).await?;
    ensure!(
        monitor
            .metadata
            .labels
            .iter()
            .flatten()
            .any(|(key, value)| key == "release" && value == "prometheus"),
        "the PodMonitor lacks the wanted label: {:?}",
        monitor.metadata.labels
    );
    let reply = stack.gateway().await?.transcribe("clip.wav", clip()?, "json").await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    let scraped = scrape(fixture, &monitor.data["spec"]).await?;
    let find = |name: &str| scraped.iter().any(|metrics| metrics.contains(name));
    for name in ["speechstack_guard_", "speechstack_gateway_"] {
        ensure!(find(name), "no metric {name}* in what the PodMonitor selects");
    }

    let rule = object(fixture, PROMETHEUS_RULE).await?;
    let operators = fixture.operators().await?;
    let operator = operators.first().context("no operator")?;
    await_condition("the metrics of the alerts are there", Duration::from_secs(30), async || {
        let metrics = deployed::port(operator, OPERATOR)?.get("/metrics").await?.text();
        let scraped = scrape(fixture, &monitor.data["spec"]).await?;
        for alert in rule.data["spec"]["groups"][0]["rules"].as_array().context("no rules")? {
            let expression = alert["expr"].as_str().context("no expression")?;
            let names = expression.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
            let is_metric =
                |name: &&str| name.starts_with("speechstack_") && !name.starts_with("speechstack_dev_");
            for name in names.filter(is_metric) {
                let series = format!("\n{name}{{");
                let there =
                    metrics.contains(&series) || scraped.iter().any(|of_pod| of_pod.contains(&series));
                ensure!(there, "neither the operator nor a pod of the stack exports {name}");
            }
        }
        let labels = [
            r#"stack="speech""#,
            &format!(r#"stack_namespace="{}""#, fixture.space.name),
            r#"state="verified""#,
        ];
        let is_verified =
            |line: &str| line.ends_with("} 1") && labels.iter().all(|label| line.contains(label));
        ensure!(metrics.lines().any(is_verified), "no replica is reported as verified:\n{metrics}");
        Ok(())
    })
    .await
}

/// The stack's object of a kind, once it is there.
async fn object(fixture: &Fixture, (kind, plural, _): Kind) -> Result<DynamicObject> {
    let resource = ApiResource {
        group: GROUP.into(),
        version: "v1".into(),
        api_version: format!("{GROUP}/v1"),
        kind: kind.into(),
        plural: plural.into(),
    };
    let space = &fixture.space;
    let api: Api<DynamicObject> = Api::namespaced_with(space.cluster.client.clone(), &space.name, &resource);
    await_condition(&format!("the stack has a {kind}"), START, async || {
        let found = api.list(&ListParams::default()).await?.items;
        found.into_iter().next().context("none")
    })
    .await
}

/// Scrapes what a PodMonitor selects, as Prometheus would.
async fn scrape(fixture: &Fixture, spec: &Value) -> Result<Vec<String>> {
    let labels: BTreeMap<String, String> = serde_json::from_value(spec["selector"]["matchLabels"].clone())?;
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let endpoint = &spec["podMetricsEndpoints"][0];
    let (port, path) = (&endpoint["port"], endpoint["path"].as_str().context("no path")?);
    let mut scraped = Vec::new();
    for pod in fixture.space.pods(&labels.join(",")).await? {
        let number = port_of(&pod, port.as_str().context("no port")?);
        let number = number.with_context(|| format!("{} has no port {port}", deployed::name(&pod)))?;
        let reply = deployed::port(&pod, number)?.get(path).await?;
        ensure!(reply.status == 200, "{}: {}", deployed::name(&pod), reply.status);
        scraped.push(reply.text());
    }
    Ok(scraped)
}

fn port_of(pod: &Pod, name: &str) -> Option<u16> {
    let spec = pod.spec.as_ref()?;
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.find(|port| port.name.as_deref() == Some(name)).and_then(|port| port.container_port.try_into().ok())
}
