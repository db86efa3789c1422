{{- define "speechstack.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "speechstack.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "speechstack.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "speechstack.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "speechstack.serviceAccount" -}}
{{- default (printf "%s-operator" (include "speechstack.fullname" .)) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "speechstack.selector" -}}
app.kubernetes.io/name: speechstack-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "speechstack.labels" -}}
{{ include "speechstack.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "speechstack.proxyImage" -}}
{{- printf "%s:%s" .Values.proxyImage.repository (default .Chart.AppVersion .Values.proxyImage.tag) -}}
{{- end -}}

{{/* Whether nodes are read: "true" or empty. */}}
{{- define "speechstack.nodes" -}}
{{- if or .Values.rbac.nodeEscalation (eq (toString .Values.rbac.nodes) "true") (and (eq (toString .Values.rbac.nodes) "auto") (not .Values.watchNamespace)) -}}
true
{{- end -}}
{{- end -}}

{{/* Whether an object of the Prometheus operator is made: "true" or empty. Takes the root, the switch and the kind. */}}
{{- define "speechstack.monitored" -}}
{{- if or (eq (toString .enabled) "true") (and (eq (toString .enabled) "auto") (.root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind))) -}}
true
{{- end -}}
{{- end -}}

{{/* Rights in the namespaces that are watched: exactly what the operator calls. */}}
{{- define "speechstack.rules" -}}
- apiGroups: [speechstack.dev]
  resources: [speechstacks]
  verbs: [get, list, watch]
- apiGroups: [speechstack.dev]
  resources: [speechstacks/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
# Pods are a stack's own by their owners, not by their labels.
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
# A model cache is made and never deleted.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
{{- if .Values.rbac.secrets }}
# Only the names that a stack gives are read, to say early what is missing.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- end }}
{{- if .Values.rbac.events }}
# Of pods whose volumes are not mounted: nothing else says why.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
{{- end }}
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
{{- if .Values.rbac.logs }}
# Of engines that ended, once each.
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
{{- end }}
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [ingresses, networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
# Its address and listeners, for `status.endpoints`.
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [get]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors, prometheusrules]
  verbs: [get, list, watch, create, patch, delete]
# Gateways find their engines by EndpointSlices; who grants a right must hold it.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
