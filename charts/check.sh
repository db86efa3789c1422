#!/usr/bin/env bash
# Checks the chart: lint, every switch on and off against the API's schemas, the table of values, alerts and their tests.
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
render everything --set rbac.nodeEscalation=true,podMonitor.enabled=true,prometheusRule.enabled=true,networkPolicy.enabled=true
render defaults --set fixedUser=false,stackDefaults.imageRegistry=mirror.local,stackDefaults.imagePullSecrets={ngc},rbac.aggregate=true \
	--set 'presets.presets.reference[0].startup=3m'
render least --set watchNamespace=team,rbac.secrets=false,rbac.events=false
if grep -q 'kind: ClusterRole' "$work/least.yaml"; then echo 'a namespaced operator asks for a ClusterRole' >&2; exit 1; fi
if grep -q 'resources: \[secrets\]' "$work/least.yaml"; then echo 'secrets are read though rbac.secrets is false' >&2; exit 1; fi
render namespaced --set rbac.nodeEscalation=true,watchNamespace=team,crds.install=false,podDisruptionBudget.enabled=false,priorityClassName=high

# The Prometheus operator's kinds have no schema in Kubernetes itself.
schemas=target/tools/schemas
[ -f $schemas/deployment-apps-v1.json ] || "$python" charts/schemas.py 1.34.0 $schemas
quietly "$tools/kubeconform" -strict -skip PodMonitor,PrometheusRule \
	-schema-location "$schemas/{{.ResourceKind}}{{.KindSuffix}}.json" "$work"/*.yaml

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
quietly "$tools/promtool" check rules charts/speechstack/files/*alerts.yaml target/tools/stack-alerts.yaml
quietly "$tools/promtool" test rules charts/tests/*.yaml
echo "chart: ok"
