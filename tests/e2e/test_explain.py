"""gwpctl explain: what it says is what the data plane then does, and asking leaves no trace."""
import ipaddress
import random
import re
import subprocess

import pytest

from harness import BUILD, Backend, free_port, route, run_ctl, wait_until

CTL = BUILD / "gwpctl"
OFF = {"enabled": False}


@pytest.fixture(name="trio")
def _trio(tmp_path):
    """Three backends, stopped at the end."""
    backends = [Backend(name, tmp_path).start() for name in ("one", "two", "three")]
    yield backends
    for b in backends:
        b.kill()


def ask(pair, method, target, headers=(), client=None):
    """The document of gwpctl explain."""
    more = [word for name, value in headers for word in ("-H", f"{name}: {value}")]
    more += ["--client", client] if client else []
    answer = pair.ctl("explain", method, target, "-o", "json", *more)
    assert answer.code == 0, answer
    return answer.json()


def routes_of(trio):
    """Every algorithm, key and edit, hosts, methods, dead and small backends."""
    urls = [b.url for b in trio]
    dead = f"http://127.0.0.1:{free_port()}"
    limit = {"rate": 0.001, "burst": 8}
    return [
        route("rr", "/rr", *urls, health_check=OFF, strip_prefix=True,
              headers={"request": {"set": {"X-Set": "${client_ip} ${route}"}, "remove": ["X-Gone"]}}),
        route("least", "/least", *urls, lb_algorithm="least_conn", health_check=OFF),
        {"name": "weighted", "path_prefix": "/weighted", "lb_algorithm": "weighted", "health_check": OFF,
         "backends": [{"url": u + "/base", "weight": w} for u, w in zip(urls, (1, 3, 7))]},
        route("hash", "/hash", *urls, lb_algorithm="ip_hash", health_check=OFF, preserve_host=True),
        route("hosted", "/rr", urls[0], host="a.example", health_check=OFF),
        route("wild", "/", urls[1], host="*.wild.example", health_check=OFF, max_body_bytes=5),
        route("posts", "/posts", urls[2], methods=["POST", "PUT"], health_check=OFF),
        route("by-ip", "/by-ip", urls[0], health_check=OFF, rate_limit=limit),
        route("by-key", "/by-key", urls[1], health_check=OFF,
              rate_limit={**limit, "key_by": "api_key", "algorithm": "sliding_window", "window_seconds": 3600}),
        route("observed", "/observed", urls[1], health_check=OFF, rate_limit={**limit, "mode": "observe"}),
        route("tripped", "/tripped", dead, *urls[:2], health_check=OFF, retries=0,
              circuit_breaker={"min_requests": 3, "open_duration_seconds": 3600}),
        route("dead", "/dead", dead, health_check=OFF, retries=0,
              circuit_breaker={"min_requests": 3, "open_duration_seconds": 3600}),
        route("refused", "/refused", dead, health_check=OFF, retries=0),
    ]


def some_request(generator):
    """A random one: most of them good."""
    path = generator.choice(["/rr", "/rr/x", "/least", "/weighted/y?q=1", "/hash", "/posts", "/by-ip", "/by-key/z",
                             "/observed", "/tripped", "/dead", "/refused", "/none", "/rr/../x", "/%2e%2e/x",
                             "/least/%41%2f", "/weighted//z", "/hash/" + "s" * 50])
    method = generator.choice(["GET"] * 6 + ["POST", "PUT", "DELETE", "HEAD"])
    headers = [("Host", generator.choice(["gateway.test", "a.example", "A.Example:80", "x.wild.example", "wild.example"]))]
    for name, values in (("X-API-Key", ["k1", "k2"]), ("X-Gone", ["1"]), ("Cookie", ["a=b"]), ("TE", ["trailers"]),
                         ("X-Forwarded-For", ["203.0.113.7", "203.0.113.8, 127.0.0.1", "198.51.100.1"]),
                         ("Connection", ["X-Hop"]), ("X-Hop", ["y"])):
        if generator.random() < 0.4:
            headers.append((name, generator.choice(values)))
    return method, path, headers


def check(said, log, answer):
    """What was said against what was done."""
    assert said["reason"] == log["reason"] or said["status"] is None, (said, log)
    assert (said["route"] or "") == log.get("route", ""), (said, log)
    assert said["client"] == log["client"], (said, log)
    if said["limit"]:
        allowed = said["limit"]["allowed"]
        assert log["limiter"] == ("allowed" if allowed else "observed" if said["limit"]["observe"] else "limited")
        if allowed and not said["limit"]["observe"]:
            assert f'r={said["limit"]["remaining"]};' in answer.get("ratelimit"), (said, answer)
    if said["status"] is not None:
        assert said["status"] == log["status"], (said, log)
        return "refused"
    assert said["chosen"] == log["endpoint"], (said, log)
    if answer.status == 200 and answer.body:
        sent = [(n.strip(), v.strip()) for n, v in re.findall(r"^([^:\r\n]+):(.*?)\r$", said["forwarded"], re.M)]
        got = [tuple(h) for h in answer.json()["headers"]]
        skip = ("x-request-id", "content-length")
        assert [h for h in sent if h[0].lower() not in skip] == [h for h in got if h[0].lower() not in skip]
        assert said["forwarded"].split(" ")[1] == answer.json()["path"]
    return "passed on"


def test_what_is_explained_is_what_happens(make_pair, trio):
    """Random requests: first asked about, then sent: route, client, limit, endpoint and head are as said."""
    pair = make_pair(routes_of(trio), server={"workers": 2, "trusted_proxies": ["127.0.0.0/8"]})
    generator, outcomes, chosen = random.Random(3), set(), set()
    for i in range(220):
        method, path, headers = some_request(generator)
        said = ask(pair, method, path, headers)
        body = b"0123456789" if method in ("POST", "PUT") else b""
        if body:  # a body as it would be announced
            headers = [*headers, ("Content-Length", "10")]
            said = ask(pair, method, path, headers)
        answer = pair.request(method, path, [*headers, ("X-Request-ID", f"r{i}")], body, host=None)
        log = wait_until(lambda i=i: next((line for line in pair.access_lines() if line["request_id"] == f"r{i}"), None),
                         "the request is logged")
        outcomes.add((check(said, log, answer), log["reason"]))
        chosen.add((said["route"], said["chosen"]))
    assert {r for _, r in outcomes} >= {"ok", "no_route", "bad_request", "limited", "too_large", "connect_failed",
                                        "breaker_open"}, outcomes
    assert len({c for r, c in chosen if r == "weighted"}) == 3
    assert len({c for r, c in chosen if r == "hash"}) >= 2


def test_asking_leaves_no_trace(make_pair, trio):
    """No turn, no count, no log line, no key in a limit's table."""
    pair = make_pair(routes_of(trio))
    first = ask(pair, "GET", "/rr")["chosen"]
    assert all(ask(pair, "GET", "/rr")["chosen"] == first for _ in range(7))
    left = ask(pair, "GET", "/by-ip")["limit"]["remaining"]
    assert all(ask(pair, "GET", "/by-ip")["limit"]["remaining"] == left for _ in range(7))
    assert pair.get("/rr").status == 200
    assert ask(pair, "GET", "/rr")["chosen"] != first  # the request has taken its turn
    wait_until(lambda: len(pair.access_lines()) == 1, "the one request is logged")
    wait_until(lambda: pair.metric("gateway_requests_total") >= 1, "it is counted")
    assert pair.metric("gateway_requests_total") == 1
    assert sum(b.get("/connections")["requests"] for b in trio) <= 1 + len(trio)


def test_health_and_orders_are_told(make_pair, trio):
    """Draining, weights, and who is passed over."""
    pair = make_pair([route("all", "/", *trio, lb_algorithm="weighted", health_check=OFF)])
    address = f"127.0.0.1:{trio[0].port}"
    assert pair.ctl("drain", address).code == 0
    assert pair.ctl("weight", f"127.0.0.1:{trio[1].port}", "9").code == 0
    by = {c["address"]: c for c in ask(pair, "GET", "/")["candidates"]}
    assert by[address]["draining"] and not by[address]["usable"] and not by[address]["chosen"]
    assert by[f"127.0.0.1:{trio[1].port}"]["weight"] == 9
    said = pair.ctl("explain", "GET", "/").out
    assert "passed over" in said and "draining" in said and "gateway.yaml:" in said


def test_client_may_be_anybody(make_pair, trio):
    """--client: an address of either kind; the same endpoint as it would get."""
    pair = make_pair([route("hash", "/", *trio, lb_algorithm="ip_hash", health_check=OFF)])
    found = {ask(pair, "GET", "/", client=str(ipaddress.ip_address(0xCB007100 + i)))["chosen"] for i in range(30)}
    assert len(found) == 3
    assert ask(pair, "GET", "/", client="2001:db8::1")["client"] == "2001:db8::1"
    refused = ask(pair, "GET", "/", client="nobody")
    assert refused["status"] == 400 and "address" in refused["detail"]


def test_a_file_is_explained_without_a_gateway(trio, tmp_path):
    """By the data plane's code; the answer has the file's lines."""
    path = tmp_path / "next.yaml"
    path.write_text(f"""routes:
  - name: users
    path_prefix: /users
    strip_prefix: true
    backends:
      - url: {trio[0].url}
      - url: http://localhost:{trio[1].port}
""")
    answer = run_ctl([CTL, "explain", "GET", "http://h/users/7?a=b", "--file", path, "-o", "json"])
    document = answer.json()
    assert document["route"] == "users" and document["place"] == "next.yaml:2"
    assert [c["place"] for c in document["candidates"]][:2] == ["next.yaml:6", "next.yaml:7"]
    assert document["forwarded"].startswith("GET /7?a=b HTTP/1.1\r\nHost: ")
    said = run_ctl([CTL, "explain", "GET", "/other", "--file", path])
    assert said.code == 0 and "would be answered 404" in said.out
    path.write_text("routes: [{nme: x}]\n")
    broken = run_ctl([CTL, "explain", "GET", "/", "--file", path])
    assert broken.code == 1 and "next.yaml:1:11" in broken.err


@pytest.mark.parametrize("url, host, target", [
    ("/p?q=http://other/", "", "/p?q=http://other/"), ("*", "", "*"), ("", "", "/"), ("?q", "", "/?q"), ("/p#f", "", "/p"),
    ("http://H:81/p?q#f", "H:81", "/p?q"), ("http://h", "h", "/"), ("http://h?q=a/b", "h", "/?q=a/b"), ("http://h#f", "h", "/"),
    ("h/p?u=http://other/x", "h", "/p?u=http://other/x"), ("https://u:p@h/a@b", "h", "/a@b"), ("http://[::1]:80/", "[::1]:80", "/"),
])
def test_urls_are_taken_apart_as_clients_do(tmp_path, url, host, target):
    """The host goes into its field, the rest into the request line."""
    path = tmp_path / "g.yaml"
    path.write_text("routes: [{path_prefix: /, preserve_host: true, backends: [{url: http://127.0.0.1:1}]}]")
    answer = run_ctl([CTL, "explain", "OPTIONS", url, "--file", path, "-o", "json"])
    assert answer.json()["forwarded"].startswith(f"OPTIONS {target} HTTP/1.1\r\nHost: {host or '127.0.0.1:1'}\r\n"), answer


def test_nonsense_is_refused_before_it_is_asked(pair):
    """A line break would add to the head."""
    assert pair.ctl("explain", "GET", "/", "-H", "A: b\r\nC: d").code == 64
    assert pair.ctl("explain", "GET", "/", "-H", "no colon").code == 64
    assert pair.ctl("explain", "GET").code == 64
    assert ask(pair, "Brew", "/")["status"] == 501


def test_without_a_data_plane_nobody_can_tell(pair):
    """Said so, at once."""
    assert pair.dataplane.stop() == 0
    wait_until(lambda: not pair.status()["dataplanes"], "it is gone")
    answer = pair.ctl("explain", "GET", "/")
    assert answer.code == 1 and "no data plane is connected" in answer.err


def test_the_data_plane_explains_only_what_it_understands():
    """Nonsense on standard input is an error, not a crash."""
    for data in (b"", b"\xff" * 4, b"\x04\x00\x00\x00abcd\x04\x00\x00\x00abcd", b"\x00" * 8):
        done = subprocess.run([BUILD / "gwp-dataplane", "--explain"], input=data, capture_output=True, check=False,
                              timeout=20)
        assert done.returncode == 1 and not done.stdout, (data, done)
