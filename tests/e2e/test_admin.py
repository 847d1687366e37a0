"""What the admin side tells must be what happened."""
import json

from harness import DEADLINE, route, wait_until
from rawhttp import Client


def test_healthz_is_200_while_the_control_plane_lives(pair):
    """Liveness."""
    assert pair.admin("GET", "/healthz", private=False).status == 200
    assert pair.admin("GET", "/healthz").status == 200


def test_readyz_needs_a_data_plane(make_pair, backend):
    """Nobody serves, so nothing is ready."""
    pair = make_pair([route("all", "/", backend)], start=False)
    pair.write_config()
    pair.controlplane.start()
    wait_until(lambda: pair.admin("GET", "/readyz", private=False).status == 503, "not ready")


def test_metrics_equal_the_requests_made(make_pair, backend):
    """By route, method and status; exactly, once the report is in."""
    pair = make_pair([route("one", "/one", backend), route("status", "/status", backend)])
    for _ in range(7):
        assert pair.get("/one").status == 200
    for _ in range(3):
        assert pair.request("POST", "/one", body=b"x").status == 200
    for _ in range(2):
        assert pair.get("/status/503").status == 503
    for _ in range(4):
        assert pair.get("/none").status == 404

    def counted():
        def count(**labels):
            return pair.metric("gateway_requests_total", **labels)
        assert count(route="one", method="GET", status=200) == 7
        assert count(route="one", method="POST", status=200) == 3
        assert count(route="status", method="GET", status=503) == 2
        assert count(route="none", status=404) == 4
        return True
    wait_until(counted, "metrics equal the requests made")
    assert pair.metric("gateway_request_duration_seconds_count", route="one") == 10
    assert pair.metric("gateway_request_duration_seconds_bucket", route="one", le="+Inf") == 10
    assert pair.metric("gateway_request_duration_seconds_sum", route="one") > 0


def test_metrics_are_well_formed(pair):
    """HELP and TYPE once before each family; buckets do not fall."""
    pair.get("/")
    wait_until(lambda: pair.metric("gateway_requests_total") >= 1, "the report is in")
    answer = pair.admin("GET", "/metrics", private=False)
    assert answer.get("content-type").startswith("text/plain")
    text = answer.body.decode()
    types = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types)) and "gateway_requests_total" in types
    assert "gateway_active_connections" in types
    series = {}
    for pairs, value in pair.metrics()["gateway_request_duration_seconds_bucket"].items():
        labels = dict(pairs)
        series.setdefault((labels["route"], labels["method"]), []).append(
            (float(labels["le"].replace("+Inf", "inf")), value))
    for buckets in series.values():
        values = [v for _, v in sorted(buckets)]
        assert values == sorted(values)


def test_active_connections_are_a_level(pair):
    """Up with clients, down without."""
    clients = [pair.client() for _ in range(5)]
    for c in clients:
        assert c.request("GET", "/").status == 200
    wait_until(lambda: pair.metric("gateway_active_connections") == 5, "five connections")
    for c in clients:
        c.close()
    wait_until(lambda: pair.metric("gateway_active_connections") == 0, "no connection")


def test_backends_are_listed(pair, backend):
    """Route by route, with every address and its counts."""
    assert pair.get("/").status == 200

    def endpoint():
        document = pair.admin("GET", "/api/v1/backends").json()
        assert [r["name"] for r in document["routes"]] == ["all"]
        listed = document["routes"][0]["backends"]
        assert [b["url"] for b in listed] == [backend.url]
        return listed[0]["endpoints"][0]
    wait_until(lambda: endpoint()["requests"] == 1, "the request is counted")
    assert endpoint()["address"] == f"127.0.0.1:{backend.port}"
    assert endpoint()["breaker"] == "closed"
    old = pair.admin("GET", "/backends", private=False)
    assert old.status == 200 and f"127.0.0.1:{backend.port}" in old.body.decode()


def test_routes_are_listed_with_their_place(pair):
    """gateway.yaml:LINE."""
    listed = pair.admin("GET", "/api/v1/routes").json()["routes"]
    assert [r["name"] for r in listed] == ["all"] and listed[0]["path_prefix"] == "/"
    line = next(i for i, text in enumerate(pair.yaml().splitlines(), 1) if "name: all" in text)
    assert listed[0]["place"] == f"gateway.yaml:{line}"


def test_changes_are_not_taken_on_tcp_without_a_token(pair):
    """Reads only."""
    text = pair.yaml().encode()
    answer = pair.admin("POST", "/api/v1/config", text, private=False)
    assert answer.status in (401, 403)
    assert pair.admin("GET", "/api/v1/status", private=False).status == 200


def test_changes_are_taken_on_tcp_with_the_token(make_pair, backend):
    """admin.token."""
    pair = make_pair([route("all", "/", backend)], start=False)
    document = pair.document()
    document["admin"]["token"] = "open-sesame"
    pair.sections["admin"] = document["admin"]
    pair.start()
    text = pair.yaml([route("all", "/", backend), route("new", "/new", backend, strip_prefix=True)])
    path = pair.folder / "new.yaml"
    path.write_text(text)
    admin = f"http://127.0.0.1:{pair.admin_port}"
    assert pair.ctl("push", "config", path, "--token", "wrong", admin=admin).code == 1
    assert pair.get("/new").json()["path"] == "/new"
    pushed = pair.ctl("push", "config", path, admin=admin, env={"GWP_TOKEN": "open-sesame"})
    assert pushed.code == 0, pushed
    assert pair.get("/new").json()["path"] == "/"


def test_unknown_paths_and_methods_are_told(pair):
    """JSON errors here too."""
    assert pair.admin("GET", "/api/v1/nothing").status == 404
    assert pair.admin("DELETE", "/api/v1/status").status == 405
    assert pair.admin("GET", "/api/v1/nothing").json()["error"]


def test_admin_survives_clients_that_misbehave(pair):
    """Half requests, huge bodies, sudden ends."""
    for data in (b"", b"GET ", b"POST /api/v1/config HTTP/1.1\r\nHost: x\r\n"
                 b"Content-Length: 100\r\n\r\nhalf", b"\x00\x01\x02\r\n\r\n"):
        for _ in range(5):
            with Client(str(pair.admin_socket), DEADLINE) as c:
                c.send(data)
    assert pair.status()["config"]["generation"] >= 1
    big = pair.push("# " + "x" * 40_000_000)
    assert big.status in (200, 413, 422)
    assert pair.get("/").status == 200


def test_access_log_has_one_line_a_request(pair):
    """With what is needed to find it again."""
    pair.get("/logged?x=1", [("X-Request-ID", "log-1")])
    pair.request("POST", "/status/503", body=b"x", headers=[("X-Request-ID", "log-2")])

    def lines():
        found = {line.get("request_id"): line for line in pair.access_lines()}
        return found if {"log-1", "log-2"} <= set(found) else None
    found = wait_until(lines, "both lines are written")
    assert found["log-1"]["status"] == 200 and found["log-1"]["route"] == "all"
    assert found["log-1"]["method"] == "GET" and "/logged" in json.dumps(found["log-1"])
    assert found["log-2"]["status"] == 503
