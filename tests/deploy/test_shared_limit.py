"""Three replicas of the pod on one Redis: one limit."""
import time

import pytest

from harness import free_port, route
from load import Load
from pods import REGISTRY, podman

RATE, BURST, SECONDS = 50, 100, 4.0


@pytest.fixture
def redis():
    """A Redis in a container; its port."""
    port = free_port()
    name = podman("run", "-d", "--network=host", f"{REGISTRY}/services", "redis-server", "--bind", "127.0.0.1",
                  "--port", port, "--save", "").stdout.strip()
    yield port
    podman("rm", "--force", "--time", "0", name)


def test_three_replicas_are_one_limit(make_pod, backends, redis):
    """Asked as fast as they answer, all three together let pass what one would: burst, then rate."""
    limit = {"rate": RATE, "burst": BURST, "redis_url": "${REDIS_URL}", "redis_timeout_ms": 1000}
    routes = [route("all", "/", *backends("a"), rate_limit=limit)]
    replicas = [make_pod(f"gw{i}", routes, values=["--set", f"redis.url=redis://127.0.0.1:{redis}/0"], wants=(200, 429))
                for i in range(3)]
    loads = [Load(pod.port, threads=2) for pod in replicas]
    begin = time.monotonic()
    for load in loads:
        load.__enter__()
    time.sleep(SECONDS)  # what is tested is a rate
    for load in loads:
        load.done.set()
    for load in loads:
        load.__exit__()
    took = time.monotonic() - begin
    passed = [load.answers[200] for load in loads]
    refused = [load.answers[429] for load in loads]
    print(f"in {took:.2f} s passed {passed}, {sum(passed)} of at most {BURST + RATE * took:.0f}; refused {refused}")
    assert all(set(load.answers) <= {200, 429} for load in loads)
    assert 0.9 * (RATE * SECONDS) <= sum(passed) <= BURST + RATE * took
    assert min(refused) > 0 and max(passed) < sum(passed)
