"""At the limits of connections and descriptors: quick answers, idle ones shed, no spinning, and back again."""
import os
import resource
import threading
import time
from pathlib import Path

import pytest

from harness import DEADLINE, SCALE, route, wait_until
from rawbackend import RawBackend, ok
from rawhttp import Cut


def holding(go):
    """An answer that waits for `go`, but not for those who ask for /free."""
    def answer(request):
        if request.target != "/free":
            go.wait(DEADLINE)
        return ok()
    return answer


def knock(pair):
    """The status that a new client gets without asking for anything twice; None for a bare end."""
    c = pair.client()
    try:
        try:
            c.send("GET /free HTTP/1.1\r\nHost: x\r\n\r\n")
        except OSError:
            pass  # it may have been turned away already; the answer says why
        return c.read_response().status
    except (Cut, OSError):
        return None
    finally:
        c.close()


def leave_descriptors(pair, spare):
    """From now on the data plane may open only so many descriptors more."""
    used = max(pair.dataplane.fds()) + 1
    resource.prlimit(pair.dataplane.pid, resource.RLIMIT_NOFILE, (used + spare, used + spare))


def busy_until_full(pair, backend, most):
    """Clients whose requests are held by the backend, as many as are let in. One refusal alone may be
    chance: a worker that looks for a client holds a descriptor for that moment."""
    inside, refused = [], 0
    for n in range(most):
        c = pair.client()
        before = len(backend.requests)
        c.send(f"GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n")

        def settled(c=c, before=before):
            c.sock.setblocking(False)
            try:
                return len(backend.requests) > before or c.sock.recv(1, 2) is not None
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True
            finally:
                c.sock.settimeout(DEADLINE)
        wait_until(settled, "let in or turned away")
        if len(backend.requests) > before:
            inside.append(c)
            refused = 0
            continue
        c.close()
        refused += 1
        if refused == 10:
            break
    return inside


def check_saturated(pair, count=60):
    """Every newcomer is answered quickly, and in between the data plane rests. (With few descriptors
    some are lucky: what a worker kept in reserve to refuse them with may serve one at a time.)"""
    cpu, start = pair.dataplane.cpu_seconds(), time.monotonic()
    slowest, answers = 0, []
    for _ in range(count):
        before = time.monotonic()
        answers.append(knock(pair))
        slowest = max(slowest, time.monotonic() - before)
    assert set(answers) <= {200, 503}, answers
    assert slowest < 1.0 * SCALE
    # Twice as long without anything to do, to see whether it spins.
    threading.Event().wait(max(0.5, time.monotonic() - start))
    assert pair.dataplane.cpu_seconds() - cpu < 0.25 * SCALE


def test_at_max_connections_newcomers_are_told_quickly(make_pair):
    """All busy: 503 for the rest, nothing spins, and afterwards everybody is served."""
    go = threading.Event()
    with RawBackend(holding(go)) as backend:
        pair = make_pair([backend.route()], server={"max_connections": 10})
        inside = busy_until_full(pair, backend, 100)
        assert len(inside) == 10
        check_saturated(pair)
        memory = pair.dataplane.memory()
        assert [knock(pair) for _ in range(300)] == [503] * 300
        assert pair.dataplane.memory() - memory < 256 * 1024 * SCALE
        go.set()
        for c in inside:
            assert c.read_response().status == 200
        assert [knock(pair) for _ in range(20)] == [200] * 20
        wait_until(lambda: pair.metric("gateway_refused_connections_total") >= 361, "they are counted")


def test_oldest_idle_client_is_shed_first(make_pair, backend):
    """One for each newcomer, in the order in which they fell idle."""
    pair = make_pair([route("all", "/", backend)], server={"max_connections": 6, "workers": 1})
    idle = [pair.client() for _ in range(6)]
    for c in idle:
        assert c.request("GET", "/").status == 200
    assert idle[0].request("GET", "/").status == 200  # now it is the youngest
    for c in (idle[1], idle[2], idle[3]):
        assert pair.client().request("GET", "/").status == 200
        assert c.is_closed()
    for c in (idle[4], idle[5], idle[0]):
        assert c.request("GET", "/").status == 200


@pytest.mark.parametrize("workers", [1, 3])
def test_clients_that_have_got_their_last_answer_make_room(make_pair, backend, workers):
    """Those who go on sending behind a refusal hold no place that somebody else wants."""
    pair = make_pair([route("all", "/", backend)], server={"max_connections": 8, "workers": workers})
    refused = [pair.client() for _ in range(8)]
    for c in refused:
        c.send("NONSENSE\r\n\r\n")
        assert c.read_response().status == 400
    for _ in range(3):
        assert pair.get("/").status == 200


def test_oldest_idle_client_of_all_workers_is_shed_first(make_pair, backend):
    """Whichever worker has it, and whichever accepts the newcomer."""
    pair = make_pair([route("all", "/", backend)], server={"max_connections": 24, "workers": 3})
    idle = []
    for _ in range(24):
        idle.append(pair.client())
        assert idle[-1].request("GET", "/").status == 200
        assert not idle[-1].is_closed(0.05)  # idle times differ by more than what they are told by
    for c in idle[:12]:
        assert pair.client().request("GET", "/").status == 200
        assert c.is_closed()
    for c in idle[12:]:
        assert c.request("GET", "/").status == 200


def test_idle_clients_of_another_worker_make_room(make_pair, backend):
    """Whoever of the workers accepts: one idle client goes for each that comes, busy ones never."""
    pair = make_pair([route("all", "/", backend)], server={"max_connections": 40, "workers": 4})
    idle = [pair.client() for _ in range(40)]
    for c in idle:
        assert c.request("GET", "/").status == 200
    for _ in range(40):
        assert pair.client().request("GET", "/").status == 200
    wait_until(lambda: 40 <= pair.metric("gateway_shed_total") <= 44, "one for each")
    assert pair.metric("gateway_refused_connections_total") == 0


def test_without_descriptors_idle_clients_are_shed(make_pair, backend):
    """EMFILE: newcomers are served, at the cost of few who wait."""
    for workers in (1, 2):
        pair = make_pair([route("all", "/", backend)], server={"workers": workers})
        for _ in range(10):
            assert pair.get("/").status == 200  # each worker has its connection to the backend
        leave_descriptors(pair, 30)
        idle = [pair.client() for _ in range(25)]
        for c in idle:
            assert c.request("GET", "/").status == 200
        cpu = pair.dataplane.cpu_seconds()
        fresh = []
        for _ in range(20):
            fresh.append(pair.client())
            assert fresh[-1].request("GET", "/").status == 200
        assert pair.dataplane.cpu_seconds() - cpu < 0.25 * SCALE
        shed = wait_until(lambda p=pair: p.metric("gateway_shed_total"), "some are shed")
        assert shed <= 25
        for c in idle + fresh:
            c.close()


def test_without_descriptors_the_oldest_idle_client_is_shed_first(make_pair, backend):
    """EMFILE: whichever worker has it, and whichever accepts the newcomer. (Two workers may have noticed the same
    newcomer; then the second of them takes its own.)"""
    pair = make_pair([route("all", "/", backend)], server={"workers": 3})
    for _ in range(12):
        assert pair.get("/").status == 200  # each worker has its connection to the backend
    leave_descriptors(pair, 20)
    idle = []
    for _ in range(16):
        idle.append(pair.client())
        assert idle[-1].request("GET", "/").status == 200
        assert not idle[-1].is_closed(0.07)  # idle times differ by more than what they are told by
    for _ in range(10):
        assert pair.client().request("GET", "/").status == 200
    shed = wait_until(lambda: pair.metric("gateway_shed_total"), "some are shed")
    closed = [c.is_closed(0.01) for c in idle]
    count = sum(closed)
    assert 1 < count <= shed < 16 and sum(closed[:count]) >= count - 1, closed


def test_without_descriptors_newcomers_are_told_quickly(make_pair):
    """EMFILE with nobody idle: 503 at once, no spinning, and back to normal when it is over."""
    go = threading.Event()
    with RawBackend(holding(go)) as backend:
        pair = make_pair([backend.route()], server={"workers": 2})
        leave_descriptors(pair, 21)
        inside = busy_until_full(pair, backend, 100)
        assert 8 <= len(inside) <= 11
        check_saturated(pair)
        memory = pair.dataplane.memory()
        assert None not in [knock(pair) for _ in range(200)]
        assert pair.dataplane.memory() - memory < 256 * 1024 * SCALE
        go.set()
        for c in inside:
            assert c.read_response().status == 200
            c.close()
        wait_until(lambda: knock(pair) == 200, "it serves again")
        assert [knock(pair) for _ in range(20)] == [200] * 20
        wait_until(lambda: pair.metric("gateway_refused_connections_total")
                   + pair.metric("gateway_rejected_total") + pair.metric("gateway_shed_total") >= 10,
                   "they are counted")


def test_small_limit_leaves_room_for_backends(make_pair):
    """Started with few descriptors: clients are turned away before backends cannot be connected to."""
    go = threading.Event()
    with RawBackend(holding(go)) as backend:
        pair = make_pair([backend.route()], start=False)
        pair.dataplane.argv[:0] = ["prlimit", "--nofile=80:80"]
        pair.start()
        inside = busy_until_full(pair, backend, 100)
        assert 10 <= len(inside) <= 40
        check_saturated(pair)
        go.set()
        for c in inside:
            assert c.read_response().status == 200
            c.close()
        wait_until(lambda: knock(pair) == 200, "it serves again")
