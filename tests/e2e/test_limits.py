"""Every limit and timeout of the configuration reference: its status, its word in the access log."""
import socket
import threading
import time

import pytest

from harness import DEADLINE, SCALE, route, wait_until
from rawbackend import RawBackend, logged, ok, outcome
from rawhttp import Cut

SHORT = 0.3 * SCALE


def check_refusal(c, status, method="GET"):
    """The answer is that, in the gateway's own words, and the connection ends."""
    answer = c.read_response(method)
    assert answer.status == status and answer.get("connection") == "close", answer
    assert answer.json()["error"] and c.is_closed()


# ---- time ----

def test_header_timeout_is_for_the_whole_head(make_pair, backend):
    """Bytes that trickle in do not prolong it, whatever the other timeouts are; nor for a later request."""
    pair = make_pair([route("all", "/", backend)],
                     server={"header_timeout_seconds": SHORT, "read_timeout_seconds": 60, "idle_timeout_seconds": 60})
    for before in (0, 1):
        c = pair.client()
        for _ in range(before):
            assert c.request("GET", "/").status == 200
        stop = threading.Event()

        def trickle(c=c, stop=stop):
            c.send("GET /slow HTTP/1.1\r\nHost: x\r\n")
            while not stop.wait(0.02):
                try:
                    c.send("X")
                except OSError:
                    return
        start = time.monotonic()
        sender = threading.Thread(target=trickle)
        sender.start()
        answer = c.read_response()
        stop.set()
        sender.join()
        assert answer.status == 408 and answer.get("connection") == "close"
        assert SHORT * 0.9 <= time.monotonic() - start
    assert len(logged(pair, count=2, status=408, reason="client_timeout")) == 2


def test_silent_client_is_closed_without_a_word(make_pair, backend):
    """A connection on which nothing was ever sent has asked nothing, so it gets no answer."""
    pair = make_pair([route("all", "/", backend)], server={"header_timeout_seconds": SHORT})
    assert pair.client().is_closed()
    assert pair.access_lines() == []


def test_idle_timeout_counts_from_the_last_answer(make_pair, backend):
    """A connection in use stays; one that is not ends, without a word."""
    pair = make_pair([route("all", "/", backend)],
                     server={"idle_timeout_seconds": SHORT, "header_timeout_seconds": 60})
    c = pair.client()
    start = time.monotonic()
    while time.monotonic() - start < 2 * SHORT:
        assert c.request("GET", "/").status == 200
    assert c.is_closed()


def test_read_timeout_is_for_silence_only(make_pair, backend):
    """A body may take any time while it comes; one that stops coming is a 408."""
    pair = make_pair([route("all", "/", backend)],
                     server={"read_timeout_seconds": SHORT, "header_timeout_seconds": 60})
    for framing in (("Content-Length", "1000000"), ("Transfer-Encoding", "chunked")):
        c = pair.client()
        c.send_request("POST", "/sink/" + framing[1], [framing])
        start = time.monotonic()
        while time.monotonic() - start < 2 * SHORT:
            c.send_chunk(b"x")
            threading.Event().wait(0.01)
        check_refusal(c, 408, "POST")
        assert outcome(pair, "/sink/" + framing[1]) == (408, "client_timeout")


def test_write_timeout_ends_a_client_that_does_not_read(make_pair):
    """However the response is framed; and the backend is let go."""
    size = 64 * 1024 * 1024

    def answer(request):
        framing = {"/length": b"Content-Length: %d\r\n" % size, "/chunked": b"Transfer-Encoding: chunked\r\n",
                   "/close": b""}[request.target]
        request.peer.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
        piece = b"x" * 65536
        for _ in range(size // len(piece)):
            request.peer.send(b"10000\r\n" + piece + b"\r\n" if request.target == "/chunked" else piece)
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()], server={"write_timeout_seconds": SHORT})
        clients = []
        for target in ("/length", "/chunked", "/close"):
            clients.append(pair.client(receive_buffer=16384))
            clients[-1].send_request("GET", target)
        for c, target in zip(clients, ("/length", "/chunked", "/close")):
            assert outcome(pair, target) == (200, "client_timeout")
            with pytest.raises((Cut, ConnectionResetError)):
                c.read_response()
        wait_until(lambda: pair.metric("gateway_upstream_connections_active") == 0, "backends are let go")


def test_write_timeout_ends_a_client_that_sends_and_does_not_read(make_pair):
    """An echo whose answer nobody takes stands still on all sides, but not for ever."""
    def answer(request):
        request.peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            piece = request.peer.some()
            request.peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()], server={"write_timeout_seconds": SHORT})
        c = pair.client(receive_buffer=16384)
        c.send_request("POST", "/echo", [("Content-Length", str(1024 * 1024 * 1024))])

        def upload():
            try:
                while True:
                    c.send(b"x" * 65536)
            except OSError:
                pass
        sender = threading.Thread(target=upload)
        sender.start()
        assert outcome(pair, "/echo") == (200, "client_timeout")
        sender.join(DEADLINE)
        assert not sender.is_alive()


def test_write_timeout_is_for_standstill_only(make_pair):
    """A client that reads slowly gets everything."""
    size = 3 * 1024 * 1024
    with RawBackend(lambda _: ok(b"x" * size)) as backend:
        pair = make_pair([backend.route()], server={"write_timeout_seconds": SHORT})
        c = pair.client(receive_buffer=16384)
        c.send_request("GET", "/")
        head = c.read_head()
        start, got = time.monotonic(), 0
        for piece in c.read_pieces(head):
            got += len(piece)
            if time.monotonic() - start < 3 * SHORT:
                threading.Event().wait(SHORT / 20)
        assert got == size


def test_connect_timeout_is_504(make_pair):
    """A backend whose backlog is full neither accepts nor refuses."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        fillers = []
        try:
            for _ in range(4):
                fillers.append(socket.socket())
                fillers[-1].setblocking(False)
                fillers[-1].connect_ex(address)
            pair = make_pair([route("all", "/", f"http://127.0.0.1:{address[1]}", retries=0,
                                    connect_timeout_seconds=SHORT, health_check={"enabled": False})])
            for method in ("GET", "POST"):
                answer = pair.request(method, "/", body=b"x")
                assert answer.status == 504 and answer.json()["error"] == "connect_timeout"
            assert outcome(pair, "/") == (504, "connect_timeout")
            wait_until(lambda: pair.metric("gateway_upstream_connect_failures_total") == 2, "they are counted")
        finally:
            for filler in fillers:
                filler.close()


@pytest.mark.parametrize("where", ["silent", "half-a-head", "interim"])
def test_route_timeout_is_for_the_whole_head(make_pair, where):
    """timeout_seconds ends with the backend's final head, not before."""
    def answer(request):
        request.peer.send({"silent": b"", "half-a-head": b"HTTP/1.1 200 OK\r\nX",
                           "interim": b"HTTP/1.1 103 Early Hints\r\n\r\n"}[where])
        assert request.peer.ended()
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route(timeout_seconds=SHORT, retries=2)])
        answer = pair.request("GET", "/")
        assert answer.status == 504 and answer.json()["error"] == "upstream_timeout"
        assert outcome(pair, "/") == (504, "upstream_timeout")
        assert len(backend.requests) == 1, "what took too long is not begun again"
        wait_until(lambda: backend.peers[0].saw_end, "the backend is let go")


def test_body_may_take_longer_than_the_routes_timeout(make_pair):
    """timeout_seconds does not end a response that has begun."""
    def answer(request):
        request.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
        for _ in range(20):
            threading.Event().wait(SHORT / 6)
            request.peer.send(b"x")
        return b""
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route(timeout_seconds=SHORT, response_idle_timeout_seconds=2 * SHORT)])
        assert pair.get("/").body == b"x" * 20


# ---- size ----

def test_head_limits_are_told_apart(make_pair, backend):
    """414 for the target, 431 for the fields, exactly at the bound, and a configured one at that."""
    most = 8192
    pair = make_pair([route("all", "/", backend)], server={"max_header_bytes": most, "max_headers": 30})

    def get(target, fields=b""):
        c = pair.client()
        c.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n")
        return c
    bare = len(b"GET / HTTP/1.1\r\nHost: x\r\nX: \r\n\r\n")
    fits = get(b"/", b"X: " + b"y" * (most - bare) + b"\r\n").read_response()
    assert fits.status == 200
    for fields in (b"X: " + b"y" * (most - bare + 1) + b"\r\n", b"X: " + b"y" * 100000,
                   b"".join(b"X-%d: %b\r\n" % (n, b"y" * 400) for n in range(25)),
                   b"X" * 300 + b": y\r\n"):
        check_refusal(get(b"/431", fields), 431)
    assert get(b"/", b"".join(b"X-%d: y\r\n" % n for n in range(29))).read_response().status == 200
    check_refusal(get(b"/431", b"".join(b"X-%d: y\r\n" % n for n in range(30))), 431)
    assert get(b"/" + b"x" * (most - 60)).read_response().status == 200
    for extra in (1, 100000):
        check_refusal(get(b"/414" + b"x" * (most + extra)), 414)
    wait_until(lambda: len(pair.access_lines()) == 10, "all are logged")
    refused = [line for line in pair.access_lines() if line["status"] != 200]
    assert {(line["status"], line["reason"]) for line in refused} == {(431, "too_large"), (414, "too_large")}
    assert len(refused) == 7


def test_route_overrides_the_servers_body_limit(make_pair):
    """413 by the announced length at once, by chunks as soon as they are too many; exactly at the bound."""
    with RawBackend(lambda r: ok(b"%d" % len(r.body()))) as backend:
        pair = make_pair([backend.route(name="more", prefix="/more", max_body_bytes=5000),
                          backend.route(name="less", prefix="/less", max_body_bytes=10),
                          backend.route()], server={"max_body_bytes": 1000})
        for target, most in (("/", 1000), ("/more", 5000), ("/less", 10)):
            assert pair.request("POST", target, body=b"x" * most).body == b"%d" % most
            c = pair.client()
            c.send_request("POST", target, [("Transfer-Encoding", "chunked")])
            for _ in range(most):
                c.send_chunk(b"x")
            c.send_chunk(b"")
            assert c.read_response("POST").body == b"%d" % most
            seen = len(backend.requests)
            c = pair.client()
            c.send_request("POST", target, [("Content-Length", str(most + 1))])
            check_refusal(c, 413, "POST")
            logged(pair, path=target, status=413, reason="too_large")
            assert len(backend.requests) == seen
            c = pair.client()
            c.send_request("POST", target + "?chunked", [("Transfer-Encoding", "chunked")])
            c.send_chunk(b"x" * most)
            c.send_chunk(b"x")
            check_refusal(c, 413, "POST")
            assert outcome(pair, target + "?chunked") == (413, "too_large")


def test_body_limit_stops_an_upload_under_way(make_pair):
    """The backend, which has seen a part of it, must not take that for the whole."""
    wholes = []

    def answer(request):
        wholes.append(request.body())
        return ok()
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route(max_body_bytes=100000)])
        c = pair.client()
        c.send_request("POST", "/", [("Transfer-Encoding", "chunked")])
        c.send_chunk(b"x" * 60000)
        wait_until(lambda: backend.requests, "the first part is on its way")
        c.send_chunk(b"x" * 60000)
        check_refusal(c, 413, "POST")
        wait_until(lambda: backend.peers[0].saw_end, "the backend's connection ends")
        assert not wholes


def test_requests_per_connection_count_the_gateways_own_answers(make_pair, backend):
    """max_requests_per_connection."""
    pair = make_pair([route("all", "/api", backend)], server={"max_requests_per_connection": 4})
    c = pair.client()
    answers = [c.request("GET", target) for target in ("/api", "/none", "/api", "/none")]
    assert [a.status for a in answers] == [200, 404, 200, 404]
    assert [a.get("connection") for a in answers] == [None, None, None, "close"]
    assert c.is_closed()
