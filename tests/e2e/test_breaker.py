"""Circuit breakers: failing endpoints are left alone, probed, and taken back."""
import resource
import select
import socket
import threading
import time
from collections import Counter

import pytest

from harness import SCALE, route, wait_until

BREAKER = {"failure_threshold": 50, "min_requests": 10, "window_seconds": 10,
           "open_duration_seconds": 1.0 * SCALE, "half_open_requests": 3}


def breaker_route(*backends, name="all", retries=0, breaker=None, **more):
    """A route whose endpoints have breakers, and whose health nobody checks."""
    return route(name, "/", *backends, retries=retries, health_check={"enabled": False},
                 circuit_breaker={**BREAKER, **(breaker or {})}, **more)


def endpoint(pair, backend):
    """What the control plane tells of a backend's only endpoint."""
    for one in pair.admin("GET", "/api/v1/backends").json()["routes"][0]["backends"]:
        if one["url"] == backend.url:
            return one["endpoints"][0]
    raise AssertionError(f"{backend.url} is not there")


def is_in(pair, backend, state):
    """Waits until the control plane says that the breaker is in that state; its document."""
    def there():
        document = endpoint(pair, backend)
        assert document["breaker"] == state, document
        return document
    return wait_until(there, f"the breaker is {state}")


def trip(pair, backend):
    """Lets the backend fail until its breaker opens; how many requests that took."""
    backend.get("/set?health=503")
    for count in range(100):
        answer = pair.get("/healthz")
        if answer.get("retry-after"):
            assert answer.json()["error"] == "breaker_open"
            backend.get("/set?health=200")
            return count
        assert answer.status == 503
    raise AssertionError("it never opened")


def burst(pair, target, threads=8, each=25):
    """Many requests at once; their statuses."""
    statuses, start = [], threading.Barrier(threads)

    def run():
        with_own = []
        start.wait()
        for _ in range(each):
            with_own.append(pair.get(target).status)
        statuses.extend(with_own)
    running = [threading.Thread(target=run) for _ in range(threads)]
    for t in running:
        t.start()
    for t in running:
        t.join()
    return statuses


def test_failing_backend_opens_the_breaker(make_pair, backend):
    """As soon as min_requests have shown it, for all workers, with Retry-After of the next probe."""
    pair = make_pair([breaker_route(backend, breaker={"open_duration_seconds": 30})])
    assert trip(pair, backend) == 10
    before = backend.get("/connections")["requests"]
    statuses = burst(pair, "/")
    assert set(statuses) == {503}
    assert backend.get("/connections")["requests"] == before, "it is left alone by every worker"
    answer = pair.get("/")
    assert answer.json()["error"] == "breaker_open"
    assert 25 <= int(answer.get("retry-after")) <= 30
    document = is_in(pair, backend, "open")
    assert document["breaker_cause"] == "10 of 10 requests failed in 10 s (status 503 last)"
    assert document["breaker_since"] < document["breaker_until"]


def test_transitions_are_told_everywhere(make_pair, backend):
    """Both logs, metrics, gwpctl; each once."""
    pair = make_pair([breaker_route(backend)])
    trip(pair, backend)
    is_in(pair, backend, "open")
    wait_until(lambda: pair.get("/").status == 200, "it is probed")
    for _ in range(2):
        assert pair.get("/").status == 200
    is_in(pair, backend, "closed")
    where = {"route": "all", "endpoint": f"127.0.0.1:{backend.port}"}
    assert pair.metric("gateway_breaker_state", **where) == 0
    for state in ("open", "half_open", "closed"):
        assert pair.metric("gateway_breaker_transitions_total", to=state, **where) == 1
    subject = f"all/127.0.0.1:{backend.port} "
    for program in (pair.dataplane, pair.controlplane):
        log = program.log()
        assert log.count(subject) == 3, log
        assert subject + "closed -> open: 10 of 10 requests failed in 10 s (status 503 last), " \
            "gateway.yaml:" in log
        assert subject + "open -> half_open: " in log
        assert subject + "half_open -> closed: 3 of 3 probes succeeded, gateway.yaml:" in log
    shown = pair.ctl("backends")
    assert shown.code == 0 and "closed" in shown.out


def test_only_the_configured_probes_reach_it(make_pair, backend):
    """Many at once in half-open: three are let through, the others are told to come back."""
    pair = make_pair([breaker_route(backend)], server={"workers": 8})
    trip(pair, backend)
    time.sleep(BREAKER["open_duration_seconds"] + 0.1)
    before = backend.get("/connections")["requests"]
    statuses = burst(pair, "/delay/1", threads=40, each=1)
    assert statuses.count(200) == 3, statuses
    assert statuses.count(503) == 37
    assert backend.get("/connections")["requests"] == before + 3
    assert burst(pair, "/") == [200] * 200


class Crowd:
    """A great many connections of one thread."""

    def __init__(self, address, count):
        need = count + 500
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == resource.RLIM_INFINITY or hard >= need, f"{need} descriptors are needed"
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, need), hard))
        self.poll = select.epoll()
        self.socks = {}
        for _ in range(count):
            s = socket.create_connection(address)
            s.setblocking(False)
            self.socks[s.fileno()] = s
            self.poll.register(s.fileno(), select.EPOLLIN)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s in self.socks.values():
            s.close()
        self.poll.close()

    def send(self, data):
        """The same on each."""
        for s in self.socks.values():
            assert s.send(data) == len(data)

    def statuses(self, seconds):
        """Of one answer on each, counted."""
        end, found, seen = time.monotonic() + seconds, Counter(), set()
        while len(seen) < len(self.socks):
            assert time.monotonic() < end, found
            for fd, _ in self.poll.poll(0.1):
                data = self.socks[fd].recv(65536)
                assert data, "it was closed"
                if fd not in seen:
                    seen.add(fd)
                    found[int(data.split(b" ", 2)[1])] += 1
        return found


@pytest.mark.heavy
def test_of_ten_thousand_at_once_only_the_probes_reach_it(make_pair, backend):
    """Eight workers, as many clients as there may ever be: exactly half_open_requests."""
    count = 10000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))  # of the data plane, too
    pair = make_pair([breaker_route(backend, breaker={"half_open_requests": 7})], server={"workers": 8})
    with Crowd(pair.address, count) as crowd:
        wait_until(lambda: pair.metric("gateway_downstream_connections_active") >= count, "all are there")
        trip(pair, backend)
        is_in(pair, backend, "open")
        time.sleep(BREAKER["open_duration_seconds"] + 0.1)
        before = backend.get("/connections")["requests"]
        crowd.send(b"GET /delay/3 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert crowd.statuses(30) == {200: 7, 503: count - 7}
        assert backend.get("/connections")["requests"] == before + 7
        is_in(pair, backend, "closed")


def test_a_bad_probe_opens_it_again_for_longer(make_pair, backend):
    """max_open_duration_seconds backs off."""
    pair = make_pair([breaker_route(backend, breaker={"max_open_duration_seconds": 600})])
    trip(pair, backend)
    backend.get("/set?health=503")
    wait_until(lambda: pair.get("/healthz").get("retry-after") is None, "it is probed",
               seconds=5)
    def reopened():
        document = endpoint(pair, backend)
        assert document["breaker_cause"] == "a probe failed (status 503)", document
        return document
    wait_until(reopened, "the probe's failure is told")
    assert int(pair.get("/").get("retry-after")) >= 2 * BREAKER["open_duration_seconds"] - 1


def test_clients_that_leave_give_their_probes_back(make_pair, backend):
    """A probe without verdict is no verdict, and does not block the next one."""
    pair = make_pair([breaker_route(backend)])
    trip(pair, backend)
    time.sleep(BREAKER["open_duration_seconds"] + 0.1)
    for _ in range(5):
        c = pair.client()
        c.send_request("GET", "/delay/30")
        wait_until(lambda: is_in(pair, backend, "half_open"), "a probe is under way")
        c.close()
    def closed():
        assert pair.get("/").status == 200
        return endpoint(pair, backend)["breaker"] == "closed"
    wait_until(closed, "probes are let through again")
    assert "probe failed" not in pair.dataplane.log()


def test_probes_whose_answers_never_end_close_it(make_pair, backend):
    """A stream has shown what it can once it has begun."""
    pair = make_pair([breaker_route(backend)])
    trip(pair, backend)
    time.sleep(BREAKER["open_duration_seconds"] + 0.1)
    streams = [pair.client(receive_buffer=4096) for _ in range(BREAKER["half_open_requests"])]
    for c in streams:
        c.send_request("GET", "/stream/1073741824?chunked=1")
    is_in(pair, backend, "closed")
    assert pair.metric("gateway_downstream_requests_active") == len(streams)
    assert pair.get("/").status == 200


def test_clients_faults_open_nothing(make_pair, backend):
    """Aborted requests, refused bodies, 4xx: none of them is the backend's failure."""
    pair = make_pair([breaker_route(backend, max_body_bytes=10)])
    for _ in range(12):
        c = pair.client()
        c.send_request("GET", "/delay/30")
        c.close()
        assert pair.get("/status/404").status == 404
        assert pair.request("POST", "/echo", [("Transfer-Encoding", "chunked")],
                            b"14\r\n01234567890123456789\r\n0\r\n\r\n").status == 413
    assert endpoint(pair, backend)["breaker"] == "closed"
    assert pair.get("/").status == 200


@pytest.mark.parametrize("path", ["/close", "/reset", "/garbage", "/delay/30"])
def test_every_kind_of_failure_counts(make_pair, backend, path):
    """Resets, malformed answers, timeouts, at once and without the control plane."""
    pair = make_pair([breaker_route(backend, timeout_seconds=0.1 * SCALE)])
    pair.controlplane.stop()
    pair.controlplane.process = None
    for _ in range(10):
        assert pair.get(path).status in (502, 504)
    assert pair.get("/").json()["error"] == "breaker_open"


def test_failure_status_is_as_configured(make_pair, backend):
    """What is not listed is an answer like any other."""
    pair = make_pair([breaker_route(backend, breaker={"failure_status": [502, "504-599"]})])
    for _ in range(20):
        assert pair.get("/status/503").status == 503
    assert pair.get("/").status == 200
    for _ in range(30):
        pair.get("/status/504")
    assert pair.get("/").json()["error"] == "breaker_open"


def test_config_push_keeps_the_state(make_pair, backend):
    """Unless the breaker is what changes."""
    pair = make_pair([breaker_route(backend, breaker={"open_duration_seconds": 60})])
    trip(pair, backend)
    same = breaker_route(backend, breaker={"open_duration_seconds": 60}, timeout_seconds=7)
    assert pair.push(pair.yaml([same])).status == 200
    assert pair.get("/").json()["error"] == "breaker_open"
    shorter = breaker_route(backend, breaker={"open_duration_seconds": 0.2})
    assert pair.push(pair.yaml([shorter])).status == 200
    wait_until(lambda: pair.get("/").status == 200, "the shorter time applies at once", seconds=5)
    trip(pair, backend)
    none = route("all", "/", backend, health_check={"enabled": False})
    assert pair.push(pair.yaml([none])).status == 200
    assert pair.get("/").status == 200


def test_disabled_never_opens(make_pair, backend):
    """enabled: false."""
    pair = make_pair([breaker_route(backend, breaker={"enabled": False})])
    for _ in range(30):
        assert pair.get("/status/500").status == 500
    assert pair.get("/").status == 200


def test_one_of_three_failing_costs_a_bounded_number_of_requests(make_pair, backends):
    """The bound: min_requests until it is known, what the workers have under way then, and one
    probe for each time that it is open."""
    a, b, c = backends("a", "b", "c")
    pair = make_pair([breaker_route(a, b, c, breaker={"open_duration_seconds": 60})])
    b.get("/set?health=500")
    statuses = burst(pair, "/healthz", threads=8, each=100)
    failed = len(statuses) - statuses.count(200)
    print(f"{failed} of {len(statuses)} failed")
    assert 10 <= failed <= 10 + 8, failed
    assert set(burst(pair, "/healthz", each=50)) == {200}, "and then none"
    assert is_in(pair, b, "open")["failures"] == failed
    def told():  # with the report that has all of them: one from amid the burst says little about shares
        shares = [endpoint(pair, x)["requests"] for x in (a, b, c)]
        assert sum(shares) == 800 + 400, shares
        return shares
    shares = wait_until(told, "every request is reported")
    assert abs(shares[0] - shares[2]) <= 4, shares


def test_killed_backend_costs_next_to_nothing(make_pair, backends):
    """One of three killed: a retry elsewhere answers. The bound: what min_requests failures can cost
    when the retries' budget is used up, and nothing once the breaker is open."""
    a, b, c = backends("a", "b", "c")
    pair = make_pair([breaker_route(a, b, c, retries=1)])
    b.kill()
    statuses = burst(pair, "/", each=50)
    assert len(statuses) - statuses.count(200) <= 10, statuses
    assert set(burst(pair, "/", each=50)) == {200}
    document = is_in(pair, b, "open")
    assert document["breaker_cause"].endswith("(connect_failed last)")
    b.start()
    wait_until(lambda: set(burst(pair, "/", each=2)) == {200} and
               endpoint(pair, b)["breaker"] == "closed", "it is taken back")


def test_max_open_percent_keeps_the_rest_in_service(make_pair, backends):
    """Two of three failing, a third of them may be left alone: the other goes on being asked."""
    a, b, c = backends("a", "b", "c")
    pair = make_pair([breaker_route(a, b, c, breaker={"max_open_percent": 40,
                                                      "open_duration_seconds": 60})])
    for x in (a, b):
        x.get("/set?health=500")
    statuses = burst(pair, "/healthz", each=50)
    wait_until(lambda: sum(endpoint(pair, x)["breaker"] == "open" for x in (a, b, c)) == 1,
               "one is open")
    assert statuses.count(500) > 100, "the other one is still asked"


def test_an_order_is_in_effect_when_it_is_answered(make_pair, backend):
    """Not a moment later: the data planes have said so."""
    pair = make_pair([breaker_route(backend, breaker={"open_duration_seconds": 60})])
    c = pair.client()
    for _ in range(20):
        trip(pair, backend)
        assert pair.admin("POST", f"/api/v1/endpoints/127.0.0.1:{backend.port}/breaker/reset").status == 200
        assert c.request("GET", "/").status == 200


def test_an_operator_resets_it(make_pair, backend):
    """gwpctl breaker reset, effective when it returns."""
    pair = make_pair([breaker_route(backend, breaker={"open_duration_seconds": 60})])
    trip(pair, backend)
    address = f"127.0.0.1:{backend.port}"
    assert pair.ctl("breaker", "reset", address, "--route", "other").code == 1
    assert pair.get("/").status == 503
    done = pair.ctl("breaker", "reset", address)
    assert done.code == 0, done
    assert pair.get("/").status == 200, "it is asked again"
    wait_until(lambda: endpoint(pair, backend)["breaker_cause"] == "reset by order", "that is told")
    is_in(pair, backend, "closed")
    assert pair.ctl("breaker", "open", address).code == 64
