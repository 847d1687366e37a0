"""The chart's pod, really run: it starts, serves, is changed, loses either container, and mixes versions."""
import re
import socket
import threading
import time
from pathlib import Path

import pytest
import yaml

from harness import route, wait_until
from load import Load
from pods import NEXT, VERSION, podman

UP_SECONDS = 30


@pytest.fixture
def pod(make_pod, backends):
    """One pod before one backend."""
    return make_pod("gw", [route("all", "/", *backends("a"))])


def enough(load, count):
    """Waits for so many good answers more."""
    target = load.count(200) + count
    wait_until(lambda: load.count(200) >= target, f"{count} more good answers", UP_SECONDS)


def test_pod_starts_and_serves(pod):
    """From nothing to the first answered request, and what it takes."""
    idle = {which: pod.memory(which) for which in ("dataplane", "controlplane")}
    with Load(pod.port) as load:
        enough(load, 2000)
        busy = {which: pod.memory(which) for which in ("dataplane", "controlplane")}
    print(f"first answer after {pod.started_in:.2f} s; resident idle {idle}, under load {busy}")
    assert set(load.answers) == {200}
    assert pod.admin("/readyz").status == 200
    assert busy["dataplane"] < 32 << 20 and busy["controlplane"] < 32 << 20


def test_containers_may_do_nothing_else(pod):
    """Not root, no capability, no way to more, nothing to write to but their folders, system calls filtered."""
    for which in ("dataplane", "controlplane"):
        proc = Path(f"/proc/{pod.pid(which)}")
        status = proc.joinpath("status").read_text()
        field = lambda name: re.search(rf"^{name}:\s+(.+)$", status, re.M)[1].split()
        assert field("Uid") == ["65532"] * 4 and field("Gid") == ["65532"] * 4
        assert all(int(field(f"Cap{kind}")[0], 16) == 0 for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"))
        assert field("NoNewPrivs") == ["1"] and field("Seccomp") == ["2"]
        root = next(line for line in proc.joinpath("mounts").read_text().splitlines() if line.split()[1] == "/")
        assert root.split()[3].split(",")[0] == "ro"


def test_probes_of_the_chart_succeed(pod):
    """The commands that Kubernetes would run, in the containers."""
    deployment = list(yaml.safe_load_all(pod.manifest.read_text()))[1]
    ran = 0
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if command := container.get(probe, {}).get("exec", {}).get("command"):
                pod.exec(container["name"], *command)
                ran += 1
    assert ran == 4


def test_push_by_exec(pod, backends):
    """gwpctl in the control plane's container, the configuration on its standard input."""
    other, = backends("b")
    pod.routes = [route("all", "/", other)]
    pod.exec("controlplane", "gwpctl", "push", "config", "-", input=pod.config())
    assert pod.get("/").json()["name"] == "b"


def test_configmap_update_reloads(pod, backends):
    """As the kubelet brings it, twice; and a broken one changes nothing."""
    for name in ("b", "c"):
        other, = backends(name)
        pod.routes = [route("all", "/", other)]
        pod.write_config(pod.config())
        wait_until(lambda: pod.get("/").json()["name"] == name, f"{name} answers", 10)
    pod.write_config("routes: [{path_prefx: /}]\n")
    wait_until(lambda: not pod.status()["config"]["last_reload"]["ok"], "the broken one is refused", 10)
    assert pod.get("/").json()["name"] == "c"


@pytest.mark.parametrize("which", ["controlplane", "dataplane"])
def test_killed_container_is_replaced_and_nothing_refused(pod, which):
    """kill -9 under load, several times: what was in flight in a killed data plane is lost, but nobody is refused."""
    with Load(pod.port) as load:
        for _ in range(3):
            enough(load, 300)
            pod.kill(which)
            enough(load, 300)
            pod.wait_synced()
    print(f"{which} killed three times: {dict(load.answers)}")
    assert load.answers["refused"] == 0 and load.answers["timeout"] == 0
    if which == "controlplane":
        assert set(load.answers) == {200}
    else:  # at most what each client had under way, each time
        assert sum(n for word, n in load.answers.items() if word not in (200, 503)) <= 3 * len(load.threads)


@pytest.mark.parametrize("which", ["controlplane", "dataplane"])
def test_versions_mix(make_pod, backends, which):
    """Either container may be the newer one."""
    pod = make_pod("mixed", [route("all", "/", *backends("a"))], tags={which: NEXT})
    pod.wait_synced()
    status = pod.status()
    versions = {"controlplane": status["version"], "dataplane": status["dataplanes"][0]["version"]}
    other = "dataplane" if which == "controlplane" else "controlplane"
    assert versions == {which: f"{VERSION}-next", other: VERSION}
    pod.exec("controlplane", "gwpctl", "push", "config", "-", input=pod.config(idle_timeout_seconds=9))
    assert pod.get("/").status == 200


def test_pod_ends_without_losing_a_request(pod):
    """SIGTERM to both, as Kubernetes ends a pod: who comes until load balancers have noticed is served, and what is under
    way is finished."""
    with Load(pod.port) as load, socket.create_connection(("127.0.0.1", pod.port)) as slow:
        enough(load, 200)
        slow.sendall(b"GET /delay/1.5 HTTP/1.1\r\nHost: gateway\r\n\r\n")
        end = threading.Thread(target=podman, args=("pod", "stop", "--time", "20", pod.pod))
        begin = time.monotonic()
        end.start()
        wait_until(lambda: pod.pid("controlplane") == 0, "the control plane is gone", UP_SECONDS)
        enough(load, 50)
        load.done.set()
        slow.settimeout(UP_SECONDS)
        assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")
        end.join()
        took = time.monotonic() - begin
    print(f"ended in {took:.1f} s: {dict(load.answers)}")
    assert set(load.answers) == {200} and 1.5 <= took < 15
