"""What can go wrong on either side, and which answer the client gets for it."""
import pytest

from harness import free_port, route, wait_until
from rawhttp import Cut


def refusal(answer, status):
    """Checks that this is the gateway's own answer; its word."""
    assert answer.status == status, answer
    document = answer.json()
    assert document["request_id"] == answer.get("x-request-id")
    assert document["message"]
    return document["error"]


def test_backend_down_is_502(make_pair):
    """Nobody listens there."""
    pair = make_pair([route("all", "/", f"http://127.0.0.1:{free_port()}",
                            health_check={"enabled": False})])
    assert refusal(pair.get("/"), 502) == "connect_failed"


def test_slow_backend_is_504(make_pair, backend):
    """timeout_seconds to the response head."""
    pair = make_pair([route("all", "/", backend, timeout_seconds=0.3)])
    assert refusal(pair.get("/delay/30"), 504) == "upstream_timeout"
    assert refusal(pair.get("/slowhead/30"), 504) == "upstream_timeout"


def test_garbage_is_502(pair):
    """What is not HTTP is not passed on."""
    assert refusal(pair.get("/garbage"), 502) == "bad_response"


@pytest.mark.parametrize("path", ["/close", "/reset"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_answer_is_502(pair, path, method):
    """Ended before an answer; a request that may have had an effect is not sent twice."""
    answer = pair.request(method, path, body=b"x" if method == "POST" else b"")
    assert refusal(answer, 502) == "reset"


def test_post_is_not_sent_twice(pair, backend):
    """The backend closes without an answer: it must have seen the request once."""
    before = backend.get("/connections")["requests"]
    assert pair.request("POST", "/close", body=b"x").status == 502
    assert backend.get("/connections")["requests"] == before + 1


def test_connect_failure_goes_to_another_backend(make_pair, backend):
    """Nothing was sent yet, so any method may try again elsewhere."""
    pair = make_pair([route("all", "/", f"http://127.0.0.1:{free_port()}", backend,
                            health_check={"enabled": False})])
    for _ in range(6):
        assert pair.request("POST", "/", body=b"x").status == 200


@pytest.mark.parametrize("query", ["", "?chunked=1", "?reset=1", "?chunked=1&reset=1"])
def test_cut_response_is_seen_as_cut(pair, query):
    """Half a body must not look like a whole one."""
    c = pair.client()
    with pytest.raises((Cut, ConnectionResetError)):
        c.request("GET", "/partial" + query)


@pytest.mark.parametrize("raw", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2000000 + b"\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
], ids=["two-lengths", "length-and-chunked", "negative", "bad-name", "bad-status", "huge-head",
        "unasked-101"])
def test_ambiguous_response_is_502(pair, raw):
    """The backend is not trusted to be well-behaved."""
    size = 1024 * 1024 - 100
    answer = pair.request("POST", "/raw", body=raw[:size])
    assert refusal(answer, 502) in ("bad_response", "reset")


def test_bytes_after_a_response_poison_nobody(pair):
    """What follows a complete response is not taken for the next one; which of them was meant is not guessed."""
    raw = (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
           b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    for _ in range(5):
        c = pair.client()
        assert refusal(c.request("POST", "/raw?hold=0.2", body=raw), 502) == "bad_response"
        assert c.request("GET", "/clean").json()["path"] == "/clean"


def test_no_backend_is_503_with_retry_after(make_pair):
    """The backend's name has no address."""
    pair = make_pair([route("all", "/", "http://no-such-backend.invalid:80")])
    answer = pair.get("/")
    assert refusal(answer, 503) == "no_endpoint"
    assert int(answer.get("retry-after")) >= 1


def test_backend_that_comes_back_is_used(make_pair, backend):
    """Down and up again on the same port."""
    pair = make_pair([route("all", "/", backend, health_check={"enabled": False})])
    assert pair.get("/").status == 200
    backend.kill()
    assert pair.get("/").status == 502
    backend.start()
    wait_until(lambda: pair.get("/").status == 200, "the backend is used again")


def test_oversized_head_is_431(pair):
    """max_header_bytes, whether in one field or in many."""
    for headers in ([("X-Big", "x" * 17000)], [(f"X-{i}", "y" * 100) for i in range(170)]):
        c = pair.client()
        answer = c.request("GET", "/", headers)
        refusal(answer, 431)
        assert answer.get("connection") == "close"


def test_too_many_fields_is_431(make_pair, backend):
    """max_headers."""
    pair = make_pair([route("all", "/", backend)], server={"max_headers": 20})
    assert pair.get("/", [(f"X-{i}", "1") for i in range(15)]).status == 200
    refusal(pair.get("/", [(f"X-{i}", "1") for i in range(30)]), 431)


def test_long_target_is_414(pair):
    """A target that leaves no room for fields."""
    c = pair.client()
    answer = c.request("GET", "/" + "x" * 20000)
    refusal(answer, 414)
    assert answer.get("connection") == "close"


@pytest.mark.parametrize("raw", [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\nx",
    b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n folded\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    b"GET x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n",
    b"nonsense\r\n\r\n",
], ids=["no-host", "two-hosts", "bad-host", "two-lengths", "length-and-chunked", "plus-length",
        "hex-length", "chunked-1.0", "bad-name", "nul", "folded", "space-before-colon",
        "relative-target", "control-in-target", "nonsense"])
def test_bad_request_is_400_and_ends_the_connection(pair, backend, raw):
    """What can be read in two ways is not read at all, and reaches no backend."""
    before = backend.get("/connections")["requests"]
    c = pair.client()
    c.send(raw + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = c.read_response()
    refusal(answer, 400)
    assert answer.get("connection") == "close"
    assert backend.get("/connections")["requests"] == before


def test_unknown_transfer_coding_is_refused(pair):
    """Only chunked is understood."""
    c = pair.client()
    c.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
    assert c.read_response("POST").status in (400, 501)


@pytest.mark.parametrize("chunk", ["zz\r\n", "-1\r\n", "5\r\nhelloX", "ffffffffffffffffff\r\n"])
def test_broken_chunks_end_the_exchange(pair, chunk):
    """The rest of such a request cannot be found again."""
    c = pair.client()
    c.send("POST /sink HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
    answer = c.read_response("POST")
    assert answer.status == 400 and c.is_closed()


def test_slow_body_is_408(make_pair, backend):
    """read_timeout_seconds of silence within a body."""
    pair = make_pair([route("all", "/", backend)], server={"read_timeout_seconds": 0.5})
    c = pair.client()
    c.send("POST /sink HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
    answer = c.read_response("POST")
    assert answer.status == 408 and c.is_closed()


def test_silent_response_body_is_cut(make_pair, backend):
    """response_idle_timeout_seconds between two pieces."""
    pair = make_pair([route("all", "/", backend, response_idle_timeout_seconds=0.5)])
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    with pytest.raises((Cut, ConnectionResetError)):
        pair.client().request("POST", "/raw?hold=20", body=raw)


def test_connection_beyond_the_limit_is_told_503(make_pair, backend):
    """max_connections: while all are busy the one too many gets an answer, those inside go on."""
    pair = make_pair([route("all", "/", backend)], server={"max_connections": 4})
    inside = [pair.client() for _ in range(4)]
    for c in inside:
        c.send_request("POST", "/sink", [("Content-Length", "4")])
    wait_until(lambda: backend.get("/connections")["requests"] == 4, "all are busy")
    extra = pair.client()
    extra.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = extra.read_response()
    assert answer.status == 503 and answer.get("retry-after") and extra.is_closed()
    for c in inside:
        c.send("done")
        assert c.read_response("POST").json()["bytes"] == 4


def test_idle_connections_make_room(make_pair, backend):
    """max_connections: of a worker's clients who is idle longest goes before anybody is refused."""
    pair = make_pair([route("all", "/", backend)], server={"max_connections": 4, "workers": 1})
    idle = [pair.client() for _ in range(4)]
    for c in idle:
        assert c.request("GET", "/").status == 200
    for _ in range(8):
        fresh = pair.client()
        assert fresh.request("GET", "/").status == 200
