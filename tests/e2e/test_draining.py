"""How a data plane goes: not ready, then telling keep-alive clients, then finishing, then gone."""
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness import SCALE, route, wait_until
from rawbackend import RawBackend, ok
from rawhttp import Cut

DELAY = 1.0 * SCALE


def test_keep_alive_clients_are_told_during_the_drain_delay(make_pair, backend):
    """Still accepting, still serving: answers of backends and of its own say close."""
    pair = make_pair([route("all", "/api", backend)], server={"drain_delay_seconds": DELAY})
    kept = [pair.client() for _ in range(3)]
    for c in kept:
        assert c.request("GET", "/api").get("connection") is None
    start = time.monotonic()
    pair.dataplane.signal(signal.SIGTERM)
    fresh = pair.client()
    wait_until(lambda: pair.get("/api").get("connection") == "close", "clients are told", DELAY / SCALE)
    for c, target in zip(kept, ("/api", "/none", "/api?close=1")):
        answer = c.request("GET", target)
        assert answer.get("connection") == "close" and answer.status == (404 if target == "/none" else 200)
        assert c.is_closed()
    assert fresh.request("GET", "/api").get("connection") == "close"
    assert pair.dataplane.running
    assert pair.dataplane.wait() == 0
    assert time.monotonic() - start >= DELAY * 0.9


def test_configuration_changes_do_not_stop_for_a_data_plane_that_goes(make_pair, backend):
    """As long as it accepts it takes them; then it is not asked, and whoever comes next serves them."""
    pair = make_pair([route("all", "/", backend)], server={"drain_delay_seconds": DELAY})
    slow = pair.client()
    slow.send_request("GET", f"/delay/{2 * DELAY}")
    wait_until(lambda: backend.get("/connections")["requests"] >= 1, "the slow request is under way")
    pair.dataplane.signal(signal.SIGTERM)
    wait_until(lambda: pair.get("/").get("connection") == "close", "it is leaving")
    assert pair.push(pair.yaml([route("one", "/one", backend)]), "&wait=10").status == 200
    assert pair.get("/one").status == 200 and pair.get("/").status == 404
    wait_until(lambda: pair.status()["dataplanes"][0]["role"] == "draining", "it accepts no more")
    assert pair.push(pair.yaml([route("two", "/two", backend)]), "&wait=10").status == 200
    assert slow.read_response().status == 200
    assert pair.dataplane.wait() == 0
    pair.dataplane.start()
    pair.wait_ready(3)
    assert pair.get("/two").status == 200 and pair.get("/one").status == 404


def test_who_ends_is_not_ready_from_the_start(make_pair, backend):
    """Load balancers that ask /readyz notice while it still accepts, and a new control plane is told as well."""
    pair = make_pair([route("all", "/", backend)], server={"drain_delay_seconds": 30, "shutdown_grace_seconds": 1})

    def readyz():
        return pair.admin("GET", "/readyz", private=False)
    wait_until(lambda: readyz().status == 200, "ready")
    pair.dataplane.signal(signal.SIGTERM)
    wait_until(lambda: readyz().status == 503, "not ready")
    assert readyz().json()["reasons"][0].startswith("no data plane serves")
    assert pair.get("/").status == 200
    pair.controlplane.stop()
    pair.controlplane.start()
    wait_until(lambda: "are draining" in readyz().body.decode(), "not ready for the next control plane")
    assert pair.get("/").status == 200


def test_successor_is_ready(make_pair, backend):
    """The older one finishes a request: one serves, so all is well."""
    pair = make_pair([route("all", "/", backend)])
    c = pair.client()
    c.send_request("GET", "/delay/2")
    other = pair.make_dataplane("dp-1").start()
    for _ in range(10):
        assert pair.admin("GET", "/readyz", private=False).status == 200
        time.sleep(0.05)
    wait_until(lambda: "draining" in pair.ctl("dataplanes").out, "the older one finishes")
    assert pair.admin("GET", "/readyz", private=False).status == 200
    assert c.read_response().status == 200
    other.stop()


def test_idle_clients_stay_during_the_drain_delay_and_go_after_it(make_pair, backend):
    """A client that sends nothing is not cut before its time, and does not hold the end back."""
    pair = make_pair([route("all", "/", backend)], server={"drain_delay_seconds": DELAY})
    c = pair.client()
    assert c.request("GET", "/").status == 200
    start = time.monotonic()
    pair.dataplane.signal(signal.SIGTERM)
    assert c.is_closed()
    assert time.monotonic() - start >= DELAY * 0.9
    assert pair.dataplane.wait() == 0


def test_pipelined_requests_are_answered_before_the_end(make_pair):
    """What was sent before the client could know is served as far as it was promised."""
    held = []

    def answer(request):
        if request.target == "/held":
            held.append(1)
            wait_until(lambda: len(held) > 1, "it may go on")
        return ok()
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()], server={"workers": 1})
        c, idle = pair.client(), pair.client()
        assert idle.request("GET", "/").status == 200
        c.send(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\nGET /behind HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: held, "the first is under way")
        pair.dataplane.signal(signal.SIGTERM)
        assert idle.is_closed(), "the signal has arrived"
        held.append(1)
        answer = c.read_response()
        assert answer.status == 200 and answer.get("connection") == "close"
        assert c.is_closed()
        assert pair.dataplane.wait() == 0


@pytest.mark.parametrize("target", ["/length", "/chunked"])
def test_transfer_under_way_is_finished(make_pair, target):
    """A body that flows when the signal comes arrives whole."""
    go = []

    def answer(request):
        if target == "/length":
            request.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100000)
        else:
            request.peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186A0\r\n" + b"x" * 100000 + b"\r\n")
        wait_until(lambda: go, "it may go on")
        return b"x" * 100000 if target == "/length" else b"186A0\r\n" + b"x" * 100000 + b"\r\n0\r\n\r\n"
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()])
        c = pair.client()
        c.send_request("GET", target)
        head = c.read_head()
        pieces = c.read_pieces(head)
        got = len(next(pieces))
        pair.dataplane.signal(signal.SIGTERM)
        go.append(1)
        got += sum(map(len, pieces))
        assert got == 200000
        assert pair.dataplane.wait() == 0


def test_client_of_a_transfer_under_way_may_ask_once_more(make_pair):
    """The head was sent when nobody thought of leaving: a request that follows the body at once is answered, and told."""
    go = []

    def answer(request):
        if request.target != "/long":
            return ok()
        request.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        wait_until(lambda: go, "it may go on")
        return b"half"
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()])
        c, idle = pair.client(), pair.client()
        assert idle.request("GET", "/").status == 200
        c.send_request("GET", "/long")
        head = c.read_head()
        assert head.get("connection") is None
        pair.dataplane.signal(signal.SIGTERM)
        assert idle.is_closed()
        go.append(1)
        assert b"".join(c.read_pieces(head)) == b"halfhalf"
        answer = c.request("GET", "/")
        assert answer.status == 200 and answer.get("connection") == "close"
        assert pair.dataplane.wait() == 0


@pytest.mark.heavy
def test_stop_during_the_start_lets_requests_finish(make_pair, backend, tmp_path):
    """The first worker serves while the second one starts: the grace is that of the snapshot under which it does."""
    library = tmp_path / "late.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, Path(__file__).with_name("late.c"), "-ldl"],
                   check=True)
    pair = make_pair([route("all", "/", backend)])
    assert pair.dataplane.stop() == 0
    pair.dataplane.env = {"LD_PRELOAD": str(library)}
    pair.dataplane.start()
    c = pair.client()
    c.send_request("GET", "/delay/1.8")
    wait_until(lambda: backend.get("/connections")["requests"] >= 1, "the request is under way")
    assert pair.dataplane.log().count("is in force") == 1, "that of the start before"
    pair.dataplane.signal(signal.SIGTERM)
    assert c.read_response().status == 200
    assert pair.dataplane.wait() == 0


def test_whoever_is_left_at_the_end_of_the_grace_is_told(make_pair):
    """503 where nothing was answered yet, a visible cut where it was; the log says whose doing that was."""
    def answer(request):
        if request.target == "/begun":
            request.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        request.peer.ended()
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()], server={"shutdown_grace_seconds": 0.3})
        waiting, begun, head = (pair.client() for _ in range(3))
        waiting.send_request("GET", "/waiting")
        begun.send_request("GET", "/begun")
        head_of_begun = begun.read_head()
        head.send(b"GET / HT")
        wait_until(lambda: len(backend.requests) == 2, "both are under way")
        assert pair.dataplane.stop() == 0
        answer = waiting.read_response()
        assert answer.status == 503 and answer.json()["error"] == "draining" and waiting.is_closed()
        with pytest.raises((Cut, ConnectionResetError)):
            list(begun.read_pieces(head_of_begun))
        assert head.is_closed()
        assert {(line["path"], line["status"], line["reason"]) for line in pair.access_lines()} \
            == {("/waiting", 503, "draining"), ("/begun", 200, "draining")}
