#!/usr/bin/env bash
# Checks the chart: lint, every switch on and off against the API's schemas, the upgrade from the landed chart, the table of
# values, dashboards, alerts and their tests, the health check for Argo CD.
# Usage: charts/check.sh TOOLS PYTHON, where TOOLS holds helm, kubeconform, helm-docs and promtool.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$1 python=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

quietly() { # prints only when the command fails
	"$@" >"$work/output" 2>&1 || { cat "$work/output" >&2; exit 1; }
}

quietly "$tools/helm" lint --strict charts/speechstack

render() { # NAME, then values
	local name=$1
	shift
	"$tools/helm" template op charts/speechstack --namespace speech-system "$@" 2>"$work/stderr" >"$work/$name.yaml" ||
		{ cat "$work/stderr" >&2; exit 1; }
}
render default
render everything --set rbac.nodeEscalation=true,podMonitor.enabled=true,prometheusRule.enabled=true,networkPolicy.enabled=true \
	--set rbac.logs=true,dashboards.enabled=true,test.speakers=true
render defaults --set fixedUser=false,stackDefaults.imageRegistry=mirror.local,stackDefaults.imagePullSecrets={ngc},rbac.aggregate=true \
	--set 'presets.presets.reference[0].startup=3m'
render least --set watchNamespace=team,rbac.secrets=false,rbac.events=false
if grep -q 'kind: ClusterRole' "$work/least.yaml"; then echo 'a namespaced operator asks for a ClusterRole' >&2; exit 1; fi
if grep -q 'resources: \[secrets\]' "$work/least.yaml"; then echo 'secrets are read though rbac.secrets is false' >&2; exit 1; fi
render traced --set tracing.endpoint=https://collector.example,tracing.headersSecretRef.name=collector
for text in 'secretName: collector' 'optional: true' '--otlp-headers-file=/etc/speechstack-tracing/headers'; do
	grep -q -- "$text" "$work/traced.yaml" || { echo "tracing.headersSecretRef renders no $text" >&2; exit 1; }
	if grep -q -- "$text" "$work/default.yaml"; then echo "$text is rendered without tracing.headersSecretRef" >&2; exit 1; fi
done
# Volumes are read only where engines may move.
grep -q 'resources: \[persistentvolumes\]' "$work/everything.yaml" || { echo 'rbac.nodeEscalation reads no volumes' >&2; exit 1; }
if grep -q 'resources: \[persistentvolumes\]' "$work/default.yaml"; then echo 'volumes are read without rbac.nodeEscalation' >&2; exit 1; fi
# What is `auto` follows what the cluster has.
render monitored --api-versions monitoring.coreos.com/v1/PodMonitor --api-versions monitoring.coreos.com/v1/PrometheusRule
for kind in PodMonitor PrometheusRule; do
	grep -q "^kind: $kind" "$work/monitored.yaml" || { echo "no $kind though the cluster has the kind" >&2; exit 1; }
	if grep -q "^kind: $kind" "$work/default.yaml"; then echo "a $kind though the cluster lacks the kind" >&2; exit 1; fi
done
[ "$(grep -c '^kind: ConfigMap' "$work/everything.yaml")" = "$(ls charts/speechstack/dashboards/*.json | wc -l)" ] ||
	{ echo 'not each dashboard becomes a ConfigMap' >&2; exit 1; }
render namespaced --set rbac.nodeEscalation=true,watchNamespace=team,crds.install=false,podDisruptionBudget.enabled=false,priorityClassName=high

# The Prometheus operator's kinds have no schema in Kubernetes itself.
schemas=target/tools/schemas
[ -f $schemas/deployment-apps-v1.json ] || "$python" charts/schemas.py 1.34.0 $schemas
quietly "$tools/kubeconform" -strict -skip PodMonitor,PrometheusRule \
	-schema-location "$schemas/{{.ResourceKind}}{{.KindSuffix}}.json" "$work"/*.yaml

# From the chart that landed last (`make chart-landed`): with its values alone, as `helm upgrade --reuse-values` does.
mkdir "$work/landed"
tar -xzf charts/tests/speechstack-landed.tgz -C "$work/landed"
cp -rL charts/speechstack "$work/upgraded"
cp "$work/landed/speechstack/values.yaml" "$work/upgraded/values.yaml"
for chart in landed/speechstack upgraded; do
	"$tools/helm" template op "$work/$chart" --namespace speech-system --set rbac.nodeEscalation=true >"$work/upgrade.out" 2>&1 ||
		{ cat "$work/upgrade.out" >&2; echo "upgrade: $chart does not render with the landed chart's values" >&2; exit 1; }
	mv "$work/upgrade.out" "$work/${chart//\//-}.rendered"
done
"$python" charts/upgrade.py "$work/landed/speechstack" "$work/landed-speechstack.rendered" "$work/upgraded.rendered" crds/speechstacks.yaml

cp -rL charts/speechstack "$work/chart"
quietly "$tools/helm-docs" --chart-search-root "$work/chart" --sort-values-order file
diff -u charts/speechstack/README.md "$work/chart/README.md" ||
	{ echo 'charts/speechstack/README.md is out of date: run `make chart-docs`' >&2; exit 1; }

# The alerts that the operator makes for each stack, out of the objects that its tests compare with.
"$python" - operator/tests/golden/parakeet-nim.yaml >target/tools/stack-alerts.yaml <<-'PYTHON'
	import sys, yaml
	documents = yaml.safe_load_all(open(sys.argv[1]))
	print(yaml.dump(next(one["spec"] for one in documents if one["kind"] == "PrometheusRule")))
PYTHON
"$python" charts/dashboards.py docs/metrics.md target/tools/dashboards.yaml charts/speechstack/dashboards/*.json
quietly "$tools/promtool" check rules target/tools/dashboards.yaml
"$python" charts/health.py charts/speechstack/extras/argocd-health.lua
quietly "$tools/promtool" check rules charts/speechstack/files/*alerts.yaml target/tools/stack-alerts.yaml
quietly "$tools/promtool" test rules charts/tests/*.yaml
echo "chart: ok"
