"""The chart: it lints, what it renders is what Kubernetes takes, and what must be in step is in step."""
import json
import os
from pathlib import Path

import pytest
import yaml

from pods import CHART, DEPLOY, ROOT, VERSION, helm, kind, render, run

VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
MANIFESTS = ROOT / "deploy" / "kubernetes"
with_values = pytest.mark.parametrize("values", [None, *VALUES], ids=lambda v: v.stem if v else "own")


def rendered(values, *more):
    return render(*(["--values", values] if values else []), *more)


def check_schemas(documents):
    """Every document against the schema of its kind."""
    said = run("node", Path(__file__).parent / "validate.js", DEPLOY / "tools", input=json.dumps(documents)).stdout
    assert said == ""


@with_values
def test_lint(values):
    helm("lint", "--strict", CHART, *(["--values", values] if values else []))


@with_values
def test_rendered_documents_fit_their_schemas(values):
    check_schemas(rendered(values))


def test_schema_check_finds_mistakes():
    """The check itself: a type and a missing member."""
    service = kind([d for d in render() if not d["metadata"]["name"].endswith("-admin")], "Service")
    service["spec"]["ports"][0]["port"] = "http"
    with pytest.raises(AssertionError, match="port"):
        check_schemas([service])


@pytest.mark.parametrize("wrong", [
    "image.pullPolicy=Sometimes", "autoscaling.maxReplicas=0", "replicaCount=-1", "service.type=Nothing",
    "imagge.tag=1", "redis.uri=redis://x", "service.port=http", "config=", "podDisruptionBudget.maxUnavailable=some",
    "podDisruptionBudget.maxUnavailable=-1"])
def test_wrong_values_are_refused(wrong):
    """By the schema, before anything is rendered."""
    done = helm("template", "x", CHART, "--set", wrong, check=False)
    assert done.returncode != 0 and "values don't meet the specifications of the schema" in done.stderr


@pytest.mark.parametrize("config, said", [
    ("routes: [", "config is not YAML"),
    ("server: {addr: 'unix:/run/gwp/http.sock'}", "server.addr"),
    ("server: {drain_delay_seconds: soon}", "server.drain_delay_seconds"),
    ("admin: {addr: '127.0.0.1:9090'}", "admin.addr"),
    ("server: {addr: '[::1]:8080'}", "server.addr"),
    ("server: {addr: ':7000'}\nadmin: {addr: ':7000'}", "same port, 7000")])
def test_config_that_the_chart_cannot_follow_is_refused(config, said, tmp_path):
    """With the key, instead of a pod whose times or ports are out of step."""
    (tmp_path / "c").write_text(config)
    done = helm("template", "x", CHART, "--set-file", f"config={tmp_path / 'c'}", check=False)
    assert done.returncode != 0 and said in done.stderr


def test_keys_without_a_value_are_the_default():
    """As they are to the control plane."""
    empty, without = (render("--set-json", f'config="{text}"')
                      for text in ("server: {addr: ~, drain_delay_seconds: ~}", "server: {}"))
    assert kind(empty, "Deployment") == kind(without, "Deployment")


def test_fewer_than_the_least_replicas_are_refused():
    done = helm("template", "x", CHART, "--set", "autoscaling.minReplicas=5,autoscaling.maxReplicas=2", check=False)
    assert done.returncode != 0 and "autoscaling.minReplicas is 5, more than maxReplicas, 2" in done.stderr


def test_nobody_listed_is_nobody_let_in():
    """A rule with an empty `from` would let everybody in."""
    rules = kind(render("--set-json", "networkPolicy.adminFrom=[]"), "NetworkPolicy")["spec"]["ingress"]
    assert [p["port"] for rule in rules for p in rule["ports"]] == ["http"]


@pytest.mark.parametrize("tag, label", [
    ("1.2.3@sha256:" + 64 * "a", "1.2.3"), ("feature_x.", "feature_x"), (70 * "v", 63 * "v"), ("1", "1")])
def test_labels_are_labels_whatever_image_and_release_are_called(tag, label):
    """Kubernetes takes strings of at most 63 characters, and no @; a digest still gets into the image."""
    documents = render("--set-string", f"image.tag={tag}", release="1234")
    assert {d["metadata"]["labels"]["app.kubernetes.io/version"] for d in documents} == {label}
    assert {d["metadata"]["labels"]["app.kubernetes.io/instance"] for d in documents} == {"1234"}
    spec = kind(documents, "Deployment")["spec"]["template"]["spec"]
    assert all(c["image"].endswith(f"plane:{tag}") for c in spec["containers"])


def test_local_traffic_policy_is_for_addresses_from_outside():
    """Kubernetes refuses it for a ClusterIP."""
    services = [d for d in render("--set", "service.externalTrafficPolicy=Local") if d["kind"] == "Service"]
    assert all("externalTrafficPolicy" not in s["spec"] for s in services)


def test_every_value_is_documented_and_in_the_schema():
    """values.yaml and values.schema.json name the same keys, and the schema takes no others."""
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(value, node, path):
        assert node.get("type") is not None or "enum" in node, path
        if not isinstance(value, dict) or node.get("additionalProperties") is not False:
            return
        assert set(value) == set(node["properties"]), path
        for key, child in value.items():
            compare(child, node["properties"][key], f"{path}.{key}")
    compare(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "values")


@with_values
def test_grace_probes_and_ports_follow_the_configuration(values):
    """terminationGracePeriod covers drain and grace, preStop ends before it, probes ask the port that is listened on."""
    documents = rendered(values)
    spec = kind(documents, "Deployment")["spec"]["template"]["spec"]
    given = yaml.safe_load((values or CHART / "values.yaml").read_text()).get("config")
    config = yaml.safe_load(given or yaml.safe_load((CHART / "values.yaml").read_text())["config"])
    server = config.get("server", {})
    needed = server.get("drain_delay_seconds", 0) + server.get("shutdown_grace_seconds", 30)
    containers = {c["name"]: c for c in spec["containers"]}
    pre_stop = containers["controlplane"]["lifecycle"]["preStop"]["exec"]["command"]
    assert pre_stop[:4] == ["gwpctl", "wait", "drained", "--wait"]
    assert needed < int(pre_stop[4]) < spec["terminationGracePeriodSeconds"]
    addr = server.get("addr", ":8080")
    port = int((addr if isinstance(addr, str) else addr[0]).rsplit(":")[-1])
    assert [p["containerPort"] for p in containers["dataplane"]["ports"]] == [port]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        command = containers["dataplane"][probe]["exec"]["command"]
        assert command == ["gwp-dataplane", "--self-check", f"127.0.0.1:{port}"]
        # Long enough for the check to say itself that nobody answers.
        assert containers["dataplane"][probe]["timeoutSeconds"] > 2
    assert {"livenessProbe", "readinessProbe"} <= set(containers["controlplane"])


@with_values
def test_every_container_is_confined(values):
    spec = kind(rendered(values), "Deployment")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    sockets = next(v for v in spec["volumes"] if v["name"] == "sockets")
    assert sockets["emptyDir"]["medium"] == "Memory"


def test_every_reference_meets_what_it_names():
    """Selectors, named ports, volumes, the scaled deployment."""
    documents = render("--values", Path(__file__).parent / "values" / "all.yaml")
    deployment = kind(documents, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    spec = deployment["spec"]["template"]["spec"]
    ports = {p["name"] for c in spec["containers"] for p in c["ports"]}
    services = [d for d in documents if d["kind"] == "Service"]
    for selector in [deployment["spec"]["selector"]["matchLabels"],
                     kind(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
                     kind(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
                     *(s["spec"]["selector"] for s in services)]:
        assert selector.items() <= labels
    assert {p["targetPort"] for s in services for p in s["spec"]["ports"]} == ports
    assert {p["port"] for rule in kind(documents, "NetworkPolicy")["spec"]["ingress"] for p in rule["ports"]} == ports
    monitor = kind(documents, "ServiceMonitor")["spec"]
    monitored = [s for s in services if monitor["selector"]["matchLabels"].items() <= s["metadata"]["labels"].items()]
    assert [s["metadata"]["name"] for s in monitored] == ["gateway-admin"]
    assert {e["port"] for e in monitor["endpoints"]} <= {p["name"] for p in monitored[0]["spec"]["ports"]}
    volumes = {v["name"] for v in spec["volumes"]}
    assert all({m["name"] for m in c["volumeMounts"]} <= volumes for c in spec["containers"])
    scaler = kind(documents, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"] and "replicas" not in deployment["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 7)
    images = {c["name"]: c["image"] for c in spec["containers"]}
    assert images == {"controlplane": "registry.example.com/gateway/controlplane:1.2.3",
                      "dataplane": "registry.example.com/gateway/dataplane:1.2.4"}


def test_scaling_by_default_is_two_to_ten():
    scaler = kind(render(), "HorizontalPodAutoscaler")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 10)
    assert scaler["metrics"][0]["resource"]["name"] == "cpu"


def test_default_configuration_is_valid(tmp_path):
    """By the program that will read it."""
    path = tmp_path / "gateway.yaml"
    path.write_text(kind(render(), "ConfigMap")["data"]["gateway.yaml"])
    run(ROOT / "build" / "gwpctl", "validate", path)


def test_chart_has_the_version_of_the_product():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == VERSION


def test_manifests_are_what_the_chart_makes(tmp_path):
    """deploy/kubernetes after `make manifests` is as it was; kubectl takes the folder."""
    run("make", "-C", ROOT, "--no-print-directory", "manifests", f"MANIFESTS={tmp_path}",
        env={**os.environ, "MAKEFLAGS": ""})
    made = {p.name: p.read_text() for p in tmp_path.iterdir()}
    there = {p.name: p.read_text() for p in MANIFESTS.glob("*.yaml") if p.name != "kustomization.yaml"}
    assert made == there, "run `make manifests`"
    out = run(DEPLOY / "bin" / "kubectl", "kustomize", MANIFESTS).stdout
    documents = list(yaml.safe_load_all(out))
    check_schemas(documents)
    assert {d["kind"] for d in documents} == {"ConfigMap", "Deployment", "Service", "HorizontalPodAutoscaler",
                                              "PodDisruptionBudget", "NetworkPolicy"}
    images = [c["image"] for c in kind(documents, "Deployment")["spec"]["template"]["spec"]["containers"]]
    assert all(image.endswith(f":{VERSION}") for image in images)
