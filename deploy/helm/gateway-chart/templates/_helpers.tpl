{{/* The name that all objects carry. */}}
{{- define "gateway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default "gateway" .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: gateway-pro
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | regexFind "^[^@]*" | trunc 63 | trimAll "._-" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "gateway.configMap" -}}
{{ .Values.existingConfigMap | default (include "gateway.fullname" .) }}
{{- end -}}

{{/* The image of a container: gateway.image (list . "dataplane") */}}
{{- define "gateway.image" -}}
{{- $ := index . 0 -}}{{- $which := index . 1 -}}
{{- $own := (index $.Values $which).tag -}}
{{ $.Values.image.registry }}/{{ $which }}:{{ $own | default $.Values.image.tag | default $.Chart.AppVersion }}
{{- end -}}

{{/* What `config` says of a key with a default: gateway.config (list . "server" "drain_delay_seconds" 0) */}}
{{- define "gateway.config" -}}
{{- $document := fromYaml (index . 0).Values.config -}}
{{- with get $document "Error" }}{{ fail (printf "config is not YAML: %s" .) }}{{ end -}}
{{- $section := get $document (index . 1) | default dict -}}
{{- $value := index . 3 -}}
{{- $said := get $section (index . 2) -}}
{{- if and (hasKey $section (index . 2)) (not (kindIs "invalid" $said)) }}{{ $value = $said }}{{ end -}}
{{- if kindIs "slice" $value }}{{ $value = first $value }}{{ end -}}
{{ $value }}
{{- end -}}

{{/* The port of an address: gateway.port (list . "server" 8080) */}}
{{- define "gateway.port" -}}
{{- $section := index . 1 -}}
{{- $addr := include "gateway.config" (list (index . 0) $section "addr" (printf ":%d" (index . 2))) -}}
{{- if regexMatch "^(127\\.|localhost:|\\[::1])" $addr }}{{ fail (printf "config: %s.addr is %q: nobody outside of the pod can reach it there" $section $addr) }}{{ end -}}
{{- $port := regexFind ":[0-9]+$" $addr | trimPrefix ":" -}}
{{- required (printf "config: %s.addr is %q: the chart needs a port there, written as a number" $section $addr) $port -}}
{{- end -}}

{{/* How many seconds a key says: gateway.seconds (list . "shutdown_grace_seconds" 30) */}}
{{- define "gateway.seconds" -}}
{{- $text := include "gateway.config" (list (index . 0) "server" (index . 1) (index . 2)) -}}
{{- if not (regexMatch "^[0-9.]+$" $text) }}{{ fail (printf "config: server.%s is %q: the chart needs a number there" (index . 1) $text) }}{{ end -}}
{{- $text | float64 | ceil | int -}}
{{- end -}}

{{/* What neither container may do. */}}
{{- define "gateway.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}
