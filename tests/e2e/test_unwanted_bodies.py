"""Requests that are answered before their body is there: the connection goes on, whatever the segments, or ends cleanly."""
import threading

import pytest

from harness import route, wait_until
from rawbackend import RawBackend, logged, ok

KEPT_BYTES = 256 * 1024  # as the README says


@pytest.fixture
def refusing(make_pair, backend):
    """Routes /kept only: all else is 404."""
    return make_pair([route("kept", "/kept", backend)], server={"read_timeout_seconds": 1})


def head(*fields):
    """Of a request that has no route."""
    return "\r\n".join(["POST /none HTTP/1.1", "Host: x", *fields, "", ""])


def chunked(body, size):
    """A body in chunks of that size, with a trailer."""
    pieces = [body[i:i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\nX-Sum: 1\r\n\r\n"


@pytest.mark.parametrize("framing,body", [
    ("Content-Length: 5", b"hello"),
    ("Content-Length: 200000", b"x" * 200000),
    ("Transfer-Encoding: chunked", chunked(b"hello" * 100, 7)),
    ("Transfer-Encoding: chunked", chunked(b"x" * 100000, 9000)),
], ids=["short", "long", "short-chunks", "long-chunks"])
def test_connection_goes_on_behind_a_body_that_comes_later(refusing, framing, body):
    """The answer comes first, without "close"; what follows the body is the next request."""
    c = refusing.client()
    for _ in range(3):
        c.send(head(framing))
        answer = c.read_response("POST")
        assert answer.status == 404 and answer.get("connection") is None
        c.send(body[:3])
        c.send(body[3:] + b"GET /kept/on HTTP/1.1\r\nHost: x\r\n\r\n")
        assert c.read_response().json()["path"] == "/kept/on"


def test_body_in_single_bytes_is_skipped(refusing):
    """Framing may be cut anywhere."""
    c = refusing.client()
    c.send(head("Transfer-Encoding: chunked"))
    assert c.read_response("POST").status == 404
    for byte in chunked(b"hello", 2):
        c.send(bytes([byte]))
    assert c.request("GET", "/kept").status == 200


def test_log_does_not_wait_for_the_body(refusing):
    """The request is over when it is answered."""
    c = refusing.client()
    c.send(head("Content-Length: 5"))
    assert c.read_response("POST").status == 404
    assert logged(refusing, path="/none")[0]["status"] == 404
    assert refusing.metric("gateway_downstream_requests_active") == 0
    c.send(b"hello")
    assert c.request("GET", "/kept").status == 200


def test_large_body_ends_the_connection(refusing):
    """Announced as too large to be worth it: the answer says so, and is not destroyed by a reset."""
    c = refusing.client()
    c.send(head(f"Content-Length: {KEPT_BYTES + 1}"))
    answer = c.read_response("POST")
    assert answer.status == 404 and answer.get("connection") == "close"
    c.send(b"x" * 100000)
    assert c.is_closed()


def test_endless_chunks_end_the_connection(refusing):
    """What is skipped is bounded."""
    c = refusing.client()
    c.send(head("Transfer-Encoding: chunked"))
    assert c.read_response("POST").status == 404
    c.send(chunked(b"x" * KEPT_BYTES * 2, 5000))
    assert c.is_closed()


def test_body_that_stops_ends_the_connection(refusing):
    """In read_timeout_seconds."""
    c = refusing.client()
    c.send(head("Content-Length: 5"))
    assert c.read_response("POST").status == 404
    c.send(b"hel")
    assert c.is_closed()


@pytest.mark.parametrize("rest", [b"5\r\nhello0\r\n\r\n", b"-1\r\n", b"0\r\nContent-Length: 3\r\n\r\n"])
def test_malformed_body_ends_the_connection(refusing, rest):
    """Where it ends nobody knows: nothing behind it is taken for a request."""
    c = refusing.client()
    c.send(head("Transfer-Encoding: chunked"))
    assert c.read_response("POST").status == 404
    c.send(rest + b"GET /kept HTTP/1.1\r\nHost: x\r\n\r\n")
    assert c.is_closed()
    assert not [line for line in refusing.access_lines() if line["path"] == "/kept"]


def test_client_that_waits_for_100_is_told_that_the_connection_ends(refusing):
    """It may send the body or not: what came next would have two readings."""
    c = refusing.client()
    c.send(head("Content-Length: 5", "Expect: 100-continue"))
    answer = c.read_response("POST")
    assert answer.status == 404 and answer.get("connection") == "close"
    c.send(b"GET /kept HTTP/1.1\r\nHost: x\r\n\r\n")
    assert c.is_closed()


def test_client_that_goes_away_in_its_unwanted_body_costs_nothing(refusing):
    """Its connection is closed, and nothing more is logged."""
    for _ in range(5):
        with refusing.client() as c:
            c.send(head("Content-Length: 5"))
            assert c.read_response("POST").status == 404
    wait_until(lambda: refusing.metric("gateway_downstream_connections_active") == 0, "they are gone")
    assert {line["reason"] for line in logged(refusing, count=5, path="/none")} == {"no_route"}


@pytest.mark.parametrize("fields, tells", [
    ([f"Content-Length: {KEPT_BYTES + 1}"], "close"), (["Content-Length: 5", "Expect: 100-continue"], "close"),
    (["Content-Length: 5"], None)], ids=["large", "expect", "small"])
def test_early_refusal_of_a_backend_tells_the_end(make_pair, fields, tells):
    """That the connection will end behind it is known, so the client is told (RFC 9110 10.1.1)."""
    def answer(request):
        request.peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        request.peer.ended()
    with RawBackend(answer) as backend:
        c = make_pair([backend.route()]).client()
        c.send(head(*fields))
        early = c.read_response("POST")
        assert early.status == 413 and early.get("connection") == tells
        assert not tells or c.is_closed()


def test_early_answer_of_a_backend_keeps_the_client_too(make_pair):
    """Whose answer it was makes no difference; the connection to the backend is out of step and ends."""
    ended = threading.Event()

    def answer(request):
        if request.method == "POST":
            request.peer.send(ok(b"early"))
            assert request.peer.ended()
            ended.set()
            return None
        return ok()
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()])
        c = pair.client()
        c.send(head("Content-Length: 5"))
        assert c.read_response("POST").body == b"early"
        assert ended.wait(5)
        c.send(b"hello")
        assert c.request("GET", "/next").status == 200
        assert len(backend.peers) == 2
