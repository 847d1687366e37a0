"""What the tests of deploy/ share. They run in a network namespace of their own: whatever they start, containers included,
has the loopback interface of that namespace and nothing else."""
import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "e2e")]

import pods  # noqa: E402

CLONE_NEWNET = 0x40000000


@pytest.fixture(scope="session", autouse=True)
def network():
    """Leaves the machine's network for an empty one."""
    if os.geteuid() != 0:
        pytest.exit("make deploy-test wants to be root: it makes a network namespace and runs containers in it", 2)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        pytest.exit(f"no network namespace: {os.strerror(ctypes.get_errno())}", 2)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@pytest.fixture(scope="session", autouse=True)
def nothing_left():
    """Whatever happens, no container outlives the tests."""
    yield
    pods.podman("pod", "rm", "--all", "--force", "--time", "0", check=False)
    pods.podman("rm", "--all", "--force", "--time", "0", check=False)
    pods.podman("volume", "rm", "--all", "--force", check=False)
    pods.podman("network", "prune", "--force", check=False)


@pytest.fixture
def backends(tmp_path):
    """Starts backends by name: backends("a", "b")."""
    from harness import Backend
    started = []

    def start(*names):
        made = [Backend(name, tmp_path).start() for name in names]
        started.extend(made)
        return made
    yield start
    for one in started:
        one.kill()


@pytest.fixture
def make_pod(tmp_path):
    """Renders the chart and runs its pod: make_pod("gw", [route, ...]); gone after the test."""
    made = []

    def make(name, routes, start=True, **more):
        pod = pods.Pod(name, routes, tmp_path, **more)
        made.append(pod)
        if start:
            pod.start()
        return pod
    yield make
    for pod in made:
        pod.remove()
