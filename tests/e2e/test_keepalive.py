"""Connections are kept on both sides, and a dead one is never the client's trouble."""
import signal
import socket
import struct

import pytest

from harness import route, wait_until
from rawbackend import RawBackend, ok


def test_client_connection_is_kept(pair):
    """Many requests on one connection."""
    c = pair.client()
    for i in range(50):
        answer = c.request("GET", f"/{i}")
        assert answer.status == 200 and answer.json()["path"] == f"/{i}"


def test_upstream_connection_is_used_again(make_pair, backend):
    """Sequential requests on one client connection need one backend connection."""
    pair = make_pair([route("all", "/", backend)])
    c = pair.client()
    for _ in range(50):
        assert c.request("GET", "/x").status == 200
    assert backend.get("/connections")["used"] == 1


def test_workers_keep_few_upstream_connections(make_pair, backend):
    """New client connections use the kept backend connections: one a worker at most."""
    pair = make_pair([route("all", "/", backend)])
    for _ in range(40):
        assert pair.get("/x").status == 200
    assert backend.get("/connections")["used"] <= 2


def test_connection_close_is_obeyed(pair):
    """The client that asks for the end gets it, after the whole answer."""
    c = pair.client()
    answer = c.request("GET", "/stream/100000", [("Connection", "close")])
    assert answer.status == 200 and len(answer.body) == 100000
    assert answer.get("connection") == "close" and c.is_closed()


SEGS_IN = 140  # offset in struct tcp_info


@pytest.mark.parametrize("path,status", [("/served/1", 200), ("/elsewhere", 404)])
def test_end_travels_with_the_last_bytes(make_pair, path, status):
    """Three segments: the connection, at most an acknowledgement of the request, the answer together with the end."""
    with RawBackend(lambda _: ok()) as backend:
        c = make_pair([backend.route("served", "/served")]).client()
        assert c.request("GET", path, [("Connection", "close")]).status == status
        assert c.is_closed()
    info = c.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    (segments,) = struct.unpack_from("=I", info, SEGS_IN)
    assert 2 <= segments <= 3


def test_backends_close_does_not_close_the_client(pair):
    """Each side's connection is its own affair."""
    c = pair.client()
    for _ in range(3):
        answer = c.request("GET", "/?close=1")
        assert answer.status == 200 and answer.get("connection") is None


def test_pipelined_requests_are_answered_in_order(pair):
    """Three requests in one piece."""
    c = pair.client()
    c.send("".join(f"GET /{i} HTTP/1.1\r\nHost: x\r\n\r\n" for i in range(3)))
    assert [c.read_response().json()["path"] for _ in range(3)] == ["/0", "/1", "/2"]


def test_request_in_single_bytes_is_understood(pair):
    """A head may come in any number of pieces."""
    c = pair.client()
    for byte in b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n":
        c.send(bytes([byte]))
    assert c.read_response().json()["path"] == "/slow"


@pytest.mark.parametrize("path", ["/lastone", "/trap"])
def test_stale_upstream_connection_is_not_visible(pair, path):
    """The backend closed a kept connection, or closes it on the next request: a GET goes again."""
    for _ in range(10):
        c = pair.client()
        assert c.request("GET", path).status == 200
        assert c.request("GET", "/after").status == 200


def test_idle_client_connection_is_closed_in_time(make_pair, backend):
    """idle_timeout_seconds, without a word."""
    pair = make_pair([route("all", "/", backend)], server={"idle_timeout_seconds": 0.5})
    c = pair.client()
    assert c.request("GET", "/").status == 200
    assert c.is_closed()


def test_slow_head_is_408(make_pair, backend):
    """header_timeout_seconds for the whole head, however many bytes trickle in."""
    pair = make_pair([route("all", "/", backend)], server={"header_timeout_seconds": 0.5})
    c = pair.client()
    c.send("GET / HTTP/1.1\r\nHost:")
    answer = c.read_response()
    assert answer.status == 408 and answer.get("connection") == "close" and c.is_closed()


def test_requests_per_connection_are_limited(make_pair, backend):
    """max_requests_per_connection: the last answer says close."""
    pair = make_pair([route("all", "/", backend)], server={"max_requests_per_connection": 3})
    c = pair.client()
    answers = [c.request("GET", "/") for _ in range(3)]
    assert [a.get("connection") for a in answers] == [None, None, "close"]
    assert c.is_closed()


def test_leaving_clients_leave_nothing_behind(pair):
    """Clients that go in the middle of anything; the descriptors are checked at the end."""
    for text in ("", "GET ", "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                 "GET /delay/5 HTTP/1.1\r\nHost: x\r\n\r\n",
                 "POST /sink HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
                 "GET /stream/50000000 HTTP/1.1\r\nHost: x\r\n\r\n"):
        for _ in range(5):
            c = pair.client()
            c.send(text)
            c.close()
    wait_until(lambda: pair.get("/").status == 200, "the gateway goes on")


def test_empty_line_behind_a_request_begins_no_other(make_pair, backend):
    """Some old clients send one; the connection is idle, not late with a head."""
    pair = make_pair([route("all", "/", backend)], server={"header_timeout_seconds": 0.2})
    c = pair.client()
    c.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n\r\n\r\n")
    assert c.read_response().status == 200
    assert not c.is_closed(0.5)
    c.send("\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n")
    assert c.read_response().json()["path"] == "/b"


@pytest.mark.parametrize("news", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"], ids=["end", "bytes"])
def test_connection_with_news_is_not_used_again(make_pair, news):
    """What came before the next request was written is seen, also when both were told of in one turn."""
    with RawBackend(lambda request: ok(request.body())) as backend:
        pair = make_pair([backend.route(retries=0)], server={"workers": 1})
        c = pair.client()
        for _ in range(5):
            assert c.request("POST", "/", body=b"first").body == b"first"
            used = len(backend.peers)
            pair.dataplane.signal(signal.SIGSTOP)
            try:
                if news:
                    backend.peers[-1].send(news)
                else:
                    backend.peers[-1].drop()
                c.send_request("POST", "/", body=b"second")
            finally:
                pair.dataplane.signal(signal.SIGCONT)
            answer = c.read_response("POST")
            assert (answer.status, answer.body) == (200, b"second")
            assert len(backend.peers) == used + 1
