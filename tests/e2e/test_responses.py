"""What backends may answer, what they may not, and that a client can always tell whole from cut."""
import threading

import pytest

from harness import DEADLINE, wait_until
from rawbackend import RawBackend, logged, ok, outcome, stands_still
from rawhttp import Cut

OK = ok()


def scripted(make_pair, answer, **more):
    """A pair with one route to a backend that answers like that: (pair, backend)."""
    backend = RawBackend(answer)
    return make_pair([backend.route(**more)]), backend


# ---- what is right ----

def test_head_204_and_304_tell_a_length_and_have_no_body(make_pair):
    """RFC 9110 8.6: what Content-Length says there is about another answer; 204 has none at all."""
    def answer(request):
        status = {"/204": b"204 No Content", "/304": b"304 Not Modified"}.get(request.target, b"200 OK")
        return b"HTTP/1.1 %b\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n" % status
    pair, backend = scripted(make_pair, answer)
    with backend:
        c = pair.client()
        for method, target, length in (("HEAD", "/", "1234"), ("GET", "/304", "1234"),
                                       ("GET", "/204", None), ("HEAD", "/304", "1234")):
            answer = c.request(method, target)
            assert (answer.get("content-length"), answer.body) == (length, b""), (method, target)
            assert answer.all("transfer-encoding") == [] and answer.get("etag") == '"x"'
        assert len(backend.peers) == 1, "nothing was wrong with these, so the connection is kept"


def test_head_with_chunked_framing_has_no_body(make_pair):
    """Framing of a body that is not there."""
    pair, backend = scripted(make_pair, lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with backend:
        c = pair.client()
        for _ in range(3):
            answer = c.request("HEAD", "/")
            assert answer.status == 200 and answer.body == b""
        assert len(backend.peers) == 1


@pytest.mark.parametrize("final", [b"200 OK", b"417 Expectation Failed"], ids=["met", "refused"])
def test_expectation_is_the_backends_to_meet(make_pair, final):
    """100 reaches the client before the body is sent; a final status comes instead of it."""
    body_came = threading.Event()

    def answer(request):
        assert request.get("expect") == "100-continue"
        if final.startswith(b"200"):
            request.peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert request.body() == b"hello"
            body_came.set()
            return OK
        return b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % final
    pair, backend = scripted(make_pair, answer)
    with backend:
        c = pair.client()
        c.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        head = c.read_head()
        assert not body_came.is_set()
        if final.startswith(b"200"):
            assert head.status == 100
            c.send("hello")
            assert c.read_response("POST").body == b"ok"
            assert c.request("POST", "/", [("Expect", "100-continue")], b"hello").body == b"ok"
        else:
            assert head.status == 417 and head.get("connection") == "close"
            # The body was never sent, and the gateway cannot know whether it will be.
            assert c.is_closed()


def test_many_interim_responses_come_in_order(make_pair):
    """103 again and again, with a 100 that nobody asked for; HTTP/1.0 clients do not know them."""
    interim = b"".join(b"HTTP/1.1 103 Early Hints\r\nLink: </%d>\r\n\r\n" % n for n in range(5))

    def answer(request):
        request.peer.send(interim, b"HTTP/1.1 100 Continue\r\n\r\n", *[bytes([b]) for b in interim])
        return OK
    pair, backend = scripted(make_pair, answer)
    with backend:
        c = pair.client()
        for _ in range(2):
            c.send_request("GET", "/")
            heads = [c.read_head() for _ in range(11)]
            assert [h.status for h in heads] == [103] * 5 + [100] + [103] * 5
            assert [h.get("link") for h in heads] == [f"</{n}>" for n in [0, 1, 2, 3, 4]] + [None] \
                + [f"</{n}>" for n in [0, 1, 2, 3, 4]]
            assert c.read_response().body == b"ok"
        c.send("GET / HTTP/1.0\r\n\r\n")
        assert c.read_head().status == 200


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_endless_interim_responses_are_a_502(make_pair, version):
    """All heads of an answer together have the bound of one, whether the client is told of them or not."""
    storm = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"

    def answer(request):
        while True:
            request.peer.send(storm * 10)
    pair, backend = scripted(make_pair, answer, retries=3 if version == "1.1" else 0)
    with backend:
        c = pair.client()
        c.send(f"GET /hints HTTP/{version}\r\nHost: x\r\n\r\n")
        assert c.read_response().status == 502
        assert outcome(pair, "/hints") == (502, "bad_response")
        assert len(backend.requests) == 1, "an interim answer has reached the client, so nothing is tried again"
        assert c.received < 80_000


def test_interim_responses_are_no_progress(make_pair):
    """The route's timeout is not longer for them; and who has passed one on is not asked again."""
    def answer(request):
        if request.target == "/gone":
            request.peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            request.peer.reset()
        while request.target == "/slow":
            request.peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            if slow.wait(0.05):
                return None
    slow = threading.Event()
    pair, backend = scripted(make_pair, answer, timeout_seconds=0.3, retries=3)
    with backend:
        assert pair.get("/slow").status == 504
        slow.set()
        assert pair.get("/gone").status == 502
        assert outcome(pair, "/gone") == (502, "reset")
        assert [r.target for r in backend.requests] == ["/slow", "/gone"]


def test_unasked_change_of_protocol_is_502(make_pair):
    """101 without Upgrade in the request, and 101 without Upgrade in the answer."""
    answers = {"/unasked": b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
               "/unnamed": b"HTTP/1.1 101 X\r\nConnection: upgrade\r\n\r\n"}
    pair, backend = scripted(make_pair, lambda r: answers[r.target], retries=0)
    with backend:
        c = pair.client()
        assert c.request("GET", "/unasked").status == 502
        assert outcome(pair, "/unasked") == (502, "bad_response")
        assert c.request("GET", "/unnamed", [("Connection", "upgrade"), ("Upgrade", "echo")]).status == 502
        wait_until(lambda: all(peer.saw_end for peer in backend.peers), "both are closed")


@pytest.mark.parametrize("sizes", [[1] * 300, [65536, 1, 70000, 3], [32703, 32704, 32705], [4096] * 40],
                         ids=["ones", "mixed", "edges", "even"])
def test_odd_chunks_arrive_whole(make_pair, sizes):
    """Chunk sizes have nothing to do with segments or buffers."""
    pieces = [bytes([65 + n % 26]) * size for n, size in enumerate(sizes)]

    def answer(request):
        request.peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        wire = b"".join(b"%X;name=\"v\"\r\n%b\r\n" % (len(p), p) for p in pieces) + b"000\r\n\r\n"
        step = 7 if request.target == "/dribble" else len(wire)
        for at in range(0, min(len(wire), 7000), step):
            request.peer.send(wire[at:at + step])
        if step == 7:
            request.peer.send(wire[len(range(0, min(len(wire), 7000), 7)) * 7:])
        return b""
    pair, backend = scripted(make_pair, answer)
    with backend:
        c = pair.client()
        for target in ("/", "/dribble"):
            answer = c.request("GET", target)
            assert answer.chunked and answer.body == b"".join(pieces)
        assert len(backend.peers) == 1


def test_response_in_single_bytes_is_understood(make_pair):
    """Every split of heads, chunks and interim responses."""
    wire = (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Fine By Me\r\nX-A: 1\r\nTransfer-Encoding: "
            b"chunked\r\nX-B: 2\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n")

    def answer(request):
        at = int(request.target[1:])
        if at == 0:
            request.peer.send(*[bytes([b]) for b in wire])
        else:
            request.peer.send(wire[:at], wire[at:])
        return b""
    pair, backend = scripted(make_pair, answer)
    with backend:
        c = pair.client()
        for at in range(len(wire)):
            answer = c.request("GET", f"/{at}")
            assert (answer.status, answer.reason, answer.body) == (200, "Fine By Me", b"hello world"), at
            assert answer.get("x-a") == "1" and answer.get("x-b") == "2"
        assert len(backend.peers) == 1


def test_http10_client_and_backend_in_every_mixture(make_pair):
    """No chunks for HTTP/1.0; its connection lives on only if asked for and the length is known."""
    answers = {
        "/length": ok(b"hello"),
        "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "/1.0-kept": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
        "/1.0-close": b"HTTP/1.0 200 OK\r\n\r\nhello",
        "/close": b"HTTP/1.1 200 OK\r\n\r\nhello",
    }

    def answer(request):
        assert request.version == "HTTP/1.1" and request.get("connection") in (None, "keep-alive")
        request.peer.send(answers[request.target])
        return None if request.target in ("/1.0", "/1.0-close", "/close") else b""
    pair, backend = scripted(make_pair, answer)
    with backend:
        for target in answers:
            for keep in (False, True):
                c = pair.client()
                c.send(f"GET {target} HTTP/1.0\r\n" + "Connection: keep-alive\r\n" * keep + "\r\n")
                answer = c.read_response()
                assert answer.status == 200 and answer.body == b"hello", (target, keep)
                assert answer.all("transfer-encoding") == []
                stays = keep and answer.get("content-length") is not None
                assert (answer.get("connection") == "keep-alive") == stays, (target, keep)
                if stays:
                    c.send("GET /length HTTP/1.0\r\n\r\n")
                    assert c.read_response().body == b"hello"
                assert c.is_closed(), (target, keep)
            c = pair.client()
            for _ in range(2):
                answer = c.request("GET", target)
                assert answer.body == b"hello" and answer.version == "HTTP/1.1", target
                assert answer.get("connection") is None


def test_response_head_has_a_limit(make_pair):
    """64 KiB are enough for everybody: beyond is a 502, below is passed on."""
    def answer(request):
        line = b"X-%d: " + b"y" * 1000 + b"\r\n"
        count = int(request.target[1:])
        return b"HTTP/1.1 200 OK\r\n" + b"".join(line % n for n in range(count)) + b"Content-Length: 0\r\n\r\n"
    pair, backend = scripted(make_pair, answer, retries=0)
    with backend:
        c = pair.client()
        assert len(c.request("GET", "/50").headers) >= 50
        assert c.request("GET", "/80").status == 502
        assert outcome(pair, "/80") == (502, "bad_response")
        assert c.request("GET", "/1").status == 200


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_late_reader_that_still_sends_gets_everything(make_pair, framing):
    """The answer comes while the upload goes on, and waits: not a byte of it is lost, nor its end."""
    size, count = 8 * 1024 * 1024, 2000
    sent = []

    def answer(request):
        fields = {"length": b"Content-Length: %d\r\n" % size, "chunked": b"Transfer-Encoding: chunked\r\n"}
        request.peer.send(HEAD + fields.get(framing, b"") + b"\r\n")

        def flood():
            for _ in range(size // 65536):
                piece = b"x" * 65536
                request.peer.send(b"10000\r\n" + piece + b"\r\n" if framing == "chunked" else piece)
                sent.append(1)
            request.peer.send(b"0\r\n\r\n" if framing == "chunked" else b"")
        sender = threading.Thread(target=flood)
        sender.start()
        assert request.body() == b"y" * count
        sender.join()
        return None if framing == "close" else b""
    pair, backend = scripted(make_pair, answer)
    with backend:
        c = pair.client(receive_buffer=16384)
        c.send_request("POST", "/", [("Content-Length", str(count))])
        stands_still(lambda: len(sent))
        for _ in range(count):
            c.send("y")
        assert c.read_response("POST").body == b"x" * size
        if framing != "close":
            assert c.request("POST", "/", body=b"y" * count).status == 200
            assert len(backend.peers) == 1


@pytest.mark.parametrize("behind, later", [(b"x" * 200000, b""), (b"", b"\r\n")], ids=["behind", "later"])
def test_what_follows_the_last_request_does_not_destroy_its_answer(make_pair, behind, later):
    """A socket that is closed with bytes unread, or gets some afterwards, forgets what it has not sent (RFC 9112 9.6)."""
    size = 8 * 1024 * 1024
    pair, backend = scripted(make_pair, lambda _: ok(b"x" * size))
    with backend:
        c = pair.client(receive_buffer=16384)
        c.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + behind)
        got = 0
        for piece in c.read_pieces(c.read_head()):
            got += len(piece)
            if got < size:
                c.send(later)
        assert got == size and c.is_closed()


# ---- what is wrong ----

HEAD = b"HTTP/1.1 200 OK\r\n"
MALFORMED = {
    "both-framings": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both-framings-other-order": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "length-twice-different": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "length-twice-same": HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "length-list": HEAD + b"Content-Length: 2, 2\r\n\r\nab",
    "length-negative": HEAD + b"Content-Length: -2\r\n\r\nab",
    "length-plus": HEAD + b"Content-Length: +2\r\n\r\nab",
    "length-hex": HEAD + b"Content-Length: 0x2\r\n\r\nab",
    "length-empty": HEAD + b"Content-Length: \r\n\r\nab",
    "length-huge": HEAD + b"Content-Length: 99999999999999999999\r\n\r\nab",
    "length-with-space": HEAD + b"Content-Length: 1 2\r\n\r\nab",
    "coding-twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding-unknown": HEAD + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "coding-gzip-chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding-in-1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding-obfuscated": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "bare-lf-lines": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nab",
    "bare-lf-one-field": HEAD + b"X: 1\nContent-Length: 2\r\n\r\nab",
    "bare-lf-at-the-end": HEAD + b"Content-Length: 2\r\n\nab",
    "bare-cr": HEAD + b"X: a\rb\r\nContent-Length: 2\r\n\r\nab",
    "nul": HEAD + b"X: a\0b\r\nContent-Length: 2\r\n\r\nab",
    "control": HEAD + b"X: a\x01b\r\nContent-Length: 2\r\n\r\nab",
    "folded": HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nab",
    "space-before-colon": HEAD + b"Content-Length : 2\r\n\r\nab",
    "name-with-space": HEAD + b"Bad Name: x\r\nContent-Length: 2\r\n\r\nab",
    "name-empty": HEAD + b": x\r\nContent-Length: 2\r\n\r\nab",
    "line-without-colon": HEAD + b"nonsense\r\nContent-Length: 2\r\n\r\nab",
    "status-missing": b"HTTP/1.1\r\nContent-Length: 2\r\n\r\nab",
    "status-two-digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nab",
    "status-four-digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nab",
    "status-letters": b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nab",
    "status-zero": b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nab",
    "status-600": b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nab",
    "status-999": b"HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nab",
    "version-2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nab",
    "version-0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nab",
    "another-protocol": b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nab",
    "lower-case-protocol": b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
    "two-spaces": b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nab",
    "reason-with-control": b"HTTP/1.1 200 O\x07K\r\nContent-Length: 2\r\n\r\nab",
    "space-before-status-line": b" HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
    "a-request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "body-without-head": b"<html>hello</html>\r\n\r\n",
    "nothing-but-empty-lines": b"\r\n" * 50 + b"\x00",
    "interim-malformed": b"HTTP/1.1 103 Early\r\nX: a\0b\r\n\r\n" + OK,
}


def test_malformed_response_is_502_and_its_connection_is_over(make_pair):
    """Nothing of it reaches the client, neither at once nor with a later answer."""
    cases = list(MALFORMED.items())

    def answer(request):
        if request.target == "/after":
            return OK
        request.peer.send(cases[int(request.target[1:])][1])
        request.peer.ended()
        return None
    pair, backend = scripted(make_pair, answer, retries=0, timeout_seconds=5)
    wrong = {}
    with backend:
        c = pair.client()
        for n, (name, _) in enumerate(cases):
            peers = len(backend.peers)
            answer = c.request("GET", f"/{n}")
            if answer.status != 502 or answer.json()["error"] != "bad_response":
                wrong[name] = answer
            after = c.request("GET", "/after")
            if after.status != 200 or after.body != b"ok":
                wrong[name + ", after"] = after
            if backend.requests[-1].peer.number <= peers:
                wrong[name + ", reused"] = backend.requests[-1].peer.number
            # Only the connection that served "/after" may be kept for the next case.
            backend.requests[-1].peer.drop()
    assert not wrong, wrong
    reasons = {line["reason"] for line in pair.access_lines() if line["status"] == 502}
    assert reasons == {"bad_response"}


CHUNK_ERRORS = [b"zz\r\nab\r\n", b"-1\r\n", b"2\r\nabX\r\n0\r\n\r\n", b"2\nab\n0\n\n", b" 2\r\nab\r\n0\r\n\r\n",
                b"0x2\r\nab\r\n", b"ffffffffffffffffff\r\n", b"\r\n", b"2 \x01\r\nab\r\n",
                b"2;" + b"x" * 200000 + b"\r\nab\r\n0\r\n\r\n", b"2\r\nab\r\n0\r\nno colon\r\n\r\n"]


def test_malformed_chunks_cut_the_response(make_pair):
    """The head was passed on already: what is left is to be seen as cut, by HTTP/1.0 clients as well."""
    passed_on = threading.Semaphore(0)

    def answer(request):
        request.peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        assert passed_on.acquire(timeout=DEADLINE)
        request.peer.send(CHUNK_ERRORS[int(request.target[1:])])
        request.peer.ended()
        return None
    pair, backend = scripted(make_pair, answer)
    with backend:
        for n, chunk in enumerate(CHUNK_ERRORS):
            for version in ("1.1", "1.0"):
                c = pair.client()
                c.send(f"GET /{n} HTTP/{version}\r\nHost: x\r\n\r\n")
                head = c.read_head()
                passed_on.release()
                with pytest.raises((Cut, ConnectionResetError)):
                    pytest.fail(f"whole, after {chunk[:20]}: {list(c.read_pieces(head))}")
            assert outcome(pair, f"/{n}") == (200, "bad_response"), chunk[:20]
        assert all(peer.served == 1 for peer in backend.peers)


def test_malformed_chunks_are_a_502_while_nothing_is_passed_on(make_pair):
    """Head and error come in one piece: the status can still tell."""
    def answer(request):
        request.peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + CHUNK_ERRORS[int(request.target[1:])])
        request.peer.ended()
    pair, backend = scripted(make_pair, answer)
    with backend:
        for n, chunk in enumerate(CHUNK_ERRORS):
            if len(chunk) > 1000:
                continue
            for version in ("1.1", "1.0"):
                c = pair.client()
                c.send(f"POST /{n} HTTP/{version}\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                assert c.read_response().status == 502, chunk
            line = logged(pair, path=f"/{n}")[-1]
            assert (line["status"], line["reason"], line["bytes_out"]) == (502, "bad_response", 0), line
        assert all(peer.served == 1 for peer in backend.peers)


def test_bytes_behind_a_complete_response_end_its_connection(make_pair):
    """What follows is nobody's, whenever it comes. Seen before anything was passed on it makes a 502 of an answer that had
    a body; afterwards, and behind what has none, the client has the right answer."""
    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    late = threading.Semaphore(0)
    whole = {
        "length": ok(b"fine"), "empty": ok(b""),
        "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
        "204": b"HTTP/1.1 204 No Content\r\n\r\n", "304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
        "head": b"HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\n",
    }

    def answer(request):
        _, when, kind = request.target.split("/")
        if when == "now":
            request.peer.send(whole[kind] + extra)
        elif when == "byte":
            request.peer.send(whole[kind] + b"\n")
        else:
            request.peer.send(whole[kind])
            assert late.acquire(timeout=DEADLINE)
            request.peer.send(extra)
        assert request.peer.ended()
        return None
    pair, backend = scripted(make_pair, answer)
    with backend:
        c = pair.client()
        for when in ("now", "byte", "late"):
            for kind in whole:
                served = len(backend.peers)
                answer = c.request("HEAD" if kind == "head" else "POST", f"/{when}/{kind}")
                if when != "late" and kind in ("length", "empty", "chunked"):
                    assert answer.status == 502, (when, kind)
                else:
                    assert answer.status in (200, 204, 304)
                    assert answer.body == (b"fine" if kind in ("length", "chunked") else b""), (when, kind)
                assert len(backend.peers) == served + 1
                if when == "late":
                    late.release()
                wait_until(lambda: backend.peers[-1].saw_end, f"{when} {kind}: it is closed")
        assert all(peer.served == 1 for peer in backend.peers)


CUTS = {
    "length": HEAD + b"Content-Length: 1000\r\n\r\nhalf",
    "length-none": HEAD + b"Content-Length: 1000\r\n\r\n",
    "chunked-in-chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n10\r\nhalf",
    "chunked-between": HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "chunked-in-last": HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    "chunked-none": HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("end", ["fin", "rst", "silence"])
def test_cut_response_is_never_a_clean_end(make_pair, end):
    """In each framing, for clients of HTTP/1.1 and 1.0, however the backend stops."""
    def answer(request):
        name = request.target[1:]
        request.peer.send(CUTS.get(name) or HEAD + b"\r\nhalf")
        if end == "silence":
            request.peer.ended()
        if end == "rst":
            wait_until(lambda: outstanding["head"], "the client has the head")
            request.peer.reset()
        return None
    outstanding = {"head": False}
    pair, backend = scripted(make_pair, answer, response_idle_timeout_seconds=0.1)
    names = [*CUTS, *(["close"] if end != "fin" else [])]
    with backend:
        for name in names:
            for version in ("1.1", "1.0"):
                outstanding["head"] = False
                c = pair.client()
                c.send(f"GET /{name} HTTP/{version}\r\nHost: x\r\n\r\n")
                with pytest.raises((Cut, ConnectionResetError)):
                    head = c.read_head()
                    assert head.status == 200
                    outstanding["head"] = True
                    pytest.fail(f"{name}, HTTP/{version}: {list(c.read_pieces(head))}")
            reason = "upstream_timeout" if end == "silence" else "reset"
            assert outcome(pair, f"/{name}") == (200, reason)


def test_backends_silence_before_the_answer_is_a_reset(make_pair):
    """An end without a byte, and with half a head."""
    def answer(request):
        request.peer.send(b"" if request.target == "/none" else b"HTTP/1.1 200 OK\r\nX")
        return None
    pair, backend = scripted(make_pair, answer, retries=0)
    with backend:
        c = pair.client()
        for target, word in (("/none", "reset"), ("/half", "bad_response")):
            answer = c.request("GET", target)
            assert answer.status == 502 and answer.json()["error"] == word
            assert logged(pair, path=target)[0]["attempts"] == 1
