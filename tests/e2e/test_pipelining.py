"""Requests that are sent without waiting: answered in order, each with its own bytes and no other's."""
import threading

from harness import wait_until
from rawbackend import RawBackend, ok, stands_still
from rawhttp import Cut


def echo(request):
    """The request's target and body come back."""
    return ok(request.target.encode() + b":" + request.body())


def mixed_batch():
    """(bytes of one request, its method, status and body of its answer), of every kind."""
    return [
        (b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "GET", 200, b"/a:"),
        (b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world", "POST", 200, b"/b:hello world"),
        (b"GET /nowhere HTTP/1.1\r\nHost: other\r\n\r\n", "GET", 200, b"/nowhere:"),
        (b"GET /own/1 HTTP/1.1\r\nHost: x\r\n\r\n", "GET", 405, None),
        (b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
         b"10;x=y\r\n0123456789abcdef\r\n0\r\n\r\n", "POST", 200, b"/c:abc0123456789abcdef"),
        (b"DELETE /own/2 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nGET ", "DELETE", 405, None),
        (b"\r\nHEAD /d HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD", 200, b""),
        (b"PUT /e HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "PUT", 200, b"/e:"),
        (b"POST /f HTTP/1.1\r\nHost: x\r\nContent-Length: 31\r\n\r\nGET /evil HTTP/1.1\r\nHost: y\r\n\r\n",
         "POST", 200, b"/f:GET /evil HTTP/1.1\r\nHost: y\r\n\r\n"),
    ]


def head_aware_echo(request):
    """As echo, for HEAD as well."""
    whole = echo(request)
    return whole[:whole.index(b"\r\n\r\n") + 4] if request.method == "HEAD" else whole


def pair_for_batches(make_pair, backend):
    """A route that is proxied, and one whose only method nobody uses here."""
    return make_pair([backend.route(), backend.route("own", "/own", methods=["PATCH"])])


def check_answers(c, batch):
    """Every answer is there, in order and exact."""
    for n, (_, method, status, body) in enumerate(batch):
        answer = c.read_response(method)
        assert answer.status == status, (n, answer)
        assert body is None or answer.body == body, (n, answer)


def test_mixed_batch_in_one_segment_is_answered_in_order(make_pair):
    """Bodies of both framings, the gateway's own answers in between, bodies that nobody wants."""
    batch = mixed_batch()
    with RawBackend(head_aware_echo) as backend:
        pair = pair_for_batches(make_pair, backend)
        c = pair.client()
        for _ in range(5):
            c.send(b"".join(raw for raw, _, _, _ in batch))
            check_answers(c, batch)
        assert not any("evil" in r.target for r in backend.requests)


def test_batch_may_be_split_at_every_byte(make_pair):
    """Two segments, with every possible border between them; and single bytes. (A refused request
    whose body has not come yet ends its connection: that one is left out.)"""
    batch = [case for case in mixed_batch() if b"DELETE" not in case[0]]
    wire = b"".join(raw for raw, _, _, _ in batch)
    with RawBackend(head_aware_echo) as backend:
        pair = pair_for_batches(make_pair, backend)
        c = pair.client()
        for at in range(1, len(wire)):
            c.send(wire[:at])
            c.send(wire[at:])
            check_answers(c, batch)
        for byte in wire:
            c.send(bytes([byte]))
        check_answers(c, batch)


def test_deep_pipeline_is_bounded_and_answered(make_pair):
    """Thousands of requests while the first waits: held back in the client's socket, not in memory."""
    go, count = threading.Event(), 20000

    def answer(request):
        if request.target == "/first":
            go.wait()
        return echo(request)
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route(timeout_seconds=60)])
        c = pair.client()
        assert c.request("GET", "/warm").status == 200
        before = pair.dataplane.memory()
        sent = []

        def push():
            c.send(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n")
            for n in range(count // 100):
                c.send(b"GET /own HTTP/1.1\r\nHost: x\r\nX: %0600d\r\n\r\n" % n * 100)
                sent.append(n)
        sender = threading.Thread(target=push)
        pair.push(pair.yaml([backend.route(timeout_seconds=60), backend.route("own", "/own", methods=["PUT"])]),
                  "&wait=10")
        sender.start()
        stands_still(lambda: len(sent))
        assert pair.dataplane.memory() - before < 1024 * 1024
        assert len(backend.requests) == 2
        go.set()
        assert c.read_response().body == b"/first:"
        for n in range(count):
            assert c.read_response().status == 405, n
        sender.join()


def test_pipeline_of_bodies_is_exact(make_pair):
    """Sizes around every buffer's, each body its own."""
    sizes = [0, 1, 3900, 4031, 4032, 4033, 16384, 32703, 32704, 32705, 70000, 5, 100001]
    with RawBackend(echo) as backend:
        pair = make_pair([backend.route()])
        c = pair.client()
        wire = bytearray()
        for n, size in enumerate(sizes):
            wire += b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (n, size) + bytes([65 + n]) * size
        sender = threading.Thread(target=c.send, args=(bytes(wire),))
        sender.start()
        for n, size in enumerate(sizes):
            assert c.read_response("POST").body == b"/%d:" % n + bytes([65 + n]) * size
        sender.join()
        assert len(backend.requests) == len(sizes)


def test_bad_request_in_a_pipeline_ends_it_after_the_good_ones(make_pair):
    """What came before is answered; nothing behind it reaches anybody."""
    with RawBackend(echo) as backend:
        pair = make_pair([backend.route()])
        c = pair.client()
        good = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
        c.send(good % 1 + good % 2 + b"GET /3 HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + good % 4)
        assert [c.read_response().status for _ in range(3)] == [200, 200, 400]
        assert c.is_closed()
        assert [r.target for r in backend.requests] == ["/1", "/2"]


def test_requests_behind_a_close_are_not_served(make_pair):
    """Connection: close ends the pipeline, whoever says it: the client, or a limit."""
    with RawBackend(echo) as backend:
        pair = make_pair([backend.route()], server={"max_requests_per_connection": 3})
        get = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
        c = pair.client()
        c.send(get % 1 + b"GET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + get % 3)
        assert [c.read_response().body for _ in range(2)] == [b"/1:", b"/2:"]
        assert c.is_closed()
        c = pair.client()
        c.send(b"".join(get % n for n in range(10, 16)))
        assert [c.read_response().body for _ in range(3)] == [b"/10:", b"/11:", b"/12:"]
        assert c.is_closed()
        assert {r.target for r in backend.requests} == {"/1", "/2", "/10", "/11", "/12"}


def test_answers_wait_for_a_client_that_does_not_read(make_pair):
    """A pipeline whose answers are never read stops; the rest is not even asked for."""
    size, count = 1024 * 1024, 200
    with RawBackend(lambda r: ok(b"x" * size)) as backend:
        pair = make_pair([backend.route()])
        c = pair.client(receive_buffer=8192)
        c.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(count)))
        stands_still(lambda: len(backend.requests), polls=50)
        assert len(backend.requests) < count / 2
        assert len(c.read_response().body) == size


def test_cut_answer_ends_the_pipeline(make_pair):
    """Nothing is taken for the rest of a body that never came."""
    def answer(request):
        if request.target == "/2":
            request.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            return None
        return echo(request)
    with RawBackend(answer) as backend:
        pair = make_pair([backend.route()])
        c = pair.client()
        c.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(1, 4)))
        assert c.read_response().body == b"/1:"
        try:
            answer = c.read_response()
            raise AssertionError(f"whole: {answer}")
        except (Cut, ConnectionResetError):
            pass
        assert "/3" not in [r.target for r in backend.requests]


def test_neighbours_in_one_worker_stay_apart(make_pair):
    """Many clients pipeline at once through one worker's recycled buffers."""
    with RawBackend(echo) as backend:
        pair = make_pair([backend.route()], server={"workers": 1})
        wrong = []

        def run(me):
            c = pair.client()
            for turn in range(6):
                wire, expected = bytearray(), []
                for n in range(8):
                    body = b"%d-%d-%d," % (me, turn, n) * (1 + (me * 31 + n * 7) % 900)
                    wire += b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (me, len(body)) + body
                    expected.append(b"/%d:" % me + body)
                sender = threading.Thread(target=c.send, args=(bytes(wire),))
                sender.start()
                for want in expected:
                    if c.read_response("POST").body != want:
                        wrong.append((me, turn))
                sender.join()
        threads = [threading.Thread(target=run, args=(me,)) for me in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong
    wait_until(lambda: pair.metric("gateway_downstream_requests_active") == 0, "all are done")
