"""Clients that end their side behind their requests: those that wait for answers get them, those that are gone let go."""
import socket
import threading

import pytest

from harness import DEADLINE, route, wait_until
from rawbackend import RawBackend, logged, ok
from rawhttp import Cut

HOST = b"Host: x\r\n"


def ask(pair, data):
    """Sends and half-closes."""
    c = pair.client()
    c.send(data)
    c.sock.shutdown(socket.SHUT_WR)
    return c


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 60000\r\n\r\n" + b"x" * 60000,
], ids=["get", "http10", "length", "chunked", "long"])
def test_complete_request_is_answered_and_then_the_connection_ends(pair, data):
    """As `nc -N` and many test tools ask; the answer says that it is the last."""
    c = ask(pair, data)
    answer = c.read_response()
    assert answer.status == 200 and c.is_closed()
    assert logged(pair, reason="ok")[0]["status"] == 200


def test_every_pipelined_request_is_answered(pair):
    """In order; of what is not complete nothing comes, and nothing is logged."""
    c = ask(pair, b"".join(b"GET /%d HTTP/1.1\r\n" % i + HOST + b"\r\n" for i in range(20)) + b"GET /half HTTP/1.1\r\nHo")
    assert [c.read_response().json()["path"] for _ in range(20)] == [f"/{i}" for i in range(20)]
    assert c.is_closed()
    assert len(logged(pair, count=20, reason="ok")) == 20


def test_answers_of_our_own_reach_it_too(make_pair, backend):
    """No route, and a malformed request."""
    pair = make_pair([route("some", "/some", backend)])
    for data, status in ((b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", 404), (b"GET / HTTP/1.1\r\n\r\n", 400),
                         (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhel", 404)):
        c = ask(pair, data)
        assert c.read_response().status == status and c.is_closed()


def test_large_answer_comes_whole(pair):
    """Bytes that flow tell that the client is there, however long they do."""
    answer = ask(pair, b"GET /stream/30000000 HTTP/1.1\r\n" + HOST + b"\r\n").read_response()
    assert len(answer.body) == 30000000


def test_answer_with_short_pauses_comes_whole(make_pair):
    """Longer in all than the pause that is allowed."""
    pause = threading.Event()

    def answer(request):
        pause.wait(0.3)
        request.peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            pause.wait(0.3)
            request.peer.send(b"1\r\nx\r\n")
        return b"0\r\n\r\n"
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()])
        c = ask(pair, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert c.read_response().body == b"xxxxx" and c.is_closed()


@pytest.mark.parametrize("begun", [False, True], ids=["before-the-answer", "within-the-answer"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_silent_backend_is_let_go_soon(make_pair, begun, version):
    """Nobody can tell a client that waits from one that is gone: after a second it counts as gone, long before any
    timeout. One that was still there sees that its answer was cut short."""
    def answer(request):
        if begun:
            request.peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbegun")
        assert request.peer.ended()
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route(timeout_seconds=600, response_idle_timeout_seconds=600)])
        c = ask(pair, b"GET /silent HTTP/%b\r\n" % version.encode() + HOST + b"\r\n")
        with pytest.raises((Cut, ConnectionResetError)):
            c.read_response()
        line = logged(pair, path="/silent")[0]
        assert (line["reason"], line["status"]) == ("client_closed", 200 if begun else 499)
        assert 1000 <= line["duration_ms"] < 5000
        wait_until(lambda: backend.peers[0].saw_end, "the backend is let go")


def test_incomplete_request_is_given_up_at_once(make_pair):
    """Nothing could be answered: no second is waited."""
    with RawBackend(lambda request: request.peer.ended() and None) as backend:
        pair = make_pair([backend.route()])
        for framing in (b"Content-Length: 10\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"):
            c = pair.client()
            c.send(b"POST /cut HTTP/1.1\r\n" + HOST + framing)
            wait_until(lambda: backend.requests, "the backend has the request")
            backend.requests.clear()
            c.sock.shutdown(socket.SHUT_WR)
            assert c.is_closed()
        assert all(line["reason"] == "client_closed" for line in logged(pair, count=2, path="/cut"))


@pytest.mark.parametrize("behind", [b"", b"hello"])
def test_upgrade_request_with_a_half_close_becomes_a_half_closed_tunnel(make_pair, behind):
    """What was sent behind it and the end travel on to the backend, and what that says then still comes."""
    def answer(request):
        request.peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n")
        assert request.peer.exactly(len(behind)) == behind and request.peer.ended()
        return request.peer.send(b"goodbye")
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()])
        c = ask(pair, b"GET / HTTP/1.1\r\n" + HOST + b"Connection: upgrade\r\nUpgrade: chat\r\n\r\n" + behind)
        assert c.read_head().status == 101
        c.sock.settimeout(DEADLINE)
        while b"goodbye" not in c.rest:
            data = c.sock.recv(100)
            assert data, "it ended without it"
            c.rest += data
        assert c.is_closed()


def test_retries_go_on_for_it(make_pair):
    """A half-closed client's request is tried again like any other's."""
    answers = [None, ok(b"again")]
    with RawBackend(lambda _: answers.pop(0)) as backend:
        pair = make_pair([backend.route(retries=1)])
        c = ask(pair, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert c.read_response().body == b"again" and c.is_closed()
