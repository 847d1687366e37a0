"""What a request and its response look like on the other side."""
import time
from email.utils import parsedate_to_datetime

import pytest

from harness import route, wait_until
from rawbackend import RawBackend, logged, ok

UUID_LIKE = 16  # no request id is shorter


def seen(answer):
    """The fields that the backend saw, names in lower case."""
    return [(n.lower(), v) for n, v in answer.json()["headers"]]


def seen_one(answer, name):
    """The value of a field that the backend must have seen once."""
    values = [v for n, v in seen(answer) if n == name]
    assert len(values) == 1, (name, values)
    return values[0]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_method_target_and_body_reach_the_backend(pair, method):
    """Nothing of the request is changed that need not be."""
    body = b"x" * 1234 if method in ("POST", "PUT", "PATCH") else b""
    answer = pair.request(method, "/some/path?q=1&r=%20", body=body)
    assert answer.status == 200
    assert answer.json()["method"] == method
    assert answer.json()["path"] == "/some/path?q=1&r=%20"
    assert answer.json()["body_length"] == len(body)
    assert answer.json()["version"] == "HTTP/1.1"


@pytest.mark.parametrize("status", [200, 201, 301, 404, 418, 500, 503])
def test_backends_status_is_passed_on(pair, status):
    """A backend's answer is its own, errors included."""
    answer = pair.get(f"/status/{status}")
    assert answer.status == status
    assert answer.get("x-backend") == "a"


def test_fields_keep_order_and_repetition(pair):
    """Fields that may repeat arrive repeated, in order."""
    answer = pair.get("/", [("X-One", "1"), ("X-Two", "a"), ("X-Two", "b"), ("X-Three", "3")])
    mine = [(n, v) for n, v in seen(answer) if n in ("x-one", "x-two", "x-three")]
    assert mine == [("x-one", "1"), ("x-two", "a"), ("x-two", "b"), ("x-three", "3")]


def test_repeated_response_fields_stay_apart(pair):
    """Set-Cookie cannot be folded."""
    assert pair.get("/hops").all("set-cookie") == ["one=1", "two=2"]


def test_backend_learns_who_asked(pair):
    """X-Forwarded-* and X-Real-IP tell the client, its host and the scheme."""
    answer = pair.get("/", host="shop.example.com")
    assert seen_one(answer, "x-forwarded-for") == "127.0.0.1"
    assert seen_one(answer, "x-forwarded-proto") == "http"
    assert seen_one(answer, "x-forwarded-host") == "shop.example.com"


def test_forged_forwarding_fields_are_not_believed(pair):
    """Without trusted proxies a client cannot say who it is."""
    answer = pair.get("/", [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"),
                            ("X-Real-IP", "6.6.6.6"), ("X-Forwarded-Host", "evil.test")])
    assert seen_one(answer, "x-forwarded-for") == "127.0.0.1"
    assert seen_one(answer, "x-forwarded-proto") == "http"
    assert "6.6.6.6" not in str(seen(answer)) and "evil.test" not in str(seen(answer))


def test_host_is_the_backends_unless_preserved(make_pair, backend):
    """preserve_host decides which Host goes upstream."""
    pair = make_pair([route("kept", "/kept", backend, preserve_host=True),
                      route("all", "/", backend)])
    assert seen_one(pair.get("/", host="shop.test"), "host") == f"127.0.0.1:{backend.port}"
    assert seen_one(pair.get("/kept", host="shop.test"), "host") == "shop.test"


def test_request_id_is_kept_or_made(pair):
    """One id for backend, client and log; the client's own when it is sane."""
    kept = pair.get("/", [("X-Request-ID", "order-4711.a_b")])
    assert seen_one(kept, "x-request-id") == kept.get("x-request-id") == "order-4711.a_b"
    made = [pair.get("/") for _ in range(3)]
    ids = {m.get("x-request-id") for m in made}
    assert len(ids) == 3 and all(len(i) >= UUID_LIKE for i in ids)
    assert all(seen_one(m, "x-request-id") == m.get("x-request-id") for m in made)


@pytest.mark.parametrize("bad", ["x" * 300, 'a"b', "a b", "<script>"],
                         ids=["long", "quote", "space", "markup"])
def test_insane_request_id_is_replaced(pair, bad):
    """What would hurt logs does not get into them."""
    answer = pair.get("/", [("X-Request-ID", bad)])
    assert seen_one(answer, "x-request-id") == answer.get("x-request-id") != bad


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_via_tells_the_version_that_a_request_came_in_with(pair, version):
    """Behind what others have said."""
    with pair.client() as c:
        c.send(f"GET / HTTP/{version}\r\nHost: x\r\nVia: 1.1 other\r\n\r\n")
        fields = c.read_response().json()["headers"]
    assert [v for n, v in fields if n == "Via"] == ["1.1 other", f"{version} gateway-pro"]


def test_last_hop_of_options_is_the_gateway(make_pair, backend):
    """Max-Forwards: 0 goes no further; the connection goes on."""
    pair = make_pair([route("all", "/", backend)])
    c = pair.client()
    for target in ("/x", "*"):
        answer = c.request("OPTIONS", target, [("Max-Forwards", "0")])
        assert answer.status == 200 and answer.json()["error"] == "ok"
    assert c.request("OPTIONS", "/x", [("Max-Forwards", "1")]).json()["path"] == "/x"
    assert backend.get("/connections")["requests"] == 1


def test_response_without_date_gets_one(make_pair):
    """As HTTP has it, from a backend and from the gateway; a backend's own stays."""
    old = b"Sun, 06 Nov 1994 08:49:37 GMT"
    with RawBackend(lambda r: ok(b"x", b"Date: " + old) if r.target == "/dated" else ok()) as backend:
        pair = make_pair([backend.route(), backend.route("bare", "/bare", headers={"response": {"remove": ["Date"]}}),
                          backend.route("post", "/post", methods=["POST"])])
        assert pair.get("/dated").get("date") == old.decode()
        assert pair.get("/bare").get("date") is None
        for target, status in (("/", 200), ("/post", 405)):
            answer = pair.get(target)
            assert answer.status == status
            assert abs(parsedate_to_datetime(answer.get("date")).timestamp() - time.time()) < 60


def test_trailers_that_connection_names_go_no_further(make_pair, backend):
    """They belong to the connection like header fields of that name, either way."""
    def answer(request):
        named = b"Connection: X-Gone\r\n" if request.target == "/named" else b"Connection: close\r\n"
        return b"HTTP/1.1 200 OK\r\n" + named + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Gone: 1\r\n\r\n"
    with RawBackend(answer) as raw:
        pair = make_pair([route("all", "/", backend), raw.route("raw", "/raw", strip_prefix=True)])
        c = pair.client()
        c.send("POST / HTTP/1.1\r\nHost: x\r\nConnection: X-Gone, TE\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n"
               "0\r\nX-Gone: 1\r\nX-Stays: 2\r\n\r\n")
        assert [name for name, _ in c.read_response().json()["trailers"]] == ["X-Stays"]
        assert pair.get("/raw/named").trailers == []
        assert [name for name, _ in pair.get("/raw/other").trailers] == ["X-Gone"]


def test_hop_by_hop_fields_go_no_further_upstream(pair):
    """Neither the known ones nor those that Connection names."""
    answer = pair.get("/", [("Connection", "keep-alive, X-Private"), ("X-Private", "1"),
                            ("Keep-Alive", "timeout=5"), ("Proxy-Connection", "keep-alive"),
                            ("TE", "trailers"), ("X-Public", "1")])
    names = [n for n, _ in seen(answer)]
    assert "x-public" in names
    for gone in ("x-private", "keep-alive", "proxy-connection"):
        assert gone not in names


def test_hop_by_hop_fields_go_no_further_downstream(pair):
    """The same for the response."""
    answer = pair.get("/hops")
    assert answer.get("x-keep-me") == "1"
    for gone in ("keep-alive", "proxy-connection", "x-drop-me"):
        assert answer.all(gone) == []


def test_host_decides_before_prefix(make_pair, backends):
    """Exact host, then wildcard, then any."""
    exact, wild, anyone = backends("exact", "wild", "any")
    pair = make_pair([
        dict(route("any", "/", anyone)),
        dict(route("wild", "/", wild), host="*.example.com"),
        dict(route("exact", "/", exact), host="api.example.com"),
    ])
    def who(host):
        return pair.get("/", host=host).json()["name"]
    assert who("api.example.com") == "exact"
    assert who("API.Example.COM:8080") == "exact"
    assert who("www.example.com") == "wild"
    assert who("example.org") == "any"


def test_longest_prefix_wins_on_segment_boundaries(make_pair, backends):
    """/api/users takes /api/users and below, not /api/usersX."""
    root, api, users = backends("root", "api", "users")
    pair = make_pair([route("root", "/", root), route("api", "/api", api),
                      route("users", "/api/users", users)])
    def who(path):
        return pair.get(path).json()["name"]
    assert [who(p) for p in ("/", "/x", "/apix")] == ["root"] * 3
    assert [who(p) for p in ("/api", "/api/", "/api?x=/api/users", "/api/usersX")] == ["api"] * 4
    assert [who(p) for p in ("/api/users", "/api/users/", "/api/users/1", "/api/users?a=1")] \
        == ["users"] * 4


def test_prefix_is_stripped_where_asked(make_pair, backend):
    """strip_prefix leaves a path that begins with a slash, and the query as it was."""
    pair = make_pair([route("v1", "/v1", backend, strip_prefix=True),
                      route("v2", "/v2", backend)])
    assert pair.get("/v1/users?x=1").json()["path"] == "/users?x=1"
    assert pair.get("/v1").json()["path"] == "/"
    assert pair.get("/v1?x=1").json()["path"] == "/?x=1"
    assert pair.get("/v2/users").json()["path"] == "/v2/users"


def test_backends_base_path_is_put_before(make_pair, backend):
    """http://host/base is where that backend's paths begin."""
    pair = make_pair([route("all", "/", backend.url + "/base")])
    assert pair.get("/x").json()["path"] == "/base/x"


def test_climbing_path_is_refused(make_pair, backend):
    """No route can be slipped past."""
    pair = make_pair([route("public", "/public", backend)])
    for path in ("/public/../secret", "/public/%2e%2e/secret", "/public/%2E./secret"):
        assert pair.get(path).status == 400


def test_no_route_is_404_with_a_reason(make_pair, backend):
    """The gateway's own errors are small JSON with the request's id."""
    pair = make_pair([route("api", "/api", backend)])
    answer = pair.get("/other", [("X-Request-ID", "seek-1")])
    assert answer.status == 404
    assert answer.get("content-type") == "application/json"
    assert answer.json()["error"] == "no_route"
    assert answer.json()["request_id"] == answer.get("x-request-id") == "seek-1"
    assert answer.json()["message"]


def test_wrong_method_is_405_with_allow(make_pair, backend):
    """Allow lists what the route takes."""
    pair = make_pair([route("api", "/api", backend, methods=["GET", "POST"])])
    answer = pair.request("DELETE", "/api/x")
    assert answer.status == 405
    assert {m.strip() for m in answer.get("allow").split(",")} >= {"GET", "POST"}
    assert "DELETE" not in answer.get("allow")
    assert answer.json()["request_id"]


def test_methods_of_extensions_are_for_the_backend_to_judge(make_pair):
    """Passed on as they came where a route takes all methods; never sent twice."""
    def answer(request):
        if request.target == "/some/reset":
            request.peer.reset()
        return ok(request.method.encode() + request.body())
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route(retries=3), backend.route("some", "/some", methods=["GET"]),
                          backend.route("cut", "/some/reset", retries=3)])
        c = pair.client()
        for method in ("QUERY", "X-Y_Z.1", "PLAY", "Q" * 63):
            assert c.request(method, "/q?a", body=b" it").body == method.encode() + b" it"
        assert c.request("QUERY", "/some").get("allow") == "GET"
        assert c.request("QUERY", "/some/reset").status == 502
        assert len([r for r in backend.requests if r.target == "/some/reset"]) == 1
        assert logged(pair, path="/q?a")[0]["method"] == "QUERY"
        assert logged(pair, path="/some")[0]["reason"] == "no_route"
        wait_until(lambda: pair.metric("gateway_requests_total", method="OTHER", status="200") == 4, "they are counted")


def test_methods_split_one_prefix(make_pair, backends):
    """Reading and writing may go to different backends."""
    reader, writer = backends("reader", "writer")
    pair = make_pair([route("read", "/api", reader, methods=["GET", "HEAD"]),
                      route("write", "/api", writer, methods=["POST"])])
    assert pair.get("/api").json()["name"] == "reader"
    assert pair.request("POST", "/api", body=b"x").json()["name"] == "writer"


def test_head_has_fields_but_no_body(pair):
    """A second request on the connection shows that nothing followed."""
    c = pair.client()
    head = c.request("HEAD", "/stream/5000")
    assert head.status == 200 and head.get("content-length") == "5000" and head.body == b""
    assert c.request("GET", "/").status == 200


@pytest.mark.parametrize("status", [204, 304])
def test_bodiless_statuses_have_no_body(pair, status):
    """204 and 304 end with their head."""
    c = pair.client()
    answer = c.request("GET", f"/status/{status}")
    assert answer.status == status and answer.body == b""
    assert answer.all("transfer-encoding") == []
    assert c.request("GET", "/").status == 200


def test_http10_client_gets_an_answer_that_ends(pair):
    """No chunks for a client that cannot read them; the end of the connection is the end."""
    c = pair.client()
    c.send("GET /stream/3000?chunked=1 HTTP/1.0\r\nHost: x\r\n\r\n")
    answer = c.read_response()
    assert answer.status == 200 and answer.all("transfer-encoding") == []
    assert len(answer.body) == 3000
    assert c.is_closed()


def test_http10_client_may_keep_the_connection(pair):
    """Connection: keep-alive is honoured where the length is known."""
    c = pair.client()
    for _ in range(2):
        c.send("GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
        answer = c.read_response()
        assert answer.status == 200 and answer.get("connection") == "keep-alive"


def test_expectation_is_met_before_the_body(pair):
    """The client that waits for 100 gets it, and then its answer."""
    c = pair.client()
    c.send("POST /sink HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert c.read_head().status == 100
    c.send("hello")
    answer = c.read_response("POST")
    assert answer.status == 200 and answer.json()["bytes"] == 5


def test_interim_responses_are_passed_on(pair):
    """103 Early Hints come before the answer, not instead of it."""
    c = pair.client()
    c.send_request("GET", "/hints")
    first = c.read_head()
    assert first.status == 103 and "style.css" in first.get("link")
    assert c.read_response().status == 200


def test_response_that_ends_with_the_connection_is_complete(pair):
    """A close-delimited body is framed anew, and the client's connection lives on."""
    c = pair.client()
    answer = c.request("GET", "/nolength/5000")
    assert answer.status == 200 and len(answer.body) == 5000
    assert answer.chunked
    assert c.request("GET", "/").status == 200


def test_header_edits_are_made_both_ways(make_pair, backend):
    """set replaces, add adds, remove removes."""
    edits = {"request": {"set": {"X-Set": "new"}, "add": {"X-Add": "2"}, "remove": ["X-Gone"]},
             "response": {"set": {"X-Backend": "hidden"}, "add": {"X-More": "1"},
                          "remove": ["X-Keep-Me"]}}
    pair = make_pair([route("all", "/", backend, headers=edits)])
    answer = pair.get("/hops", [("X-Set", "old"), ("X-Add", "1"), ("X-Gone", "1")])
    assert seen_one(answer, "x-set") == "new"
    assert [v for n, v in seen(answer) if n == "x-add"] == ["1", "2"]
    assert "x-gone" not in [n for n, _ in seen(answer)]
    assert answer.get("x-backend") == "hidden" and answer.get("x-more") == "1"
    assert answer.all("x-keep-me") == []


def test_upgraded_connection_carries_bytes_both_ways(pair):
    """After 101 the gateway is a tunnel."""
    c = pair.client()
    c.send_request("GET", "/upgrade", [("Connection", "Upgrade"), ("Upgrade", "echo")])
    answer = c.read_head()
    assert answer.status == 101 and answer.get("upgrade") == "echo"
    for message in (b"ping", b"x" * 100000):
        c.send(message)
        got = bytearray()
        while len(got) < len(message):
            got += c.sock.recv(65536)
        assert bytes(got) == message
