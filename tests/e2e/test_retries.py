"""What is tried again, where, how often, and what is not."""
import threading

import pytest

from harness import DEADLINE, free_port, route, wait_until
from rawbackend import RawBackend, logged, ok
from rawhttp import Client

NO_CHECK = {"enabled": False}


def in_parallel(count, work):
    """Runs work(0) to work(count - 1) at once; their results in order."""
    results = [None] * count

    def run(n):
        results[n] = work(n)
    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(DEADLINE * 2)
    return results


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_refused_connection_is_not_the_clients_trouble(make_pair, method):
    """Nothing was sent, so the other backend gets it, whatever the method and its body."""
    def answer(request):
        return ok(request.body())
    with RawBackend(answer) as good:
        pair = make_pair([route("all", "/", f"http://127.0.0.1:{free_port()}", good, health_check=NO_CHECK)])
        body = b"x" * 100000 if method in ("POST", "PATCH") else b""
        c = pair.client()
        for _ in range(8):
            answer = c.request(method, "/", body=body)
            assert answer.status == 200 and answer.body == body
        assert len(good.requests) == 8
        assert max(line["attempts"] for line in logged(pair, count=8, path="/")) == 2


def test_upload_in_pieces_goes_to_the_backend_that_is_there(make_pair):
    """A body that has not come yet is no hindrance while nothing is connected."""
    with RawBackend(lambda r: ok(r.body())) as good:
        pair = make_pair([route("all", "/", f"http://127.0.0.1:{free_port()}", good, health_check=NO_CHECK)])
        for _ in range(4):
            c = pair.client()
            c.send_request("POST", "/", [("Transfer-Encoding", "chunked")])
            for piece in (b"one", b"two", b""):
                c.send_chunk(piece)
            assert c.read_response("POST").body == b"onetwo"


class Fickle(RawBackend):
    """Serves the first request of each connection; what it does with the second is `end`."""

    def __init__(self, end):
        super().__init__(self._next)
        self.end = end
        self.armed = False

    def _next(self, request):
        request.body()
        if not self.armed or request.peer.served == 1:
            return ok(b"")
        if self.end == "reset":
            request.peer.reset()
        if self.end == "gone":
            self.stop_listening()
        return None


@pytest.mark.parametrize("end", ["fin", "reset"])
@pytest.mark.parametrize("retries", [0, 1])
def test_stale_connection_is_invisible_to_what_may_be_repeated(make_pair, end, retries):
    """A kept connection ends as the request is on its way: it goes again on a new one, retries or not."""
    with Fickle(end) as backend:
        pair = make_pair([backend.route(retries=retries)], server={"workers": 1})
        backend.armed = True
        c = pair.client()
        for method in ("GET", "HEAD", "OPTIONS", "GET", "DELETE"):
            assert c.request(method, "/").status == 200
        assert c.request("PUT", "/", body=b"all of it").status == 200
        # The first is served where it comes; every other meets the connection of the one before.
        assert len(backend.requests) == 11
        wait_until(lambda: pair.metric("gateway_retries_total") == 5, "they are counted")


def test_stale_connection_does_not_use_up_the_retries(make_pair):
    """Its backend has gone altogether, which costs the one retry; the other backend answers."""
    with Fickle("gone") as leaving, RawBackend(lambda _: ok()) as staying:
        pair = make_pair([leaving.route(retries=1)], server={"workers": 1})
        c = pair.client()
        assert c.request("GET", "/").status == 200
        both = pair.yaml([route("all", "/", leaving, staying, health_check=NO_CHECK, retries=1)])
        assert pair.push(both, "&wait=10").status == 200
        leaving.armed = True
        for _ in range(12):
            assert c.request("GET", "/").status == 200


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_request_that_may_have_been_seen_is_not_sent_twice(make_pair, end):
    """POST and PATCH on a kept connection that ends: 502, and the backend saw them once."""
    with Fickle(end) as backend:
        pair = make_pair([backend.route(retries=3)], server={"workers": 1})
        backend.armed = True
        c = pair.client()
        for method in ("POST", "PATCH"):
            assert c.request("GET", "/first").status == 200
            answer = c.request(method, "/second", body=b"pay")
            assert answer.status == 502 and answer.json()["error"] == "reset"
        assert [r.method for r in backend.requests] == ["GET", "POST", "GET", "PATCH"]


def test_connection_that_ended_in_the_pool_is_not_used(make_pair):
    """The backend's end is noticed while the connection is idle: even a POST never meets it."""
    def answer(request):
        request.body()
        request.peer.send(ok())
        request.peer.half_close()
        request.peer.ended()
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route(retries=0)])
        c = pair.client()
        for _ in range(10):
            assert c.request("POST", "/", body=b"pay").status == 200
            wait_until(lambda: backend.peers[-1].saw_end, "it is noticed")
        assert len(backend.peers) == 10


def test_burst_on_stale_connections_is_invisible(make_pair):
    """A backend that closes all kept connections at once: nobody's GET fails, budget or not."""
    count = 40
    phase = {"name": "warm"}
    gate = threading.Barrier(count)

    def answer(request):
        if phase["name"] == "warm":
            gate.wait(DEADLINE)
            return ok()
        return None if request.peer.served == 2 else ok()
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()], server={"workers": 1})
        clients = [pair.client() for _ in range(count)]
        assert [a.status for a in in_parallel(count, lambda n: clients[n].request("GET", "/warm"))] \
            == [200] * count
        phase["name"] = "stale"
        for c in clients:
            c.send_request("GET", "/stale")
        assert [c.read_response().status for c in clients] == [200] * count
        assert len([r for r in backend.requests if r.target == "/stale"]) <= 2 * count


@pytest.mark.parametrize("fault", ["reset", "fin", "garbage"])
def test_retry_goes_to_another_endpoint(make_pair, fault):
    """Never back to the one that has just failed while there is another."""
    def bad_answer(request):
        if fault == "reset":
            request.peer.reset()
        if fault == "garbage":
            request.peer.send(b"what?\r\n\r\n")

    with RawBackend(bad_answer) as bad, RawBackend(lambda _: ok()) as good:
        pair = make_pair([route("all", "/", bad, good, health_check=NO_CHECK)])
        c = pair.client()
        for n in range(10):
            assert c.request("GET", f"/{n}").status == 200
        seen = [r.target for r in bad.requests]
        assert seen and len(seen) == len(set(seen)), "nobody came back"
        wait_until(lambda: pair.metric("gateway_retries_total") == len(seen), "they are counted")


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_attempts_are_bounded(make_pair, method, retries):
    """A request is seen at most once and `retries` times more; one that is not idempotent once."""
    def answer(request):
        request.body()
    with RawBackend(answer) as one, RawBackend(answer) as two:
        pair = make_pair([route("all", "/", one, two, health_check=NO_CHECK, retries=retries)])
        for n in range(5):
            assert pair.request(method, f"/{n}", body=b"x").status == 502
            seen = [r for r in one.requests + two.requests if r.target == f"/{n}"]
            assert len(seen) == (1 + retries if method == "GET" else 1)
            assert logged(pair, path=f"/{n}")[0]["attempts"] == len(seen)


def test_answer_that_has_begun_is_not_tried_again(make_pair):
    """Neither is a failure status that a backend gives, nor one that was too slow."""
    def answer(request):
        if request.target == "/half":
            request.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        elif request.target == "/slow":
            request.peer.ended()
        else:
            return b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route(retries=3, timeout_seconds=0.3)])
        assert pair.get("/503").status == 503
        assert pair.get("/slow").status == 504
        c = pair.client()
        c.send_request("GET", "/half")
        assert c.read_head().status == 200 and b"".join(iter(lambda: c.sock.recv(100), b"")) in (b"", b"half")
        assert sorted(r.target for r in backend.requests) == ["/503", "/half", "/slow"]


def test_retries_end_with_the_routes_timeout(make_pair):
    """timeout_seconds counts from the head, over all attempts."""
    gate = threading.Event()

    def answer(request):
        gate.wait(0.25)
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route(retries=10, timeout_seconds=0.6)])
        assert pair.get("/").status in (502, 504)
        gate.set()
        assert len(backend.requests) <= 3


def test_retries_do_not_multiply_an_outage(make_pair):
    """200 requests under way when all their connections are reset: a fifth is tried again, no more."""
    count, workers = 200, 2
    gate, over = threading.Event(), threading.Event()

    def answer(request):
        first = sum(r.target == request.target for r in backend.requests) == 1
        (gate if first else over).wait(DEADLINE)
        request.peer.reset()
    backend = RawBackend(answer)
    with backend:
        pair = make_pair([backend.route(retries=3)], server={"workers": workers})
        clients = [Client(pair.address, DEADLINE) for _ in range(count)]
        pair.clients += clients
        for n, c in enumerate(clients):
            c.send_request("GET", f"/{n}")
        wait_until(lambda: len(backend.requests) == count, "all are under way")
        gate.set()

        def refused():
            return sum(line["status"] == 502 for line in pair.access_lines())
        allowed = count // 5 + 3 * workers
        wait_until(lambda: refused() >= count - allowed, "those beyond the budget are refused")
        over.set()
        assert {c.read_response().status for c in clients} == {502}
        attempts = len(backend.requests)
        assert count < attempts <= count + 3 * allowed
        firsts = len({r.target for r in backend.requests[count:]})
        assert 0 < firsts <= allowed, f"{firsts} of {count} requests were tried again"
