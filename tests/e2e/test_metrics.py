"""What Prometheus is told: well formed in both formats, complete, and exact over the loss of either program."""
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from harness import ROOT, SCALE, route, wait_until
from rawhttp import Client
from test_takeover import at_rest, kept

OPENMETRICS = [("Accept", "application/openmetrics-text; version=1.0.0")]
REASONS = {"ok", "no_route", "bad_request", "client_timeout", "client_closed", "limited", "breaker_open", "no_endpoint",
           "connect_failed", "connect_timeout", "reset", "bad_response", "upstream_timeout", "too_large", "overload", "draining"}


def scrape(pair, headers=()):
    """The text of /metrics."""
    answer = pair.admin("GET", "/metrics", headers=headers, private=False)
    assert answer.status == 200, answer
    return answer


def promtool(text):
    """What `promtool check metrics` complains about."""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False, timeout=60)
    return done.returncode, (done.stdout + done.stderr).decode()


def labels_of(pair, name, label):
    """All values of one label of a family."""
    return {dict(pairs).get(label) for pairs in pair.metrics().get(name, {})}


@pytest.fixture
def busy(make_pair, backends):
    """A pair that has seen a bit of everything."""
    a, b = backends("a", "b")
    limited = {"algorithm": "token_bucket", "rate": 0.01, "burst": 2, "key_by": "ip"}
    pair = make_pair([route("all", "/", a, b, circuit_breaker={"min_requests": 1000}),
                      route("odd/name", "/odd", a), route("few", "/few", a, rate_limit=limited),
                      route("dead", "/dead", "http://127.0.0.1:1", health_check={"enabled": False})])
    with pair.client() as c:
        for _ in range(10):
            assert c.request("GET", "/").status == 200
        c.request("PROPFIND", "/")
        for _ in range(3):
            c.request("GET", "/few")
        c.request("GET", "/odd")
        assert c.request("GET", "/dead").status == 502
        assert c.request("GET", "/status/503").status == 503
        assert c.request("GET", "/close").status == 502
    with Client(pair.address, 5) as c:
        c.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert c.read_response().status == 400
    wait_until(lambda: pair.metric("gateway_request_outcomes_total") == 19, "all of it is reported")
    return pair


def test_promtool_finds_nothing_to_complain_about(busy):
    """HELP, TYPE, names, units, suffixes."""
    answer = scrape(busy)
    assert answer.get("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert promtool(answer.body) == (0, "")
    assert promtool(b"# TYPE broken counter\nbroken 1\n")[0] != 0  # it does look


def test_openmetrics_is_what_its_reference_parser_takes(busy):
    """By content negotiation, with the same numbers."""
    answer = scrape(busy, OPENMETRICS)
    assert answer.get("content-type") == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    samples = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        assert family.documentation, family
        for s in family.samples:
            samples.setdefault(s.name, {})[frozenset(s.labels.items())] = s.value
    plain = busy.metrics()
    for name in ("gateway_requests_total", "gateway_request_outcomes_total", "gateway_upstream_duration_seconds_count"):
        assert samples[name] == plain[name]


def test_every_request_has_an_outcome_of_the_closed_list(busy):
    """Their sum is the number of requests; each is what happened."""
    outcome = lambda **labels: busy.metric("gateway_request_outcomes_total", **labels)
    assert outcome() == busy.metric("gateway_requests_total") == 19
    assert outcome(route="all", reason="ok") == 12
    assert outcome(route="all", reason="reset") == 1
    assert outcome(route="dead", reason="connect_failed") == 1
    assert outcome(route="few", reason="limited") == 1
    assert outcome(route="none", reason="bad_request") == 1
    assert labels_of(busy, "gateway_request_outcomes_total", "reason") <= REASONS
    text = (ROOT / "README.md").read_text()
    assert all(f"`{reason}`" in text for reason in REASONS), "the table of the README lists them all"


def test_bytes_are_those_that_clients_count(pair):
    """Both ways, heads and all; answers of the gateway's own are some of them."""
    asked = [b"GET /stream/300000?chunked=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
             b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 200000\r\n\r\n"
             + b"x" * 200000, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"]
    told = 0
    for request in asked:
        with Client(pair.address, 10) as c:
            c.send(request)
            told += sum(len(piece) for piece in iter(lambda c=c: c.sock.recv(65536), b""))
    assert told > 500000
    sums = lambda: (pair.metric("gateway_received_bytes_total"), pair.metric("gateway_sent_bytes_total"))
    wait_until(lambda: sums() == (sum(map(len, asked)), told), "they are counted")


def test_what_never_became_a_request_is_counted_with_its_method(make_pair, backend):
    """As far as it came: in time and with the method that stood there, or with OTHER."""
    pair = make_pair([route("all", "/", backend)], server={"header_timeout_seconds": 1})
    for head in ("GET /half HTTP/1.1\r\n", "PUT /" + "x" * 100000, "get / HTTP/1.1\r\n\r\n", "G"):
        with pair.client() as c:
            c.send(head)
            assert c.read_response().status >= 400
    count = lambda **labels: pair.metric("gateway_requests_total", route="none", **labels)
    wait_until(lambda: count() == 4, "all are counted")
    assert count(method="GET", status=408) == count(method="PUT", status=414) == 1
    assert count(method="OTHER", status=501) == count(method="OTHER", status=408) == 1
    lines = {(line["status"], line.get("method")): line for line in pair.access_lines()}
    assert set(lines) == {(408, "GET"), (414, "PUT"), (501, None), (408, None)}
    assert all(line["duration_ms"] >= 1000 for (status, _), line in lines.items() if status == 408)
    assert pair.metric("gateway_request_duration_seconds_sum", route="none") >= 2


def test_limits_connections_and_backends_have_series(busy):
    """Decisions by route; connections by endpoint; the time at backends apart from the whole."""
    decision = lambda d: busy.metric("gateway_limit_decisions_total", route="few", decision=d)
    assert decision("allowed") == 2 and decision("limited") == 1
    connections = lambda r: busy.metric("gateway_endpoint_connections_total", route="all", result=r)
    assert connections("opened") >= 2
    assert connections("opened") + connections("reused") == busy.metric("gateway_endpoint_requests_total", route="all") >= 13
    assert busy.metric("gateway_endpoint_connections_total", route="dead", result="failed") == 2
    whole = busy.metric("gateway_request_duration_seconds_sum", route="all")
    behind = busy.metric("gateway_upstream_duration_seconds_sum", route="all")
    assert 0 < behind <= whole
    assert busy.metric("gateway_upstream_duration_seconds_count", route="all") == 13
    assert busy.metric("gateway_upstream_duration_seconds_count", route="none") == 0
    assert "PROPFIND" not in str(busy.metrics())
    assert busy.metric("gateway_requests_total", route="all", method="OTHER") == 1


def test_both_programs_are_told_of(busy):
    """Versions, processes, the configuration, the channel between them."""
    for name in ("gateway_build_info", "gateway_dataplane_info", "gateway_dataplanes_connected", "gateway_config_last_reload_success",
                 "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds",
                 "gateway_dataplane_cpu_seconds_total", "gateway_dataplane_resident_memory_bytes", "gateway_dataplane_open_fds",
                 "gateway_dataplane_start_time_seconds", "gateway_config_last_reload_timestamp_seconds", "gateway_config_generation"):
        assert busy.metric(name) > 0, name
    assert labels_of(busy, "gateway_dataplane_info", "dataplane") == {"dp-1"}
    assert abs(busy.metric("gateway_dataplane_start_time_seconds") - busy.metric("process_start_time_seconds")) < 60
    assert 0 <= busy.metric("gateway_control_channel_lag_seconds") < 5
    for name in ("gateway_access_log_dropped_total", "gateway_upgrades_total", "gateway_retries_total", "gateway_received_bytes_total",
                 "gateway_sent_bytes_total", "gateway_breaker_state", "gateway_breaker_transitions_total", "gateway_endpoint_health",
                 "gateway_health_checks_total", "gateway_health_check_duration_seconds_sum"):
        assert name in busy.metrics(), name


def test_a_data_plane_whose_name_is_no_label_is_refused(pair):
    """It is told why, and the scrape of the others is whole."""
    other = pair.make_dataplane("dp-2")
    other.argv = [os.fsencode(a) for a in other.argv]
    other.argv[-1], other.argv[other.argv.index(b"--state-dir") + 1] = b"\xff\xfe", os.fsencode(pair.folder / "other-state")
    other.start()
    try:
        wait_until(lambda: "it refused: a data plane's name" in other.log(), "it is told why")
        answer = scrape(pair)
        assert b"\xff" not in answer.body and promtool(answer.body) == (0, "")
    finally:
        other.kill()


def test_untouched_routes_have_no_series(busy):
    """They cost nothing until they are used."""
    text = busy.yaml([*busy.routes, route("untouched", "/untouched", "http://127.0.0.1:2", health_check={"enabled": False},
                                          circuit_breaker={})])
    assert busy.push(text).status == 200
    named = {name for name, samples in busy.metrics().items() if any(("route", "untouched") in p for p in samples)}
    assert "gateway_endpoint_health" in named
    assert named <= {"gateway_endpoint_health", "gateway_endpoint_draining", "gateway_endpoint_weight", "gateway_breaker_state"}
    touched = [dict(p) for p in busy.metrics()["gateway_breaker_transitions_total"]]
    assert {(p["route"], p["to"]) for p in touched} == {("all", to) for to in ("closed", "open", "half_open")}, "zeros, once used"


def generations(pair):
    """{generation: requests}, and the same of the histogram's counts."""
    counts, histogram = {}, {}
    for pairs, value in pair.metrics().get("gateway_generation_requests_total", {}).items():
        counts[dict(pairs)["generation"]] = counts.get(dict(pairs)["generation"], 0) + value
    for pairs, value in pair.metrics().get("gateway_generation_request_duration_seconds_count", {}).items():
        histogram[dict(pairs)["generation"]] = value
    return counts, histogram


def test_the_last_three_generations_are_told_apart(make_pair, backend):
    """One request under the first, two under the second...; their sum is the total."""
    pair = make_pair([route("all", "/", backend)])
    numbers = []
    for i in range(5):
        if i > 0:
            assert pair.push(pair.yaml([route("all", "/", backend, timeout_seconds=20 + i)])).status == 200
        numbers.append(str(pair.generation()))
        for _ in range(i + 1):
            assert pair.get("/").status == 200

    def told():
        counts, histogram = generations(pair)
        assert counts == histogram == {"older": 3, numbers[2]: 3, numbers[3]: 4, numbers[4]: 5}, counts
        assert sum(counts.values()) == pair.metric("gateway_requests_total")
        return True
    wait_until(told, "the generations' counts are in")
    pair.controlplane.kill()
    pair.controlplane.start()
    pair.wait_synced()

    def told_again():
        counts, _ = generations(pair)
        assert sum(counts.values()) == pair.metric("gateway_requests_total") == 15, counts
        return True
    wait_until(told_again, "the counts are there after the control plane was killed")


def counters(pair):
    """Every sample that may only grow."""
    grows = re.compile(r"_total$|_bucket$|_count$|_sum$")
    return {(name, pairs): value for name, samples in pair.metrics().items() if grows.search(name)
            for pairs, value in samples.items()}


class Watch:
    """Compares each scrape with the one before."""

    def __init__(self, pair):
        self.pair = pair
        self.last = {}

    def look(self):
        """Takes a scrape; nothing in it may be less than it was."""
        try:
            now = counters(self.pair)
        except OSError:
            return False
        for key, value in now.items():
            assert value >= self.last.get(key, 0), (key, self.last[key], value)
        self.last.update(now)
        return True


def test_counts_are_exact_over_kills_of_the_control_plane(make_pair, backend):
    """kill -9 again and again while requests run: the end is the number of requests, and no scrape was below one before."""
    pair = make_pair([route("all", "/", backend)])
    watch, sent = Watch(pair), 0
    with pair.client() as c:
        for _ in range(4):
            for _ in range(25):
                assert c.request("GET", "/").status == 200
                sent += 1
            watch.look()
            pair.controlplane.kill()
            for _ in range(25):
                assert c.request("GET", "/").status == 200
                sent += 1
            pair.controlplane.start()
            wait_until(watch.look, "the control plane is back")

    def all_counted():
        watch.look()
        return pair.metric("gateway_requests_total", route="all", status=200) == sent
    wait_until(all_counted, f"{sent} requests are counted")
    assert pair.metric("gateway_request_duration_seconds_count", route="all") == sent
    assert pair.metric("gateway_request_outcomes_total", reason="ok") == sent


def test_counts_are_exact_over_kills_of_both_programs(make_pair, backend):
    """kill -9 of one and the other in turn, with requests between all of it: every family agrees with what was sent, to the request."""
    pair = make_pair([route("all", "/", backend)])
    watch, sent = Watch(pair), 0

    def send(count):
        nonlocal sent
        with pair.client() as c:
            for _ in range(count):
                assert c.request("GET", "/").status == 200
                sent += 1
    for _ in range(3):
        send(20)
        kept(pair)
        watch.look()
        pair.controlplane.kill()
        send(20)
        pair.controlplane.start()
        wait_until(watch.look, "the control plane is back")
        pair.wait_synced()
        kept(pair)
        send(20)
        at_rest(pair.dataplane)
        pair.dataplane.kill()
        pair.dataplane.start()
        pair.wait_ready()
        wait_until(watch.look, "nothing stepped back")

    def all_counted():
        watch.look()
        return pair.metric("gateway_requests_total", route="all", status=200) == sent
    wait_until(all_counted, f"{sent} requests are counted")
    for name, labels in (("gateway_request_duration_seconds_count", {}), ("gateway_upstream_duration_seconds_count", {}),
                         ("gateway_request_outcomes_total", {"reason": "ok"}), ("gateway_endpoint_requests_total", {})):
        assert pair.metric(name, route="all", **labels) == sent, name
    assert sum(generations(pair)[0].values()) == sum(generations(pair)[1].values()) == sent


def test_a_control_plane_remembers_data_planes_that_ended(make_pair, backend):
    """The data plane ends, then the control plane is killed: what was counted is still told, before anybody reports."""
    pair = make_pair([route("all", "/", backend)])
    for _ in range(20):
        assert pair.get("/").status == 200
    watch = Watch(pair)
    assert pair.dataplane.stop() == 0
    wait_until(lambda: pair.metric("gateway_dataplanes_connected") == 0, "it has gone")
    watch.look()
    assert pair.metric("gateway_requests_total") == 20
    pair.controlplane.kill()
    pair.controlplane.start()
    wait_until(watch.look, "the control plane is back")
    assert pair.metric("gateway_requests_total") == 20
    pair.dataplane.start()
    pair.wait_ready()
    assert pair.get("/").status == 200
    wait_until(lambda: watch.look() and pair.metric("gateway_requests_total") == 21, "and counting goes on")


@pytest.mark.heavy
def test_ten_thousand_routes_are_scraped_in_time(make_pair, backend):
    """Every one of them used: under 200 ms at best, and of CPU on average, and requests beside it are answered meanwhile."""
    count = 10_000
    routes = [route(f"route-{i:05}", f"/r{i}", backend, health_check={"enabled": False}) for i in range(count)]
    pair = make_pair(routes)
    with pair.client() as c:
        for first in range(0, count, 100):
            for i in range(first, first + 100):
                c.send(f"GET /r{i} HTTP/1.1\r\nHost: x\r\n\r\n")
            for _ in range(100):
                assert c.read_response().status == 200
    wait_until(lambda: scrape(pair).body.count(b"gateway_requests_total{") == count, "all of them are reported", 60)
    best, size, cpu = 1e9, 0, pair.controlplane.cpu_seconds()
    for _ in range(5):
        began = time.monotonic()
        done = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{size_download}",
                               f"http://127.0.0.1:{pair.admin_port}/metrics"], capture_output=True, check=True, timeout=60)
        best, size = min(best, time.monotonic() - began), int(done.stdout)
    cpu = (pair.controlplane.cpu_seconds() - cpu) / 5
    print(f"\nscrape of {count} routes: {best * 1000:.0f} ms, {cpu * 1000:.0f} ms of CPU, {size / 1e6:.1f} MB")
    assert best < 0.2 * SCALE and cpu < 0.2 * SCALE
