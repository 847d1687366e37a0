"""Upgraded connections: bytes both ways, each way ending on its own, nobody's snapshot held."""
import signal
import threading
import time

import pytest

from backend import pattern, pattern_pieces
from harness import DEADLINE, SCALE, route, wait_until
from rawbackend import RawBackend, logged, ok, stands_still
from rawhttp import Client

WISH = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "chat/2")]
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat/2\r\n\r\n"


def read_exactly(c, count):
    """So many bytes from behind the head."""
    while len(c.rest) < count:
        data = c.sock.recv(65536)
        assert data, f"the end came after {len(c.rest)} of {count} bytes"
        c.rest += data
    piece = bytes(c.rest[:count])
    del c.rest[:count]
    return piece


def tunnel(pair, target="/upgrade", wish=WISH):
    """A client whose connection was upgraded."""
    c = pair.client()
    c.send_request("GET", target, wish)
    head = c.read_head()
    assert head.status == 101, head
    assert head.get("upgrade") == wish[1][1] and "upgrade" in head.get("connection").lower()
    return c


def talk(c, words=b"are you there?"):
    """Says something and waits for the echo."""
    c.send(words)
    assert read_exactly(c, len(words)) == words


def scripted(make_pair, behave, server=None, **more):
    """A pair before a backend that switches, then does as told with the connection."""
    def answer(request):
        request.peer.send(SWITCH)
        behave(request.peer)
    backend = RawBackend(answer)
    return make_pair([backend.route(**more)], server=server), backend


def test_handshake_reaches_the_backend_as_it_was_meant(make_pair):
    """Upgrade and its Connection are this hop's own; everything else passes."""
    pair, backend = scripted(make_pair, lambda peer: peer.ended())
    with backend:
        c = pair.client()
        c.send_request("GET", "/ws", [("Connection", "upgrade, X-Hop"), ("Upgrade", "websocket"),
                                      ("X-Hop", "1"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZQ==")])
        assert c.read_head().status == 101
        request = backend.requests[0]
        assert request.get("upgrade") == "websocket" and request.get("connection") == "upgrade"
        assert request.get("sec-websocket-key") == "dGhlIHNhbXBsZQ==" and request.get("x-hop") is None


@pytest.mark.parametrize("fields, body", [
    ([("Content-Length", "0")], b""),
    ([("Content-Length", "5")], b"hello"),
    ([("Transfer-Encoding", "chunked")], b"5\r\nhello\r\n0\r\n\r\n"),
], ids=["empty", "length", "chunked"])
def test_request_for_an_upgrade_may_have_a_body(make_pair, fields, body):
    """As container runtimes and orchestrators send it: the switch comes behind it, and what follows is not framed."""
    got = []

    def answer(request):
        got.append(request.body())
        request.peer.send(SWITCH)
        got.append(request.peer.exactly(19))
        request.peer.send(b"so I was")
        request.peer.ended()
    with RawBackend(answer) as backend:
        c = make_pair([backend.route()]).client()
        c.send_request("POST", "/", [*WISH, *fields], body)
        assert c.read_head().status == 101
        c.send(b"you were asked\r\n0\r\n")
        assert read_exactly(c, 8) == b"so I was"
        assert got == [b"hello" if b"hello" in body else b"", b"you were asked\r\n0\r\n"]
        c.close()


def test_switch_before_the_requests_end_is_502(make_pair):
    """What the client sends next would be the body to one and the tunnel's to the other (RFC 9110 7.8)."""
    with RawBackend(lambda _: SWITCH) as backend:
        c = make_pair([backend.route(retries=0)]).client()
        c.send_request("POST", "/", [*WISH, ("Content-Length", "5")])
        assert c.read_response("POST").status == 502


def test_bytes_behind_the_handshake_are_not_lost(make_pair):
    """The client's come in the segment of its request, the backend's in that of its 101."""
    def answer(request):
        request.peer.send(SWITCH + b"backend first")
        assert request.peer.exactly(12) == b"client first"
        request.peer.send(b", backend second")
        assert request.peer.exactly(15) == b", client second"
        request.peer.ended()
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()])
        c = pair.client()
        c.send("GET /early HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: chat/2\r\n\r\nclient first")
        assert c.read_head().status == 101
        assert read_exactly(c, 29) == b"backend first, backend second"
        c.send(", client second")
        c.close()
        wait_until(lambda: backend.peers[0].saw_end, "the backend learns of the end")


def test_large_transfers_cross_unharmed(pair):
    """Megabytes each way at once, through small buffers."""
    size = 6 * 1024 * 1024
    c = tunnel(pair)

    def upload():
        for piece in pattern_pieces(size):
            c.send(piece)
    sender = threading.Thread(target=upload)
    sender.start()
    assert read_exactly(c, size) == pattern(0, size)
    sender.join(DEADLINE)


def test_peer_that_reads_late_loses_nothing(make_pair):
    """The client sends for a while without reading, so the way back is full; then it reads all."""
    size = 16 * 1024 * 1024
    talking = threading.Event()
    flooded = []

    def behave(peer):
        def flood():
            for piece in pattern_pieces(size):
                peer.send(piece)
                flooded.append(len(piece))
            peer.half_close()
        sender = threading.Thread(target=flood)
        sender.start()
        assert peer.exactly(2000) == b"x" * 2000
        talking.set()
        sender.join()
        peer.ended()
    pair, backend = scripted(make_pair, behave)
    with backend:
        c = Client(pair.address, DEADLINE, receive_buffer=16384)
        pair.clients.append(c)
        c.send_request("GET", "/", WISH)
        assert c.read_head().status == 101
        stands_still(lambda: len(flooded))
        for _ in range(2000):
            c.send("x")
        assert talking.wait(DEADLINE)
        assert read_exactly(c, size) == pattern(0, size)
        assert c.is_closed()


def test_client_may_end_its_half_first(make_pair):
    """The backend is told, and what it still says arrives."""
    def behave(peer):
        assert peer.exactly(8) == b"last one"
        assert peer.ended()
        peer.send(b"goodbye", b" then")
    pair, backend = scripted(make_pair, behave)
    with backend:
        c = tunnel(pair)
        c.send("last one")
        c.sock.shutdown(1)
        assert read_exactly(c, 12) == b"goodbye then"
        assert c.is_closed()
        assert logged(pair, path="/upgrade")[0]["reason"] == "ok"
    wait_until(lambda: pair.metric("gateway_tunnels_active") == 0, "the tunnel is gone")


def test_backend_may_end_its_half_first(make_pair):
    """The client is told, and what it still says arrives."""
    got = []

    def behave(peer):
        peer.send(b"that was all")
        peer.half_close()
        got.append(peer.exactly(9))
        assert peer.ended()
    pair, backend = scripted(make_pair, behave)
    with backend:
        c = tunnel(pair)
        assert read_exactly(c, 12) == b"that was all"
        assert c.is_closed()
        c.send("hear me")
        c.send("!!")
        c.sock.shutdown(1)
        wait_until(lambda: got == [b"hear me!!"] and backend.peers[0].saw_end, "the rest arrived")
        assert logged(pair, path="/upgrade")[0]["reason"] == "ok"


@pytest.mark.parametrize("who", ["client", "backend"])
def test_reset_of_one_side_ends_the_other(make_pair, who):
    """Nothing is left half alive."""
    go = threading.Event()

    def behave(peer):
        peer.send(b"hello")
        if who == "backend":
            assert go.wait(DEADLINE)
            peer.reset()
        else:
            assert peer.ended()
    pair, backend = scripted(make_pair, behave)
    with backend:
        c = tunnel(pair)
        assert read_exactly(c, 5) == b"hello"
        if who == "client":
            c.close()
            wait_until(lambda: backend.peers[0].saw_end, "the backend learns of it")
        else:
            go.set()
            assert c.is_closed()
            assert logged(pair, path="/upgrade")[0]["reason"] == "reset"
    wait_until(lambda: pair.metric("gateway_tunnels_active") == 0, "the tunnel is gone")


@pytest.mark.parametrize("answer", [
    ok(b"no"), b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: chat/3\r\nConnection: upgrade\r\n"
    b"Content-Length: 2\r\n\r\nno", b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
], ids=["200", "426", "400-chunked"])
def test_backend_may_refuse_the_upgrade(make_pair, answer):
    """Then it is a request like any other: both connections go on."""
    with RawBackend(lambda _: answer) as backend:
        pair = make_pair([backend.route()])
        c = pair.client()
        for _ in range(3):
            refused = c.request("GET", "/", WISH)
            assert refused.status == int(answer[9:12]) and refused.body == b"no"
            told = refused.status == 426  # that one must say what to (RFC 9110 15.5.22)
            assert refused.get("connection") == ("upgrade" if told else None)
            assert refused.get("upgrade") == ("chat/3" if told else None)
        assert len(backend.peers) == 1
        assert pair.metric("gateway_upgrades_total") == 0


@pytest.mark.parametrize("wish", [
    [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")],
    [("Connection", "Upgrade"), ("Upgrade", "websocket, h2c")],
    [("Connection", "Upgrade"), ("Upgrade", "H2C")],
    [("Connection", "Upgrade"), ("Upgrade", "TLS/1.0, HTTP/1.1")],
    [("Connection", "keep-alive"), ("Upgrade", "websocket")],
    [("Upgrade", "websocket")],
    [("Connection", "Upgrade")],
], ids=["h2c", "h2c-in-list", "h2c-upper-case", "http", "not-named", "no-connection", "no-upgrade"])
def test_wish_that_must_not_be_passed_on_is_not(pair, wish):
    """h2c above all: requests behind it would be seen by no route."""
    answer = pair.client().request("GET", "/", wish)
    names = {n.lower() for n, _ in answer.json()["headers"]}
    assert answer.status == 200 and not names & {"upgrade", "connection", "http2-settings"}


def test_idle_tunnel_is_ended_in_time(make_pair):
    """response_idle_timeout_seconds, counted from the last byte either way."""
    def behave(peer):
        try:
            while True:
                peer.send(peer.some())
        finally:
            peer.ended()
    pair, backend = scripted(make_pair, behave, response_idle_timeout_seconds=0.4 * SCALE)
    with backend:
        c = tunnel(pair)
        start = time.monotonic()
        while time.monotonic() - start < 0.8 * SCALE:
            talk(c)
        assert c.is_closed()
        wait_until(lambda: backend.peers[0].saw_end, "the backend learns of it")
        assert logged(pair, path="/upgrade")[0]["reason"] == "upstream_timeout"


def test_tunnels_outlive_pushes_and_keep_no_snapshot(make_pair, backend):
    """Ten configurations later the tunnels talk, and only one snapshot is left."""
    pair = make_pair([route("all", "/", backend)])
    tunnels = [tunnel(pair) for _ in range(4)]
    for n in range(10):
        routes = [route("all", "/", backend)] if n % 2 else [route("other", "/other", backend)]
        assert pair.push(pair.yaml(routes, server={"max_headers": 50 + n}), "&wait=10").status == 200
        for c in tunnels:
            talk(c)
    wait_until(lambda: pair.metric("gateway_snapshots_alive") == 1, "the old snapshots are gone")
    assert pair.metric("gateway_tunnels_active") == 4
    assert pair.metric("gateway_upgrades_total") == 4
    for c in tunnels:
        c.close()
    wait_until(lambda: pair.metric("gateway_tunnels_active") == 0, "the tunnels are gone")
    assert pair.metric("gateway_downstream_requests_active") == 0


def test_tunnels_get_the_grace_and_not_more(make_pair, backend):
    """SIGTERM: they go on for shutdown_grace_seconds, then the process ends, and so do they."""
    grace = 1.0 * SCALE
    pair = make_pair([route("all", "/", backend)], server={"shutdown_grace_seconds": grace})
    c = tunnel(pair)
    idle = pair.client()
    assert idle.request("GET", "/").status == 200
    start = time.monotonic()
    pair.dataplane.signal(signal.SIGTERM)
    assert idle.is_closed()
    while time.monotonic() - start < grace * 0.6:
        talk(c)
    assert pair.dataplane.running
    assert pair.dataplane.wait() == 0
    assert time.monotonic() - start >= grace * 0.9
    assert c.is_closed()
    assert logged(pair, path="/upgrade")[0]["reason"] == "draining"


def test_tunnel_that_ends_lets_the_process_end(make_pair, backend):
    """SIGTERM: nobody waits for the rest of the grace."""
    pair = make_pair([route("all", "/", backend)], server={"shutdown_grace_seconds": 60})
    c = tunnel(pair)
    pair.dataplane.signal(signal.SIGTERM)
    talk(c)
    c.close()
    assert pair.dataplane.wait() == 0
