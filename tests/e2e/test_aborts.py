"""Clients that go away, backends that answer early: the other side is let go at once, nobody is harmed."""
import select
import socket
import struct
import threading
import time

import pytest

from harness import DEADLINE, wait_until
from rawbackend import RawBackend, logged, ok, stands_still

WHILE = {
    "uploading": b"POST /uploading HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50000,
    "uploading-chunks": b"POST /uploading-chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
    "waiting": b"GET /waiting HTTP/1.1\r\nHost: x\r\n\r\n",
    "waiting-pipelined": b"GET /waiting-pipelined HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n",
    "downloading": b"GET /downloading HTTP/1.1\r\nHost: x\r\n\r\n",
    "downloading-stuck": b"GET /downloading-stuck HTTP/1.1\r\nHost: x\r\n\r\n",
}


def leave(c, how):
    """The client goes: FIN, or RST."""
    if how == "rst":
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("when", WHILE)
def test_client_that_goes_away_lets_its_backend_go(make_pair, when, how):
    """The backend sees the end at once, long before any timeout, and the log says whose doing it was."""
    written = []

    def answer(request):
        if when == "downloading":
            request.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegun")
        while when == "downloading-stuck":
            request.peer.send(b"x" * 65536 if written else b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
            written.append(1)
        assert request.peer.ended()
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route(timeout_seconds=600, response_idle_timeout_seconds=600)],
                         server={"read_timeout_seconds": 600, "write_timeout_seconds": 600})
        c = pair.client(receive_buffer=16384)
        c.send(WHILE[when])
        wait_until(lambda: backend.requests, "the backend has the request")
        if when.startswith("downloading"):
            assert c.read_head().status == 200
        if when == "downloading-stuck":
            stands_still(lambda: len(written))
            how_it_ends = "rst"  # unread bytes make every close a reset
        else:
            how_it_ends = how
        leave(c, how_it_ends)
        if when != "downloading-stuck":
            wait_until(lambda: backend.peers[0].saw_end, "the backend is let go")
        line = logged(pair, path="/" + when)[0]
        assert line["reason"] == "client_closed"
        assert line["status"] == (200 if when.startswith("downloading") else 499)
        assert [r.target for r in backend.requests] == ["/" + when]
        assert len(backend.peers) == 1, "it is not tried again"
    wait_until(lambda: pair.metric("gateway_upstream_connections_active") == 0, "all is let go")


def test_client_that_goes_away_before_the_backend_is_connected(make_pair):
    """There is nothing to let go but an attempt."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = []
        for _ in range(4):
            fillers.append(socket.socket())
            fillers[-1].setblocking(False)
            fillers[-1].connect_ex(full.getsockname())
        try:
            with RawBackend(lambda _: ok()) as backend:
                pair = make_pair([backend.route(), dict(backend.route("full", "/full", connect_timeout_seconds=60),
                                                        backends=[{"url": f"http://127.0.0.1:{full.getsockname()[1]}"}])])
                c = pair.client()
                c.send_request("POST", "/full", body=b"x")
                wait_until(lambda: pair.metric("gateway_upstream_connections_active") == 1, "it is tried")
                c.close()
                assert logged(pair, path="/full")[0]["status"] == 499
                wait_until(lambda: pair.metric("gateway_upstream_connections_active") == 0, "no longer")
        finally:
            for filler in fillers:
                filler.close()


@pytest.mark.parametrize("keep", [True, False], ids=["backend-stays", "backend-closes"])
def test_answer_before_the_end_of_the_upload_is_passed_on_at_once(make_pair, keep):
    """Whole, although the client goes on sending for a while before it reads: no reset may overtake it."""
    body = b"no thanks " * 5000
    done = threading.Event()

    def answer(request):
        request.peer.send(ok(body))
        if keep:
            request.peer.ended()
            done.set()
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()])
        c = pair.client()
        c.send_request("POST", "/early", [("Content-Length", "50000000")])
        # The head alone has brought the answer, and so the end of the exchange.
        assert logged(pair, path="/early")[0]["status"] == 200
        try:
            for _ in range(100):
                c.send(b"x" * 10000)
        except (BrokenPipeError, ConnectionResetError):
            pytest.fail("reset while the client was still sending")
        answer = c.read_response("POST")
        assert answer.status == 200 and answer.body == body
        assert c.is_closed()
        if keep:
            assert done.wait(DEADLINE), "a connection out of step is not kept"
        assert backend.peers[0].served == 1


def test_early_answer_while_the_backend_does_not_read(make_pair):
    """The upload is stuck in front of the backend; its answer comes all the same."""
    go = threading.Event()

    def answer(request):
        assert go.wait(DEADLINE)
        return ok(b"enough")
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()])
        c = pair.client()
        c.send_request("POST", "/", [("Transfer-Encoding", "chunked")])
        sent = []

        def upload():
            try:
                while len(sent) < 10000:
                    c.send_chunk(b"x" * 65536)
                    sent.append(1)
            except OSError:
                pass
        sender = threading.Thread(target=upload)
        sender.start()
        stands_still(lambda: len(sent))
        go.set()
        answer = c.read_response("POST")
        assert answer.status == 200 and answer.body == b"enough"
        sender.join(DEADLINE)
        assert not sender.is_alive()


def test_backend_that_resets_during_an_upload_is_502_unless_it_has_answered(make_pair):
    """What it said before counts; what it did not say is ours to say."""
    def answer(request):
        if request.target == "/said":
            request.peer.send(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            request.peer.half_close()
            request.peer.ended()
        else:
            request.peer.reset()
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()])
        for target, status in (("/said", 413), ("/silent", 502)):
            c = pair.client()
            c.send_request("POST", target, [("Content-Length", "10000000")])

            def upload(c=c):
                try:
                    for _ in range(100):
                        c.send(b"x" * 100000)
                except OSError:
                    pass
            sender = threading.Thread(target=upload)
            sender.start()
            assert c.read_response("POST").status == status
            sender.join(DEADLINE)
        assert len(backend.requests) == 2


def test_refused_client_that_sends_all_before_it_reads_gets_its_answer(make_pair):
    """Many clients do, and may need longer for that than any short wait for the end of a connection."""
    with RawBackend(lambda _: ok()) as backend:
        pair = make_pair([backend.route(max_body_bytes=1000)])
        c = pair.client()
        c.send_request("POST", "/", [("Content-Length", "100000000")])
        start = time.monotonic()
        while time.monotonic() - start < 3.0:
            c.send(b"x" * 1000)
            select.select([], [], [], 0.01)
        assert c.read_response("POST").status == 413
        assert c.is_closed()
