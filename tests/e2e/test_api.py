"""The admin API beyond reading and pushing: what it is said to be, events, log levels, readiness, and clients that are a nuisance."""
import json
import os
import re
import signal
import socket
import time
import urllib.parse

import jsonschema
import pytest
import yaml

from harness import DEADLINE, ROOT, route, wait_until
from rawhttp import Client

TABLE = re.compile(r'\{"(GET|POST|DELETE|PUT)", "([^"]+)",\s*(READ|WRITE)')


def tcp(pair, method, target, headers=()):
    """A request to the side that only reads."""
    return pair.admin(method, target, headers=headers, private=False)


# ---- the description ----

def as_json_schema(node):
    """OpenAPI 3.0 says nullable where JSON Schema has a type; and what is not described may not be there."""
    if isinstance(node, list):
        return [as_json_schema(n) for n in node]
    if not isinstance(node, dict):
        return node
    made = {k: as_json_schema(v) for k, v in node.items() if k != "nullable"}
    if node.get("nullable"):
        made["type"] = [made["type"], "null"]
    if node.get("type") == "object" and "properties" in node:
        made.setdefault("additionalProperties", False)
    return made


@pytest.fixture
def openapi(pair):
    """The document as it is served."""
    return yaml.safe_load(tcp(pair, "GET", "/api/v1/openapi.yaml").body)


def check(openapi, path, answer, method="get"):
    """An answer is what the document says about that path and status."""
    responses = openapi["paths"][path][method]["responses"]
    said = responses[str(answer.status)]
    if "$ref" in said:
        said = openapi["components"]["responses"][said["$ref"].rsplit("/", 1)[1]]
    kind = answer.get("content-type").split(";")[0]
    assert kind in said["content"], (path, kind)
    if kind == "application/json":
        schema = as_json_schema({**said["content"][kind]["schema"], "components": openapi["components"]})
        jsonschema.validate(answer.json(), schema)


def test_the_description_lists_exactly_what_there_is(openapi):
    """Every row of the table in api.c, and no other."""
    source = (ROOT / "controlplane" / "admin" / "api.c").read_text()
    table = {(m.lower(), p) for m, p, _ in TABLE.findall(source)}
    described = {(m, p) for p, item in openapi["paths"].items() for m in item if m in ("get", "post", "delete", "put")}
    assert table == described and len(table) > 20
    secured = {(m.lower(), p) for m, p, access in TABLE.findall(source) if access == "WRITE"}
    assert secured == {(m, p) for m, p in described if "security" in openapi["paths"][p][m]}


def test_answers_are_what_the_description_says(make_pair, backend, openapi):
    """Every path that may be asked for, in a pair that has something to tell."""
    pair = make_pair([route("all", "/", backend, circuit_breaker={}, rate_limit={"rate": 1, "burst": 1}),
                      route("dead", "/dead", "http://127.0.0.1:1", health_check={"interval_seconds": 0.05})])
    for _ in range(3):
        pair.get("/")
    address = f"127.0.0.1:{backend.port}"
    wait_until(lambda: pair.admin("GET", "/api/v1/limits").json()["limits"][0]["decisions"], "a report is in")
    ordered = pair.admin("POST", f"/api/v1/endpoints/{address}/weight?weight=5")
    check(openapi, "/api/v1/endpoints/{address}/weight", ordered, "post")
    check(openapi, "/api/v1/endpoints/{address}/drain", pair.admin("POST", f"/api/v1/endpoints/{address}/drain"), "post")
    for path in ("/", "/nothing/../here"):
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        check(openapi, "/api/v1/explain", pair.admin("POST", "/api/v1/explain", head), "post")
    check(openapi, "/api/v1/dataplanes/{name}/replace", pair.admin("POST", "/api/v1/dataplanes/nobody/replace"), "post")
    check(openapi, "/api/v1/endpoints/{address}/drain", pair.admin("DELETE", f"/api/v1/endpoints/{address}/drain"), "delete")
    check(openapi, "/api/v1/endpoints/{address}/drain", pair.admin("POST", "/api/v1/endpoints/1.2.3.4:5/drain"), "post")
    check(openapi, "/api/v1/config", pair.push(pair.yaml([route("all", "/", backend)])), "post")
    check(openapi, "/api/v1/config", pair.push("nonsense: 1"), "post")
    check(openapi, "/api/v1/config", pair.push(pair.yaml(), "&if_generation=99999"), "post")
    check(openapi, "/api/v1/explain", pair.admin("POST", "/api/v1/explain", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "post")
    check(openapi, "/api/v1/validate", pair.admin("POST", "/api/v1/validate", b"nonsense: 1"), "post")
    check(openapi, "/api/v1/reload", pair.admin("POST", "/api/v1/reload"), "post")
    check(openapi, "/api/v1/generations/{number}", pair.admin("GET", "/api/v1/generations/current"))
    check(openapi, "/api/v1/generations/{number}", pair.admin("GET", "/api/v1/generations/99999"))
    check(openapi, "/api/v1/diff", pair.admin("POST", "/api/v1/diff?from=previous&to=current"), "post")
    check(openapi, "/api/v1/rollback", pair.admin("POST", "/api/v1/rollback"), "post")
    unknown = pair.admin("POST", "/api/v1/rollback?generation=99999")
    assert unknown.status == 404
    check(openapi, "/api/v1/rollback", unknown, "post")
    assert pair.admin("POST", "/api/v1/reload").status == 200  # as in the beginning
    check(openapi, "/api/v1/loglevel", pair.admin("POST", "/api/v1/loglevel?level=warn"), "post")
    check(openapi, "/api/v1/loglevel", pair.admin("POST", "/api/v1/loglevel?level=loud"), "post")
    pair.expect_refusal()
    for path, item in openapi["paths"].items():
        if "get" not in item or "{" in path:
            continue
        check(openapi, path, tcp(pair, "GET", path) if "security" not in item["get"] else pair.admin("GET", path))
    assert pair.admin("GET", "/api/v1/limits").json()["limits"][0]["decisions"] == {"allowed": 1, "limited": 2}
    assert len(pair.admin("GET", "/api/v1/events").json()["events"]) > 5
    replaced = pair.admin("POST", "/api/v1/dataplanes/dp-1/replace?wait=10")
    assert replaced.status == 200
    os.kill(replaced.json()["new_pid"], signal.SIGTERM)  # nobody else knows of it
    check(openapi, "/api/v1/dataplanes/{name}/replace", replaced, "post")
    assert pair.dataplane.wait() == 0


def test_refusals_are_what_the_description_says(make_pair, backend, openapi):
    """Of every path that needs the token: without one, with a wrong one, with a body that is too large; and bad arguments."""
    pair = make_pair([route("all", "/", backend)], start=False)
    secured = [(m, p) for p, item in openapi["paths"].items() for m in item if "security" in item[m]]
    assert len(secured) > 15
    fill = lambda path: re.sub(r"\{\w+\}", "1", path)
    pair.sections["admin"] = {**pair.document()["admin"], "token": "open-sesame-and-be-quick"}
    pair.start()
    for method, path in secured:
        for token in ([], [("Authorization", "Bearer open-sesame-and-be-quicK")]):
            answer = pair.admin(method.upper(), fill(path), headers=token, private=False)
            assert answer.status == 401 and answer.get("www-authenticate") == "Bearer", path
            check(openapi, path, answer, method)
        with Client(str(pair.admin_socket), DEADLINE) as c:
            answer = c.request(method.upper(), fill(path), [("Content-Length", "99999999999")])
            assert answer.status == 413, path
            check(openapi, path, answer, method)
    for path in ("/api/v1/config?wait=x", "/api/v1/reload?if_generation=x", "/api/v1/rollback?generation=x", "/api/v1/loglevel",
                 "/api/v1/endpoints/{address}/weight?weight=0", "/api/v1/dataplanes/{name}/replace?wait=-1", "/api/v1/limits/reset",
                 "/api/v1/explain?client=" + "1" * 65):
        answer = pair.admin("POST", fill(path))
        assert answer.status == 400, path
        check(openapi, path.split("?")[0], answer, "post")
    assert pair.push(pair.yaml(admin={**pair.sections["admin"], "token": ""})).status == 200
    for method, path in secured:
        answer = tcp(pair, method.upper(), fill(path))
        assert answer.status == 403, path
        check(openapi, path, answer, method)


# ---- methods, headers, pages ----

def test_options_and_other_methods_tell_what_is_allowed(pair):
    """And nobody else's page may ask."""
    answer = tcp(pair, "OPTIONS", "/api/v1/status", [("Origin", "http://evil.example"), ("Access-Control-Request-Method", "GET")])
    assert answer.status == 204 and answer.get("allow") == "GET, HEAD, OPTIONS"
    assert not [n for n, _ in answer.headers if n.lower().startswith("access-control")]
    assert tcp(pair, "OPTIONS", "/nowhere").status == 404
    put = tcp(pair, "PUT", "/api/v1/status")
    assert put.status == 405 and put.get("allow") == "GET, HEAD, OPTIONS"
    head = tcp(pair, "HEAD", "/api/v1/status")
    assert head.status == 200 and head.body == b"" and int(head.get("content-length")) > 100


def test_bytes_that_are_no_text_are_answered(make_pair, backend):
    """Not UTF-8, half a character where a message is cut, zero bytes: an answer, and the control plane lives."""
    pair = make_pair([route("all", "/", backend, rate_limit={"rate": 1, "burst": 1})])
    cut = "x" * 198 + "\u00e4"
    for target in ("/%ff%fe", "/" + urllib.parse.quote(cut), "/healthz%00", "/%00", "/api/v1/events?kind=%ff"):
        answer = tcp(pair, "GET", target)
        assert answer.status == (200 if "events" in target else 404) and answer.json(), target
    text = pair.yaml().encode()
    for name in ("%ff", "%c3%28", "%e2%80%a8", "a%00b"):
        assert pair.admin("POST", f"/api/v1/config?source={name}", text).status == 200
        assert pair.admin("GET", "/api/v1/limits").json()["limits"], name
    for path in ("/api/v1/endpoints/%ff/drain", "/api/v1/dataplanes/%ff/replace", "/api/v1/limits/reset?route=%ff",
                 "/api/v1/diff?from=%ff", "/api/v1/config?message=%ff"):
        assert 400 <= pair.admin("POST", path, b"x").status < 500, path
    assert pair.controlplane.running


def test_an_answer_to_head_has_no_body(pair):
    """Nor has one whose body would never end."""
    with Client(("127.0.0.1", pair.admin_port), DEADLINE) as c:
        for target in ("/api/v1/events?stream=1", "/metrics", "/nowhere"):
            c.send_request("HEAD", target)
            head = c.read_head()
            assert head.status == (404 if target == "/nowhere" else 200), target
            assert (head.get("content-type") == "text/event-stream") == ("stream" in target)
        assert c.request("GET", "/healthz").json() == {"status": "ok"}


def test_every_answer_has_the_headers_that_browsers_obey(pair):
    """Nothing is sniffed, framed or cached; of pages only their own scripts run."""
    for path in ("/", "/api/v1/status", "/nowhere", "/metrics"):
        answer = tcp(pair, "GET", path)
        assert answer.get("x-content-type-options") == "nosniff" and answer.get("x-frame-options") == "DENY", path
        assert answer.get("cache-control") == "no-store" and answer.get("referrer-policy") == "no-referrer", path


def test_the_dashboard_loads_nothing_from_elsewhere(pair):
    """One page, one script, one style sheet, and a policy that allows no more."""
    page = tcp(pair, "GET", "/")
    assert page.status == 200 and page.get("content-type").startswith("text/html")
    policy = page.get("content-security-policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    text = page.body.decode()
    for asset in re.findall(r'(?:src|href)="([^"]+)"', text):
        assert asset.startswith("data:") or tcp(pair, "GET", "/" + asset).status == 200, asset
    assert "<style" not in text and " style=" not in text and " onload" not in text and "://" not in text
    script = tcp(pair, "GET", "/dashboard.js").body.decode()
    assert "innerHTML" not in script and "://" not in script
    for path in re.findall(r'"(api/v1/\w+|readyz)', script):
        assert tcp(pair, "GET", "/" + path).status == 200, path


# ---- readiness ----

def dead_route(**more):
    """A route whose backend is not there, found out soon."""
    return route("dead", "/dead", "http://127.0.0.1:1", health_check={"interval_seconds": 0.05, "timeout_seconds": 0.05}, **more)


@pytest.mark.parametrize("wanted,status", [("any", 200), ("all", 503), ("none", 200)])
def test_ready_is_as_many_routes_as_configured(make_pair, backend, wanted, status):
    """admin.ready_routes."""
    pair = make_pair([route("all", "/", backend), dead_route()], start=False)
    pair.sections["admin"] = {**pair.document()["admin"], "ready_routes": wanted}
    pair.start()

    def told():
        answer = tcp(pair, "GET", "/readyz")
        sentences = answer.json()["reasons"] + answer.json()["warnings"]
        assert any("route dead has no healthy backend" in s for s in sentences)
        return answer
    answer = wait_until(told, "the dead route is told of")
    assert answer.status == status and bool(answer.json()["reasons"]) == (status == 503)


# ---- events ----

def kinds(pair):
    """Kinds of the events there are."""
    return {e["kind"] for e in pair.admin("GET", "/api/v1/events").json()["events"]}


def test_events_tell_what_happened(make_pair, backend):
    """A breaker, a verdict, a refused configuration, a data plane, an order: each once, in order, with ids."""
    pair = make_pair([route("all", "/", backend, circuit_breaker={"min_requests": 3}), dead_route()])
    pair.expect_refusal()
    for _ in range(3):
        pair.get("/status/500")
    pair.push("nonsense: 1")
    assert pair.admin("POST", f"/api/v1/endpoints/127.0.0.1:{backend.port}/drain").status == 200
    wait_until(lambda: {"breaker", "health", "config", "session", "order"} <= kinds(pair), "every kind has happened")
    events = pair.admin("GET", "/api/v1/events").json()["events"]
    assert [e["id"] for e in events] == list(range(1, len(events) + 1))
    (breaker,) = [e for e in events if e["kind"] == "breaker"]
    assert breaker["level"] == "warn" and f"all/127.0.0.1:{backend.port} closed -> open" in breaker["message"]
    later = pair.admin("GET", f"/api/v1/events?since={breaker['id']}&kind=order").json()["events"]
    assert all(e["id"] > breaker["id"] and e["kind"] == "order" for e in later)
    shown = pair.ctl("events", "--kind", "breaker")
    assert shown.code == 0 and "closed -> open" in shown.out and shown.out.count("\n") == 1
    assert pair.ctl("events", "-o", "json").json()["last"] >= breaker["id"]


def open_stream(pair, query="", headers=""):
    """A connection on which events come."""
    c = socket.create_connection(("127.0.0.1", pair.admin_port), DEADLINE)
    c.sendall(f"GET /api/v1/events?stream=1{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    return c, c.makefile("rb")


def next_event(stream):
    """The next one of a stream, whose chunks lie on whole events as a rule."""
    text = b""
    while True:
        line = stream.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            return json.loads(line[6:])
        text += line


def test_a_stream_tells_what_was_and_then_what_happens(pair):
    """Server-sent events: from the beginning, from an id, and as they happen, within moments."""
    sock, stream = open_stream(pair)
    first = next_event(stream)
    assert first["id"] == 1
    seen = [first]
    while "data plane dp-1 serves" not in seen[-1]["message"]:
        seen.append(next_event(stream))
    began = time.monotonic()
    assert pair.admin("POST", "/api/v1/loglevel?level=info").status == 200
    event = next_event(stream)
    assert "log level" in event["message"] and time.monotonic() - began < DEADLINE / 3
    again, stream_again = open_stream(pair, headers=f"Last-Event-ID: {event['id'] - 1}\r\n")
    assert next_event(stream_again)["id"] == event["id"]
    for s in (sock, again):
        s.close()


def test_streams_are_bounded_and_end_with_the_control_plane(pair):
    """Too many are refused; those that are open do not keep the control plane from ending."""
    streams = [open_stream(pair) for _ in range(32)]
    for _, stream in streams:
        assert next_event(stream)["id"] == 1
    refused, stream = open_stream(pair)
    assert stream.readline().startswith(b"HTTP/1.1 503")
    refused.close()
    assert pair.controlplane.stop() == 0
    for sock, stream in streams:
        assert stream.read().endswith(b"\r\n0\r\n\r\n"), "the last chunk"
        sock.close()
    pair.controlplane.start()
    pair.wait_synced()


def test_a_stream_whose_client_went_makes_room(pair):
    """The place of one that hung up is free again before long."""
    for _ in range(40):
        sock, stream = open_stream(pair)
        first = stream.readline()
        sock.close()
        if first.startswith(b"HTTP/1.1 503"):
            break
    else:
        return  # each was noticed at once

    def free_again():
        sock, stream = open_stream(pair)
        first = stream.readline()
        sock.close()
        return first.startswith(b"HTTP/1.1 200")
    wait_until(free_again, "there is room again", 30)


# ---- log levels ----

def test_log_levels_change_at_run_time(pair):
    """Each program on its own, a data plane that connects later too, and back."""
    assert pair.ctl("loglevel", "-o", "json").json() == {"configured": "info", "controlplane": None, "dataplane": None}
    assert pair.ctl("loglevel", "controlplane", "error").code == 0
    assert pair.push(pair.yaml([*pair.routes, route("more", "/more", "http://127.0.0.1:1")])).status == 200
    assert '"msg":"generation 1 -> 2 in force' not in pair.controlplane.log()
    assert any("generation 1 -> 2" in e["message"] for e in pair.admin("GET", "/api/v1/events").json()["events"]), "events do not depend on it"
    assert pair.ctl("loglevel", "controlplane", "default").code == 0
    assert pair.ctl("loglevel", "dataplane", "warn").code == 0
    wait_until(lambda: pair.dataplane.stop() == 0, "it ends")
    assert '"module":"control","msg":"ended"' not in pair.dataplane.log()
    before = len(pair.dataplane.log())
    pair.dataplane.start()
    pair.wait_ready()
    assert "is in force" not in pair.dataplane.log()[before:].split("greeted")[-1]
    shown = pair.ctl("loglevel", "default")
    assert shown.code == 0 and shown.out.count("as configured") == 2
    assert pair.ctl("loglevel", "loud").code == 1 and pair.ctl("loglevel", "nobody", "info").code == 64


# ---- clients that are a nuisance ----

@pytest.mark.heavy
def test_slow_heads_do_not_keep_others_out(pair):
    """A hundred and twenty-eight clients that send a byte now and then lose their places within some seconds."""
    slow = []
    for _ in range(128):
        s = socket.create_connection(("127.0.0.1", pair.admin_port), DEADLINE)
        s.sendall(b"GET /healthz HTTP/1.1\r\n")
        slow.append(s)
    end = time.monotonic() + 30
    while True:
        try:
            with Client(("127.0.0.1", pair.admin_port), 1) as c:
                assert c.request("GET", "/healthz").status == 200
                break
        except (OSError, AssertionError):
            assert time.monotonic() < end, "nobody got in"
        for s in slow:
            try:
                s.sendall(b"X")
            except OSError:
                pass
        time.sleep(0.2)  # their pace is what is tested
    assert pair.admin("GET", "/healthz").status == 200  # and the private side had its own places all the time
    for s in slow:
        s.close()
