"""Backends that fail their checks get no requests, and get them again when they recover; operators
overrule both ways."""
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import swarm
from harness import BUILD, DEADLINE, SCALE, Program, free_port, route, run_ctl, wait_until
from rawhttp import Client

# Quick, and with a timeout that a busy machine keeps.
OFTEN = {"path": "/healthz", "interval_seconds": 0.1, "unhealthy_interval_seconds": 0.1,
         "unhealthy_threshold": 1, "healthy_threshold": 1, "timeout_seconds": SCALE}
CONNECT = {**OFTEN, "path": ""}


def endpoints(pair, name=None):
    """What is told of each endpoint, by address; of one route, or of the only one."""
    document = pair.admin("GET", "/api/v1/backends").json()
    found = [r for r in document["routes"] if name in (None, r["name"])]
    assert len(found) == 1
    return {e["address"]: e for b in found[0]["backends"] for e in b["endpoints"]}


def address(backend):
    """As the gateway writes it."""
    return f"127.0.0.1:{backend.port}"


def healths(pair, *backends, name=None):
    """The verdicts on these."""
    told = endpoints(pair, name)
    return [told[address(b)]["health"] for b in backends]


class Load:
    """Requests one after another until it is told to stop; who answered, and what failed."""

    def __init__(self, pair, clients=4):
        self.pair = pair
        self.answers = []
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]

    def run(self):
        """One client on one connection."""
        with Client(self.pair.address, DEADLINE) as c:
            while not self.stopped.is_set():
                answer = c.request("GET", "/")
                name = answer.json().get("name") if answer.status == 200 else None
                self.answers.append((time.monotonic(), answer.status, name))

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for t in self.threads:
            t.join()

    def failed(self):
        """All answers that were not 200."""
        return [a for a in self.answers if a[1] != 200]

    def names_since(self, moment):
        """Who answered requests that ended after that."""
        return {a[2] for a in self.answers if a[0] > moment}


class Recorder:
    """A backend that answers every connection with the same bytes, and keeps what it was asked."""

    def __init__(self, data=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"):
        self.server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.server.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = data
        self.requests = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        """Until the listening socket is closed."""
        while True:
            try:
                c, _ = self.server.accept()
            except OSError:
                return
            with c:
                c.settimeout(5)
                try:
                    self.requests.append(c.recv(65536))
                    c.sendall(self.data)
                except OSError:
                    pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


# ---- verdicts ----

def test_no_healthy_backend_is_503_with_retry_after(make_pair, backend):
    """Health checks have found that nobody is there."""
    pair = make_pair([route("all", "/", backend, health_check=OFTEN)])
    assert pair.get("/").status == 200
    backend.get("/set?health=503")
    wait_until(lambda: pair.get("/").status == 503, "the route is without a backend")
    answer = pair.get("/")
    assert answer.json()["error"] == "no_endpoint"
    assert int(answer.get("retry-after")) >= 1
    backend.get("/set?health=200")
    wait_until(lambda: pair.get("/").status == 200, "the backend is back")


def test_verdict_is_one_log_line_with_everything(make_pair, backend):
    """Endpoint, old and new, reason, duration, check, route and place."""
    pair = make_pair([route("all", "/", backend, health_check=OFTEN)])
    wait_until(lambda: healths(pair, backend) == ["up"], "up")
    backend.get("/set?health=503")
    wait_until(lambda: healths(pair, backend) == ["down"], "down")
    lines = [json.loads(line) for line in pair.controlplane.log().splitlines() if "-> down" in line]
    assert len(lines) == 1
    message = lines[0]["msg"]
    assert message.startswith(f"endpoint {address(backend)} up -> down: status 503 is not expected")
    place = next(i for i, text in enumerate(pair.yaml().splitlines(), 1) if "url:" in text)
    for part in (" ms,", "1 in a row", "GET /healthz", "route all", f"gateway.yaml:{place}"):
        assert part in message, message


def test_killed_backend_is_left_and_returned_to(make_pair, backends):
    """Until the verdict at most what was under way at it fails; then nothing does."""
    a, b, c = backends("a", "b", "c")
    pair = make_pair([route("all", "/", a, b, c, health_check=CONNECT)])
    wait_until(lambda: healths(pair, a, b, c) == ["up"] * 3, "all up")
    with Load(pair, clients=3) as load:  # as many as one worker may always try again for: all may be with one of the two
        wait_until(lambda: load.names_since(0) == {"a", "b", "c"}, "all are used")
        b.kill()
        wait_until(lambda: healths(pair, b) == ["down"], "the verdict")
        verdict = time.monotonic() + 0.1 * SCALE
        wait_until(lambda: len([x for x in load.answers if x[0] > verdict]) > 200, "traffic goes on")
        assert load.names_since(verdict) == {"a", "c"}
        b.start()
        wait_until(lambda: healths(pair, b) == ["up"], "it is back")
        back = time.monotonic()
        wait_until(lambda: "b" in load.names_since(back), "it is used again")
    assert not [x for x in load.failed() if x[0] > verdict] and len(load.failed()) <= 3


def test_frozen_backend_is_found_by_its_timeout(make_pair, backends):
    """Its kernel still accepts connections; only an answer tells."""
    a, b = backends("a", "b")
    check = {**OFTEN, "timeout_seconds": 0.3 * SCALE}
    pair = make_pair([route("all", "/", a, b, health_check=check, timeout_seconds=5)])
    wait_until(lambda: healths(pair, a, b) == ["up", "up"], "both up")
    b.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: healths(pair, b) == ["down"], "the verdict")
        told = endpoints(pair)[address(b)]
        assert "no response within" in told["reason"] and told["check_seconds"] >= 0.25
        time.sleep(0.1 * SCALE)
        assert {pair.get("/").json()["name"] for _ in range(20)} == {"a"}
    finally:
        b.signal(signal.SIGCONT)
    wait_until(lambda: healths(pair, b) == ["up"], "it is back")


def test_frozen_control_plane_condemns_nobody(make_pair, backends):
    """What was answered while it could not look counts as answered."""
    all_three = backends("a", "b", "c")
    check = {**OFTEN, "timeout_seconds": 0.4 * SCALE, "interval_seconds": 0.02}
    pair = make_pair([route("all", "/", *all_three, health_check=check)])
    wait_until(lambda: healths(pair, *all_three) == ["up"] * 3, "all up")
    downs = pair.metric("gateway_health_verdicts_total", to="down")
    for _ in range(6):
        pair.controlplane.signal(signal.SIGSTOP)
        time.sleep(0.7 * SCALE)
        pair.controlplane.signal(signal.SIGCONT)
        checks = pair.metric("gateway_health_checks_total")
        wait_until(lambda: pair.metric("gateway_health_checks_total") > checks + 10, "it goes on checking")
    assert pair.metric("gateway_health_verdicts_total", to="down") == downs


def test_panic_uses_all_rather_than_crush_the_rest(make_pair, backends):
    """Two of three down: below the threshold all of them are asked again, and not any more when one is back."""
    a, b, c = backends("a", "b", "c")
    pair = make_pair([route("all", "/", a, b, c, health_check=OFTEN, panic_threshold_percent=50)])
    wait_until(lambda: healths(pair, a, b, c) == ["up"] * 3, "all up")
    a.get("/set?health=503")
    wait_until(lambda: healths(pair, a) == ["down"] and names(pair) == {"b", "c"}, "two of three are enough")
    b.get("/set?health=503")
    wait_until(lambda: healths(pair, b) == ["down"] and names(pair) == {"a", "b", "c"}, "all are asked")
    a.get("/set?health=200")
    wait_until(lambda: healths(pair, a) == ["up"] and names(pair) == {"a", "c"}, "two are enough again")


def test_recovered_endpoint_grows_its_share(make_pair, backends):
    """slow_start_seconds: after half of it, it has about half of what the other has."""
    a, b = backends("a", "b")
    pair = make_pair([route("all", "/", a, b, health_check=OFTEN, slow_start_seconds=4)])
    b.get("/set?health=503")
    wait_until(lambda: healths(pair, a, b) == ["up", "down"] and names(pair) == {"a"}, "one of them")
    b.get("/set?health=200")
    wait_until(lambda: healths(pair, b) == ["up"], "it is back")
    begin = time.monotonic()
    asked = []
    with pair.client() as client:
        while time.monotonic() - begin < 6:
            name = client.request("GET", "/").json()["name"]
            asked.append((time.monotonic() - begin, name == "b"))
            time.sleep(0.002)

    def share(first, last):
        found = [is_b for at, is_b in asked if first <= at < last]
        return sum(found) / len(found)
    # In the first quarter on average an eighth of the other's share, in the third five eighths, then all of it.
    assert share(0, 1) < 0.25 and 0.25 < share(2, 3) < 0.48 and 0.45 < share(4.5, 6) < 0.55, asked


@pytest.mark.parametrize("expected, status, verdict", [
    ("200-399", 302, "up"), ("200-399", 404, "down"), (404, 404, "up"), (404, 200, "down"),
    ([200, "500-503"], 502, "up"), ([200, "500-503"], 504, "down"),
])
def test_expected_statuses_decide(make_pair, backend, expected, status, verdict):
    """Numbers, ranges, lists."""
    backend.get(f"/set?health={status}")
    pair = make_pair([route("all", "/", backend, health_check={**OFTEN, "expected_status": expected})])
    wait_until(lambda: healths(pair, backend) == [verdict], verdict)
    assert f"status {status}" in endpoints(pair)[address(backend)]["reason"]


@pytest.mark.parametrize("data, reason", [
    (b"\x16\x03\x01 no HTTP\r\n\r\n", "not HTTP/1"), (b"HTTP/1.1 200", "closed without a response"),
    (b"", "closed without a response"), (b"HTTP/1.1 20 OK\r\n\r\n", "not HTTP/1"),
    (b"HTTP/1.1 100 Continue\r\nX: " + b"y" * 20000, "no status within"),
], ids=["garbage", "cut", "nothing", "two-digits", "endless"])
def test_nonsense_is_down(make_pair, data, reason):
    """Whatever it is, it is no expected answer."""
    with Recorder(data) as backend:
        pair = make_pair([route("all", "/", backend, health_check=OFTEN)])
        wait_until(lambda: healths(pair, backend) == ["down"], "down")
        assert reason in endpoints(pair)[address(backend)]["reason"]


def test_check_says_who_asks(make_pair):
    """A whole request, with the Host of the configuration or of the backend."""
    with Recorder() as one, Recorder() as other:
        pair = make_pair([
            route("one", "/one", one, health_check={**OFTEN, "path": "/up?x=1"}),
            route("other", "/other", other, health_check={**OFTEN, "host": "shop.example"})])
        wait_until(lambda: healths(pair, one, name="one") == ["up"]
                   and healths(pair, other, name="other") == ["up"], "both up")
        lines = one.requests[0].split(b"\r\n")
        assert lines[0] == b"GET /up?x=1 HTTP/1.1" and lines[-2:] == [b"", b""]
        assert b"Host: " + address(one).encode() in lines and b"Connection: close" in lines
        assert any(line.startswith(b"User-Agent: gateway-pro-health/") for line in lines)
        assert b"\r\nHost: shop.example\r\n" in other.requests[0]


def test_first_verdict_comes_soon(make_pair, backend):
    """However long the interval is."""
    dead = f"http://127.0.0.1:{free_port()}"
    pair = make_pair([route("all", "/", backend, dead, health_check={"interval_seconds": 3600})],
                     start=False)
    pair.write_config()
    pair.controlplane.start()
    wait_until(lambda: healths(pair, backend), "the control plane answers")
    start = time.monotonic()
    wait_until(lambda: sorted(e["health"] for e in endpoints(pair).values()) == ["down", "up"],
               "both verdicts")
    assert time.monotonic() - start < 2 * SCALE


def test_shared_endpoint_is_asked_once(make_pair):
    """One check for all routes that ask the same; another for who asks something else."""
    with Recorder() as backend:
        check = {**OFTEN, "interval_seconds": 0.2}
        routes = [route(f"r{i}", f"/r{i}", backend, health_check=check) for i in range(5)]
        routes.append(route("else", "/else", backend, health_check={**check, "path": "/else"}))
        pair = make_pair(routes)
        wait_until(lambda: all(healths(pair, backend, name=r["name"]) == ["up"] for r in routes),
                   "up for all")
        backend.requests.clear()
        wait_until(lambda: len(backend.requests) >= 20, "some rounds")
        asked = [r.split(b" ")[1] for r in backend.requests]
        same, other = asked.count(b"/healthz"), asked.count(b"/else")
        assert abs(same - other) <= 4, (same, other)
        backend.data = b"HTTP/1.1 500 No\r\n\r\n"
        wait_until(lambda: all(healths(pair, backend, name=r["name"]) == ["down"] for r in routes),
                   "down for all")
        wait_until(lambda: all(pair.get(r["path_prefix"]).status == 503 for r in routes),
                   "no route uses it")


def test_disabled_checks_make_no_connection(make_pair):
    """And leave the endpoint up."""
    with Recorder() as quiet, Recorder() as asked:
        pair = make_pair([route("quiet", "/quiet", quiet, health_check={**OFTEN, "enabled": False}),
                          route("asked", "/asked", asked, health_check=OFTEN)])
        wait_until(lambda: len(asked.requests) > 5, "checks are being made")
        assert not quiet.requests
        assert healths(pair, quiet, name="quiet") == ["up"]
        assert endpoints(pair, "quiet")[address(quiet)]["checked"] is False


def test_until_checked_down_waits_for_the_verdict(make_pair, backends):
    """A new endpoint gets nothing before it was found up."""
    a, b = backends("a", "b")
    b.get("/set?health=503")
    check = {**OFTEN, "until_checked": "down"}
    pair = make_pair([route("all", "/", a, health_check=check)])
    wait_until(lambda: pair.get("/").status == 200, "a is up")
    with Load(pair, 2) as load:
        pair.write_config(pair.yaml([route("all", "/", a, b, health_check=check)]))
        pair.wait_synced(2)
        wait_until(lambda: healths(pair, b) == ["down"], "the verdict")
        assert load.names_since(0) == {"a"}
        b.get("/set?health=200")
        wait_until(lambda: "b" in load.names_since(0), "it is used")
    assert not load.failed()


@pytest.mark.heavy
def test_ten_thousand_endpoints_are_checked(make_pair, tmp_path):
    """All of them, a bounded number at once, and those that are not there are found."""
    count, dead = 10000, 20
    swarms = Program("swarm", [sys.executable, "-B", swarm.__file__], tmp_path).start()
    try:
        port = int(wait_until(lambda: swarms.out_path.read_text().strip(), "it prints its port"))
        urls = [f"http://{swarm.address(i)}:{port}" for i in range(count)]
        urls += [f"http://127.0.0.1:{p}" for p in {free_port() for _ in range(dead)}]
        dead = len(urls) - count
        check = {"interval_seconds": 5, "unhealthy_interval_seconds": 1, "timeout_seconds": 2 * SCALE}
        pair = make_pair([route("all", "/", *urls, health_check=check)])
        most = 0

        def judged():
            nonlocal most
            most = max(most, len(pair.controlplane.fds()))
            return pair.metric("gateway_health_verdicts_total", to="up") == count and \
                pair.metric("gateway_health_verdicts_total", to="down") == dead
        begin = time.monotonic()
        wait_until(judged, "every endpoint has its verdict", 60)
        seconds = time.monotonic() - begin
        checks = pair.metric("gateway_health_checks_total")
        print(f"{count} endpoints up and {dead} down after {seconds:.1f} s and {checks:.0f} checks, "
              f"at most {most} descriptors, {pair.controlplane.memory() / 2**20:.0f} MiB")
        assert most <= 256 + 64  # HEALTH_UNDER_WAY_MAX, and what it has open besides
        assert pair.metric("gateway_health_checks_total", result="not_made") == 0
        assert pair.get("/").status == 200
    finally:
        swarms.kill()


# ---- over reloads and restarts ----

def test_reload_keeps_what_is_known(make_pair, backend):
    """The same check goes on; another one begins with the same verdict."""
    dead = f"http://127.0.0.1:{free_port()}"
    slow = {"interval_seconds": 3600, "unhealthy_interval_seconds": 3600, "timeout_seconds": SCALE}
    pair = make_pair([route("all", "/", backend, dead, health_check=slow)])

    def verdicts():
        return sorted(e["health"] for e in endpoints(pair).values())
    wait_until(lambda: "unknown" not in verdicts(), "both verdicts", 30)
    before = endpoints(pair)
    pair.write_config(pair.yaml([route("all", "/", backend, dead, health_check=slow, retries=0)]))
    pair.wait_synced(2)
    assert endpoints(pair) == before
    changed = {**slow, "interval_seconds": 3000}
    pair.write_config(pair.yaml([route("all", "/", backend, dead, health_check=changed, retries=0)]))
    pair.wait_synced(3)
    assert verdicts() == ["down", "up"]
    assert all(pair.get("/").status == 200 for _ in range(20))


def test_disabling_checks_brings_an_endpoint_back(make_pair, backend):
    """What no check says any more does not count."""
    backend.get("/set?health=503")
    pair = make_pair([route("all", "/", backend, health_check=OFTEN)])
    wait_until(lambda: pair.get("/").status == 503, "down")
    pair.write_config(pair.yaml([route("all", "/", backend, health_check={"enabled": False})]))
    pair.wait_synced(2)
    wait_until(lambda: pair.get("/").status == 200, "used again")


def test_new_control_plane_flips_nothing(make_pair, backends):
    """What it does not know yet stays as the data plane has it."""
    a, b = backends("a", "b")
    b.get("/set?health=503")
    pair = make_pair([route("all", "/", a, b, health_check=OFTEN)])
    wait_until(lambda: healths(pair, a, b) == ["up", "down"], "both verdicts")
    time.sleep(0.1 * SCALE)
    with Load(pair, 2) as load:
        start = time.monotonic()
        pair.controlplane.kill()
        wait_until(lambda: len(load.answers) > 100, "traffic goes on")
        # Thresholds that are not reached within this test: it knows nothing all the while.
        pair.write_config(pair.yaml([route("all", "/", a, b, health_check={
            **OFTEN, "healthy_threshold": 100, "unhealthy_threshold": 100,
            "interval_seconds": 3600, "unhealthy_interval_seconds": 3600})]))
        pair.controlplane.start()
        pair.wait_synced(2)
        assert healths(pair, a, b) == ["unknown", "unknown"]
        count = len(load.answers)
        wait_until(lambda: len(load.answers) > count + 100, "traffic goes on")
        assert load.names_since(start) == {"a"}
    assert not load.failed()


def test_new_data_plane_is_told_what_is_known(make_pair, backends):
    """At once, before any check is made again."""
    a, b = backends("a", "b")
    b.get("/set?health=503")
    slow = {**OFTEN, "interval_seconds": 3600, "unhealthy_interval_seconds": 3600}
    pair = make_pair([route("all", "/", a, b, health_check=slow)])
    wait_until(lambda: healths(pair, a, b) == ["up", "down"], "both verdicts")
    pair.dataplane.kill()
    pair.dataplane.start()
    pair.wait_ready()
    time.sleep(0.1 * SCALE)
    assert {pair.get("/").json()["name"] for _ in range(20)} == {"a"}


def test_cold_data_plane_serves_what_it_served(make_pair, backend):
    """until_checked: down is about new endpoints, and there is nobody who could check."""
    pair = make_pair([route("all", "/", backend, health_check={**OFTEN, "until_checked": "down"})])
    wait_until(lambda: pair.get("/").status == 200, "up")
    pair.dataplane.stop()
    pair.controlplane.kill()
    pair.dataplane.start()
    wait_until(lambda: pair.get("/").status == 200, "served from its own state")


# ---- what is told ----

def test_readyz_follows_the_backends(make_pair, backend):
    """503 while there is no healthy backend."""
    pair = make_pair([route("all", "/", backend, health_check=OFTEN)])

    def ready():
        return pair.admin("GET", "/readyz", private=False)
    wait_until(lambda: ready().status == 200, "ready")
    backend.get("/set?health=503")
    wait_until(lambda: ready().status == 503, "not ready")
    assert any("route all has no healthy backend" in r for r in ready().json()["reasons"])
    backend.get("/set?health=200")
    wait_until(lambda: ready().status == 200, "ready again")


def test_readyz_warns_of_a_route_among_others(make_pair, backend):
    """The others are served."""
    dead = f"http://127.0.0.1:{free_port()}"
    pair = make_pair([route("all", "/", backend, health_check=OFTEN),
                      route("dead", "/dead", dead, health_check=OFTEN)])

    def warned():
        answer = pair.admin("GET", "/readyz", private=False)
        assert answer.status == 200 and not answer.json()["reasons"]
        return answer.json()["warnings"]
    wait_until(lambda: len(warned()) == 1, "one warning")
    assert "route dead has no healthy backend" in warned()[0]


def test_backends_and_metrics_tell_health(make_pair, backend):
    """Verdict, time, duration and reason."""
    port = free_port()
    pair = make_pair([route("all", "/", backend, f"http://127.0.0.1:{port}", health_check=OFTEN)])
    wait_until(lambda: sorted(e["health"] for e in endpoints(pair).values()) == ["down", "up"],
               "both verdicts")
    down = endpoints(pair)[f"127.0.0.1:{port}"]
    assert down["reason"] == "Connection refused" and down["last_check"].endswith("Z")
    assert 0 < down["check_seconds"] < 1
    old = pair.admin("GET", "/backends", private=False).json()
    assert "down" in json.dumps(old)
    metric = pair.metric
    assert metric("gateway_endpoint_health", route="all", endpoint=f"127.0.0.1:{port}") == 0
    assert metric("gateway_endpoint_health", route="all", endpoint=address(backend)) == 1
    wait_until(lambda: metric("gateway_health_checks_total", result="ok") > 1
               and metric("gateway_health_checks_total", result="refused") > 1, "both counted")
    metrics = pair.metrics()
    sums = {n: sum(v.values()) for n, v in metrics.items() if n.startswith("gateway_health_check")}
    assert (sums["gateway_health_checks_total"]
            == sums["gateway_health_check_duration_seconds_count"])
    assert sums["gateway_health_check_duration_seconds_sum"] > 0
    table = pair.ctl("backends").out
    assert "Connection refused" in table and "LAST CHECK" in table
    assert "1 up, 1 down" in pair.ctl("status").out


def test_counters_go_on_in_the_next_control_plane(make_pair, backend):
    """What Prometheus has read of checks and look-ups never steps back, over kill -9 either."""
    pair = make_pair([route("all", "/", f"http://localhost:{backend.port}", health_check=OFTEN)])

    def counted():
        metrics = pair.metrics()
        found = {(name, labels): value for name, samples in metrics.items() for labels, value in samples.items()
                 if name.startswith(("gateway_health_", "gateway_dns_"))}
        assert len(found) >= 14
        return found
    wait_until(lambda: pair.metric("gateway_health_checks_total", result="ok") > 5, "checks are counted")
    assert pair.metric("gateway_dns_lookups_total", result="ok") == 1
    for _ in range(3):
        before = counted()
        pair.controlplane.kill()
        pair.controlplane.start()
        after = wait_until(counted, "the next one answers")
        assert [k for k in before if after[k] < before[k]] == []
    checks = pair.metric("gateway_health_checks_total", result="ok")
    wait_until(lambda: pair.metric("gateway_health_checks_total", result="ok") > checks, "it counts on")
    assert pair.metric("gateway_dns_lookups_total", result="ok") == 4


def test_address_in_two_backends_of_a_route_is_one_series(make_pair, backend):
    """Two samples may not carry the same labels."""
    pair = make_pair([route("all", "/", backend, backend.url + "/base", health_check=OFTEN)])
    wait_until(lambda: healths(pair, backend) == ["up"], "up")
    text = pair.admin("GET", "/metrics", private=False).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("gateway_endpoint_health{")]
    assert lines == [f'gateway_endpoint_health{{route="all",endpoint="{address(backend)}"}} 1']
    assert text.count("# TYPE gateway_endpoint_health gauge") == 1


# ---- orders ----

@pytest.fixture
def trio(make_pair, backends):
    """A pair before three backends that are up, of which two routes use two."""
    a, b, c = backends("a", "b", "c")
    pair = make_pair([route("all", "/", a, b, c, health_check=OFTEN),
                      route("other", "/other", a, b, health_check=OFTEN)])
    wait_until(lambda: healths(pair, a, b, c, name="all") == ["up"] * 3, "all up")
    return pair, (a, b, c)


def names(pair, target="/", count=30):
    """Who answers."""
    return {pair.get(target).json()["name"] for _ in range(count)}


def test_drain_is_effective_at_once_and_undone(trio):
    """Requests under way are finished; new ones go elsewhere."""
    pair, (a, b, c) = trio
    client = pair.client()
    client.send(b"GET /delay/1 HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = pair.ctl("drain", address(b))
    assert answer.code == 0 and "yes" in answer.out, answer
    time.sleep(0.1 * SCALE)
    assert names(pair) == {"a", "c"} and names(pair, "/other") == {"a"}
    assert client.read_response().status == 200
    assert endpoints(pair, "all")[address(b)]["draining"] is True
    assert endpoints(pair, "all")[address(b)]["health"] == "up"
    assert "draining" in pair.ctl("backends").out
    assert f"ordered: {address(b)} draining in every route" in pair.ctl("status").out
    old = pair.admin("GET", "/backends", private=False).json()
    assert '"draining": true' in json.dumps(old)
    for name in ("all", "other"):
        assert pair.metric("gateway_endpoint_draining", route=name, endpoint=address(b)) == 1
        assert pair.metric("gateway_endpoint_draining", route=name, endpoint=address(a)) == 0
    assert pair.ctl("undrain", address(b)).code == 0
    wait_until(lambda: names(pair) == {"a", "b", "c"}, "back in use")
    assert "ordered" not in pair.ctl("status").out


def test_drain_for_one_route(trio):
    """The other one keeps it; undrain without a route takes all back."""
    pair, (a, b, c) = trio
    assert pair.ctl("drain", address(b), "--route", "other").code == 0
    time.sleep(0.1 * SCALE)
    assert names(pair, "/other") == {"a"} and names(pair) == {"a", "b", "c"}
    assert pair.ctl("drain", address(a)).code == 0
    answer = pair.ctl("undrain", address(a), "--route", "other")
    assert answer.code == 1 and "for every route" in answer.err
    assert pair.ctl("undrain", address(a)).code == 0
    assert pair.ctl("undrain", address(b)).code == 0
    wait_until(lambda: names(pair, "/other") == {"a", "b"}, "back in use")


def test_weight_is_overridden_and_undone(trio):
    """As the data planes are told, and everybody who looks."""
    pair, (a, _, _) = trio

    def told():
        return endpoints(pair, "all")[address(a)]["weight_override"]
    answer = pair.ctl("weight", address(a), "7", "-o", "json")
    assert answer.code == 0, answer
    assert [t["weight_override"] for t in answer.json()["targets"]] == [7, 7]
    assert told() == 7 and "7 (1)" in pair.ctl("backends").out
    assert pair.metric("gateway_endpoint_weight", route="other", endpoint=address(a)) == 7
    assert f"ordered: {address(a)} weight 7 in every route" in pair.ctl("status").out
    assert pair.ctl("weight", address(a), "9", "--route", "all").code == 0
    assert told() == 9 and endpoints(pair, "other")[address(a)]["weight_override"] == 7
    assert pair.ctl("weight", address(a), "default").code == 0
    assert told() is None and pair.status()["overrides"] == []
    assert pair.metric("gateway_endpoint_weight", route="other", endpoint=address(a)) == 1


def test_weight_is_effective_at_once(make_pair, backends):
    """Nine of ten requests, and half of them again."""
    a, b = backends("a", "b")
    pair = make_pair([route("all", "/", a, b, lb_algorithm="weighted", health_check=OFTEN)])
    wait_until(lambda: healths(pair, a, b) == ["up", "up"], "both up")

    def share():
        return sum(pair.get("/").json()["name"] == "a" for _ in range(100))
    assert 45 <= share() <= 55
    assert pair.ctl("weight", address(a), "9").code == 0
    time.sleep(0.1 * SCALE)
    assert 85 <= share() <= 95
    assert pair.ctl("weight", address(a), "default").code == 0
    time.sleep(0.1 * SCALE)
    assert 45 <= share() <= 55


def test_orders_outlive_a_control_plane(trio):
    """And everything stays in effect meanwhile."""
    pair, (a, b, c) = trio
    assert pair.ctl("drain", address(b)).code == 0
    assert pair.ctl("weight", address(a), "5", "--route", "all").code == 0
    before = pair.status()["overrides"]
    assert len(before) == 2
    with Load(pair, 2) as load:
        time.sleep(0.1 * SCALE)
        start = time.monotonic()
        pair.controlplane.kill()
        pair.controlplane.start()
        pair.wait_synced()
        count = len(load.answers)
        wait_until(lambda: len(load.answers) > count + 100, "traffic goes on")
        assert load.names_since(start) == {"a", "c"}
    assert not load.failed()
    assert pair.status()["overrides"] == before
    assert endpoints(pair, "all")[address(b)]["draining"] is True
    assert endpoints(pair, "all")[address(a)]["weight_override"] == 5
    assert pair.ctl("undrain", address(b)).code == 0
    wait_until(lambda: names(pair) == {"a", "b", "c"}, "back in use")


def test_broken_overrides_are_reported_and_ignored(trio):
    """The file is put aside, and everything else works."""
    pair, (a, b, _) = trio
    assert pair.ctl("drain", address(b)).code == 0
    pair.expect_log("overrides.json is not used")
    path = pair.cp_state / "overrides.json"
    pair.controlplane.stop()
    path.write_text(path.read_text()[:-20])
    pair.controlplane.start()
    pair.wait_synced()
    assert pair.status()["overrides"] == []
    assert (pair.cp_state / "overrides.json.broken").exists()
    wait_until(lambda: "b" in names(pair), "the drain is forgotten")
    assert pair.ctl("drain", address(a)).code == 0


def test_order_of_an_endpoint_that_is_gone_can_be_undone(trio):
    """What nobody uses any more is still listed."""
    pair, (_, b, _) = trio
    assert pair.ctl("drain", address(b)).code == 0
    pair.write_config(pair.yaml([route("all", "/", trio[1][0], health_check=OFTEN)]))
    pair.wait_synced(2)
    assert f"ordered: {address(b)}" in pair.ctl("status").out
    answer = pair.ctl("undrain", address(b))
    assert answer.code == 0 and "not in use" in answer.out
    assert pair.status()["overrides"] == []


def test_wrong_orders_are_refused(trio):
    """With what to do about it."""
    pair, (a, _, _) = trio
    for args, code, words in (
            (["drain", "10.9.9.9:1"], 1, "gwpctl backends"), (["drain", "nonsense"], 1, "address"),
            (["drain", address(a), "--route", "nope"], 1, "route nope"),
            (["undrain", "10.9.9.9:1"], 1, "no endpoint"), (["weight", address(a), "0"], 64, "1000"),
            (["weight", address(a), "x"], 64, "1000"), (["weight", address(a)], 64, "a weight"),
            (["drain"], 64, "an endpoint"), (["drain", "../../x"], 1, "endpoint")):
        answer = pair.ctl(*args)
        assert answer.code == code and words in answer.err, (args, answer)
    assert pair.status()["overrides"] == []
    path = f"/api/v1/endpoints/{address(a)}/"
    assert pair.admin("POST", path + "drain", private=False).status == 403
    assert pair.admin("GET", path + "drain").status == 405
    assert pair.admin("GET", path + "drain").get("allow") == "POST, DELETE, OPTIONS"
    assert pair.admin("POST", path + "nothing").status == 404
    assert pair.admin("POST", path + "weight?weight=1001").status == 400
    assert pair.admin("POST", f"/api/v1/endpoints/{'x' * 500}/drain").status == 404


@pytest.mark.parametrize("command", ["drain", "undrain", "weight"])
def test_order_commands_have_help_with_an_example(command):
    """Like every other."""
    answer = run_ctl([BUILD / "gwpctl", "help", command])
    assert answer.code == 0 and "Examples:" in answer.out and f"gwpctl {command} 10." in answer.out
    assert run_ctl([BUILD / "gwpctl", "status", "--route", "x"]).code == 64


# ---- many ----

@pytest.mark.heavy
def test_thousands_of_endpoints_are_checked(make_pair):
    """All get their verdicts, and the control plane goes on answering meanwhile."""
    count, ports = 2000, []
    program = ("import socket, sys, selectors\n"
               "s = selectors.DefaultSelector()\n"
               "for _ in range(20):\n"
               "    l = socket.create_server(('127.0.0.1', 0), backlog=4096); l.setblocking(False)\n"
               "    s.register(l, selectors.EVENT_READ); print(l.getsockname()[1], flush=True)\n"
               "while True:\n"
               "    for k, _ in s.select():\n"
               "        try:\n"
               "            while True: k.fileobj.accept()[0].close()\n"
               "        except OSError: pass\n")
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        ports = [int(child.stdout.readline()) for _ in range(20)]
        routes = [{"name": f"r{i}", "path_prefix": f"/r{i}", "backends": [
            {"url": f"http://127.0.{i}.{k}:{port}"} for k in range(1, 6) for port in ports]}
            for i in range(1, count // 100 + 1)]
        # Only 127.0.0.1 is listened on: of 127.0.x.y nobody answers.
        routes[0]["backends"] = [{"url": f"http://127.0.0.1:{port}"} for port in ports]
        pair = make_pair(routes)
        took = []

        def health():
            start = time.monotonic()
            told = pair.status()["health"]
            took.append(time.monotonic() - start)
            return told
        wait_until(lambda: health()["unknown"] == 0, "every verdict", 60)
        assert health()["up"] == len(ports) and health()["down"] == count - 100
        # Nine of ten: a single one may have waited for a processor.
        assert sorted(took)[len(took) * 9 // 10] < 0.25 * SCALE
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
